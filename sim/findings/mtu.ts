/** MTUs that do not fit: packets that one link sends and the next one drops without a word (K-6.4). */
import { getNetns, findLink } from '../../model/host.ts';
import { portsOf } from '../../model/host.ts';
import type { Link, LinkRef } from '../../model/link.ts';
import { lookup, OWN_PACKETS } from '../../model/route-lookup.ts';
import { largestMtu } from '../../model/vxlan.ts';
import { within } from '../cause.ts';
import { type HostFinding, seen } from './finding.ts';
import type { Look } from './look.ts';
import type { PlacedLink } from './segment.ts';

function finding(
  { netns, ifname }: LinkRef,
  text: string,
  mtuBytes: number,
  evidence: readonly string[],
): HostFinding {
  return {
    severity: 'warning',
    kind: 'mtu',
    netns,
    object: `link ${ifname}`,
    text,
    evidence,
    mend: [within(netns, `ip link set ${ifname} mtu ${mtuBytes}`)],
  };
}

function line({ netns, ifname }: LinkRef, { mtuBytes }: Pick<Link, 'mtuBytes'>): string {
  return seen(netns, `${ifname} mtu ${mtuBytes}`);
}

/** The smaller end of a veth drops what the larger one sends it. */
function ofVeth({ host }: Look, placed: PlacedLink): HostFinding | undefined {
  const { link } = placed;
  if (link.kind !== 'veth' || !link.peer) return undefined;
  const peer = findLink(host, link.peer);
  if (!peer || link.mtuBytes >= peer.mtuBytes) return undefined;
  const text = `has an MTU of ${link.mtuBytes}, and its far end ${link.peer.ifname} in netns ${link.peer.netns} sends it packets of ${peer.mtuBytes} bytes`;
  return finding(placed, text, peer.mtuBytes, [line(placed, link), line(link.peer, peer)]);
}

/** Have the ends of a veth one MTU? Where not, that is a finding, and what its bridge has beside it is none. */
function isEven({ host }: Look, link: Link): boolean {
  const peer = link.kind === 'veth' && link.peer ? findLink(host, link.peer) : undefined;
  return !peer || peer.mtuBytes === link.mtuBytes;
}

/** A bridge with addresses sends as its own MTU lets it, whatever those of its ports are, and takes no more from them to send on. */
function ofBridge(look: Look, placed: PlacedLink): HostFinding | undefined {
  const { netns, ifname, link } = placed;
  if (link.kind !== 'bridge' || !link.mtuChosen) return undefined;
  const [port] = portsOf(getNetns(look.host, netns), ifname).filter(
    (each) => each.mtuBytes !== link.mtuBytes && isEven(look, each),
  );
  if (!port) return undefined;
  const text = `has an MTU of ${link.mtuBytes}, and its port ${port.ifname} one of ${port.mtuBytes}`;
  return finding(placed, text, port.mtuBytes, [
    line(placed, link),
    line({ netns, ifname: port.ifname }, port),
  ]);
}

/** The link by which a vxlan's packets leave. */
function lowerOf({ host }: Look, link: Link & { kind: 'vxlan' }): LinkRef | undefined {
  if (link.underlay === null) return undefined;
  const [remote] = link.remotes ?? [];
  const netns = getNetns(host, link.underlay);
  const device = link.lower ?? (remote && lookup(netns, remote.ip, OWN_PACKETS)?.device);
  return device === undefined || device === null
    ? undefined
    : { netns: link.underlay, ifname: device };
}

/** A vxlan whose frames do not fit into the packets of the link below. */
function ofVxlan(look: Look, placed: PlacedLink): HostFinding | undefined {
  const { link } = placed;
  if (link.kind !== 'vxlan') return undefined;
  const ref = lowerOf(look, link);
  const lower = ref && findLink(look.host, ref);
  if (!ref || !lower || link.mtuBytes <= largestMtu(link, lower)) return undefined;
  const most = largestMtu(link, lower);
  const text = `has an MTU of ${link.mtuBytes}, and ${ref.ifname} below it has room for ${most}`;
  return finding(placed, text, most, [line(placed, link), line(ref, lower)]);
}

/** Veths with ends of several MTUs, bridges with one that is not that of their ports, vxlans with more than the link below has room for. */
export function mtuMismatches(look: Look): HostFinding[] {
  return look.links.flatMap(
    (placed) => ofVeth(look, placed) ?? ofBridge(look, placed) ?? ofVxlan(look, placed) ?? [],
  );
}
