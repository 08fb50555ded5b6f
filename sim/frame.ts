/** What travels: Ethernet frames, and the ARP and IP packets in them. Plain values, compared by their content. */
import { type Ip, familyOf, ipBits } from '../model/ip.ts';
import { type Mac, macFromBytes, parseMac } from '../model/mac.ts';

/** RFC 826 over Ethernet and IPv4. */
export interface Arp {
  readonly kind: 'arp';
  readonly operation: 'request' | 'reply';
  readonly senderMac: Mac;
  readonly senderIp: Ip;
  readonly targetIp: Ip;
}

/** ICMP or ICMPv6 echo. */
export interface Echo {
  readonly kind: 'echo request' | 'echo reply';
  readonly payloadBytes: number;
}

/** RFC 4861 §4.3 and §4.4, with the link-layer address option. */
export interface NeighbourMessage {
  readonly kind: 'solicitation' | 'advertisement';
  readonly target: Ip;
  /** The MAC of whoever sends the message. */
  readonly mac: Mac;
}

/** An IPv4 or IPv6 packet; its addresses say which. */
export interface IpPacket {
  readonly kind: 'ip';
  readonly source: Ip;
  readonly destination: Ip;
  /** IPv6: the hop limit. */
  readonly ttl: number;
  /** IPv4: no router may fragment it. Never read for IPv6, where none does. */
  readonly dontFragment: boolean;
  readonly message: Echo | NeighbourMessage;
}

export type Packet = Arp | IpPacket;

export interface Frame {
  readonly kind: 'frame';
  readonly source: Mac;
  readonly destination: Mac;
  readonly packet: Packet;
  /** The VLAN whose tag it carries (IEEE 802.1Q). */
  readonly tag?: number;
}

export const BROADCAST_MAC = parseMac('ff:ff:ff:ff:ff:ff');

/** An address with its group bit set: multicast, and broadcast among them. */
export function isGroupMac(mac: Mac): boolean {
  return (Number.parseInt(mac.slice(0, 2), 16) & 1) === 1;
}

/** The size that an MTU limits: the packet without its Ethernet header. */
export function packetBytes(packet: Packet): number {
  if (packet.kind === 'arp') return 28;
  const header = familyOf(packet.destination) === 4 ? 20 : 40;
  const { message } = packet;
  // Both neighbour messages: ICMPv6 header, target and one option of eight bytes.
  return header + ('payloadBytes' in message ? 8 + message.payloadBytes : 32);
}

/** 224.0.0.0/4 or ff00::/8. */
export function isMulticast(ip: Ip): boolean {
  return familyOf(ip) === 4 ? ipBits(ip) >> 28n === 0xen : ipBits(ip) >> 120n === 0xffn;
}

/** fe80::/10. */
export function isLinkLocal(ip: Ip): boolean {
  return familyOf(ip) === 6 && ipBits(ip) >> 118n === 0x3fan;
}

/** 0.0.0.0 or ::, which stand for no address. */
export function isUnspecified(ip: Ip): boolean {
  return ipBits(ip) === 0n;
}

/** The MAC that carries an IPv6 multicast address: 33:33 and its last four bytes (RFC 2464 §7). */
export function multicastMac(ip: Ip): Mac {
  const low = Number(ipBits(ip) & 0xffffffffn);
  return macFromBytes(
    Uint8Array.of(0x33, 0x33, low >>> 24, (low >>> 16) & 255, (low >>> 8) & 255, low & 255),
  );
}

function formatMessage(packet: IpPacket): string {
  const { source, destination, message } = packet;
  switch (message.kind) {
    case 'echo request':
    case 'echo reply':
      return `${message.kind} ${source} > ${destination}`;
    case 'solicitation':
      return `nd who-has ${message.target} tell ${source}`;
    case 'advertisement':
      return `nd ${message.target} is-at ${message.mac}`;
  }
}

/** A packet in a few words, as tcpdump says it. */
export function formatPacket(packet: Packet): string {
  if (packet.kind === 'ip') return formatMessage(packet);
  return packet.operation === 'request'
    ? `arp who-has ${packet.targetIp} tell ${packet.senderIp}`
    : `arp ${packet.senderIp} is-at ${packet.senderMac}`;
}
