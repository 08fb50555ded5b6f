/** Frames that tell the neighbours on a link where an address is. */
import { type Ip, familyOf, ipBytes } from '../../model/ip.ts';
import { type Mac, macBytes, parseMac } from '../../model/mac.ts';
import { internetChecksum } from './echo-message.ts';

export const ETH_P_ARP = 0x0806;
export const ETH_P_IPV6 = 0x86dd;
const ETHERNET_BYTES = 14;

const BROADCAST = parseMac('ff:ff:ff:ff:ff:ff');
/** The MAC of ff02::1 (RFC 2464, section 7). */
const ALL_NODES_MAC = parseMac('33:33:00:00:00:01');
/** ff02::1. */
const ALL_NODES = Uint8Array.of(0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1);

const ARP_BYTES = 28;
const IPV6_HEADER_BYTES = 40;
/** A neighbour advertisement with one option. */
const ADVERTISEMENT_BYTES = 32;
const IPPROTO_ICMPV6 = 58;
const ND_NEIGHBOR_ADVERT = 136;
/** "Override an existing entry"; neither from a router nor an answer. */
const ND_NA_FLAG_OVERRIDE = 0x20;
const ND_OPT_TARGET_LINKADDR = 2;

function ethernetFrame(to: Mac, from: Mac, protocol: number, payload: Uint8Array): Uint8Array {
  const frame = new Uint8Array(ETHERNET_BYTES + payload.length);
  frame.set(macBytes(to));
  frame.set(macBytes(from), 6);
  new DataView(frame.buffer).setUint16(12, protocol);
  frame.set(payload, ETHERNET_BYTES);
  return frame;
}

/** RFC 826, and RFC 5227, section 3: a request whose sender and target are one address, the target's MAC left at zero. */
function gratuitousArp(address: Uint8Array, mac: Mac): Uint8Array {
  const arp = new Uint8Array(ARP_BYTES);
  // Ethernet, IPv4, lengths 6 and 4, request.
  arp.set([0, 1, 8, 0, 6, 4, 0, 1]);
  arp.set(macBytes(mac), 8);
  arp.set(address, 14);
  arp.set(address, 24);
  return arp;
}

/** The checksum of an ICMPv6 message, which covers a pseudo-header (RFC 8200, section 8.1). */
function icmp6Checksum(source: Uint8Array, destination: Uint8Array, message: Uint8Array): number {
  const bytes = new Uint8Array(40 + message.length);
  bytes.set(source);
  bytes.set(destination, 16);
  new DataView(bytes.buffer).setUint32(32, message.length);
  bytes[39] = IPPROTO_ICMPV6;
  bytes.set(message, 40);
  return internetChecksum(bytes);
}

/** RFC 4861, sections 4.4 and 7.2.6. */
function unsolicitedAdvertisement(address: Uint8Array, mac: Mac): Uint8Array {
  const message = new Uint8Array(ADVERTISEMENT_BYTES);
  message[0] = ND_NEIGHBOR_ADVERT;
  message[4] = ND_NA_FLAG_OVERRIDE;
  message.set(address, 8);
  // The option's length counts units of eight bytes.
  message.set([ND_OPT_TARGET_LINKADDR, 1], 24);
  message.set(macBytes(mac), 26);
  new DataView(message.buffer).setUint16(2, icmp6Checksum(address, ALL_NODES, message));

  const packet = new Uint8Array(IPV6_HEADER_BYTES + ADVERTISEMENT_BYTES);
  packet[0] = 0x60;
  new DataView(packet.buffer).setUint16(4, ADVERTISEMENT_BYTES);
  packet[6] = IPPROTO_ICMPV6;
  // Whoever receives it takes no other: with less it came through a router.
  packet[7] = 255;
  packet.set(address, 8);
  packet.set(ALL_NODES, 24);
  packet.set(message, IPV6_HEADER_BYTES);
  return packet;
}

/** A frame for everybody on the link: `ip` is at `mac`. */
export function encodeAnnouncement(ip: Ip, mac: Mac): Uint8Array {
  const address = ipBytes(ip);
  return familyOf(ip) === 4
    ? ethernetFrame(BROADCAST, mac, ETH_P_ARP, gratuitousArp(address, mac))
    : ethernetFrame(ALL_NODES_MAC, mac, ETH_P_IPV6, unsolicitedAdvertisement(address, mac));
}
