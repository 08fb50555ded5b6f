import type { Plugin } from './network.ts';

/** What a scenario works with. */
export interface Bench {
  readonly ours: Plugin;
  readonly reference: Plugin;
  readonly rounds: number;
  /** The names of all netns begin with it, the files of all state lie below it. */
  readonly prefix: string;
  readonly folder: string;
  /** Says what begins now; rejects when the bench was interrupted. */
  readonly step: (stage: string, index: number, count: number) => Promise<void>;
}

/** Rounds at the start that do not count: cold page cache, first use of kernel modules. */
export const WARM_UP_ROUNDS = 3;
