/**
 * What is sent, in bytes, as the kernel lays it out. Fields that the model leaves open have fixed values, so that a packet always
 * has the same bytes: traffic class, flow label and the identification of what is no fragment are 0, and TCP's sequence numbers
 * are chosen below.
 */
import { type Family, type Ip, ipBytes as addressBytes, familyOf } from '../model/ip.ts';
import { macBytes } from '../model/mac.ts';
import {
  type Arp,
  type Datagram,
  type Echo,
  type ErrorKind,
  type Fragment,
  type Frame,
  type IcmpError,
  type IpPacket,
  type Advertisement,
  type NeighbourMessage,
  type Reset,
  type Segment,
  type VxlanMessage,
  packetBytes,
} from './frame.ts';

const MAX_LENGTH = 0xffff;

/** Initial sequence numbers of who opens a connection, and of who answers (RFC 9293 §3.4.1 has them random). */
const SYN_SEQUENCE = 1000;
const ANSWER_SEQUENCE = 2000;

/** What a Linux socket offers first on a link with an MTU of 1500. */
const WINDOW = 64_240;

const ETHER_TYPE = { arp: 0x0806, tagged: 0x8100, ipv4: 0x0800, ipv6: 0x86dd } as const;

/** IANA's protocol numbers. */
const PROTOCOL = { icmp: 1, tcp: 6, udp: 17, fragment: 44, icmpv6: 58 } as const;

function u16(value: number): Uint8Array {
  return Uint8Array.of(value >>> 8, value);
}

function u32(value: number): Uint8Array {
  return Uint8Array.of(value >>> 24, value >>> 16, value >>> 8, value);
}

/** One after another. */
export function joined(...parts: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

/** 00 01 02 ..., as ping fills its packets. */
function payload(length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, at) => at);
}

/** A length field; one that does not fit is 0 (include/linux/ip.h, iph_set_totlen; RFC 2675 §4). */
function lengthField(length: number): Uint8Array {
  return u16(length > MAX_LENGTH ? 0 : length);
}

