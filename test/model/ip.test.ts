import fc from 'fast-check';
import { IPv4, IPv4CidrRange, IPv6, IPv6CidrRange } from 'ip-num';
import { describe, expect, it } from 'vitest';
import {
  type Ip,
  findIp,
  ipBits,
  ipBytes,
  ipFromBits,
  ipFromBytes,
  parseIp,
} from '../../model/ip.ts';
import {
  type Prefix,
  findPrefixedIp,
  lastIp,
  parsePrefix,
  prefixContains,
  prefixIp,
  prefixLengthOf,
  prefixOf,
  prefixesOverlap,
} from '../../model/prefix.ts';
import { type IpValue, ipValues, spellings } from '../arbitraries/ip.ts';

// ip-num is another implementation of the same arithmetic, over other representations: it is the oracle.

function range(prefix: Prefix): IPv4CidrRange | IPv6CidrRange {
  return prefix.includes(':') ? IPv6CidrRange.fromCidr(prefix) : IPv4CidrRange.fromCidr(prefix);
}

/** The values of the first and the last address. */
function endsOf(prefix: Prefix): [bigint, bigint] {
  return [range(prefix).getFirst().getValue(), range(prefix).getLast().getValue()];
}

function anyIps(): fc.Arbitrary<IpValue> {
  return fc.oneof(ipValues(4), ipValues(6));
}

/** A prefix and addresses near it, so that some are inside and some are not. */
function prefixes(): fc.Arbitrary<{ prefix: Prefix; near: Ip }> {
  return anyIps().chain(({ family, bits }) => {
    const size = family === 4 ? 32 : 128;
    return fc
      .record({
        length: fc.integer({ min: 0, max: size }),
        flip: fc.integer({ min: 0, max: size }),
      })
      .map(({ length, flip }) => ({
        prefix: prefixOf(ipFromBits(family, bits), length),
        near: ipFromBits(family, flip === size ? bits : bits ^ (1n << BigInt(flip))),
      }));
  });
}

describe('an address', () => {
  it('has the value that ip-num reads', () => {
    fc.assert(
      fc.property(ipValues(4), ({ bits }) => {
        const text = new IPv4(bits).toString();
        expect(ipBits(parseIp(text))).toBe(bits);
        expect(ipFromBits(4, bits)).toBe(text);
      }),
    );
    fc.assert(
      fc.property(ipValues(6), ({ bits }) => {
        expect(ipBits(parseIp(IPv6.fromBigInt(bits).toString()))).toBe(bits);
        expect(IPv6.fromString(ipFromBits(6, bits)).getValue()).toBe(bits);
      }),
    );
  });

  it('has one canonical text, however it was written', () => {
    fc.assert(
      fc.property(
        ipValues(6).chain(({ bits }) => fc.tuple(fc.constant(bits), spellings(bits))),
        ([bits, text]) => {
          expect(parseIp(text)).toBe(ipFromBits(6, bits));
          expect(parseIp(ipFromBits(6, bits))).toBe(ipFromBits(6, bits));
        },
      ),
      { numRuns: 500 },
    );
  });

  it('is written as RFC 5952 has it', () => {
    fc.assert(
      fc.property(ipValues(6), ({ bits }) => {
        const text = ipFromBits(6, bits);
        expect(text).toBe(text.toLowerCase());
        expect(text).not.toMatch(/(^|:)0[0-9a-f]/);
        const groups = bits.toString(16).padStart(32, '0').match(/.{4}/g) ?? [];
        const zeros = groups.map((group) => (group === '0000' ? '0' : '.')).join('');
        const longest = Math.max(...zeros.split('.').map((run) => run.length));
        const left = text.split('::').flatMap((half) => (half === '' ? [] : half.split(':')));
        expect(left).toHaveLength(longest >= 2 ? 8 - longest : 8);
      }),
      { numRuns: 500 },
    );
  });

  it('is in bytes what it is as text', () => {
    fc.assert(
      fc.property(anyIps(), ({ family, bits }) => {
        const ip = ipFromBits(family, bits);
        const hex = bits.toString(16).padStart(family === 4 ? 8 : 32, '0');
        expect(Buffer.from(ipBytes(ip)).toString('hex')).toBe(hex);
        expect(ipFromBytes(ipBytes(ip))).toBe(ip);
      }),
    );
  });

  it.each([
    '',
    '1.2.3',
    '1.2.3.4.5',
    '256.1.1.1',
    '01.2.3.4',
    '1.2.3.4 ',
    '1.2.3.-4',
    '0x1.2.3.4',
    '1.2.3.٤',
    ':',
    ':::',
    '1::2::3',
    '1:2:3:4:5:6:7',
    '1:2:3:4:5:6:7:8:9',
    '1:2:3:4:5:6:7:8::',
    '::1:2:3:4:5:6:7:8',
    '12345::',
    'g::',
    ':1:2:3:4:5:6:7',
    '1:2:3:4:5:6:7:',
    '::1.2.3',
    '1.2.3.4::',
    '::1.2.3.4:5',
    '::01.2.3.4',
    'fe80::1%eth0',
    '[::1]',
    '::1/64',
  ])('is not %j', (text) => {
    expect(findIp(text)).toBeUndefined();
    expect(() => parseIp(text)).toThrow(`"${text}" is not an IP address`);
  });
});

