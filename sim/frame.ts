/** What travels: Ethernet frames, and the ARP and IP packets in them. Plain values, compared by their content. */
import { type Ip, familyOf, ipBits } from '../model/ip.ts';
import type { LinkRef } from '../model/link.ts';
import { type Mac, macFromBytes, parseMac } from '../model/mac.ts';
import type { Track } from './conntrack.ts';

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
  /** What the sender knows its replies by (RFC 792). */
  readonly id: number;
  readonly payloadBytes: number;
}

interface Ported {
  readonly sourcePort: number;
  readonly destinationPort: number;
  readonly payloadBytes: number;
}

/** A UDP datagram. */
export interface Datagram extends Ported {
  readonly kind: 'udp';
  /** Does it answer another? Nothing in it says so. */
  readonly isAnswer: boolean;
}

/** A TCP segment of those that open a connection, in their order (RFC 9293, section 3.5). */
export interface Segment extends Ported {
  readonly kind: 'tcp';
  readonly flags: 'syn' | 'syn ack' | 'ack';
}

/** What one host says to another to learn whether it is there, what that one answers, and how an answer is acknowledged. */
export type ProbeMessage = Echo | Datagram | Segment;

/** A frame of a vxlan on its way over the underlay (RFC 7348 §5). */
export interface VxlanMessage {
  readonly kind: 'vxlan';
  readonly sourcePort: number;
  readonly destinationPort: number;
  readonly vni: number;
  readonly frame: Frame;
}

/** RFC 4861 §4.3, with the link-layer address option. */
export interface Solicitation {
  readonly kind: 'solicitation';
  readonly target: Ip;
  /** The MAC of whoever sends the message. */
  readonly mac: Mac;
}

/** RFC 4861 §4.4, with that option too. */
export interface Advertisement {
  readonly kind: 'advertisement';
  readonly target: Ip;
  /** The MAC of whoever sends the message. */
  readonly mac: Mac;
  /** Does it answer a solicitation? */
  readonly isSolicited: boolean;
  /** Is it to replace another MAC that is known? */
  readonly overrides: boolean;
}

export type NeighbourMessage = Solicitation | Advertisement;

/** What an ICMP or ICMPv6 error says, in the words of both: IPv6 has "no route" for the net, and "packet too big". */
export type ErrorKind =
  | 'time exceeded'
  | 'reassembly time exceeded'
  | 'net unreachable'
  | 'host unreachable'
  | 'port unreachable'
  | 'admin prohibited'
  | 'too big';

/** An error about a packet, to whom that came from (RFC 792, RFC 4443). */
export interface IcmpError {
  readonly kind: 'error';
  readonly error: ErrorKind;
  /** Of what is too big: what would not be; else null. */
  readonly mtuBytes: number | null;
  /** The packet that it is about, as whoever sends the error saw it. */
  readonly quoted: IpPacket;
}

/** Which part of a packet a fragment carries (RFC 791 §3.2, RFC 8200 §4.5). */
export interface Fragment {
  /** What its parts have in common, and no other packet of its sender. */
  readonly identification: number;
  /** Where its data begins in that of the whole packet, a multiple of 8. */
  readonly offsetBytes: number;
  readonly dataBytes: number;
  /** Do others follow (MF)? */
  readonly hasMore: boolean;
}

/** A TCP segment that refuses the one that opens a connection: RST and ACK (RFC 9293, section 3.5.2). */
export interface Reset {
  readonly kind: 'reset';
  readonly sourcePort: number;
  readonly destinationPort: number;
}

/** An IPv4 or IPv6 packet; its addresses say which. */
export interface IpPacket {
  readonly kind: 'ip';
  readonly source: Ip;
  readonly destination: Ip;
  /** IPv6: the hop limit. */
  readonly ttl: number;
  /** IPv4: nobody may fragment it. IPv6: its sender may not, and no router does ever. */
  readonly dontFragment: boolean;
  readonly message: ProbeMessage | NeighbourMessage | VxlanMessage | IcmpError | Reset;
  /** Of the packet with this message it is only a part; absent: the whole. */
  readonly fragment?: Fragment;
  /** What the netns that it goes through keeps beside it; absent: nothing. */
  readonly skb?: SkbState;
}

/** What the kernel keeps beside a packet while that is in one netns (include/linux/skbuff.h). */
export interface SkbState {
  readonly mark: number;
  /** Its connection; absent: it is not tracked. */
  readonly track?: Track;
  /** A rule said that it is not to be tracked. */
  readonly untracked?: true;
  /** Has a bridge had it pass prerouting already, which its netns then does not do again (br_netfilter_hooks.c, ip_sabotage_in)? */
  readonly prerouted?: true;
  /** How it came to the bridge that has br_netfilter look at it (struct nf_bridge_info). */
  readonly bridged?: BridgedBy;
  /** It came in fragments, and was joined on its way through. */
  readonly joined?: Joined;
}

