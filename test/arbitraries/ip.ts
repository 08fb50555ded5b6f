/** IP addresses by value, and the ways in which people write them. */
import fc from 'fast-check';
import type { Family } from '../../model/ip.ts';

/** An address as its family and value. */
export interface IpValue {
  readonly family: Family;
  readonly bits: bigint;
}

/** Values of addresses: any, and those of few ones or few zeros, where runs of zero groups begin and end. */
export function ipValues(family: Family): fc.Arbitrary<IpValue> {
  const length = family === 4 ? 32 : 128;
  const any = fc.bigInt({ min: 0n, max: (1n << BigInt(length)) - 1n });
  const groups = fc
    .array(fc.constantFrom(0n, 0n, 0n, 1n, 0xffn), {
      minLength: length / 16,
      maxLength: length / 16,
    })
    .map((parts) => parts.reduce<bigint>((bits, part) => (bits << 16n) | part, 0n));
  return fc.oneof(any, groups).map((bits) => ({ family, bits }));
}

/** An IPv6 address in one of the spellings of RFC 4291: long or short groups, either case, any run of zeros as `::`, or none, the end as a dotted quad or not. */
export function spellings(bits: bigint): fc.Arbitrary<string> {
  const groups = Array.from({ length: 8 }, (_, i) =>
    Number((bits >> BigInt(112 - 16 * i)) & 0xffffn),
  );
  return fc
    .record({
      pad: fc.boolean(),
      upper: fc.boolean(),
      quad: fc.boolean(),
      start: fc.nat(7),
      length: fc.integer({ min: 0, max: 8 }),
    })
    .map(({ pad, upper, quad, start, length }) => {
      const texts = groups.map((g) => {
        const hex = g.toString(16).padStart(pad ? 4 : 1, '0');
        return upper ? hex.toUpperCase() : hex;
      });
      let end = start;
      while (end < Math.min(8, start + length) && groups[end] === 0) end += 1;
      const [g6 = 0, g7 = 0] = groups.slice(6);
      const tail =
        quad && end <= 6
          ? [...texts.slice(end, 6), `${g6 >> 8}.${g6 & 255}.${g7 >> 8}.${g7 & 255}`]
          : texts.slice(end);
      const head = texts.slice(0, start);
      return end > start ? `${head.join(':')}::${tail.join(':')}` : [...head, ...tail].join(':');
    });
}
