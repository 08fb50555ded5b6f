/** Keys of sets as bytes: the parts one after the other, each filled up to whole registers (nftables: src/expression.c, concat_expr). */
import { type Ifname, ifnameProblem } from '../../model/ifname.ts';
import { ipFromBytes } from '../../model/ip.ts';
import { macFromBytes } from '../../model/mac.ts';
import { layoutBytes, partsBytes, registerBytes } from '../../model/nft-key.ts';
import {
  FIELD_BYTES,
  type FieldType,
  type SetKey,
  type SetKeyType,
  TRANSPORTS,
  type Target,
  type TargetType,
  type Transport,
  fieldTypesOf,
  keyPartsOf,
  keyTypeOf,
  targetTypeOf,
} from '../../model/nftables.ts';

/** nft's own numbers of data types, which the kernel only keeps (nftables: include/datatype.h). */
const TYPE_NUMBERS: Readonly<Record<FieldType, number>> = {
  ipv4_addr: 7,
  ipv6_addr: 8,
  ether_addr: 9,
  ifname: 41,
  inet_proto: 12,
  inet_service: 13,
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
  'ifname . ifname',
  'inet_proto . inet_service',
  'ipv4_addr . inet_proto . inet_service',
  'ipv6_addr . inet_proto . inet_service',
];

const TARGET_TYPES: readonly TargetType[] = [
  'ipv4_addr . inet_service',
  'ipv6_addr . inet_service',
];

/** nft's number of the type of keys or targets. */
export function typeNumber(type: SetKeyType | TargetType): number {
  let number = 0;
  for (const each of fieldTypesOf(type)) number = (number << TYPE_BITS) | TYPE_NUMBERS[each];
  return number;
}

/** The key type with this number, undefined for one that the model lacks. */
export function findKeyType(number: number | undefined): SetKeyType | undefined {
  for (const type of KEY_TYPES) if (typeNumber(type) === number) return type;
  return undefined;
}

/** The type of targets with this number, undefined for one that the model lacks. */
export function findTargetType(number: number | undefined): TargetType | undefined {
  for (const type of TARGET_TYPES) if (typeNumber(type) === number) return type;
  return undefined;
}

/** The bytes that a link's name is compared with: all of a field, so that no other name begins so. */
export function encodeIfname(name: Ifname): Uint8Array {
  return partsBytes(['ifname'], [name]);
}

/** The name in these bytes; undefined where they hold none, or only the beginning of names. iptables compares no more than the name and its end. */
export function decodeIfname(bytes: Uint8Array): Ifname | undefined {
  if (bytes.length > FIELD_BYTES.ifname || bytes.at(-1) !== 0) return undefined;
  const padded = new Uint8Array(FIELD_BYTES.ifname);
  padded.set(bytes);
  return decodePart('ifname', padded) as Ifname | undefined;
}

/** The bytes of a key. */
export function encodeKey(key: SetKey): Uint8Array {
  return encodeParts(keyTypeOf(key), key);
}

/** The bytes of a target. */
export function encodeTarget(target: Target): Uint8Array {
  return encodeParts(targetTypeOf(target), target);
}

function encodeParts(type: SetKeyType | TargetType, text: SetKey | Target): Uint8Array {
  return partsBytes(fieldTypesOf(type), keyPartsOf(text));
}

const TRANSPORT_NAMES = Object.keys(TRANSPORTS) as Transport[];

function decodePart(type: FieldType, bytes: Uint8Array): string | undefined {
  if (type === 'inet_proto') return TRANSPORT_NAMES.find((name) => TRANSPORTS[name] === bytes[0]);
  if (type === 'inet_service') return `${((bytes[0] ?? 0) << 8) | (bytes[1] ?? 0)}`;
  if (type === 'ether_addr') return macFromBytes(bytes);
  if (type !== 'ifname') return ipFromBytes(bytes);
  const nul = bytes.indexOf(0);
  const name = new TextDecoder().decode(nul < 0 ? bytes : bytes.subarray(0, nul));
  return ifnameProblem(name) === undefined ? name : undefined;
}

/** The parts in these bytes, joined; undefined where they hold none that would be written as they are. */
function decodeParts(type: SetKeyType | TargetType, bytes: Uint8Array): string | undefined {
  if (bytes.length !== layoutBytes(fieldTypesOf(type))) return undefined;
  let text = '';
  let at = 0;
  for (const each of fieldTypesOf(type)) {
    const part = decodePart(each, bytes.subarray(at, at + FIELD_BYTES[each]));
    if (part === undefined) return undefined;
    text += `${text === '' ? '' : ' . '}${part}`;
    at += registerBytes(FIELD_BYTES[each]);
  }
  return text;
}

/** The key in these bytes; undefined where they hold none that the model has. */
export function decodeKey(type: SetKeyType, bytes: Uint8Array): SetKey | undefined {
  const key = decodeParts(type, bytes);
  return key !== undefined && keyTypeOf(key as SetKey) === type ? (key as SetKey) : undefined;
}

/** The target in these bytes; undefined where they hold none. */
export function decodeTarget(type: TargetType, bytes: Uint8Array): Target | undefined {
  return decodeParts(type, bytes) as Target | undefined;
}
