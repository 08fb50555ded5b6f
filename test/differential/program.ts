/** Programs by number: the same seed and number always give the same operations. */
import type { KernelProfile } from '../../model/kernel-profile.ts';
import type { Op } from '../../model/op.ts';
import {
  FAMILIES,
  type OpFamily,
  type OpSeed,
  SEED_LENGTH,
  SEED_MAX,
} from '../arbitraries/draw.ts';
import { runProgram } from '../arbitraries/program.ts';
import { LINK_LOCAL_PINS, PINS, universeOps } from '../arbitraries/sysctl-op.ts';
import { makeStream } from '../random.ts';

/** The netns of every program. */
const UNIVERSE = ['one', 'two'];

const LENGTH_MAX = 60;

/** In how many of ten programs a family is: those that the kernel takes long to forget are in fewer. */
const SHARE: Readonly<Record<OpFamily, number>> = {
  names: 3,
  bridges: 3,
  tunnels: 3,
  macvlans: 3,
  addresses: 8,
  routes: 6,
  rules: 4,
  neighbours: 4,
  'traffic control': 4,
  sysctls: 5,
  nftables: 4,
  netns: 3,
};
const SHARES = 10;

/** How many operations at its beginning make the netns of a program. */
export const PROLOGUE = universeOps(UNIVERSE, PINS).length;

/** The operations of program `number` of a seed for a kernel, those that make its netns first. */
export function randomProgram(seed: number, number: number, kernel: KernelProfile): readonly Op[] {
  const next = makeStream(Math.imul(seed, 0x9e3779b1) ^ Math.imul(number + 1, 0x85ebca6b));
  const length = 1 + (next() % LENGTH_MAX);
  const seeds = Array.from({ length }, (): OpSeed =>
    Array.from({ length: SEED_LENGTH }, () => next() % (SEED_MAX + 1)),
  );
  // In every third program links have link-local addresses too.
  const pins = next() % 3 === 0 ? LINK_LOCAL_PINS : PINS;
  // Few families meet more often than all of them do.
  const families = new Set(FAMILIES.filter((family) => next() % SHARES < SHARE[family]));
  return runProgram(UNIVERSE, seeds, { repertoire: 'any', pins, families, kernel }).ops;
}
