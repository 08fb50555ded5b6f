/** Addresses that a connection's packets have on either side of a netns (net/netfilter/nf_nat_core.c). */
import type { Netns, NetnsName } from '../model/host.ts';
import type { Ifname } from '../model/ifname.ts';
import { type Family, type Ip, familyOf, parseIp } from '../model/ip.ts';
import { chance } from './chance.ts';
import { type Connection, type Track, type Tuple, inverse, isKnown } from './conntrack.ts';
import type { IpPacket } from './frame.ts';
import { oncePerWords } from './remembered.ts';
import type { Translation } from './seen.ts';
import { selectIpv4, selectIpv6 } from './source.ts';
import type { World } from './world.ts';

/** Which of its addresses a hook translates: that to which a packet goes before it is routed, that from which it comes after. */
export type Side = 'source' | 'destination';

/** Ports from which another is taken when one is in use (nf_nat_l4proto_unique_tuple): privileged ones stay so. */
function portsLike(port: number): readonly [first: number, last: number] {
  if (port < 512) return [1, 511];
  return port < 1024 ? [600, 1023] : [1024, 65_535];
}

/** The tuple of answers that no other connection has: with the port asked for, or the next of its kind that is free, from there on or from where chance begins. */
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
  const { seed, nowMs } = world;
  const begin =
    seed === null
      ? wanted + 1
      : first + Math.floor(chance(seed, 'port', netns, nowMs, ...Object.values(reply)) * size);
  for (let step = 0; step < size; step += 1) {
    const port = first + ((begin - first + step) % size);
    if (!isKnown(world, netns, at(port))) return at(port);
  }
  return reply;
}

/** The address that packets which leave by a link are given, towards their next hop (nf_nat_masquerade.c; K-8.3); null: there is none. */
export const masqueradeSource = oncePerWords(
  (netns: Netns, device: Ifname, nextHop: Ip, destination: Ip): Ip | null => {
    const source =
      familyOf(destination) === 4
        ? selectIpv4(netns, device, nextHop, 'global')
        : selectIpv6(netns, device, destination);
    return source ?? null;
  },
);

/** Where packets of a connection go, or whom they come from; null: as it is. */
interface Target {
  readonly ip: Ip | null;
  readonly port: number | null;
}

/** What a new connection's answers are once it is decided how one side of it is translated; null: not at all. */
export function decide(
  world: World,
  netns: NetnsName,
  connection: Connection,
  side: Side,
  to: Target | null,
): Connection {
  const { reply } = connection;
  const decided = { ...connection.decided, [side]: true };
  if (side === 'destination') {
    if (to === null) return { ...connection, decided };
    const port = to.port === null || reply.protocol === 'icmp' ? {} : { sourcePort: to.port };
    return { ...connection, decided, reply: { ...reply, source: to.ip ?? reply.source, ...port } };
  }
  const port =
    to === null || to.port === null || reply.protocol === 'icmp'
      ? {}
      : { destinationPort: to.port };
  const translated =
    to === null ? reply : { ...reply, destination: to.ip ?? reply.destination, ...port };
  return { ...connection, decided, reply: withFreePort(world, netns, translated) };
}

/** Where the kernel looks for an address that a rule does not name; null where the netns has none. */
export interface Sources {
  readonly masquerade: () => Ip | null;
  readonly redirect: () => Ip | null;
}

/** The translation that a rule asks for; undefined where the netns has no address for it. */
export function targetOf(translation: Translation, sources: Sources): Target | undefined {
  if (translation.kind === 'dnat' || translation.kind === 'snat') return translation;
  const ip = sources[translation.kind]();
  const port = translation.kind === 'redirect' ? translation.port : null;
  return ip === null ? undefined : { ip, port };
}

/** The address that packets which came in by a link are redirected to (net/netfilter/nf_nat_redirect.c): its first; of the netns's own, that of the loopback. */
export function redirectTarget(netns: Netns, iif: Ifname | null, family: Family): Ip | null {
  if (iif === null) return family === 4 ? parseIp('127.0.0.1') : parseIp('::1');
  const own = netns.links[iif]?.addresses.filter(({ ip }) => familyOf(ip) === family) ?? [];
  return own.find(({ secondary }) => !secondary)?.ip ?? null;
}

/** Another packet only where something of it is another. */
function withEnd(packet: IpPacket, side: Side, ip: Ip, port: number): IpPacket {
  const { message } = packet;
  const isThere = packet[side] === ip;
  if ('sourcePort' in message) {
    const name = `${side}Port` as const;
    if (isThere && message[name] === port) return packet;
    return { ...packet, [side]: ip, message: { ...message, [name]: port } };
  }
  if ('id' in message)
    return isThere && message.id === port
      ? packet
      : { ...packet, [side]: ip, message: { ...message, id: port } };
  return isThere ? packet : { ...packet, [side]: ip };
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

const OTHER = { source: 'destination', destination: 'source' } as const;

/** Has the connection other addresses, or another port, on this side of it (IPS_SRC_NAT and IPS_DST_NAT)? */
function isTranslated({ original, reply }: Connection, side: Side): boolean {
  const seen = inverse(reply);
  return original[side] !== seen[side] || original[`${side}Port`] !== seen[`${side}Port`];
}

/** An error about a packet of a translated connection: it quotes what its receiver has sent (nf_nat_icmp_reply_translation). */
export function translateError(
  packet: IpPacket,
  { connection, direction }: Track,
  side: Side,
): IpPacket {
  const { message } = packet;
  const of = direction === 'original' ? side : OTHER[side];
  if (message.kind !== 'error' || !isTranslated(connection, of)) return packet;
  const back = direction === 'original' ? connection.reply : connection.original;
  const inner = OTHER[side];
  const quoted = withEnd(message.quoted, inner, back[inner], back[`${inner}Port`]);
  return { ...packet, [side]: inverse(back)[side], message: { ...message, quoted } };
}
