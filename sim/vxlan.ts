/** Vxlans: their frames go over the underlay in UDP packets, to where each was told or has learned (drivers/net/vxlan/vxlan_core.c). */
import { type Ip, familyOf } from '../model/ip.ts';
import type { LinkRef, VxlanLink } from '../model/link.ts';
import { type Mac, ZERO_MAC, isUnicastMac } from '../model/mac.ts';
import { tunnelsIn } from '../model/vxlan.ts';
import {
  type Frame,
  type IpPacket,
  type VxlanMessage,
  isGroupMac,
  packetBytes,
  scrubbed,
} from './frame.ts';
import { DEFAULT_TTL } from './icmp-error.ts';
import { mtuBy, sendOwn } from './output.ts';
import type { DropReason } from './reason.ts';
import { routeOutput } from './route.ts';
import { type Run, drop, leave, linkAt, netnsOf, note } from './run.ts';
import { findLearnedRemote, withLearnedRemote } from './world.ts';

/** The TTL of its packets, where nobody chose another. */
const TUNNEL_TTL = 64;

/** A port that the kernel derives from the frame, so that flows spread (udp_flow_src_port). */
const TUNNEL_PORT = 50_000;

/** Where a frame for a MAC goes: where somebody said, where it was seen, else wherever everything goes that is not known. */
function placesOf(run: Run, at: LinkRef, { remotes = [] }: VxlanLink, frame: Frame): readonly Ip[] {
  const told = remotes.filter(({ mac }) => mac === frame.destination).map(({ ip }) => ip);
  if (told.length > 0) return told;
  const learned = isGroupMac(frame.destination)
    ? undefined
    : findLearnedRemote(run.world, at, frame.destination);
  if (learned !== undefined) return [learned];
  return remotes.filter(({ mac }) => mac === ZERO_MAC).map(({ ip }) => ip);
}

/** What the headers around a frame take, of IPv4 or IPv6 (vxlan_headroom). */
const HEADROOM_BYTES = { 4: 50, 6: 70 } as const;

/** Smaller MTUs nobody is told of (iptunnel_pmtud_check_icmp, iptunnel_pmtud_check_icmpv6). */
const SMALLEST_TOLD = { 4: 576, 6: 1280 } as const;

/** What of a packet fits into one of the underlay to there; undefined where that has no way. */
function roomTo(run: Run, { underlay, local, lower }: VxlanLink, place: Ip): number | undefined {
  if (underlay === null) return undefined;
  const answer = routeOutput(netnsOf(run, underlay), local, place, lower);
  if (answer.kind !== 'forward' || answer.route.device === null) return undefined;
  const at = { netns: underlay, ifname: answer.route.device };
  return mtuBy(run, at, answer.route) - HEADROOM_BYTES[familyOf(place)];
}

/**
 * Is a frame that a bridge passes on too long for the underlay, and nobody may split it? Then its sender is told, as by whom
 * it is for (skb_tunnel_check_pmtu). What the netns sends itself goes in fragments of the underlay all the same.
 */
function isRefused(run: Run, at: LinkRef, link: VxlanLink, frame: Frame, place: Ip): boolean {
  const { packet } = frame;
  if (link.port === null || packet.kind !== 'ip' || packet.message.kind === 'error') return false;
  if (frame.source === linkAt(run, { ...at, ifname: link.port.master }).mac) return false;
  const family = familyOf(packet.destination);
  const room = roomTo(run, link, place);
  if (room === undefined || packetBytes(packet) <= room || room < SMALLEST_TOLD[family])
    return false;
  if (family === 4 && !packet.dontFragment) return false;
  const text = `${packetBytes(packet)} bytes, and there is room for ${room}`;
  drop(run, at, 'transmit', frame, 'PKT_TOO_BIG', text, { rule: 'K-9.4' });
  const { skb: _, ...quoted } = packet;
  const error: IpPacket = {
    kind: 'ip',
    source: packet.destination,
    destination: packet.source,
    ttl: DEFAULT_TTL,
    dontFragment: false,
    message: { kind: 'error', error: 'too big', mtuBytes: room, quoted },
  };
  const back = { source: frame.destination, destination: frame.source, packet: error };
  run.queue.push({ step: 'receive', at, frame: { ...frame, ...back } });
  return true;
}

