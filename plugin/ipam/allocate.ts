import { type Family, type Ip, familyOf, ipBits, ipFromBits } from '../../model/ip.ts';
import { type Prefix, prefixLengthOf, prefixOf } from '../../model/prefix.ts';
import { CNI_ERROR, CniError } from '../cni/error.ts';
import { type AddressRange, type ExcludedSpan, type RangeSet, formatRange } from './ranges.ts';

/** An address that a pod gets. */
export interface AllocatedAddress {
  readonly ip: Ip;
  readonly prefixLength: number;
  /** Null only where another plugin gave the address without one. */
  readonly gateway: Ip | null;
  /** The subnet that the address was handed out of, where the prefix length does not tell it: in mode `ptp`. */
  readonly subnet?: Prefix;
}

/** The subnet that an address was handed out of. */
export function subnetOf({ ip, prefixLength, subnet }: AllocatedAddress): Prefix {
  return subnet ?? prefixOf(ip, prefixLength);
}

/** What is known of the addresses of a network. */
export interface AddressBook {
  /** The address handed out last from a range set, undefined before the first. */
  readonly lastOf: (set: number) => Ip | undefined;
  /** Those in use, or not to be used again yet, between two addresses, both included, in ascending order; read no further than needed. */
  readonly takenBetween: (first: Ip, last: Ip) => Iterable<Ip>;
  /** Is the address in use? One that is only not to be used again yet is not. */
  readonly isTaken: (ip: Ip) => boolean;
}

/** The spans of a family that nobody gets: excluded ones, and the gateways of all sets, since the bridge carries every one of them. */
function blockedSpans(sets: readonly RangeSet[], family: Family | undefined): ExcludedSpan[] {
  return sets
    .flat()
    .filter((range) => range.family === family)
    .flatMap(({ gateway, excluded }) => {
      const bits = ipBits(gateway);
      return [{ first: bits, last: bits }, ...excluded];
    });
}

/** The span that holds an address, if one does. */
function spanAround(spans: readonly ExcludedSpan[], bits: bigint): ExcludedSpan | undefined {
  for (const span of spans) if (span.first <= bits && bits <= span.last) return span;
  return undefined;
}

/** The first address of a span that nobody has and nothing blocks. */
function firstFree(
  book: AddressBook,
  blocked: readonly ExcludedSpan[],
  { range, first, last }: Span,
): bigint | undefined {
  const behindBlocked = (bits: bigint): bigint => {
    let next = bits;
    for (;;) {
      const span = spanAround(blocked, next);
      if (!span) return next;
      next = span.last + 1n;
    }
  };
  if (first > last) return undefined;
  let candidate = behindBlocked(first);
  for (const ip of book.takenBetween(
    ipFromBits(range.family, first),
    ipFromBits(range.family, last),
  )) {
    const taken = ipBits(ip);
    if (taken > candidate) break;
    if (taken === candidate) candidate = behindBlocked(candidate + 1n);
  }
  return candidate > last ? undefined : candidate;
}

/** Addresses of a range that are searched in ascending order. */
interface Span {
  readonly range: AddressRange;
  readonly first: bigint;
  readonly last: bigint;
}

/** The spans of a set in the order in which they are searched: behind the last address, round to it again. */
function spansFrom(set: RangeSet, last: Ip | undefined): Span[] {
  const whole = set.map((range) => ({ range, first: range.first, last: range.last }));
  if (last === undefined) return whole;
  const bits = ipBits(last);
  const at = set.findIndex((range) => range.first <= bits && bits <= range.last);
  const here = whole[at];
  if (here === undefined) return whole;
  return [
    { ...here, first: bits + 1n },
    ...whole.slice(at + 1),
    ...whole.slice(0, at),
    { ...here, last: bits },
  ];
}

/** A range of the set that an address lies in. */
function rangeAround(set: RangeSet, ip: Ip): AddressRange | undefined {
  const bits = ipBits(ip);
  return set.find(
    (range) => range.family === familyOf(ip) && range.first <= bits && bits <= range.last,
  );
}

function allocated(range: AddressRange, ip: Ip): AllocatedAddress {
  return { ip, prefixLength: prefixLengthOf(range.subnet), gateway: range.gateway };
}

function formatSet(set: RangeSet): string {
  return set.map(formatRange).join(', ');
}

/** The address of a set that was asked for, undefined when none of those that were lies in it. */
function requestedOf(
  sets: readonly RangeSet[],
  set: RangeSet,
  book: AddressBook,
  requested: readonly Ip[],
): AllocatedAddress | undefined {
  for (const ip of requested) {
    const range = rangeAround(set, ip);
    if (!range) continue;
    if (spanAround(blockedSpans(sets, range.family), ipBits(ip)))
      throw new CniError(
        CNI_ERROR.invalidConfig,
        `requested IP address ${ip} cannot be handed out`,
        'it is a gateway, or excluded by the configuration',
      );
    if (book.isTaken(ip))
      throw new CniError(
        CNI_ERROR.taken,
        `requested IP address ${ip} is not available in range set ${formatSet(set)}`,
        'another attachment has it',
      );
    return allocated(range, ip);
  }
  return undefined;
}

/** The next free address of a set, round robin: one that was given back is handed out last. */
function nextOf(
  sets: readonly RangeSet[],
  set: RangeSet,
  index: number,
  book: AddressBook,
): AllocatedAddress {
  const blocked = blockedSpans(sets, set[0]?.family);
  for (const span of spansFrom(set, book.lastOf(index))) {
    const bits = firstFree(book, blocked, span);
    if (bits !== undefined) return allocated(span.range, ipFromBits(span.range.family, bits));
  }
  throw new CniError(
    CNI_ERROR.exhausted,
    `no IP addresses available in range set ${index}: ${formatSet(set)}`,
  );
}

/**
 * An address of each range set: the one that was requested of it, else the next free one. Throws an error of code 102 when
 * a set has none left, of code 101 when a requested one is taken, and of code 7 when one is of no set or may not be had.
 */
export function allocate(
  sets: readonly RangeSet[],
  book: AddressBook,
  requested: readonly Ip[] = [],
): AllocatedAddress[] {
  const chosen = sets.map((set) => requestedOf(sets, set, book, requested));
  const left = requested.filter((ip) => !chosen.some((address) => address?.ip === ip));
  if (left.length > 0)
    throw new CniError(
      CNI_ERROR.invalidConfig,
      `failed to allocate all requested IPs: ${left.join(', ')}`,
      `a pod gets one address of each range set: ${sets.map(formatSet).join('; ')}`,
    );
  return sets.map((set, index) => chosen[index] ?? nextOf(sets, set, index, book));
}

/** Could these addresses have come from these sets, with these requested? One of each, in their order. */
export function fits(
  sets: readonly RangeSet[],
  addresses: readonly AllocatedAddress[],
  requested: readonly Ip[] = [],
): boolean {
  return (
    sets.length === addresses.length &&
    requested.every((ip) => addresses.some((address) => address.ip === ip)) &&
    sets.every((set, i) => {
      const address = addresses[i];
      const range = address && rangeAround(set, address.ip);
      return (
        address !== undefined &&
        range !== undefined &&
        !spanAround(blockedSpans(sets, range.family), ipBits(address.ip)) &&
        subnetOf(address) === range.subnet &&
        range.gateway === address.gateway
      );
    })
  );
}
