import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Host, getNetns } from '../../model/host.ts';
import { ipBytes, parseIp } from '../../model/ip.ts';
import { type Expression, toHex } from '../../model/nft-expression.ts';
import type { Statement } from '../../model/nftables.ts';
import { formatJourney, travel } from '../../sim/journey.ts';
import { outcomeOf } from '../../sim/probe.ts';
import { makeWorld } from '../../sim/world.ts';
import { ROUTED } from './hosts.ts';

const TO_C = { netns: 'a', destination: parseIp('10.244.2.4') };

function number(value: number): string {
  return toHex(new Uint8Array(Uint32Array.of(value).buffer));
}

/** Forwards what fits none of these conditions. */
function dropping(details: readonly Expression[]): Host {
  const statements: Statement[] = details.map((detail) => ({
    kind: 'opaque',
    expression: detail.name,
    detail,
  }));
  const rule = {
    statements: [...statements, { kind: 'verdict', verdict: 'drop' } as const],
    comment: '',
  };
  const hook = { type: 'filter', hook: 'forward', priority: 0, policy: 'accept' } as const;
  const chains = { fwd: { name: 'fwd', hook, rules: [rule] } };
  const node = getNetns(ROUTED, 'node');
  const nftables = { 'ip draws': { family: 'ip', name: 'draws', sets: {}, chains } as const };
  return { netns: { ...ROUTED.netns, node: { ...node, nftables } } };
}

/** `ip daddr 10.244.2.4`: of what goes there, and not of the answer. */
const TO: readonly Expression[] = [
  { name: 'payload', header: 'network', offset: 16, bytes: 4, to: 0 },
  { name: 'cmp', from: 0, comparison: 'eq', value: toHex(ipBytes(TO_C.destination)) },
];

/** `numgen MODE mod MODULUS == VALUE drop`. */
function numgen(modulus: number, value: number, mode: 'random' | 'inc' = 'random'): Host {
  return dropping([
    ...TO,
    { name: 'numgen', mode, modulus, offset: 0, to: 0 },
    { name: 'cmp', from: 0, comparison: 'eq', value: number(value) },
  ]);
}

/** `-m statistic --mode random --probability P`, of 2^31. */
function statistic(probability: number): Host {
  const match = {
    match: 'statistic',
    mode: 'random',
    invert: false,
    probability,
    every: 0,
    packet: 0,
  } as const;
  return dropping([...TO, { name: 'match', ...match }]);
}

/** How many of so many seeds have it dropped. */
function droppedOf(host: Host, seeds: number): number {
  const ends = Array.from(
    { length: seeds },
    (_, seed) => outcomeOf(makeWorld(host, {}, { seed }), TO_C).verdict.kind,
  );
  return ends.filter((kind) => kind === 'dropped').length;
}

const SEEDS = 200;

describe('what is drawn by chance', () => {
  it('is the first that can come where no seed decides', () => {
    const kinds = [0, 1].map((value) => outcomeOf(makeWorld(numgen(2, value)), TO_C).verdict.kind);
    expect(kinds).toEqual(['dropped', 'delivered']);
    expect(outcomeOf(makeWorld(statistic(1)), TO_C).verdict.kind).toBe('dropped');
    expect(outcomeOf(makeWorld(statistic(0)), TO_C).verdict.kind).toBe('delivered');
  });

  it('is each of what can come about as often as another', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 2, max: 8 }).chain((modulus) =>
          fc.record({
            modulus: fc.constant(modulus),
            value: fc.nat(modulus - 1),
            mode: fc.constantFrom('random' as const, 'inc' as const),
          }),
        ),
        ({ modulus, value, mode }) => {
          const share = droppedOf(numgen(modulus, value, mode), SEEDS) / SEEDS;
          expect(Math.abs(share - 1 / modulus)).toBeLessThan(0.12);
        },
      ),
      { numRuns: 8 },
    );
  });

  it('is as likely as a match of iptables says', () => {
    for (const share of [0.25, 0.5, 0.9]) {
      const dropped = droppedOf(statistic(Math.floor(share * 2 ** 31)), SEEDS) / SEEDS;
      expect(Math.abs(dropped - share)).toBeLessThan(0.12);
    }
    expect(droppedOf(statistic(2 ** 31), SEEDS)).toBe(SEEDS);
  });
});

describe('a journey on which chance decides', () => {
  it('says how other draws end, and does not know whether it arrives', () => {
    const journey = travel(makeWorld(numgen(2, 1)), TO_C);
    expect(journey).toMatchObject({
      verdict: { kind: 'delivered' },
      reachable: { there: null, back: null },
      chance: { draws: 1, tried: 64 },
    });
    const text = formatJourney(journey).join('\n');
    expect(text).toContain('? it arrives, and the answer too, by this draw');
    expect(text).toContain('by chance: a rule draws, shown is the first of what can come');
    expect(text).toMatch(/\d+ of 64 other draws: netns node: chain ip draws fwd drops it/);
  });

  it('says so too where others arrive and the one that is shown does not', () => {
    const journey = travel(makeWorld(numgen(4, 0)), TO_C);
    expect(journey.reachable).toEqual({ there: null, back: null });
    expect(formatJourney(journey).join('\n')).toContain('? it does not arrive, by this draw');
  });

  it('says that nothing hangs on it where that is so', () => {
    const journey = travel(makeWorld(numgen(2, 5)), TO_C);
    expect(journey).toMatchObject({
      reachable: { there: true, back: true },
      chance: { others: [] },
    });
    expect(formatJourney(journey).join('\n')).toContain('64 other draws end the same way');
  });

  it('is none where nothing is drawn', () => {
    expect(travel(makeWorld(ROUTED), TO_C).chance).toBeNull();
  });
});
