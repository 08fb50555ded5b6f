/** What a set holds for the bytes of a key (net/netfilter/nft_set_hash.c, nft_set_rbtree.c, nft_set_pipapo.c). */
import { type Ip, ipBytes as addressBytes } from '../model/ip.ts';
import { type Mac, macBytes } from '../model/mac.ts';
import { type Hex, type RawElement, type RawSet, toHex } from '../model/nft-expression.ts';
import {
  FIELD_BYTES,
  type FieldType,
  type NftSet,
  TRANSPORTS,
  type Table,
  type Transport,
  fieldTypesOf,
  keyPartsOf,
} from '../model/nftables.ts';

const REGISTER_BYTES = 4;

/** Whole registers. */
function padded(bytes: number): number {
  return Math.ceil(bytes / REGISTER_BYTES) * REGISTER_BYTES;
}

function partBytes(type: FieldType, part: string): Uint8Array {
  if (type === 'ifname') return new TextEncoder().encode(part);
  if (type === 'inet_proto') return Uint8Array.of(TRANSPORTS[part as Transport]);
  if (type === 'inet_service') return Uint8Array.of(Number(part) >> 8, Number(part) & 255);
  return type === 'ether_addr' ? macBytes(part as Mac) : addressBytes(part as Ip);
}

/** Parts as they lie in registers, one behind the other. */
function partsHex(types: readonly FieldType[], parts: readonly string[]): Hex {
  return types
    .map((type, i) => {
      const size = types.length === 1 ? FIELD_BYTES[type] : padded(FIELD_BYTES[type]);
      const bytes = new Uint8Array(size);
      bytes.set(partBytes(type, parts[i] ?? ''));
      return toHex(bytes);
    })
    .join('');
}

/** A set of the model by the bytes of its keys. */
function rawOf(set: NftSet): RawSet {
  const types = fieldTypesOf(set.keyType);
  const { holds } = set;
  return {
    name: set.name,
    hasIntervals: false,
    fieldBytes: [partsHex(types, types.map(emptyPart)).length / 2],
    elements: Object.values(set.elements).map(({ key, verdict, target }) => ({
      key: partsHex(types, keyPartsOf(key)),
      ...(verdict ? { verdict } : {}),
      ...(target !== undefined && holds !== 'nothing' && holds !== 'verdict'
        ? { data: partsHex(fieldTypesOf(holds), keyPartsOf(target)) }
        : {}),
    })),
  };
}

/** Something that stands in a field of the type, to learn how long that is. */
function emptyPart(type: FieldType): string {
  const parts: Readonly<Record<FieldType, string>> = {
    ipv4_addr: '0.0.0.0',
    ipv6_addr: '::',
    ether_addr: '00:00:00:00:00:00',
    ifname: '',
    inet_proto: 'tcp',
    inet_service: '0',
  };
  return parts[type];
}

const RAW = new WeakMap<NftSet, RawSet>();

/** A set of the table by its name; undefined where nobody read it. */
export function findRawSet(table: Table, name: string): RawSet | undefined {
  const set = table.sets[name];
  if (!set) return table.rawSets?.[name];
  const raw = RAW.get(set) ?? rawOf(set);
  RAW.set(set, raw);
  return raw;
}

/** The element of a set that the model lacks for these parts of a key. */
export function findRawParts(
  raw: RawSet | undefined,
  types: readonly FieldType[],
  parts: readonly string[],
): RawElement | undefined {
  return raw && findRaw(raw, partsHex(types, parts));
}

/** How many bytes a key takes in the registers. */
export function keyBytes({ fieldBytes }: RawSet): number {
  return fieldBytes.length === 1
    ? (fieldBytes[0] ?? 0)
    : fieldBytes.reduce((sum, bytes) => sum + padded(bytes), 0);
}

/** Is each field of the key between those of the first and the last? */
function isBetween(fieldBytes: readonly number[], key: Hex, first: Hex, last: Hex): boolean {
  let at = 0;
  return fieldBytes.every((bytes) => {
    const part = (hex: Hex): Hex => hex.slice(at * 2, (at + bytes) * 2);
    const isIn = part(key) >= part(first) && part(key) <= part(last);
    at += padded(bytes);
    return isIn;
  });
}

/** The element for a key, the one for all others where there is none; undefined without either. */
export function findRaw(
  { hasIntervals, fieldBytes, elements }: RawSet,
  key: Hex,
): RawElement | undefined {
  const rest = elements.find((element) => element.key === '');
  const known = elements.filter((element) => element.key !== '');
  if (!hasIntervals) return known.find((element) => element.key === key) ?? rest;
  const ranged = known.find(
    ({ key: first, last }) => last !== undefined && isBetween(fieldBytes, key, first, last),
  );
  if (ranged || fieldBytes.length > 1) return ranged ?? rest;
  // The last that begins before the key holds for it, or ended there.
  const before = known.findLast((element) => element.last === undefined && element.key <= key);
  return before && !before.isEnd ? before : rest;
}
