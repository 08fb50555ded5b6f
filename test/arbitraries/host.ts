import type fc from 'fast-check';
import type { Host } from '../../model/host.ts';
import { PLANNABLE, programs, runProgram } from './program.ts';

/** The netns of every generated host. */
export const UNIVERSE = ['one', 'two'];

/** Hosts as programs of operations leave them: every one is a state that the kernel can be in. */
export function hosts(maxLength = 25): fc.Arbitrary<Host> {
  return programs(maxLength).map((seeds) => runProgram(UNIVERSE, seeds, PLANNABLE).host);
}
