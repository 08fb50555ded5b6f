/** A call in a process of its own, and how it ends. */
import type { CallContext } from '../../../plugin/call/context.ts';
import { CniError } from '../../../plugin/cni/error.ts';
import { type Fated, isOfFate, withFate } from './fate.ts';
import type { Node } from './node.ts';
import type { Fate } from './step.ts';

/** How long after another a call comes. */
const PAUSE_MS = 7000;

/** How a call ended. */
interface Ending<T> {
  readonly value: T | undefined;
  /** Undefined when it succeeded or died. */
  readonly error: unknown;
  readonly isDead: boolean;
  readonly isHit: boolean;
}

/** Runs a call in a process of its own, and throws what is no answer of CNI. */
export function call<T>(node: Node, fate: Fate, work: (context: CallContext) => T): Ending<T> {
  const { machine } = node;
  machine.timeMs += PAUSE_MS;
  const fated: Fated = withFate(machine.start(), fate);
  const end = (value: T | undefined, error: unknown): Ending<T> => ({
    value,
    error,
    isDead: fated.isDead(),
    isHit: fated.isHit(),
  });
  try {
    return end(work(fated.context), undefined);
  } catch (error) {
    if (fated.isDead()) return end(undefined, undefined);
    if (error instanceof CniError || isOfFate(error)) return end(undefined, error);
    throw error;
  } finally {
    machine.living.delete(fated.context.worker.pid);
  }
}
