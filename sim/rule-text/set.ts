/** Sets in words: those that have a name by it, others with what is in them, as nft prints them. */
import type { Hex, RawElement, RawSet } from '../../model/nft-expression.ts';
import { registerBytes } from '../../model/nft-key.ts';
import type { Table, Verdict } from '../../model/nftables.ts';
import { type ValueType, rangeText, turned } from './value.ts';

/** A field of a key: how it reads, and how many bytes it has in the registers. */
export interface KeyField {
  readonly type: ValueType;
  readonly bytes: number;
}

/** So many elements are named, of more the rest is counted. */
const ELEMENTS_MAX = 8;

/** The names that the kernel gives to sets which have none (net/netfilter/nf_tables_api.c, nf_tables_set_alloc_name). */
const ANONYMOUS = /^__(set|map)\d+$/;

/** A range of keys, and what the set holds for them. */
export interface ElementRange {
  readonly first: Hex;
  readonly last: Hex;
  readonly element: RawElement;
}

function before(key: Hex): Hex {
  return (BigInt(`0x${key}`) - 1n).toString(16).padStart(key.length, '0');
}

/** What is in a set; in one of intervals each goes up to where the next one begins or ends. */
export function rangesOf({ hasIntervals, elements }: RawSet): ElementRange[] {
  const known = elements.filter(({ key }) => key !== '');
  return known.flatMap((element, index) => {
    const { key, last, isEnd } = element;
    if (isEnd) return [];
    if (last !== undefined || !hasIntervals) return [{ first: key, last: last ?? key, element }];
    const next = known[index + 1]?.key;
    return [
      { first: key, last: next === undefined ? 'f'.repeat(key.length) : before(next), element },
    ];
  });
}

function keyText(fields: readonly KeyField[], first: Hex, last: Hex): string {
  const parts: string[] = [];
  let at = 0;
  for (const { type, bytes } of fields) {
    const part = (key: Hex): Hex => key.slice(at * 2, (at + bytes) * 2);
    if (part(first) !== '') parts.push(rangeText(type, part(first), part(last)));
    at += registerBytes(bytes);
  }
  const rest = first.slice(at * 2);
  return [...parts, ...(rest === '' ? [] : [`0x${rest}`])].join(' . ');
}

/** A verdict in words. */
function verdictText(verdict: Verdict): string {
  return 'chain' in verdict ? `${verdict.verdict} ${verdict.chain}` : verdict.verdict;
}

function heldText({ verdict, data }: RawElement, holds: ValueType): string {
  if (verdict) return ` : ${verdictText(verdict)}`;
  return data === undefined ? '' : ` : ${holds.text(data)}`;
}

/** Ranges as people count: numbers of the machine lie with their lowest byte first. */
function inOrder(
  ranges: readonly ElementRange[],
  [field, more]: readonly KeyField[],
): readonly ElementRange[] {
  if (!field?.type.isHostOrder || more) return ranges;
  return ranges.toSorted((a, b) => (turned(a.first) < turned(b.first) ? -1 : 1));
}

/** What is in a set, or maps to what, between braces; only so many of them. */
function elementsText(set: RawSet, fields: readonly KeyField[], holds: ValueType): string {
  const texts = inOrder(rangesOf(set), fields).map(
    ({ first, last, element }) => keyText(fields, first, last) + heldText(element, holds),
  );
  const others = set.elements.find(({ key }) => key === '');
  if (others) texts.push(`*${heldText(others, holds)}`);
  const left = texts.length - ELEMENTS_MAX;
  const shown = left > 0 ? [...texts.slice(0, ELEMENTS_MAX), `... ${left} more`] : texts;
  return `{ ${shown.join(', ')} }`;
}

/** A set that a rule of the table names, whose keys have these fields; what it holds reads as `holds`. */
export function setText(
  { rawSets }: Pick<Table, 'rawSets'>,
  name: string,
  fields: readonly KeyField[],
  holds: ValueType,
): string {
  const set = ANONYMOUS.test(name) ? rawSets?.[name] : undefined;
  return set ? elementsText(set, fields, holds) : `@${name}`;
}
