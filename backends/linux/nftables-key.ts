/** Keys of sets as bytes: the parts one after the other, each filled up to whole registers (nftables: src/expression.c, concat_expr). */
import { type Ifname, ifnameProblem } from '../../model/ifname.ts';
import { type Ip, ipBytes, ipFromBytes } from '../../model/ip.ts';
import { type Mac, macBytes, macFromBytes } from '../../model/mac.ts';
import {
  FIELD_BYTES,
  type FieldType,
  type SetKey,
  type SetKeyType,
  fieldTypesOf,
  keyPartsOf,
  keyTypeOf,
} from '../../model/nftables.ts';

/** NFT_REG32_SIZE. */
const REGISTER_BYTES = 4;

/** nft's own numbers of data types, which the kernel only keeps (nftables: include/datatype.h). */
const TYPE_NUMBERS: Readonly<Record<FieldType, number>> = {
  ipv4_addr: 7,
  ipv6_addr: 8,
  ether_addr: 9,
  ifname: 41,
};
/** TYPE_BITS: so many bits each type takes in the number of a concatenation. */
const TYPE_BITS = 6;

const KEY_TYPES: readonly SetKeyType[] = [
  'ipv4_addr',
  'ipv6_addr',
  'ether_addr',
  'ifname',
  'ifname . ether_addr',
  'ifname . ipv4_addr',
  'ifname . ipv6_addr',
];

/** nft's number of a key type. */
export function keyTypeNumber(type: SetKeyType): number {
  let number = 0;
  for (const each of fieldTypesOf(type)) number = (number << TYPE_BITS) | TYPE_NUMBERS[each];
  return number;
}

/** The key type with this number, undefined for one that the model lacks. */
export function findKeyType(number: number | undefined): SetKeyType | undefined {
  for (const type of KEY_TYPES) if (keyTypeNumber(type) === number) return type;
  return undefined;
}

function paddedBytes(type: FieldType): number {
  return Math.ceil(FIELD_BYTES[type] / REGISTER_BYTES) * REGISTER_BYTES;
}

/** How many bytes keys of a type have. One that stands alone is not filled up. */
export function keyBytesOf(type: SetKeyType): number {
  const [first, second] = fieldTypesOf(type) as [FieldType, FieldType?];
  return second === undefined ? FIELD_BYTES[first] : paddedBytes(first) + paddedBytes(second);
}

function partBytes(type: FieldType, part: string): Uint8Array {
  if (type === 'ifname') return new TextEncoder().encode(part);
  return type === 'ether_addr' ? macBytes(part as Mac) : ipBytes(part as Ip);
}

/** The bytes of a key. */
export function encodeKey(key: SetKey): Uint8Array {
  const type = keyTypeOf(key);
  const bytes = new Uint8Array(keyBytesOf(type));
  const types = fieldTypesOf(type);
  let at = 0;
  for (const [index, part] of keyPartsOf(key).entries()) {
    const each = types[index] as FieldType;
    bytes.set(partBytes(each, part), at);
    at += paddedBytes(each);
  }
  return bytes;
}

function decodePart(type: FieldType, bytes: Uint8Array): Ip | Mac | Ifname | undefined {
  if (type === 'ether_addr') return macFromBytes(bytes);
  if (type !== 'ifname') return ipFromBytes(bytes);
  const nul = bytes.indexOf(0);
  const name = new TextDecoder().decode(nul < 0 ? bytes : bytes.subarray(0, nul));
  return ifnameProblem(name) === undefined ? (name as Ifname) : undefined;
}

/** The key in these bytes; undefined where they hold none that would be written as they are. */
export function decodeKey(type: SetKeyType, bytes: Uint8Array): SetKey | undefined {
  if (bytes.length !== keyBytesOf(type)) return undefined;
  let key = '';
  let at = 0;
  for (const each of fieldTypesOf(type)) {
    const part = decodePart(each, bytes.subarray(at, at + FIELD_BYTES[each]));
    if (part === undefined) return undefined;
    key += `${key === '' ? '' : ' . '}${part}`;
    at += paddedBytes(each);
  }
  return keyTypeOf(key as SetKey) === type ? (key as SetKey) : undefined;
}
