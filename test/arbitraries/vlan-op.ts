/** Operations on the VLANs of bridges and ports. */
import type { Host, NetnsName } from '../../model/host.ts';
import type { Link } from '../../model/link.ts';
import type { Op } from '../../model/op.ts';
import type { Draw } from './draw.ts';
import { linksOf, someHolder } from './names.ts';

/** Few, so that ranges meet. */
const IDS = [1, 2, 3, 5, 4094];
const MISSES = [0, 4095];

function isMember(link: Link): boolean {
  return link.port !== null || link.kind === 'bridge';
}

function someIds(draw: Draw): { readonly first: number; readonly last: number } {
  if (draw.oneIn(10)) {
    const miss = draw.of(MISSES);
    return { first: miss, last: miss };
  }
  const [a, b] = [draw.of(IDS), draw.of(IDS)];
  if (draw.oneIn(2)) return { first: a, last: a };
  // Now and then a range that is none.
  return draw.oneIn(12) ? { first: a, last: b } : { first: Math.min(a, b), last: Math.max(a, b) };
}

/** Which link, and whether it is meant as a bridge; seldom it is the other. */
function someMember(
  netns: NetnsName,
  host: Host,
  draw: Draw,
): { readonly ifname: Link['ifname']; readonly self: boolean } {
  const ifname = someHolder(host, netns, draw, isMember);
  const link = linksOf(host, netns).find((each) => each.ifname === ifname);
  const isBridge = link?.kind === 'bridge';
  return { ifname, self: draw.oneIn(10) ? !isBridge : isBridge };
}

export function vlanAdd(netns: NetnsName, host: Host, draw: Draw): Op {
  const { first, last } = someIds(draw);
  const pvid = draw.oneIn(first === last ? 3 : 15);
  const vlan = { first, last, pvid, untagged: draw.oneIn(2) };
  return { op: 'vlan.add', netns, ...someMember(netns, host, draw), vlan };
}

export function vlanDel(netns: NetnsName, host: Host, draw: Draw): Op {
  return { op: 'vlan.del', netns, ...someMember(netns, host, draw), ...someIds(draw) };
}
