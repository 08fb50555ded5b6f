/** Splitting packets into fragments that fit (net/ipv4/ip_output.c, ip_do_fragment; net/ipv6/ip6_output.c, ip6_fragment; K-7.9). */
import { familyOf } from '../model/ip.ts';
import {
  FRAGMENT_HEADER_BYTES,
  type IpPacket,
  type Joined,
  dataBytes,
  packetBytes,
} from './frame.ts';

/** Data is counted in units of so many bytes. */
const UNIT_BYTES = 8;

/** What IPv6 takes everywhere: no fragment need be smaller (RFC 8200 §5). */
const IPV6_MIN_MTU = 1280;

/** How much of the data goes into each fragment: as much as there is room for, in all but the last whole units. */
function fill(bytes: number, roomBytes: number): readonly number[] {
  const room = roomBytes - (roomBytes % UNIT_BYTES);
  const parts: number[] = [];
  let left = bytes;
  for (; left > roomBytes; left -= room) parts.push(room);
  return [...parts, left];
}

/** Fragments that were joined are made anew as they came, where they fit (the fast path of ip_do_fragment and ip6_fragment). */
function partsOf(bytes: number, roomBytes: number, joined: Joined | undefined): readonly number[] {
  const known = joined?.dataBytes;
  return known?.every((part) => part <= roomBytes) ? known : fill(bytes, roomBytes);
}

/**
 * A packet in fragments of at most `mtuBytes`, of which `identification` tells that they belong together; what was a fragment,
 * or was joined of some, keeps its own. The packet itself where all of it fits. An MTU is 68 at least, where IPv6 is on 1280.
 */
export function split(
  packet: IpPacket,
  mtuBytes: number,
  identification: number,
): readonly IpPacket[] {
  const { fragment, skb } = packet;
  const roomBytes = mtuBytes - FRAGMENT_HEADER_BYTES[familyOf(packet.destination)];
  const parts = partsOf(fragment?.dataBytes ?? dataBytes(packet), roomBytes, skb?.joined);
  if (parts.length === 1) return [packet];
  const id = fragment?.identification ?? skb?.joined?.identification ?? identification;
  const { joined: _, ...beside } = skb ?? { mark: 0 };
  let offsetBytes = fragment?.offsetBytes ?? 0;
  return parts.map((part, at) => {
    const hasMore = at < parts.length - 1 || fragment?.hasMore === true;
    const own = { identification: id, offsetBytes, dataBytes: part, hasMore };
    offsetBytes += part;
    return { ...packet, fragment: own, ...(skb ? { skb: beside } : {}) };
  });
}

/** So many fragments are listed by their sizes. */
const MOST_LISTED = 4;

/** `4028 bytes, and the mtu is 1500: 3 fragments of 1480, 1480 and 1048 bytes`. */
export function splitText(packet: IpPacket, mtuBytes: number, parts: readonly IpPacket[]): string {
  const largest = packet.skb?.joined?.largestBytes ?? null;
  // What the packet came in, or what there is room for.
  const isAgain = largest !== null && largest <= mtuBytes;
  const limit = isAgain ? `joined of up to ${mtuBytes}: again` : `and the mtu is ${mtuBytes}:`;
  const sizes = parts.map(({ fragment }) => fragment?.dataBytes ?? 0);
  const listed =
    sizes.length > MOST_LISTED
      ? `up to ${Math.max(...sizes)}`
      : `${sizes.slice(0, -1).join(', ')} and ${sizes.at(-1)}`;
  const bytes = packetBytes(packet);
  return `${bytes} bytes, ${limit} ${parts.length} fragments of ${listed} bytes`;
}

/** `1500 bytes, and the mtu is 1400`: of what was joined, how long its longest fragment was. */
export function tooBigText(packet: IpPacket, mtuBytes: number): string {
  const bytes = packet.skb?.joined?.largestBytes ?? packetBytes(packet);
  return `${bytes} bytes, and the mtu is ${mtuBytes}`;
}

/** What becomes of a packet that is to leave: as it is, in fragments of at most so many bytes, or not, because of this MTU. */
export type Fit =
  | { readonly kind: 'whole' }
  | { readonly kind: 'split' | 'too big'; readonly mtuBytes: number };

const WHOLE: Fit = { kind: 'whole' };

/** May its sender split it? */
function maySenderSplit({ dontFragment, message }: IpPacket): boolean {
  // Of a segment TCP sees that it fits, and a tunnel has no socket that would let it be split (ip6_xmit, ip6_tunnel_xmit).
  return !dontFragment && message.kind !== 'tcp' && message.kind !== 'vxlan';
}

function fitIpv4(packet: IpPacket, mtuBytes: number): Fit {
  const largest = packet.skb?.joined?.largestBytes ?? null;
  // Whatever came in fragments leaves in fragments, no larger ones (__ip_finish_output, ip_do_fragment).
  if (largest !== null) return { kind: 'split', mtuBytes: Math.min(mtuBytes, largest) };
  if (packetBytes(packet) <= mtuBytes) return WHOLE;
  return { kind: packet.dontFragment ? 'too big' : 'split', mtuBytes };
}

function fitIpv6(packet: IpPacket, mtuBytes: number, isOwn: boolean): Fit {
  const bytes = packetBytes(packet);
  const joined = packet.skb?.joined;
  const largest = joined?.largestBytes ?? null;
  if (bytes <= mtuBytes && (largest === null || bytes <= largest)) return WHOLE;
  // No router makes fragments that are not there already, nor smaller ones (ip6_pkt_too_big, ip6_fragment).
  const mayBeSplit = joined ? largest === null || largest <= mtuBytes : isOwn;
  if (!mayBeSplit || (isOwn && !maySenderSplit(packet))) return { kind: 'too big', mtuBytes };
  return {
    kind: 'split',
    mtuBytes: largest === null ? mtuBytes : Math.max(largest, IPV6_MIN_MTU),
  };
}

/** What becomes of a packet where so many bytes fit. `isOwn`: the netns sends it itself. */
export function fitTo(packet: IpPacket, mtuBytes: number, isOwn: boolean): Fit {
  return familyOf(packet.destination) === 4
    ? fitIpv4(packet, mtuBytes)
    : fitIpv6(packet, mtuBytes, isOwn);
}
