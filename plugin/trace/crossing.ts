/** Which links a predicted journey passes, and where the kernel should tell of it. */
import { type Host, findLink } from '../../model/host.ts';
import type { Ifname } from '../../model/ifname.ts';
import type { LinkRef } from '../../model/link.ts';
import { innermost, isProbeMessage } from '../../sim/frame.ts';
import { isOfFragment } from '../../sim/journey.ts';
import type { Hop } from '../../sim/trace.ts';
import type { Sighting } from './sighting.ts';

/** A link that sends or receives the probe or its answer. */
export interface Crossing extends Pick<Sighting, 'netns' | 'link' | 'direction'> {
  /** False: it is a copy for somebody else, which a bridge that knows better does not make. */
  readonly isNeeded: boolean;
}

/** Is it the probe or its answer, in one piece? Fragments are not told from packets of others, which are as short. */
function isOfProbe(hop: Hop): boolean {
  const { data } = hop;
  if (isOfFragment(hop)) return false;
  const packet = innermost(data.kind === 'frame' ? data.packet : data);
  return packet.kind === 'ip' && isProbeMessage(packet.message);
}

function isDrop({ decision }: Hop): boolean {
  return decision.startsWith('dropped, ');
}

function crossing(netns: string, link: Ifname, direction: Sighting['direction']): Crossing {
  return { netns, link, direction, isNeeded: true };
}

/** Does a hop say how a packet came to a bridge? Chains and the bridge itself look at it once it is there. */
function isOnTheWay({ stage }: Hop): boolean {
  return stage !== 'netfilter' && stage !== 'bridge';
}

/** Is a frame at this bridge one of its own netns? Else it came in by a port, of which the bridge itself sees nothing. `before`: the last hop on the way to it. */
function isBridgesOwn(host: Host, bridge: Hop & { readonly link: Ifname }, before: Hop): boolean {
  if (before.netns === bridge.netns && before.link === bridge.link) return true;
  const link = before.link && findLink(host, { netns: before.netns, ifname: before.link });
  const arrived: LinkRef | null =
    link && link.kind === 'veth' && before.stage === 'transmit'
      ? link.peer
      : before.link && { netns: before.netns, ifname: before.link };
  const port = arrived && arrived.netns === bridge.netns && findLink(host, arrived)?.port;
  return !port || port.master !== bridge.link;
}

function crossingsOfHop(host: Host, hop: Hop, before: Hop | undefined): Crossing[] {
  const { netns, link: ifname, stage } = hop;
  if (ifname === null || isDrop(hop)) return [];
  const link = findLink(host, { netns, ifname });
  if (stage === 'transmit') {
    const out = crossing(netns, ifname, 'out');
    if (link?.kind === 'loopback') return [out, crossing(netns, ifname, 'in')];
    return link?.kind === 'veth' && link.peer
      ? [out, crossing(link.peer.netns, link.peer.ifname, 'in')]
      : [out];
  }
  if (link?.kind !== 'bridge') return [];
  if (stage === 'bridge')
    return before && isBridgesOwn(host, { ...hop, link: ifname }, before)
      ? [crossing(netns, ifname, 'out')]
      : [];
  return stage === 'forward' || stage === 'deliver' ? [crossing(netns, ifname, 'in')] : [];
}

/** Copies that somebody else's link takes and drops, and the other end of that link. */
function needless(host: Host, hops: readonly Hop[]): ReadonlySet<string> {
  const places = hops
    .filter(({ decision }) => decision.startsWith('dropped, OTHERHOST'))
    .flatMap(({ netns, link }) => (link === null ? [] : [{ netns, ifname: link }]));
  const others = places.flatMap((ref) => {
    const link = findLink(host, ref);
    return link?.kind === 'veth' && link.peer ? [link.peer] : [];
  });
  return new Set([...places, ...others].map(({ netns, ifname }) => `${netns} ${ifname}`));
}

/** Does nothing follow at the other end of the veth that a hop sends by? The trace ends when the sender has its answer, and copies for others are under way then. */
function isCutShort(
  host: Host,
  { netns, link: ifname, stage }: Hop,
  later: readonly Hop[],
): boolean {
  const link = ifname === null ? undefined : findLink(host, { netns, ifname });
  if (stage !== 'transmit' || link?.kind !== 'veth' || !link.peer) return false;
  const { peer } = link;
  const master = findLink(host, peer)?.port?.master;
  return !later.some(
    (hop) => hop.netns === peer.netns && (hop.link === peer.ifname || hop.link === master),
  );
}

/** For each of these hops, in order, the crossings of the probe or its answer; ARP, ND and fragments have none. */
export function crossingsOf(host: Host, hops: readonly Hop[]): readonly (readonly Crossing[])[] {
  const without = needless(host, hops);
  let before: Hop | undefined;
  return hops.map((hop, index) => {
    if (!isOfProbe(hop)) return [];
    const crossings = crossingsOfHop(host, hop, before);
    if (isOnTheWay(hop)) before = hop;
    const isCopy = isCutShort(host, hop, hops.slice(index + 1));
    return crossings.map((each) => ({
      ...each,
      isNeeded: !isCopy && !without.has(`${each.netns} ${each.link}`),
    }));
  });
}
