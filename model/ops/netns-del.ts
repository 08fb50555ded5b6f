import { removeNetns } from '../netdev.ts';
import { type OpKind, done } from '../op.ts';

/** Removes a named netns that nothing else keeps alive. */
export interface NetnsDel {}

export const netnsDel: OpKind<'netns.del'> = {
  apply: (host, op) => done(removeNetns(host, op.netns)),
  describe: (op) => [`ip netns del ${op.netns}`],
  sign: () => '-',
  reads: () => [],
  writes: () => [],
  removes: (op) => [`netns ${op.netns}`],
};
