/** How much is measured, and how often. */
export interface Sizes {
  /** Rounds that count, of what is short; what takes seconds has `LONG_ROUNDS` at most. */
  readonly rounds: number;
  /** The pods of the hosts that are compared, the greatest last. */
  readonly pods: readonly [number, ...number[]];
  readonly clusterHosts: number;
  readonly clusterPods: number;
  readonly kernelPods: number;
}

/** Those for which the targets were set. */
export const USUAL_SIZES: Sizes = {
  rounds: 30,
  pods: [10, 100, 1000],
  clusterHosts: 1000,
  clusterPods: 30,
  kernelPods: 100,
};

/** Rounds at the start that do not count: the code is not compiled yet. */
export const WARM_UP_ROUNDS = 3;

/** Of what takes seconds a round. */
export const LONG_ROUNDS = 5;

/** Says what begins now, the `index`th of `count`; rejects when the bench was interrupted. */
export type Step = (stage: string, index: number, count: number) => Promise<void>;
