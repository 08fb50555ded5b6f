import type { Bench } from './bench.ts';
import type { Measurement } from './measurement.ts';
import { compareCalls } from './scenarios/calls.ts';
import { compareCrowds } from './scenarios/crowd.ts';
import { compareMemory } from './scenarios/memory.ts';
import { compareParallel } from './scenarios/parallel.ts';
import { compareRuntimes, missingForRuntimes } from './scenarios/runtime.ts';
import { compareStatus } from './scenarios/status.ts';

/** Something to be measured. */
interface Scenario {
  readonly about: string;
  readonly run: (bench: Bench) => Promise<Measurement[]>;
  /** What the machine lacks for it; undefined when it can be run. */
  readonly missing?: () => string | undefined;
}

/** The scenarios by name. The last two leave thousands of netns behind, so they disturb no other. */
export const SCENARIOS: Readonly<Record<string, Scenario>> = {
  masq: {
    about: 'ADD and DEL with ipMasq',
    run: (bench) =>
      compareCalls(bench, 'masq', {
        add: { of: 'ratio', atMost: 0.45 },
        del: { of: 'ratio', atMost: 0.5 },
      }),
  },
  plain: {
    about: 'ADD and DEL without ipMasq',
    run: (bench) => compareCalls(bench, 'plain', { add: { of: 'ratio', atMost: 0.95 }, del: null }),
  },
  chain: {
    about: 'ADD and DEL with a host port, bandwidth limits, an ingress policy and a sysctl too',
    run: (bench) =>
      compareCalls(bench, 'chain', {
        add: { of: 'ratio', atMost: 0.2 },
        del: { of: 'ratio', atMost: 0.2 },
      }),
  },
  status: { about: "STATUS against the reference's VERSION", run: compareStatus },
  memory: { about: 'peak memory of ADD and DEL', run: compareMemory },
  runtime: {
    about: "pods of containerd with each side's chain, against a plugin that does nothing",
    run: compareRuntimes,
    missing: missingForRuntimes,
  },
  parallel: {
    about: 'many ADDs of the chain at once, then their DELs; ten rounds at most',
    run: compareParallel,
  },
  crowd: { about: 'ADD on a full node against one with few pods', run: compareCrowds },
};
