/** Numbers that decide one operation: the first its kind, the others its parameters. */
export type OpSeed = readonly number[];

/** How many numbers a seed has. */
export const SEED_LENGTH = 20;
/** Above this no number of a seed goes: a multiple of every small number, so that each choice is as likely as the next. */
export const SEED_MAX = 5039;

/**
 * What a program may hold: only what plans lead to and lead away from (`plannable`), or whatever the kernel
 * answers to (`any`): addresses of the loopback, odd scopes and broadcasts, settings that a plan never touches.
 */
export type Repertoire = 'plannable' | 'any';

/** Draws from a seed in order; runs on with zeros at its end, which shrinking leads to. */
export interface Draw {
  /** One of `items`. */
  readonly of: <T>(items: readonly T[]) => T;
  /** True in about one of `n` draws. */
  readonly oneIn: (n: number) => boolean;
  /** Like `oneIn`, but never true where programs have to be plannable. */
  readonly oddIn: (n: number) => boolean;
}

/** Draws from what follows the first number of a seed. */
export function drawFrom(seed: OpSeed, repertoire: Repertoire): Draw {
  let at = 1;
  const next = (): number => seed[at++] ?? 0;
  return {
    of: (items) => items[next() % items.length] as (typeof items)[number],
    oneIn: (n) => next() % n === n - 1,
    oddIn: (n) => next() % n === n - 1 && repertoire === 'any',
  };
}
