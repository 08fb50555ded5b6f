/** The bytes of a packet as rules read them, each packet's made once. */
import { familyOf } from '../model/ip.ts';
import { ipBytes } from './bytes.ts';
import { FRAGMENT_HEADER_BYTES, HEADER_BYTES, type IpPacket, isLaterFragment } from './frame.ts';
import type { Seen } from './seen.ts';

const KNOWN = new WeakMap<IpPacket, Uint8Array>();

/** The packet from its IP header on; undefined for what is none of IP. */
export function networkBytes({ packet }: Seen): Uint8Array | undefined {
  if (packet.kind !== 'ip') return undefined;
  const known = KNOWN.get(packet) ?? ipBytes(packet);
  KNOWN.set(packet, known);
  return known;
}

/** What follows the headers of IP; undefined in a later fragment, of which matches of iptables ask nothing (xt_tcpudp.c: fragoff). */
export function transportBytes(seen: Seen): Uint8Array | undefined {
  const { packet } = seen;
  if (packet.kind !== 'ip' || isLaterFragment(packet)) return undefined;
  const headers = packet.fragment ? FRAGMENT_HEADER_BYTES : HEADER_BYTES;
  return networkBytes(seen)?.subarray(headers[familyOf(packet.destination)]);
}

/** Loads of so many bytes, in their place, take a short cut. */
const FAST_BYTES = [1, 2, 4];

/**
 * What a rule of nft reads from the header of the transport; undefined where there is nothing, so that the rule ends. A later
 * fragment has none: most loads look at that, but the short cut reads what lies there all the same (nft_payload_fast_eval), and
 * in IPv6, where nobody says how far that is, the header of IP itself (ipv6_find_hdr).
 */
export function transportLoad(seen: Seen, offset: number, length: number): Uint8Array | undefined {
  const { packet } = seen;
  let bytes = transportBytes(seen);
  if (packet.kind === 'ip' && isLaterFragment(packet)) {
    const isFast = FAST_BYTES.includes(length) && offset % length === 0;
    const from = familyOf(packet.destination) === 4 ? FRAGMENT_HEADER_BYTES[4] : 0;
    bytes = isFast ? networkBytes(seen)?.subarray(from) : undefined;
  }
  return bytes && offset + length <= bytes.length
    ? bytes.slice(offset, offset + length)
    : undefined;
}

/** Where the number of the protocol is that follows: in IPv6's header, or in that of a fragment. */
const PROTOCOL_AT = { 4: 9, 6: 6 } as const;
const FRAGMENT_PROTOCOL_AT = { 4: 9, 6: 40 } as const;

/** The number of the protocol that follows the headers of IP, of which every fragment knows (ipv6_find_hdr). */
export function l4Protocol(seen: Seen): number | undefined {
  const bytes = networkBytes(seen);
  const { packet } = seen;
  if (!bytes || packet.kind !== 'ip') return undefined;
  return bytes[
    (packet.fragment ? FRAGMENT_PROTOCOL_AT : PROTOCOL_AT)[familyOf(packet.destination)]
  ];
}
