/** What stands in registers, and comparisons with it, in the words of nft (nftables: src/netlink_delinearize.c, src/expression.c). */
import type { Action, Hex, Load } from '../../model/nft-expression.ts';
import type { Header, LoadedField } from './field.ts';
import { type ValueType, network } from './value.ts';

/** What stands in a register. */
export interface Loaded {
  /** In words; constants, and what maps hold, read as what they are used for. */
  readonly words: (as: ValueType) => string;
  /** How what it is compared with reads. */
  readonly type: ValueType;
  readonly bytes: number;
  readonly header?: Header;
  readonly tells?: Header;
  /** The fields that lie in it, where it is more than one. */
  readonly covers?: readonly LoadedField[];
  /** Some bits of a field. */
  readonly masked?: { readonly of: Loaded; readonly mask: Hex };
  /** Made of a field by calculating. */
  readonly isMade?: true;
  readonly constant?: Hex;
  /** What a map of that name holds. */
  readonly map?: string;
  /** Something that is not understood has loaded it. */
  readonly isUnknown?: true;
}

/** What is in a register of which nothing is known. */
export const UNKNOWN: Loaded = {
  words: () => '...',
  type: { text: (value) => `0x${value}` },
  bytes: 0,
  isUnknown: true,
};

const SIGNS = { eq: '', neq: '!= ', lt: '< ', lte: '<= ', gt: '> ', gte: '>= ' } as const;

/** A field in a register. */
export function ofField(field: LoadedField): Loaded {
  const { words, ...rest } = field;
  return { ...rest, words: () => words };
}

function isZero(value: Hex): boolean {
  return /^0*$/.test(value);
}

/** Every bit of one value that is set in another, or in either, or in one alone. */
function combine(a: Hex, b: Hex, how: (a: number, b: number) => number): Hex {
  return a.replaceAll(/../g, (byte, at: number) => {
    const other = Number.parseInt(b.slice(at, at + 2) || '00', 16);
    return (how(Number.parseInt(byte, 16), other) & 0xff).toString(16).padStart(2, '0');
  });
}

/** What `(x & mask) ^ xor` is in words (nftables: src/netlink_delinearize.c, netlink_parse_bitwise_bool). */
function calculated(words: string, type: ValueType, mask: Hex, xor: Hex): string {
  const sets = combine(xor, mask, (x, m) => x & ~m);
  const keeps = combine(mask, sets, (m, s) => m | s);
  const turns = combine(xor, mask, (x, m) => x & m);
  return [
    words,
    ...(/^f*$/.test(keeps) ? [] : [`& ${type.text(keeps)}`]),
    ...(isZero(turns) ? [] : [`^ ${type.text(turns)}`]),
    ...(isZero(sets) ? [] : [`| ${type.text(sets)}`]),
  ].join(' ');
}

/** What `bitwise` makes of what is in a register. */
export function ofBits(from: Loaded, { mask, xor }: Load & { readonly name: 'bitwise' }): Loaded {
  const { type } = from;
  const text = calculated(from.words(type), type, mask, xor);
  const isMask = isZero(xor) && !from.isMade;
  return {
    ...from,
    words: () => text,
    isMade: true,
    ...(isMask ? { masked: { of: from, mask } } : {}),
  };
}

/** The bits of a mask, if they are the first ones and all others are not. */
function maskPrefix(mask: Hex): number | undefined {
  const bits = network(mask)
    .toString(2)
    .padStart(mask.length * 4, '0');
  return /^1*0*$/.test(bits) ? bits.lastIndexOf('1') + 1 : undefined;
}

/** Asks whether some of the bits are set, and which. */
function flagsText(of: Loaded, mask: Hex, value: Hex, isEqual: boolean): string {
  const flags = of.type.flags ?? (() => []);
  const words = of.words(of.type);
  const asked = flags(mask);
  if (isZero(value)) return `${words} ${isEqual ? '! ' : ''}${asked.join(',')}`;
  if (value === mask && asked.length === 1)
    return `${words} & ${asked[0]} ${isEqual ? '==' : '!='} ${asked[0]}`;
  return `${words} ${isEqual ? '' : '!= '}${flags(value).join(',')} / ${asked.join(',')}`;
}

/** What is compared with a value of another length; only of addresses and names it is known what their beginning is. */
export function ofLength(loaded: Loaded, value: Hex): Loaded {
  const { bytes, type } = loaded;
  const isWhole = bytes === 0 || value.length === bytes * 2 || type.hasBeginning;
  return isWhole
    ? loaded
    : { words: (as) => `${loaded.words(as)} ...`, type: UNKNOWN.type, bytes, isUnknown: true };
}

/** A comparison. */
export function compareText(
  loaded: Loaded,
  { comparison, value }: Action & { readonly name: 'cmp' },
): string {
  const { type, masked } = loaded;
  const words = loaded.words(type);
  const isEquality = comparison === 'eq' || comparison === 'neq';
  if (masked && isEquality) {
    const { of, mask } = masked;
    if (of.type.flags) return flagsText(of, mask, value, comparison === 'eq');
    const bits = of.type.isAddress ? maskPrefix(mask) : undefined;
    if (bits !== undefined && bits > 0)
      return `${of.words(type)} ${SIGNS[comparison]}${type.text(value)}/${bits}`;
  }
  const isOneFlag = !type.flags || type.flags(value).length === 1;
  // Several flags in a header nft prints as a number.
  const isNumber = !isOneFlag && loaded.header !== undefined;
  const text = isNumber ? `0x${network(value).toString(16)}` : type.text(value);
  const isSaid = loaded.isMade || (type.flags && (isOneFlag || isNumber));
  const sign = comparison === 'eq' && isSaid ? '== ' : SIGNS[comparison];
  return `${words} ${sign}${text}`;
}

/** All from one value to another. */
export function betweenText(
  { words, type, isMade }: Loaded,
  { low, high, negate }: Action & { readonly name: 'range' },
): string {
  const sign = negate ? '!= ' : isMade ? '== ' : '';
  return `${words(type)} ${sign}${type.text(low)}-${type.text(high)}`;
}
