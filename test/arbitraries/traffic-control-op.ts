/** Operations of traffic control. */
import { type Host, type NetnsName, findLink } from '../../model/host.ts';
import type { Ifname } from '../../model/ifname.ts';
import type { Link } from '../../model/link.ts';
import type { Op } from '../../model/op.ts';
import { tokenBucket } from '../../model/traffic-control.ts';
import type { Draw } from './draw.ts';
import { IFBS, linksOf, someHolder, someLink } from './names.ts';

/** From 8 kbit/s to more than 32 bits of bytes hold. */
const RATES_BYTES = [1000, 125_000, 12_500_000, 1_250_000_000, 5_000_000_000];
const BURSTS_BYTES = [1514, 100_000, 536_870_911];

function hasQdisc(at: 'root' | 'ingress'): (link: Link) => boolean {
  return (link) => link.trafficControl?.[at] !== undefined;
}

export function qdiscAdd(netns: NetnsName, host: Host, draw: Draw): Op {
  const ifname = someLink(host, netns, draw);
  if (draw.oneIn(2)) return { op: 'qdisc.add', netns, ifname, qdisc: { kind: 'clsact' } };
  const bucket = tokenBucket(draw.of(RATES_BYTES), draw.of(BURSTS_BYTES));
  // Of a link that was told to hold nothing the kernel would change that before it refuses.
  const isFull = findLink(host, { netns, ifname })?.txQueueLength !== 0;
  const burst = draw.oddIn(10) && isFull ? { burstBytes: 0 } : {};
  return { op: 'qdisc.add', netns, ifname, qdisc: { kind: 'tbf', ...bucket, ...burst } };
}

export function qdiscDel(netns: NetnsName, host: Host, draw: Draw): Op {
  const at = draw.of(['root', 'ingress'] as const);
  return { op: 'qdisc.del', netns, ifname: someHolder(host, netns, draw, hasQdisc(at)), at };
}

/** Most often to an ifb; no plan leads to a link that is redirected to one that is gone, so that others stay out of plannable programs. */
export function filterAdd(netns: NetnsName, host: Host, draw: Draw): Op {
  const ifbs = linksOf(host, netns)
    .filter((link) => link.kind === 'ifb')
    .map((link) => link.ifname);
  const redirect: Ifname = draw.oddIn(6)
    ? someLink(host, netns, draw)
    : draw.of(ifbs.length > 0 ? ifbs : IFBS);
  const ifname = someHolder(host, netns, draw, hasQdisc('ingress'));
  return { op: 'filter.add', netns, ifname, redirect };
}

export function filterDel(netns: NetnsName, host: Host, draw: Draw): Op {
  return { op: 'filter.del', netns, ifname: someHolder(host, netns, draw, hasQdisc('ingress')) };
}

/** A link whose redirection would lead nowhere without another. */
export function findRedirecting(host: Host, netns: NetnsName, ifname: Ifname): Ifname | undefined {
  return linksOf(host, netns).find((link) => link.trafficControl?.ingress?.redirect === ifname)
    ?.ifname;
}
