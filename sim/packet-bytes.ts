/** The bytes of a packet as rules read them, each packet's made once. */
import { familyOf } from '../model/ip.ts';
import { ipBytes } from './bytes.ts';
import type { IpPacket } from './frame.ts';
import type { Seen } from './seen.ts';

const KNOWN = new WeakMap<IpPacket, Uint8Array>();

/** The packet from its IP header on; undefined for what is none of IP. */
export function networkBytes({ packet }: Seen): Uint8Array | undefined {
  if (packet.kind !== 'ip') return undefined;
  const known = KNOWN.get(packet) ?? ipBytes(packet);
  KNOWN.set(packet, known);
  return known;
}

/** What follows the IP header. */
export function transportBytes(seen: Seen): Uint8Array | undefined {
  const bytes = networkBytes(seen);
  return bytes?.subarray((bytes[0] ?? 0) >> 4 === 4 ? ((bytes[0] ?? 0) & 15) * 4 : 40);
}

/** The number of the protocol that follows the IP header. */
export function l4Protocol(seen: Seen): number | undefined {
  const bytes = networkBytes(seen);
  if (!bytes || seen.packet.kind !== 'ip') return undefined;
  return bytes[familyOf(seen.packet.destination) === 4 ? 9 : 6];
}