/** The port that a frame came in by, and its MACs. */
export interface BridgedBy {
  readonly port: LinkRef;
  readonly source: Mac;
  readonly destination: Mac;
}

/** What is kept of the fragments of a packet that was joined: it leaves in such again. */
export interface Joined {
  readonly identification: number;
  /** How much data each had, in order. */
  readonly dataBytes: readonly number[];
  /** The largest of them, with its headers (IPCB's frag_max_size); null: that is forgotten. */
  readonly largestBytes: number | null;
}

/** A packet of a netns's own; a source of `null` is still to be chosen. */
export interface OwnPacket extends Omit<IpPacket, 'kind' | 'source'> {
  readonly source: Ip | null;
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
  return '13579bdf'.includes(mac.charAt(1));
}

/** A VLAN tag's room, which every frame is granted beyond an MTU (net/core/dev.c, is_skb_forwardable; K-6.4). */
export const SLACK_BYTES = 4;

/** The header of a packet, and what a fragment has before its data: that of IPv6 has one more of eight bytes. */
export const HEADER_BYTES = { 4: 20, 6: 40 } as const;
export const FRAGMENT_HEADER_BYTES = { 4: 20, 6: 48 } as const;

/** The size that an MTU limits: the packet without its Ethernet header. */
export function packetBytes(packet: Packet): number {
  if (packet.kind === 'arp') return 28;
  const { fragment } = packet;
  return fragment === undefined
    ? wholeBytes(packet)
    : FRAGMENT_HEADER_BYTES[familyOf(packet.destination)] + fragment.dataBytes;
}

/** The size of the packet that a fragment is a part of; of others their own. */
function wholeBytes({ destination, message }: IpPacket): number {
  const header = HEADER_BYTES[familyOf(destination)];
  switch (message.kind) {
    case 'echo request':
    case 'echo reply':
    case 'udp':
      return header + 8 + message.payloadBytes;
    case 'tcp':
      return header + 20 + message.payloadBytes;
    case 'reset':
      return header + 20;
    // UDP and VXLAN headers, and the frame with its own and the tag of its VLAN.
    case 'vxlan': {
      const { packet: inner, tag } = message.frame;
      return header + 8 + 8 + 14 + (tag === undefined ? 0 : 4) + packetBytes(inner);
    }
    // ICMPv6 header, target and one option of eight bytes.
    case 'solicitation':
    case 'advertisement':
      return header + 32;
    // It quotes as much as fits into a packet that goes everywhere (icmp_send, icmp6_send).
    case 'error':
      return Math.min(header + 8 + packetBytes(message.quoted), header === 20 ? 576 : 1280);
  }
}

/** How much follows the IP header of a packet, or of all of its fragments together. */
export function dataBytes(packet: IpPacket): number {
  return wholeBytes(packet) - HEADER_BYTES[familyOf(packet.destination)];
}

/** Is it a fragment without the headers of the transport, which the first has? */
export function isLaterFragment({ fragment }: IpPacket): boolean {
  return fragment !== undefined && fragment.offsetBytes > 0;
}

// Every packet is asked these, so that they look at the text: of each address there is one (RFC 5952).
const MULTICAST = /^(22[4-9]|23\d)\.|^ff[\da-f]{2}:/;
const LINK_LOCAL = /^fe[89ab][\da-f]:/;

/** 224.0.0.0/4 or ff00::/8. */
export function isMulticast(ip: Ip): boolean {
  return MULTICAST.test(ip);
}

/** fe80::/10. */
export function isLinkLocal(ip: Ip): boolean {
  return LINK_LOCAL.test(ip);
}

/** 0.0.0.0 or ::, which stand for no address. */
export function isUnspecified(ip: Ip): boolean {
  return ip === '0.0.0.0' || ip === '::';
}

/** The MAC that carries an IPv6 multicast address: 33:33 and its last four bytes (RFC 2464 §7). */
export function multicastMac(ip: Ip): Mac {
  const low = Number(ipBits(ip) & 0xffffffffn);
  return macFromBytes(
    Uint8Array.of(0x33, 0x33, low >>> 24, (low >>> 16) & 255, (low >>> 8) & 255, low & 255),
  );
}

/** What is in a packet, where a vxlan carries it in another. */
export function innermost(packet: Packet): Packet {
  return packet.kind === 'ip' && packet.message.kind === 'vxlan'
    ? innermost(packet.message.frame.packet)
    : packet;
}

