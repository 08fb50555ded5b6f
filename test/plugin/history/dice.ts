import { makeStream } from '../../random.ts';

/** Numbers from 0 to `below`, in a random but repeatable sequence. */
export type Dice = (below: number) => number;

/** Random numbers that are the same for the same seed. */
export function diceOf(seed: number): Dice {
  const next = makeStream(seed);
  return (below) => next() % below;
}