/** A vxlan sends a frame: a packet of its underlay to each place (vxlan_xmit). */
export function sendVxlan(run: Run, at: LinkRef, link: VxlanLink, frame: Frame): void {
  const places = placesOf(run, at, link, frame);
  const grounds = { rule: 'K-9.3' } as const;
  if (places.length === 0) {
    const text = `${at.ifname} was not told where ${frame.destination} is`;
    drop(run, at, 'transmit', frame, 'VXLAN_NO_REMOTE', text, grounds);
    return;
  }
  const { underlay, vni, udpPort, local, lower } = link;
  if (underlay === null) {
    leave(run, at, 'transmit', frame, 'its packets are of a netns that was not looked at');
    return;
  }
  note(run, at, 'transmit', frame, `in packets to ${places.join(', ')}`, grounds);
  const { packet: inner } = frame;
  const staysInNetns = underlay === at.netns;
  // Whatever was beside it stays behind (ip_tunnel_core.c, iptunnel_xmit).
  const bare = inner.kind === 'ip' ? scrubbed(inner, staysInNetns) : inner;
  const message: VxlanMessage = {
    kind: 'vxlan',
    sourcePort: TUNNEL_PORT,
    destinationPort: udpPort,
    vni,
    frame: { ...frame, packet: bare },
  };
  const packet = { source: local, ttl: TUNNEL_TTL, dontFragment: false, message };
  for (const destination of places) {
    if (!isRefused(run, at, link, frame, destination))
      sendOwn(run, underlay, { ...packet, destination }, lower);
  }
}

/** Why a vxlan takes no frame of a MAC address from there (vxlan_set_mac, vxlan_snoop). */
function refusal(
  { ifname, mac, learning, remotes = [] }: VxlanLink,
  from: Ip,
  source: Mac,
): { readonly reason: DropReason; readonly text: string } | undefined {
  if (source === mac)
    return { reason: 'LOCAL_MAC', text: `it comes from ${source}, which is ${ifname} itself` };
  if (!learning) return undefined;
  if (!isUnicastMac(source))
    return { reason: 'MAC_INVALID_SOURCE', text: `${source} is no source address` };
  const told = remotes.find((remote) => remote.mac === source);
  if (told === undefined || told.ip === from) return undefined;
  const text = `${source} comes from ${from}, and ${ifname} was told that it is at ${told.ip}`;
  return { reason: 'VXLAN_ENTRY_EXISTS', text };
}

/** A packet of some vxlan has arrived: the one of its network takes the frame out, and learns where that came from (vxlan_rcv). */
export function receiveVxlan(
  run: Run,
  at: LinkRef,
  packet: IpPacket,
  { vni, destinationPort, frame }: VxlanMessage,
): void {
  const tunnel = tunnelsIn(run.world.host, at.netns).find(
    ({ link }) => link.vni === vni && link.udpPort === destinationPort,
  );
  if (!tunnel?.link.up) {
    const text = tunnel
      ? `${tunnel.ifname} is down`
      : `no vxlan here has network ${vni} on port ${destinationPort}`;
    drop(run, at, 'deliver', packet, 'VXLAN_VNI_NOT_FOUND', text, {
      rule: 'K-9.4',
      ...(tunnel ? { about: { netns: tunnel.netns, ifname: tunnel.ifname } } : {}),
    });
    return;
  }
  const ref = { netns: tunnel.netns, ifname: tunnel.ifname };
  const refused = refusal(tunnel.link, packet.source, frame.source);
  if (refused) {
    const { reason, text } = refused;
    drop(run, at, 'deliver', packet, reason, text, { rule: 'K-9.3', about: ref });
    return;
  }
  const isTold = (tunnel.link.remotes ?? []).some(({ mac }) => mac === frame.source);
  const learns = tunnel.link.learning && !isTold;
  if (learns) run.world = withLearnedRemote(run.world, ref, frame.source, packet.source);
  const learned = learns ? `; learns that ${frame.source} is at ${packet.source}` : '';
  note(run, ref, 'receive', frame, `from ${packet.source}${learned}`, { rule: 'K-9.3' });
  run.queue.push({ step: 'receive', at: ref, frame });
}
