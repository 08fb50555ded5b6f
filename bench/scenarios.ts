import type { Bench } from './bench.ts';
import type { Measurement } from './measurement.ts';
import { compareCalls } from './scenarios/calls.ts';
import { compareCrowds } from './scenarios/crowd.ts';
import { compareMemory } from './scenarios/memory.ts';
import { compareParallel } from './scenarios/parallel.ts';
import { compareStatus } from './scenarios/status.ts';

/** The scenarios by name. The last two leave thousands of netns behind, so they disturb no other. */
export const SCENARIOS: Readonly<Record<string, (bench: Bench) => Promise<Measurement[]>>> = {
  masq: (bench) =>
    compareCalls(bench, 'masq', {
      add: { of: 'ratio', atMost: 0.45 },
      del: { of: 'ratio', atMost: 0.5 },
    }),
  plain: (bench) => compareCalls(bench, 'plain', { add: { of: 'ratio', atMost: 0.95 }, del: null }),
  chain: (bench) =>
    compareCalls(bench, 'chain', {
      add: { of: 'ratio', atMost: 0.2 },
      del: { of: 'ratio', atMost: 0.2 },
    }),
  status: compareStatus,
  memory: compareMemory,
  parallel: compareParallel,
  crowd: compareCrowds,
};
