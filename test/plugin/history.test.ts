/** Histories of a node: calls that succeed, fail and die, others who come between, damages and reboots. */
import fc from 'fast-check';
import { describe, expect, it, vi } from 'vitest';
import { HISTORY_PODS, histories } from '../arbitraries/history.ts';
import { live } from './history/life.ts';
import type { Tally } from './history/tally.ts';

// Each step is looked at from all sides; one that does not hold is then looked for in shorter histories.
vi.setConfig({ testTimeout: 300_000 });

/** Enough to meet all that can happen several times over; `npm run histories` goes on. */
const RUNS = 60;
const STEPS = 40;

describe('a node', () => {
  it('holds what it is to hold after each thing that happens', () => {
    const tally: Tally = new Map();
    fc.assert(
      fc.property(histories(STEPS), (history) => live(history, HISTORY_PODS, tally)),
      { numRuns: RUNS },
    );
    const times = (what: string): number => tally.get(what) ?? 0;
    // Were most of it refused, or nothing there to be damaged, this would say little.
    expect(times('ADD')).toBeGreaterThan(100);
    for (const what of ['ADD died', 'ADD failed', 'DEL', 'GC', 'CHECK', 'foreign', 'plans'])
      expect(times(what), what).toBeGreaterThan(10);
    const damages = [...tally].filter(([what]) => what.startsWith('damage'));
    expect(damages.length).toBeGreaterThan(10);
    expect(times('orders')).toBeGreaterThan(500);
    const told = times('reach: as it should') + times('reach: not, as it should not');
    const untold = [...tally].filter(([what]) => what.startsWith('reach: not told'));
    expect(told).toBeGreaterThan(2 * untold.reduce((sum, [, number]) => sum + number, 0));
    for (const what of ['as it should', 'not, as it should not', 'the same'])
      expect(times(`reach: ${what}`), what).toBeGreaterThan(300);
    expect(times('reach: source seen outside')).toBeGreaterThan(30);
  });
});
