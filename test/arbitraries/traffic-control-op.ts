/** Operations of traffic control. */
import { type Host, type NetnsName, findLink } from '../../model/host.ts';
import type { Ifname } from '../../model/ifname.ts';
import type { Link } from '../../model/link.ts';
import type { Op } from '../../model/op.ts';
import { tokenBucket } from '../../model/traffic-control.ts';
import type { Draw } from './draw.ts';
import { IFBS, MACS, freeName, linksOf, someHolder, someLink } from './names.ts';

/** From 8 kbit/s to more than 32 bits of bytes hold. */
const RATES_BYTES = [1000, 125_000, 12_500_000, 1_250_000_000, 5_000_000_000];
const BURSTS_BYTES = [1514, 100_000, 536_870_911];

/** An ifb takes any; below 68 it would lose IPv4 as well. */
export const IFB_MTUS = [1500, 9000, 1279, 70_000];

function hasQdisc(at: 'root' | 'ingress'): (link: Link) => boolean {
  return (link) => link.trafficControl?.[at] !== undefined;
}

function redirects(link: Link): boolean {
  return link.trafficControl?.ingress?.redirect !== undefined;
}

/** Could it redirect what comes in? */
function mayRedirect(link: Link): boolean {
  return hasQdisc('ingress')(link) && !redirects(link);
}

export function qdiscAdd(netns: NetnsName, host: Host, draw: Draw): Op {
  const ifname = someLink(host, netns, draw);
  if (draw.oneIn(2)) return { op: 'qdisc.add', netns, ifname, qdisc: { kind: 'clsact' } };
  const bucket = tokenBucket(draw.of(RATES_BYTES), draw.of(BURSTS_BYTES));
  // Of a link that was told to hold nothing the kernel changes that before it refuses, which the model does not know.
  const isFull = findLink(host, { netns, ifname })?.txQueueLength !== 0 || draw.oddIn(4);
  const burst = draw.oddIn(10) && isFull ? { burstBytes: 0 } : {};
  return { op: 'qdisc.add', netns, ifname, qdisc: { kind: 'tbf', ...bucket, ...burst } };
}

/** Where there is none, one is most often more use. */
export function qdiscDel(netns: NetnsName, host: Host, draw: Draw): Op {
  const at = draw.of(['root', 'ingress'] as const);
  if (!linksOf(host, netns).some(hasQdisc(at)) && !draw.oneIn(4))
    return qdiscAdd(netns, host, draw);
  return { op: 'qdisc.del', netns, ifname: someHolder(host, netns, draw, hasQdisc(at)), at };
}

/** An ifb, which filters lead to. */
export function ifbAdd(netns: NetnsName, host: Host, draw: Draw): Op {
  const end = {
    ifname: freeName(host, netns, draw, IFBS),
    mac: draw.of(MACS),
    mtuBytes: draw.of(IFB_MTUS),
    up: !draw.oneIn(3),
  };
  return { op: 'link.add', netns, link: { kind: 'ifb', ...end } };
}

/** Most often to an ifb; no plan leads to a link that is redirected to one that is gone, so that others stay out of plannable programs. */
export function filterAdd(netns: NetnsName, host: Host, draw: Draw): Op {
  const links = linksOf(host, netns);
  const ifbs = links.filter((link) => link.kind === 'ifb').map((link) => link.ifname);
  const redirect: Ifname = draw.oddIn(ifbs.length > 0 ? 6 : 2)
    ? someLink(host, netns, draw)
    : draw.of(ifbs.length > 0 ? ifbs : IFBS);
  // What it needs comes first.
  const hurries = draw.oneIn(4);
  const qdisc = { kind: 'clsact' } as const;
  if (!links.some(mayRedirect) && !hurries)
    return { op: 'qdisc.add', netns, ifname: someLink(host, netns, draw), qdisc };
  if (!findLink(host, { netns, ifname: redirect }) && !hurries) return ifbAdd(netns, host, draw);
  const ifname = someHolder(host, netns, draw, mayRedirect);
  return { op: 'filter.add', netns, ifname, redirect };
}

export function filterDel(netns: NetnsName, host: Host, draw: Draw): Op {
  if (!linksOf(host, netns).some(redirects) && !draw.oneIn(4)) return filterAdd(netns, host, draw);
  return { op: 'filter.del', netns, ifname: someHolder(host, netns, draw, redirects) };
}

/** A link whose redirection would lead nowhere without another. */
export function findRedirecting(host: Host, netns: NetnsName, ifname: Ifname): Ifname | undefined {
  return linksOf(host, netns).find((link) => link.trafficControl?.ingress?.redirect === ifname)
    ?.ifname;
}
