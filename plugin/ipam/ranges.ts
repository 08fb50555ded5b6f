import {
  ADDRESS_BITS,
  type Family,
  type Ip,
  familyOf,
  ipBits,
  ipFromBits,
} from '../../model/ip.ts';
import {
  type Prefix,
  lastIp,
  prefixContains,
  prefixIp,
  prefixLengthOf,
} from '../../model/prefix.ts';
import type { ConfigRange, IpamConfig } from '../cni/config.ts';
import { CNI_ERROR, CniError } from '../cni/error.ts';

/** Addresses that are not handed out, both ends included. */
export interface ExcludedSpan {
  readonly first: bigint;
  readonly last: bigint;
}

/** Addresses from `first` to `last`, without the gateway and those that are excluded. */
export interface AddressRange {
  readonly family: Family;
  readonly subnet: Prefix;
  readonly first: bigint;
  readonly last: bigint;
  readonly gateway: Ip;
  readonly excluded: readonly ExcludedSpan[];
}

/** Alternatives: a pod gets one address of the set. All of one family. */
export type RangeSet = readonly AddressRange[];

function fail(message: string): never {
  throw new CniError(CNI_ERROR.invalidConfig, message);
}

/** Fills in what host-local also fills in: the first address as gateway, the range between it and the broadcast address. */
function resolveRange(range: ConfigRange, excludedEverywhere: readonly Prefix[]): AddressRange {
  const { subnet } = range;
  const family = familyOf(subnet);
  // Of a smaller subnet nothing is left after network, gateway and broadcast address.
  if (prefixLengthOf(subnet) > ADDRESS_BITS[family] - 2)
    fail(`network ${subnet} too small to allocate from`);
  const network = ipBits(prefixIp(subnet));
  const end = ipBits(lastIp(subnet)) - (family === 4 ? 1n : 0n);
  for (const [key, ip] of [
    ['rangeStart', range.rangeStart],
    ['rangeEnd', range.rangeEnd],
  ] as const) {
    if (ip !== undefined && !prefixContains(subnet, ip))
      fail(`${key} ${ip} not in network ${subnet}`);
  }
  if (range.gateway !== undefined && familyOf(range.gateway) !== family)
    fail(`gateway ${range.gateway} is not of the family of network ${subnet}`);
  const first = range.rangeStart === undefined ? network + 1n : ipBits(range.rangeStart);
  const last = range.rangeEnd === undefined ? end : ipBits(range.rangeEnd);
  if (first > last)
    fail(`rangeStart ${ipFromBits(family, first)} is behind rangeEnd ${ipFromBits(family, last)}`);
  return {
    family,
    subnet,
    first,
    last,
    gateway: range.gateway ?? ipFromBits(family, network + 1n),
    excluded: [...(range.exclude ?? []), ...excludedEverywhere]
      .filter((prefix) => familyOf(prefix) === family)
      .map((prefix) => ({ first: ipBits(prefixIp(prefix)), last: ipBits(lastIp(prefix)) })),
  };
}

function overlap(a: AddressRange, b: AddressRange): boolean {
  return a.family === b.family && a.first <= b.last && b.first <= a.last;
}

/** A range as messages and plans write it. */
export function formatRange({ family, first, last }: AddressRange): string {
  return `${ipFromBits(family, first)}-${ipFromBits(family, last)}`;
}

/** How many addresses of a set can be handed out: those of its ranges that are neither a gateway of theirs nor excluded. */
export function capacityOf(set: RangeSet): bigint {
  return set.reduce((sum, { first, last, gateway, excluded }) => {
    const bits = ipBits(gateway);
    const blocked = [{ first: bits, last: bits }, ...excluded].toSorted((a, b) =>
      a.first < b.first ? -1 : 1,
    );
    let [free, next] = [last - first + 1n, first];
    for (const span of blocked) {
      const from = span.first > next ? span.first : next;
      const to = span.last < last ? span.last : last;
      if (from > to) continue;
      free -= to - from + 1n;
      next = to + 1n;
    }
    return sum + free;
  }, 0n);
}

/**
 * The range sets of a configuration: those that the runtime chose first, then the one written in the old style
 * (`subnet`), as host-local has it. Throws an error of code 7 that names the range.
 */
export function rangeSetsOf(
  ipam: IpamConfig,
  chosen: readonly (readonly ConfigRange[])[] = [],
): readonly RangeSet[] {
  const { subnet, rangeStart, rangeEnd, gateway } = ipam;
  if (subnet === undefined && (rangeStart ?? rangeEnd ?? gateway) !== undefined)
    fail('ipam: rangeStart, rangeEnd and gateway need a subnet beside them');
  const old: ConfigRange[][] =
    subnet === undefined ? [] : [[{ subnet, rangeStart, rangeEnd, gateway }]];
  const sets = [...chosen, ...old, ...(ipam.ranges ?? [])].map((set) =>
    set.map((range) => resolveRange(range, ipam.exclude ?? [])),
  );
  if (sets.length === 0) fail('no IP ranges specified');
  for (const [index, set] of sets.entries()) {
    if (set.length === 0) fail(`invalid range set ${index}: empty range set`);
    if (set.some((range) => range.family !== set[0]?.family))
      fail(`invalid range set ${index}: mixed address families`);
    const ranges = sets.slice(0, index + 1).flat();
    for (const [i, range] of ranges.entries()) {
      const other = ranges.slice(0, i).find((r) => overlap(r, range));
      if (other) fail(`range ${formatRange(range)} overlaps with ${formatRange(other)}`);
    }
  }
  return sets;
}
