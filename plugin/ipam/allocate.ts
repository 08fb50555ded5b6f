import { type Family, type Ip, familyOf, ipBits, ipFromBits } from '../../model/ip.ts';
import { prefixLengthOf } from '../../model/prefix.ts';
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

/** The first address of a span that is neither taken nor a gateway. */
function firstFree(
  book: AddressBook,
  gateways: ReadonlySet<bigint>,
  { range, first, last }: Span,
): bigint | undefined {
  if (first > last) return undefined;
  const behindGateways = (bits: bigint): bigint => {
    let next = bits;
    while (gateways.has(next)) next += 1n;
    return next;
  };
  let candidate = behindGateways(first);
  for (const ip of book.takenBetween(
    ipFromBits(range.family, first),
    ipFromBits(range.family, last),
  )) {
    const taken = ipBits(ip);
    if (taken > candidate) break;
    if (taken === candidate) candidate = behindGateways(candidate + 1n);
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

/** The gateways of all sets: the bridge carries every one of them, not just that of the range. */
function gatewaysOf(sets: readonly RangeSet[], family: Family | undefined): Set<bigint> {
  const ranges = sets.flat().filter((range) => range.family === family);
  return new Set(ranges.map(({ gateway }) => ipBits(gateway)));
}

/**
 * The next free address of each range set, round robin: an address that was given back is handed out
 * last. Throws an error of code 102 when a set has none left.
 */
export function allocate(sets: readonly RangeSet[], book: AddressBook): AllocatedAddress[] {
  return sets.map((set, index) => {
    const gateways = gatewaysOf(sets, set[0]?.family);
    for (const span of spansFrom(set, book.lastOf(index))) {
      const bits = firstFree(book, gateways, span);
      if (bits !== undefined) {
        const { family, subnet, gateway } = span.range;
        return { ip: ipFromBits(family, bits), prefixLength: prefixLengthOf(subnet), gateway };
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
    sets.every((set, i) => {
      const address = addresses[i];
      const gateways = gatewaysOf(sets, set[0]?.family);
      return (
        address !== undefined &&
        !gateways.has(ipBits(address.ip)) &&
        set.some((range) => inRange(range, address))
      );
    })
  );
}

function inRange(range: AddressRange, address: AllocatedAddress): boolean {
  const bits = ipBits(address.ip);
  return (
    range.family === familyOf(address.ip) &&
    range.first <= bits &&
    bits <= range.last &&
    prefixLengthOf(range.subnet) === address.prefixLength &&
    address.gateway === range.gateway
  );
}