describe('a prefix', () => {
  it('has the first and last address that ip-num computes', () => {
    fc.assert(
      fc.property(prefixes(), ({ prefix }) => {
        expect(ipBits(prefixIp(prefix))).toBe(range(prefix).getFirst().getValue());
        expect(ipBits(lastIp(prefix))).toBe(range(prefix).getLast().getValue());
        expect(BigInt(prefixLengthOf(prefix))).toBe(range(prefix).getPrefix().getValue());
        expect(parsePrefix(prefix)).toBe(prefix);
      }),
    );
  });

  it('contains the addresses that ip-num finds in it', () => {
    const found = { in: 0, out: 0 };
    fc.assert(
      fc.property(prefixes(), ({ prefix, near }) => {
        const oracle = near.includes(':')
          ? (range(prefix) as IPv6CidrRange).contains(IPv6.fromString(near))
          : (range(prefix) as IPv4CidrRange).contains(IPv4.fromString(near));
        expect(prefixContains(prefix, near)).toBe(oracle);
        found[oracle ? 'in' : 'out'] += 1;
      }),
      { numRuns: 300 },
    );
    expect(Math.min(found.in, found.out)).toBeGreaterThan(50);
  });

  it('contains nothing of the other family', () => {
    expect(prefixContains('0.0.0.0/0' as Prefix, '::1' as Ip)).toBe(false);
    expect(prefixContains('::/0' as Prefix, '0.0.0.1' as Ip)).toBe(false);
    expect(prefixesOverlap('0.0.0.0/0' as Prefix, '::/0' as Prefix)).toBe(false);
  });

  it('overlaps with another when an end of one lies in the other', () => {
    fc.assert(
      fc.property(prefixes(), fc.integer({ min: 0, max: 128 }), ({ prefix, near }, length) => {
        const other = prefixOf(near, near.includes(':') ? length : length % 33);
        const [aFirst, aLast] = endsOf(prefix);
        const [bFirst, bLast] = endsOf(other);
        expect(prefixesOverlap(prefix, other)).toBe(aFirst <= bLast && bFirst <= aLast);
      }),
    );
  });

  it('is refused with host bits, by the one that was meant', () => {
    fc.assert(
      fc.property(prefixes(), ({ prefix, near }) => {
        const text = `${near}/${prefixLengthOf(prefix)}`;
        const meant = prefixOf(near, prefixLengthOf(prefix));
        if (meant === text) expect(parsePrefix(text)).toBe(text);
        else
          expect(() => parsePrefix(text)).toThrow(
            `"${text}" has host bits set: the prefix is ${meant}`,
          );
      }),
    );
  });

  it.each([
    '10.0.0.0',
    '10.0.0.0/',
    '10.0.0.0/33',
    '10.0.0.0/08',
    '10.0.0.0/-1',
    '10.0.0.0/1e1',
    '::/129',
    '/8',
    '::/ 8',
    '::/8/8',
  ])('is not %j', (text) => {
    expect(findPrefixedIp(text)).toBeUndefined();
    expect(() => parsePrefix(text)).toThrow(`"${text}" is not an address with a prefix length`);
  });
});