/** The Internet checksum (RFC 1071). */
function checksum(bytes: Uint8Array): number {
  let sum = 0;
  for (let at = 0; at < bytes.length; at += 2)
    sum += ((bytes[at] ?? 0) << 8) | (bytes[at + 1] ?? 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}

/** The bytes with their checksum in the field at `at`, which holds 0 so far; `before` is summed too. */
function summed(bytes: Uint8Array, at: number, before: Uint8Array): Uint8Array {
  const own = bytes.slice();
  own.set(u16(checksum(joined(before, bytes))), at);
  return own;
}

/** What stands for the IP header in the checksums of transports (RFC 9293 §3.1, RFC 8200 §8.1). */
function pseudoHeader(packet: IpPacket, protocol: number, length: number): Uint8Array {
  const ends = joined(addressBytes(packet.source), addressBytes(packet.destination));
  return familyOf(packet.destination) === 4
    ? joined(ends, Uint8Array.of(0, protocol), u16(length))
    : joined(ends, u32(length), u32(protocol));
}

interface Transport {
  readonly protocol: number;
  readonly bytes: Uint8Array;
}

/** ICMPv6, unlike ICMP, sums the addresses too (RFC 4443 §2.3). */
function icmp(packet: IpPacket, bytes: Uint8Array): Transport {
  if (familyOf(packet.destination) === 4)
    return { protocol: PROTOCOL.icmp, bytes: summed(bytes, 2, new Uint8Array()) };
  const before = pseudoHeader(packet, PROTOCOL.icmpv6, bytes.length);
  return { protocol: PROTOCOL.icmpv6, bytes: summed(bytes, 2, before) };
}

const ECHO_TYPE = {
  'echo request': { 4: 8, 6: 128 },
  'echo reply': { 4: 0, 6: 129 },
} as const;

/** RFC 792 and RFC 4443 §4. It is the first of its kind: sequence number 1. */
function echo(packet: IpPacket, { kind, id, payloadBytes }: Echo): Transport {
  const type = ECHO_TYPE[kind][familyOf(packet.destination)];
  return icmp(packet, joined(Uint8Array.of(type, 0, 0, 0), u16(id), u16(1), payload(payloadBytes)));
}

/** RFC 768. */
function udp(
  packet: IpPacket,
  { sourcePort, destinationPort }: Datagram | VxlanMessage,
  data: Uint8Array,
): Transport {
  const length = 8 + data.length;
  const bare = joined(u16(sourcePort), u16(destinationPort), lengthField(length), u16(0), data);
  const bytes = summed(bare, 6, pseudoHeader(packet, PROTOCOL.udp, length));
  // In UDP a sum of 0 would say that there is none.
  if (bytes[6] === 0 && bytes[7] === 0) bytes.set(u16(0xffff), 6);
  return { protocol: PROTOCOL.udp, bytes };
}

const [SYN, RST, ACK] = [0x02, 0x04, 0x10];

/** Sequence number, what it acknowledges, flags and window. */
function control(message: Segment | Reset): readonly [number, number, number, number] {
  // As nf_reject_ip_tcphdr_put has it.
  if (message.kind === 'reset') return [0, SYN_SEQUENCE + 1, RST | ACK, 0];
  switch (message.flags) {
    case 'syn':
      return [SYN_SEQUENCE, 0, SYN, WINDOW];
    case 'syn ack':
      return [ANSWER_SEQUENCE, SYN_SEQUENCE + 1, SYN | ACK, WINDOW];
    case 'ack':
      return [SYN_SEQUENCE + 1, ANSWER_SEQUENCE + 1, ACK, WINDOW];
  }
}

/** RFC 9293 §3.1, without options. */
function tcp(packet: IpPacket, message: Segment | Reset): Transport {
  const { sourcePort, destinationPort } = message;
  const [sequence, acknowledged, flags, window] = control(message);
  const bytes = joined(
    u16(sourcePort),
    u16(destinationPort),
    u32(sequence),
    u32(acknowledged),
    Uint8Array.of(5 << 4, flags),
    u16(window),
    u16(0),
    u16(0),
    payload(message.kind === 'reset' ? 0 : message.payloadBytes),
  );
  const before = pseudoHeader(packet, PROTOCOL.tcp, bytes.length);
  return { protocol: PROTOCOL.tcp, bytes: summed(bytes, 16, before) };
}

/** RFC 7348 §5: flag I, and the network in three bytes. */
function vxlan(packet: IpPacket, message: VxlanMessage): Transport {
  const header = joined(Uint8Array.of(0x08, 0, 0, 0), u32(message.vni << 8));
  return udp(packet, message, joined(header, frameBytes(message.frame)));
}

/** RFC 4861 §4.3, §4.4 and §4.6.1. What answers is solicited and overrides; whether a router answers the model does not keep. */
/** The flags S and O of an advertisement (RFC 4861 §4.4). */
const SOLICITED = 0x40000000;
const OVERRIDE = 0x20000000;

function advertisementFlags({ isSolicited, overrides }: Advertisement): number {
  return (isSolicited ? SOLICITED : 0) | (overrides ? OVERRIDE : 0);
}

function neighbour(packet: IpPacket, message: NeighbourMessage): Transport {
  const { kind, target, mac } = message;
  const isQuestion = kind === 'solicitation';
  const bytes = joined(
    Uint8Array.of(isQuestion ? 135 : 136, 0, 0, 0),
    u32(message.kind === 'advertisement' ? advertisementFlags(message) : 0),
    addressBytes(target),
    Uint8Array.of(isQuestion ? 1 : 2, 1),
    macBytes(mac),
  );
  return icmp(packet, bytes);
}

/** Types and codes (RFC 792, RFC 1812 §5.2.7.1; RFC 4443 §3). */
const ERRORS: Readonly<Record<ErrorKind, Readonly<Record<Family, readonly [number, number]>>>> = {
  'time exceeded': { 4: [11, 0], 6: [3, 0] },
  'reassembly time exceeded': { 4: [11, 1], 6: [3, 1] },
  'net unreachable': { 4: [3, 0], 6: [1, 0] },
  'host unreachable': { 4: [3, 1], 6: [1, 3] },
  'port unreachable': { 4: [3, 3], 6: [1, 4] },
  'admin prohibited': { 4: [3, 13], 6: [1, 1] },
  'too big': { 4: [3, 4], 6: [2, 0] },
};

/** It quotes the packet that it is about, as much of it as `packetBytes` counts. */
function icmpError(packet: IpPacket, { error, mtuBytes, quoted }: IcmpError): Transport {
  const family = familyOf(packet.destination);
  const [type, code] = ERRORS[error][family];
  const room = packetBytes(packet) - (family === 4 ? 20 : 40) - 8;
  const header = joined(Uint8Array.of(type, code, 0, 0), u32(mtuBytes ?? 0));
  return icmp(packet, joined(header, ipBytes(quoted).subarray(0, room)));
}

function transport(packet: IpPacket): Transport {
  const { message } = packet;
  switch (message.kind) {
    case 'echo request':
    case 'echo reply':
      return echo(packet, message);
    case 'udp':
      return udp(packet, message, payload(message.payloadBytes));
    case 'tcp':
    case 'reset':
      return tcp(packet, message);
    case 'vxlan':
      return vxlan(packet, message);
    case 'error':
      return icmpError(packet, message);
    case 'solicitation':
    case 'advertisement':
      return neighbour(packet, message);
  }
}

/** What a packet says of fragments that is none. */
const WHOLE = { identification: 0, offsetBytes: 0, hasMore: false } as const;

interface Header {
  readonly source: Ip;
  readonly destination: Ip;
  readonly ttl: number;
  readonly protocol: number;
  /** What follows it. */
  readonly length: number;
  readonly dontFragment: boolean;
  readonly fragment?: Fragment;
}

/** DF and MF, beside the offset in units of eight bytes. */
const DONT_FRAGMENT = 0x4000;
const MORE_FRAGMENTS = 0x2000;

/** RFC 791 §3.1, without options. */
function ipv4Header(header: Header): Uint8Array {
  const { identification, offsetBytes, hasMore } = header.fragment ?? WHOLE;
  const flags = (header.dontFragment ? DONT_FRAGMENT : 0) | (hasMore ? MORE_FRAGMENTS : 0);
  const bytes = joined(
    Uint8Array.of(0x45, 0),
    lengthField(20 + header.length),
    u16(identification),
    u16(flags | (offsetBytes >>> 3)),
    Uint8Array.of(header.ttl, header.protocol, 0, 0),
    addressBytes(header.source),
    addressBytes(header.destination),
  );
  return summed(bytes, 10, new Uint8Array());
}

/** RFC 8200 §3. */
function ipv6Header(header: Header): Uint8Array {
  return joined(
    u32(0x60000000),
    lengthField(header.length),
    Uint8Array.of(header.protocol, header.ttl),
    addressBytes(header.source),
    addressBytes(header.destination),
  );
}

/** RFC 8200 §4.5: what follows the header of IPv6 in a fragment. */
function fragmentHeader(
  protocol: number,
  { identification, offsetBytes, hasMore }: Fragment,
): Uint8Array {
  return joined(
    Uint8Array.of(protocol, 0),
    u16(offsetBytes | (hasMore ? 1 : 0)),
    u32(identification),
  );
}

function fragmentBytes(packet: IpPacket, fragment: Fragment): Uint8Array {
  const { protocol, bytes } = transport(packet);
  const { offsetBytes, dataBytes } = fragment;
  const part = bytes.subarray(offsetBytes, offsetBytes + dataBytes);
  if (familyOf(packet.destination) === 4)
    return joined(ipv4Header({ ...packet, protocol, length: part.length }), part);
  const following = joined(fragmentHeader(protocol, fragment), part);
  const header = { ...packet, protocol: PROTOCOL.fragment, length: following.length };
  return joined(ipv6Header(header), following);
}

/**
 * An IP packet as it is on the wire, with all of its checksums; as long as `packetBytes` says. A fragment has its part of the
 * whole packet's bytes, so that the checksum of the transport is in the first, and about all of them.
 */
export function ipBytes(packet: IpPacket): Uint8Array {
  if (packet.fragment) return fragmentBytes(packet, packet.fragment);
  const { protocol, bytes } = transport(packet);
  const header: Header = { ...packet, protocol, length: bytes.length };
  return joined(
    familyOf(packet.destination) === 4 ? ipv4Header(header) : ipv6Header(header),
    bytes,
  );
}

/** RFC 826, over Ethernet and IPv4. Who asks leaves open whom it asks for. */
function arpBytes({ operation, senderMac, senderIp, targetIp }: Arp, to: Uint8Array): Uint8Array {
  const isRequest = operation === 'request';
  return joined(
    u16(1),
    u16(ETHER_TYPE.ipv4),
    Uint8Array.of(6, 4),
    u16(isRequest ? 1 : 2),
    macBytes(senderMac),
    addressBytes(senderIp),
    isRequest ? new Uint8Array(6) : to,
    addressBytes(targetIp),
  );
}

/** An Ethernet frame as it is on the wire, with the tag of its VLAN where it has one (IEEE 802.1Q), without padding and check sequence. */
export function frameBytes({ source, destination, packet, tag }: Frame): Uint8Array {
  const to = macBytes(destination);
  const [type, content] =
    packet.kind === 'arp'
      ? [ETHER_TYPE.arp, arpBytes(packet, to)]
      : [familyOf(packet.destination) === 4 ? ETHER_TYPE.ipv4 : ETHER_TYPE.ipv6, ipBytes(packet)];
  const vlan = tag === undefined ? [] : [u16(ETHER_TYPE.tagged), u16(tag)];
  return joined(to, macBytes(source), ...vlan, u16(type), content);
}
