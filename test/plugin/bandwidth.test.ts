import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  bytesInTicks,
  burstTicks,
  isSameBucket,
  tokenBucket,
} from '../../model/traffic-control.ts';
import { type BandwidthChoices, limitsOf, readBandwidth } from '../../plugin/cni/bandwidth.ts';
import { parseConfig } from '../../plugin/cni/config.ts';
import { refusal } from './refusal.ts';

const CONFIG = { name: 'net', type: 'cube-cni' };
const MTU = 1500;
const FRAME_BITS = (MTU + 14) * 8;

function limits(choices: BandwidthChoices, config: object = {}): unknown {
  return limitsOf(parseConfig({ ...CONFIG, ...config }), choices, MTU);
}

describe('limits', () => {
  it('are none where nothing is asked for', () => {
    expect(limits({})).toBeUndefined();
    expect(limits({ ingressRate: 0, ingressBurst: 0, egressRate: 0, egressBurst: 0 })).toBe(
      undefined,
    );
  });

  it('are bytes where a runtime says bits, and let 25 ms wait', () => {
    expect(limits({ ingressRate: 8_000_000, ingressBurst: 800_000 })).toEqual({
      ingress: { rateBytes: 1_000_000, burstBytes: 100_000, limitBytes: 125_000 },
    });
    const egress = { rateBytes: 1000, burstBytes: 2000, limitBytes: 2025 };
    expect(limits({ egressRate: 8007, egressBurst: 16_007 })).toEqual({ egress });
  });

  it('of the configuration go before the word of the runtime, all of it', () => {
    const config = { egressRate: 8000, egressBurst: 16_000 };
    const choices = { ingressRate: 8_000_000, ingressBurst: 800_000 };
    expect(limits(choices, config)).toEqual({
      egress: { rateBytes: 1000, burstBytes: 2000, limitBytes: 2025 },
    });
  });

  it('hold the bursts that runtimes send where nobody chose one', () => {
    // containerd and CRI-O.
    for (const ingressBurst of [2 ** 32 - 1, (2 ** 32 - 1) * 8 - 1])
      expect(limits({ ingressRate: 1_000_000, ingressBurst })).toMatchObject({
        ingress: { rateBytes: 125_000 },
      });
  });

  it.each<[BandwidthChoices, string]>([
    [{ ingressRate: 8000 }, 'ingressRate: if rate is set, burst must also be set'],
    [{ egressBurst: 80_000 }, 'egressBurst: if burst is set, rate must also be set'],
    [{ egressRate: 8000, egressBurst: 2 ** 35 - 8 }, 'egressBurst: burst cannot be more than 4GB'],
    [{ ingressRate: 7, ingressBurst: 80_000 }, 'ingressRate: it must be at least 8 bits a second'],
    [
      { ingressRate: 8000, ingressBurst: FRAME_BITS - 1 },
      `ingressBurst: ${FRAME_BITS - 1} bits are less than one frame of the link, so that none of full length would pass: it must be at least ${FRAME_BITS}`,
    ],
  ])('%j is refused', (choices, problem) => {
    const at = (where: string): string => `7 invalid network configuration: ${where}${problem}`;
    expect(refusal(() => limits(choices))).toBe(at('runtimeConfig.bandwidth.'));
    expect(refusal(() => limits({}, choices))).toBe(at(''));
  });

  it.each<[unknown, string]>([
    [5, ': it must be an object, not 5'],
    [[], ': it must be an object, not []'],
    [{ ingressRate: '8000' }, '.ingressRate: it must be a number of bits, not "8000"'],
    [{ egressBurst: -1 }, '.egressBurst: it must be a number of bits, not -1'],
    [{ egressBurst: 1.5 }, '.egressBurst: it must be a number of bits, not 1.5'],
    [{ egressRate: 1e300 }, '.egressRate: it must be a number of bits, not 1e+300'],
  ])('%j is no request', (value, problem) => {
    expect(refusal(() => readBandwidth(value))).toBe(
      `7 invalid network configuration: runtimeConfig.bandwidth${problem}`,
    );
  });
});

describe('a burst in ticks', () => {
  const rates = fc.integer({ min: 1, max: 100_000_000_000 });
  const bursts = fc.integer({ min: 1, max: 0xffff_ffff });

  it('is as much as was asked for, and no tick more, unless it lasts too long to be counted', () => {
    fc.assert(
      fc.property(rates, bursts, (rateBytes, burstBytes) => {
        const ticks = burstTicks({ rateBytes, burstBytes, limitBytes: 0 });
        if (ticks === 0xffff_ffff) return;
        expect(bytesInTicks(rateBytes, ticks)).toBeGreaterThanOrEqual(burstBytes);
        expect(bytesInTicks(rateBytes, ticks - 1)).toBeLessThan(burstBytes);
      }),
    );
  });

  it('comes back from the kernel as the bucket was made', () => {
    fc.assert(
      fc.property(rates, bursts, (rateBytes, burstBytes) => {
        const bucket = tokenBucket(rateBytes, burstBytes);
        const told = { ...bucket, burstBytes: bytesInTicks(rateBytes, burstTicks(bucket)) };
        expect(told).toEqual(bucket);
        expect(isSameBucket(told, bucket)).toBe(true);
        expect(isSameBucket(told, { ...bucket, rateBytes: rateBytes + 1 })).toBe(false);
        expect(isSameBucket(told, { ...bucket, limitBytes: bucket.limitBytes + 1 })).toBe(false);
      }),
    );
  });
});
