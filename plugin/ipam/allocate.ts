import { type Ip, ipBits, ipFromBits } from '../../model/ip.ts';
import { CNI_ERROR, CniError } from '../cni/error.ts';
import { type AddressRange, type RangeSet, formatRange } from './ranges.ts';

/** An address that a pod gets. */
export interface AllocatedAddress {
  readonly ip: Ip;
  readonly prefixLength: number;
  readonly gateway: Ip;
}

/** What is known of the addresses of a network. */
export interface AddressBook {
  /** The address handed out last from a range set, undefined before the first. */
  readonly lastOf: (set: number) => Ip | undefined;
  /** Those in use between two addresses, both included, in ascending order; read no further than needed. */
  readonly takenBetween: (first: Ip, last: Ip) => Iterable<Ip>;
}

/** The first address of a span that is neither taken nor the range's gateway. */
function firstFree(
  book: AddressBook,
  range: AddressRange,
  first: bigint,
  last: bigint,
): bigint | undefined {
  if (first > last) return undefined;
  const gateway = ipBits(range.gateway);
  let candidate = first === gateway ? first + 1n : first;
  for (const ip of book.takenBetween(
    ipFromBits(range.family, first),
    ipFromBits(range.family, last),
  )) {
    const taken = ipBits(ip);
    if (taken > candidate) break;
    if (taken === candidate) candidate += 1n;
    if (candidate === gateway) candidate += 1n;
  }
  return candidate > last ? undefined : candidate;
}

/** The spans of a set in the order in which they are searched: behind the last address, round to it again. */
function spansFrom(
  set: RangeSet,
  last: Ip | undefined,
): { range: AddressRange; first: bigint; last: bigint }[] {
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

/**
 * The next free address of each range set, round robin: an address that was given back is handed out
 * last. Throws an error of code 102 when a set has none left.
 */
export function allocate(sets: readonly RangeSet[], book: AddressBook): AllocatedAddress[] {
  return sets.map((set, index) => {
    for (const { range, first, last } of spansFrom(set, book.lastOf(index))) {
      const bits = firstFree(book, range, first, last);
      if (bits !== undefined) {
        const prefixLength = Number(range.subnet.slice(range.subnet.indexOf('/') + 1));
        return { ip: ipFromBits(range.family, bits), prefixLength, gateway: range.gateway };
      }
    }
    throw new CniError(
      CNI_ERROR.exhausted,
      `no IP addresses available in range set ${index}: ${set.map(formatRange).join(', ')}`,
    );
  });
}

/** Could these addresses have come from these sets? One of each, in their order. */
export function fits(sets: readonly RangeSet[], addresses: readonly AllocatedAddress[]): boolean {
  return (
    sets.length === addresses.length &&
    sets.every((set, i) => set.some((r) => addresses[i] !== undefined && inRange(r, addresses[i])))
  );
}

function inRange(range: AddressRange, address: AllocatedAddress): boolean {
  const bits = ipBits(address.ip);
  return (
    range.subnet.includes(':') === address.ip.includes(':') &&
    range.first <= bits &&
    bits <= range.last &&
    address.gateway === range.gateway
  );
}
