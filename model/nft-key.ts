/** Keys of sets as bytes: the parts one after the other, each filled up to whole registers (nftables: src/expression.c, concat_expr). */
import { type Ip, ipBytes } from './ip.ts';
import { type Mac, macBytes } from './mac.ts';
import { FIELD_BYTES, type FieldType, TRANSPORTS, type Transport } from './nftables.ts';

/** NFT_REG32_SIZE. */
const REGISTER_BYTES = 4;

/** How many bytes the registers have that hold so many. */
export function registerBytes(bytes: number): number {
  return Math.ceil(bytes / REGISTER_BYTES) * REGISTER_BYTES;
}

/** How many bytes parts of these types have together. One that stands alone is not filled up. */
export function layoutBytes(types: readonly FieldType[]): number {
  const [first] = types;
  if (first !== undefined && types.length === 1) return FIELD_BYTES[first];
  return types.reduce((sum, type) => sum + registerBytes(FIELD_BYTES[type]), 0);
}

function partBytes(type: FieldType, part: string): Uint8Array {
  if (type === 'ifname') return new TextEncoder().encode(part);
  if (type === 'inet_proto') return Uint8Array.of(TRANSPORTS[part as Transport]);
  if (type === 'inet_service') return Uint8Array.of(Number(part) >> 8, Number(part) & 255);
  return type === 'ether_addr' ? macBytes(part as Mac) : ipBytes(part as Ip);
}

/** The bytes of parts of these types, in canonical text. */
export function partsBytes(types: readonly FieldType[], parts: readonly string[]): Uint8Array {
  const bytes = new Uint8Array(layoutBytes(types));
  let at = 0;
  for (const [index, type] of types.entries()) {
    bytes.set(partBytes(type, parts[index] ?? ''), at);
    at += registerBytes(FIELD_BYTES[type]);
  }
  return bytes;
}