const NO_PROBES: ReadonlySet<IpPacket['message']['kind']> = new Set(['vxlan', 'error', 'reset']);

/** Is it what a probe asks, or its answer? */
export function isProbeMessage(message: IpPacket['message']): message is ProbeMessage {
  return !isNeighbourMessage(message) && !NO_PROBES.has(message.kind);
}

/** Is it about neighbours? */
export function isNeighbourMessage(message: IpPacket['message']): message is NeighbourMessage {
  return message.kind === 'solicitation' || message.kind === 'advertisement';
}

/** Is it what the receiver of a probe answers? */
export function isAnswer(message: ProbeMessage): boolean {
  switch (message.kind) {
    case 'udp':
      return message.isAnswer;
    case 'tcp':
      return message.flags === 'syn ack';
    case 'echo request':
    case 'echo reply':
      return message.kind === 'echo reply';
  }
}

/** Does it acknowledge the answer to what opens a connection? */
export function isAcknowledgement(message: IpPacket['message']): boolean {
  return message.kind === 'tcp' && message.flags === 'ack';
}

/** The answer of whom a probe reaches. */
export function answerTo(message: ProbeMessage): ProbeMessage {
  if (!('sourcePort' in message)) return { ...message, kind: 'echo reply' };
  const back = { sourcePort: message.destinationPort, destinationPort: message.sourcePort };
  return message.kind === 'udp'
    ? { ...message, ...back, isAnswer: true }
    : { ...message, ...back, flags: 'syn ack' };
}

/** What the receiver of a SYN and ACK sends back. */
export function acknowledge({ sourcePort, destinationPort }: Segment): Segment {
  const back = { sourcePort: destinationPort, destinationPort: sourcePort };
  return { kind: 'tcp', ...back, payloadBytes: 0, flags: 'ack' };
}

/** A packet that leaves for another netns, or for another link of this one: nothing is beside it any more but, here, its mark. */
export function scrubbed(packet: IpPacket, staysInNetns: boolean): IpPacket {
  if (packet.skb === undefined) return packet;
  const { skb, ...bare } = packet;
  return staysInNetns && skb.mark !== 0 ? { ...bare, skb: { mark: skb.mark } } : bare;
}

function formatEnd(ip: Ip, port: number): string {
  return familyOf(ip) === 4 ? `${ip}:${port}` : `[${ip}]:${port}`;
}

function formatSegment(message: Datagram | Segment | Reset): string {
  if (message.kind === 'udp') return 'udp';
  if (message.kind === 'reset') return 'tcp rst ack';
  return `tcp ${message.flags}`;
}

function formatMessage(packet: IpPacket): string {
  const { source, destination, message } = packet;
  switch (message.kind) {
    case 'echo request':
    case 'echo reply':
      return `${message.kind} ${source} > ${destination}`;
    case 'udp':
    case 'tcp':
    case 'reset': {
      const from = formatEnd(source, message.sourcePort);
      return `${formatSegment(message)} ${from} > ${formatEnd(destination, message.destinationPort)}`;
    }
    case 'vxlan':
      return `vxlan ${message.vni} ${source} > ${destination} (${formatPacket(message.frame.packet)})`;
    case 'error':
      return `${message.error} ${source} > ${destination} (${formatPacket(message.quoted)})`;
    case 'solicitation':
      return `nd who-has ${message.target} tell ${source}`;
    case 'advertisement':
      return `nd ${message.target} is-at ${message.mac}`;
  }
}

/** The protocol of a packet, of which a later fragment tells no more. */
function protocolOf({ destination, message }: IpPacket): string {
  if ('sourcePort' in message)
    return message.kind === 'tcp' || message.kind === 'reset' ? 'tcp' : 'udp';
  return familyOf(destination) === 4 ? 'icmp' : 'icmp6';
}

/** `(frag 1:1480@0+)`: identification, data and offset, and whether others follow. */
function formatFragment(packet: IpPacket, fragment: Fragment): string {
  const { identification, dataBytes: bytes, offsetBytes, hasMore } = fragment;
  const what = isLaterFragment(packet)
    ? `${protocolOf(packet)} ${packet.source} > ${packet.destination}`
    : formatMessage(packet);
  return `${what} (frag ${identification}:${bytes}@${offsetBytes}${hasMore ? '+' : ''})`;
}

/** A packet in a few words, as tcpdump says it. */
export function formatPacket(packet: Packet): string {
  if (packet.kind === 'ip')
    return packet.fragment ? formatFragment(packet, packet.fragment) : formatMessage(packet);
  return packet.operation === 'request'
    ? `arp who-has ${packet.targetIp} tell ${packet.senderIp}`
    : `arp ${packet.senderIp} is-at ${packet.senderMac}`;
}
