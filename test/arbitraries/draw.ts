/** Numbers that decide one operation: the first its kind, the others its parameters. */
export type OpSeed = readonly number[];

/** How many numbers a seed has; the last says whether the operation is to be possible. */
export const SEED_LENGTH = 21;
/** Above this no number of a seed goes: a multiple of every small number, so that each choice is as likely as the next. */
export const SEED_MAX = 5039;

/** Kinds of operations that a program has together or not at all. Links are in every program: all else hangs on them. */
export const FAMILIES = [
  'names',
  'bridges',
  'tunnels',
  'macvlans',
  'addresses',
  'routes',
  'rules',
  'neighbours',
  'traffic control',
  'sysctls',
  'nftables',
  'netns',
] as const;
export type OpFamily = (typeof FAMILIES)[number];
export type OpFamilies = ReadonlySet<OpFamily>;

/** What every program has that does not say otherwise. */
export const ALL_FAMILIES: OpFamilies = new Set(FAMILIES);

/**
 * What a program may hold: only what plans lead to and lead away from (`plannable`), or whatever the kernel
 * answers to (`any`): addresses of the loopback, odd scopes and broadcasts, settings that a plan never touches.
 */
export type Repertoire = 'plannable' | 'any';

/** Draws from a seed in order, at its end from its beginning anew; all zeros is what shrinking leads to. */
export interface Draw {
  /** One of `items`. */
  readonly of: <T>(items: readonly T[]) => T;
  /** True in about one of `n` draws. */
  readonly oneIn: (n: number) => boolean;
  /** Like `oneIn`, but never true where programs have to be plannable. */
  readonly oddIn: (n: number) => boolean;
  /** Has the program operations of this family? */
  readonly has: (family: OpFamily) => boolean;
}

/** What is left of a number that is drawn from again. */
const LAP = 7;

/** Draws from what follows the first number of a seed. */
export function drawFrom(
  seed: OpSeed,
  repertoire: Repertoire,
  families: OpFamilies = ALL_FAMILIES,
): Draw {
  let at = 0;
  const next = (): number => {
    const laps = Math.floor(at / (seed.length - 1));
    const number = seed[1 + (at % (seed.length - 1))] ?? 0;
    at += 1;
    // Not the same choices again.
    return Math.floor(number / LAP ** laps);
  };
  return {
    of: (items) => items[next() % items.length] as (typeof items)[number],
    oneIn: (n) => next() % n === n - 1,
    oddIn: (n) => next() % n === n - 1 && repertoire === 'any',
    has: (family) => families.has(family),
  };
}

/** How far each number of a seed moves with each try: no multiple of what draws divide by. */
const STRIDE = 1009;

/** The seed with other parameters, by the number of the try, for the same kind of operation; the same for try 0. */
export function varySeed(seed: OpSeed, tries: number): OpSeed {
  return seed.map((n, i) => (i === 0 ? n : (n + tries * (STRIDE + 2 * i)) % (SEED_MAX + 1)));
}
