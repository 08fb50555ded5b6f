/** Addresses that a connection's packets have on either side of a netns (net/netfilter/nf_nat_core.c). */
import type { Netns, NetnsName } from '../model/host.ts';
import type { Ifname } from '../model/ifname.ts';
import { type Ip, familyOf } from '../model/ip.ts';
import { type Connection, type Track, type Tuple, inverse, isKnown } from './conntrack.ts';
import type { IpPacket } from './frame.ts';
import type { Translation } from './ruleset.ts';
import { selectIpv4, selectIpv6 } from './source.ts';
import type { World } from './world.ts';

/** Which of its addresses a hook translates: that to which a packet goes before it is routed, that from which it comes after. */
export type Side = 'source' | 'destination';

/** Ports from which another is taken when one is in use (nf_nat_l4proto_unique_tuple): privileged ones stay so. */
function portsLike(port: number): readonly [first: number, last: number] {
  if (port < 512) return [1, 511];
  return port < 1024 ? [600, 1023] : [1024, 65_535];
}

/** The tuple of answers that no other connection has: with the port asked for, or the next of its kind that is free. */
function withFreePort(world: World, netns: NetnsName, reply: Tuple): Tuple {
  const wanted = reply.destinationPort;
  const at = (port: number): Tuple => ({
    ...reply,
    destinationPort: port,
    ...(reply.protocol === 'icmp' ? { sourcePort: port } : {}),
  });
  if (!isKnown(world, netns, at(wanted))) return reply;
  const [first, last] = reply.protocol === 'icmp' ? [0, 65_535] : portsLike(wanted);
  const size = last - first + 1;
  for (let step = 1; step < size; step += 1) {
    const port = first + ((wanted - first + step) % size);
    if (!isKnown(world, netns, at(port))) return at(port);
  }
  return reply;
}

/** The address that packets which leave by a link are given, towards their next hop (nf_nat_masquerade.c; K-8.3). */
export function masqueradeSource(
  netns: Netns,
  device: Ifname,
  nextHop: Ip,
  destination: Ip,
): Ip | undefined {
  return familyOf(destination) === 4
    ? selectIpv4(netns, device, nextHop, 'global')
    : selectIpv6(netns, device, destination);
}

/** What a new connection's answers are once it is decided how one side of it is translated; null: not at all. */
export function decide(
  world: World,
  netns: NetnsName,
  connection: Connection,
  side: Side,
  to: { readonly ip: Ip; readonly port: number | null } | null,
): Connection {
  const { reply } = connection;
  const decided = { ...connection.decided, [side]: true };
  if (side === 'destination') {
    if (to === null) return { ...connection, decided };
    const port = to.port === null || reply.protocol === 'icmp' ? {} : { sourcePort: to.port };
    return { ...connection, decided, reply: { ...reply, source: to.ip, ...port } };
  }
  const translated = to === null ? reply : { ...reply, destination: to.ip };
  return { ...connection, decided, reply: withFreePort(world, netns, translated) };
}

/** The translation that a rule asks for, of a packet that leaves by `device`; undefined where the netns has no address for it. */
export function targetOf(
  translation: Translation,
  masquerade: () => Ip | undefined,
): { readonly ip: Ip; readonly port: number | null } | undefined {
  if (translation.kind === 'dnat') return { ip: translation.ip, port: translation.port };
  const ip = masquerade();
  return ip === undefined ? undefined : { ip, port: null };
}

function withEnd(packet: IpPacket, side: Side, ip: Ip, port: number): IpPacket {
  const { message } = packet;
  if ('sourcePort' in message)
    return {
      ...packet,
      [side]: ip,
      message: { ...message, [side === 'source' ? 'sourcePort' : 'destinationPort']: port },
    };
  return 'id' in message
    ? { ...packet, [side]: ip, message: { ...message, id: port } }
    : { ...packet, [side]: ip };
}

/** A packet with one of its addresses as its connection has it behind this hook (nf_nat_packet, nf_nat_manip_pkt). */
export function translate(
  packet: IpPacket,
  { connection, direction }: Track,
  side: Side,
): IpPacket {
  const wanted = inverse(direction === 'original' ? connection.reply : connection.original);
  return side === 'source'
    ? withEnd(packet, side, wanted.source, wanted.sourcePort)
    : withEnd(packet, side, wanted.destination, wanted.destinationPort);
}
