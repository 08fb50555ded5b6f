import { findNetns } from '../host.ts';
import { removeNetns } from '../netdev.ts';
import { type OpKind, done, refuse } from '../op.ts';

/** Removes a named netns that nothing else keeps alive. */
export interface NetnsDel {}

export const netnsDel: OpKind<'netns.del'> = {
  apply: (host, op) =>
    findNetns(host, op.netns) ? done(removeNetns(host, op.netns)) : refuse('ENOENT'),
  describe: (op) => [`ip netns del ${op.netns}`],
  sign: () => '-',
  reads: () => [],
  writes: () => [],
  removes: (op) => [`netns ${op.netns}`],
};
