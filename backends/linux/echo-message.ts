/** ICMP echo messages (RFC 792; RFC 4443, section 4). */

const ECHO_HEADER_BYTES = 8;

/** Types of echo messages by family. */
const TYPES = { 4: { request: 8, reply: 0 }, 6: { request: 128, reply: 129 } } as const;

/** The Internet checksum (RFC 1071): the complement of the sum of all 16-bit words. */
export function internetChecksum(bytes: Uint8Array): number {
  let sum = 0;
  for (let i = 0; i < bytes.length; i += 2) sum += ((bytes[i] ?? 0) << 8) | (bytes[i + 1] ?? 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}

/** An echo request. The kernel fills in the checksum of ICMPv6 itself. */
export function encodeEcho(family: 4 | 6, id: number, payload: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(ECHO_HEADER_BYTES + payload.length);
  const view = new DataView(bytes.buffer);
  bytes[0] = TYPES[family].request;
  view.setUint16(4, id);
  view.setUint16(6, 1);
  bytes.set(payload, ECHO_HEADER_BYTES);
  if (family === 4) view.setUint16(2, internetChecksum(bytes));
  return bytes;
}

/** Is a received packet the answer to `request`? IPv4 packets come with their IP header, IPv6 ones without (raw(7)). */
export function isEchoReply(family: 4 | 6, packet: Uint8Array, request: Uint8Array): boolean {
  const start = family === 4 ? ((packet[0] ?? 0) & 0xf) * 4 : 0;
  const message = packet.subarray(start);
  if (message.length !== request.length || message[0] !== TYPES[family].reply || message[1] !== 0)
    return false;
  // Identifier, sequence number and payload come back as they were.
  return message.subarray(4).every((byte, i) => byte === request[i + 4]);
}
