/** Range sets small enough to walk through, of both families, at the ends of the address space too. */
import fc from 'fast-check';
import { ADDRESS_BITS, type Family, ipFromBits } from '../../model/ip.ts';
import { prefixOf } from '../../model/prefix.ts';
import type { AddressRange, RangeSet } from '../../plugin/ipam/ranges.ts';

const BASES: Readonly<Record<Family, readonly bigint[]>> = {
  4: [0x0a000000n, 0x0a0000f0n, 0xffffff00n, 0xfffffff8n, 0n],
  6: [0xfd00n << 112n, (0xfd00n << 112n) | 0xfff8n, (1n << 128n) - 64n, (1n << 64n) - 8n],
};

/** A range of up to eight addresses from `first`; its gateway is in it, beside it or far from it. */
function ranges(family: Family, first: bigint): fc.Arbitrary<AddressRange> {
  const end = (1n << BigInt(ADDRESS_BITS[family])) - 1n;
  const clip = (bits: bigint): bigint => (bits < 0n ? 0n : bits > end ? end : bits);
  return fc
    .record({
      length: fc.integer({ min: 1, max: 8 }),
      gateway: fc.integer({ min: -12, max: 20 }),
      excluded: fc.array(fc.tuple(fc.integer({ min: -2, max: 8 }), fc.nat(3)), { maxLength: 2 }),
    })
    .map(({ length, gateway, excluded }) => ({
      family,
      subnet: prefixOf(ipFromBits(family, clip(first)), ADDRESS_BITS[family] - 8),
      first: clip(first),
      last: clip(first + BigInt(length) - 1n),
      gateway: ipFromBits(family, clip(first + BigInt(gateway))),
      excluded: excluded.map(([at, more]) => ({
        first: clip(first + BigInt(at)),
        last: clip(first + BigInt(at + more)),
      })),
    }));
}

/** Sets of up to three ranges that do not overlap. */
export function rangeSets(): fc.Arbitrary<RangeSet> {
  return fc.constantFrom<Family>(4, 6).chain((family) =>
    fc
      .tuple(
        fc.constantFrom(...BASES[family]),
        fc.uniqueArray(fc.nat(4), { minLength: 1, maxLength: 3 }),
      )
      .chain(([base, places]) =>
        fc.tuple(...places.map((place) => ranges(family, base + BigInt(place) * 10n))),
      )
      // At the end of the address space, ranges are pressed into one.
      .map((set) =>
        set.filter(
          (range, i) => set.findIndex((r) => r.first <= range.last && range.first <= r.last) === i,
        ),
      ),
  );
}
