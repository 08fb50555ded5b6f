import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Ip, familyOf, ipBits, ipFromBits, parseIp } from '../../model/ip.ts';
import { macFromBytes } from '../../model/mac.ts';
import { isGroupMac, isLinkLocal, isMulticast, isUnspecified } from '../../sim/frame.ts';

/** Addresses near the borders of the ranges that mean something, and any. */
function ips(): fc.Arbitrary<Ip> {
  const borders = ['0.0.0.0', '224.0.0.0', '239.255.255.255', '::', 'fe80::', 'febf::', 'ff00::'];
  const near = fc
    .tuple(fc.constantFrom(...borders, 'fe8::1', 'ff:1::', 'ff::'), fc.nat(96), fc.bigInt(-2n, 2n))
    .map(([text, shift, step]) => {
      const family = familyOf(text);
      const bits = BigInt(family === 4 ? 32 : 128);
      const by = BigInt(shift) % bits;
      return ipFromBits(family, BigInt.asUintN(Number(bits), ipBits(parseIp(text)) + (step << by)));
    });
  const any = fc.bigInt(0n, (1n << 128n) - 1n);
  return fc.oneof(
    near,
    any.map((bits) => ipFromBits(6, bits)),
    any.map((bits) => ipFromBits(4, bits >> 96n)),
  );
}

describe('an address', () => {
  it('is for many, for one link or nobody by its first bits', () => {
    fc.assert(
      fc.property(ips(), (ip) => {
        const is4 = familyOf(ip) === 4;
        const bits = ipBits(ip);
        expect(isMulticast(ip)).toBe(is4 ? bits >> 28n === 0xen : bits >> 120n === 0xffn);
        expect(isLinkLocal(ip)).toBe(!is4 && bits >> 118n === 0x3fan);
        expect(isUnspecified(ip)).toBe(bits === 0n);
      }),
      { numRuns: 1000 },
    );
  });

  it('of Ethernet is for many where the lowest bit of its first byte is set', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 6, maxLength: 6 }), (bytes) => {
        expect(isGroupMac(macFromBytes(bytes))).toBe(((bytes[0] ?? 0) & 1) === 1);
      }),
    );
  });
});
