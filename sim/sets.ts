/** What a set holds for the bytes of a key (net/netfilter/nft_set_hash.c, nft_set_rbtree.c, nft_set_pipapo.c). */
import { type Hex, type RawElement, type RawSet, toHex } from '../model/nft-expression.ts';
import { layoutBytes, partsBytes, registerBytes } from '../model/nft-key.ts';
import {
  type FieldType,
  type NftSet,
  type Table,
  fieldTypesOf,
  keyPartsOf,
} from '../model/nftables.ts';
import { oncePer } from './remembered.ts';

/** Parts as they lie in registers. */
function partsHex(types: readonly FieldType[], parts: readonly string[]): Hex {
  return toHex(partsBytes(types, parts));
}

/** A set of the model by the bytes of its keys. */
function rawOf(set: NftSet): RawSet {
  const types = fieldTypesOf(set.keyType);
  const { holds } = set;
  return {
    name: set.name,
    hasIntervals: false,
    fieldBytes: [layoutBytes(types)],
    elements: Object.values(set.elements).map(({ key, verdict, target }) => ({
      key: partsHex(types, keyPartsOf(key)),
      ...(verdict ? { verdict } : {}),
      ...(target !== undefined && holds !== 'nothing' && holds !== 'verdict'
        ? { data: partsHex(fieldTypesOf(holds), keyPartsOf(target)) }
        : {}),
    })),
  };
}

const knownRaw = oncePer(rawOf);

/** A set of the table by its name; undefined where nobody read it. */
export function findRawSet(table: Table, name: string): RawSet | undefined {
  const set = table.sets[name];
  return set ? knownRaw(set) : table.rawSets?.[name];
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
    : fieldBytes.reduce((sum, bytes) => sum + registerBytes(bytes), 0);
}

/** Is each field of the key between those of the first and the last? */
function isBetween(fieldBytes: readonly number[], key: Hex, first: Hex, last: Hex): boolean {
  let at = 0;
  return fieldBytes.every((bytes) => {
    const part = (hex: Hex): Hex => hex.slice(at * 2, (at + bytes) * 2);
    const isIn = part(key) >= part(first) && part(key) <= part(last);
    at += registerBytes(bytes);
    return isIn;
  });
}

/** The elements of a set: the one for all keys that no other has, and the others, of equal keys the first. */
const sorted = oncePer(({ elements }: RawSet) => {
  const known = elements.filter((element) => element.key !== '');
  return {
    rest: elements.find((element) => element.key === ''),
    known,
    byKey: new Map(known.toReversed().map((element) => [element.key, element])),
  };
});

/** The element for a key, the one for all others where there is none; undefined without either. */
export function findRaw(set: RawSet, key: Hex): RawElement | undefined {
  const { hasIntervals, fieldBytes } = set;
  const { rest, known, byKey } = sorted(set);
  if (!hasIntervals) return byKey.get(key) ?? rest;
  const ranged = known.find(
    ({ key: first, last }) => last !== undefined && isBetween(fieldBytes, key, first, last),
  );
  if (ranged || fieldBytes.length > 1) return ranged ?? rest;
  // The last that begins before the key holds for it, or ended there.
  const before = known.findLast((element) => element.last === undefined && element.key <= key);
  return before && !before.isEnd ? before : rest;
}
