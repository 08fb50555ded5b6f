/**
 * Calls that stop after each of their effects. A call is synchronous, but all that it does to the world
 * goes through its context, and what it does next depends on nothing but the answers it got. So it is
 * run anew for each step, with the answers so far given to it again, up to its next effect: the same as
 * if its process had been scheduled away there. Never to be continued, it is a process that was killed.
 */
import type { Fault } from '../../model/errno.ts';
import type { Op } from '../../model/op.ts';
import type { CallContext } from '../../plugin/call/context.ts';
import { CNI_ERROR, CniError } from '../../plugin/cni/error.ts';
import type { State } from '../../plugin/state.ts';

/** The lock of a machine: who holds it. */
export interface MachineLock {
  holder: object | undefined;
}

/** What an effect is; all state functions but transactions count as transactions of their own. */
export type Effect =
  | { readonly kind: 'state' | 'lock' | 'unlock' | 'observe' }
  | { readonly kind: 'execute'; readonly op: Op };

/** What happens instead of an effect, or right after it. */
export type Mishap = 'refused' | 'half' | undefined;

export interface StepwiseCall {
  /** Goes on until behind the next effect, or does nothing while it `waits` for the lock. */
  readonly step: () => 'stepped' | 'waits' | 'ended';
  /** How many effects it has had. */
  readonly effects: () => number;
  /** What it ended with: undefined when it succeeded or has not ended. */
  readonly error: () => unknown;
  /** Ends its process, wherever it is. */
  readonly kill: () => void;
  readonly pid: number;
}

/** Thrown through a call to stop it. */
const STOPPED = new Error('stopped');
/** Thrown by the lock when another call holds it. */
const WAITING = new Error('waiting');

const REFUSAL: Fault = { errno: 'ENOBUFS', text: 'injected' };

type Answer = { readonly value: unknown } | { readonly error: unknown };

/**
 * Prepares a call in the process of `context`. `mishap` says what goes wrong: an operation is refused, or done and
 * refused all the same (`half`); anything else fails as it would on a machine that is out of order.
 */
export function makeStepwise(
  context: CallContext,
  lock: MachineLock,
  run: (context: CallContext) => void,
  mishap: (effect: Effect, index: number) => Mishap = () => undefined,
): StepwiseCall {
  const answers: Answer[] = [];
  const self = {};
  let ended = false;
  let failure: unknown;

  const perform = (effect: Effect, work: () => unknown): unknown => {
    const wrong = mishap(effect, answers.length);
    if (wrong === undefined) return work();
    switch (effect.kind) {
      case 'execute':
        if (wrong === 'half') work();
        return REFUSAL;
      case 'observe':
        throw new Error('Cannot read the links in netns "host": ENOBUFS');
      case 'state':
        throw new CniError(CNI_ERROR.tryAgainLater, 'state file is in use by another call');
      case 'lock':
        throw new CniError(CNI_ERROR.tryAgainLater, 'other calls hold the lock');
      // A lock cannot fail to be given back.
      case 'unlock':
        return work();
    }
  };

  const runTo = (stopBehind: number): 'waits' | undefined => {
    let at = 0;
    let waits: 'waits' | undefined;
    let stopped = false;
    let inTransaction = false;
    const effect = <T>(what: Effect, work: () => T): T => {
      if (stopped || at === stopBehind) {
        stopped = true;
        throw STOPPED;
      }
      if (at === answers.length) {
        try {
          answers.push({ value: perform(what, work) });
        } catch (error) {
          if (error === WAITING) {
            stopped = true;
            waits = 'waits';
            throw STOPPED;
          }
          answers.push({ error });
        }
      }
      const answer = answers[at] as Answer;
      at += 1;
      if ('error' in answer) throw answer.error;
      return answer.value as T;
    };
    const onState = <A extends unknown[], T>(of: (...args: A) => T) => {
      return (...args: A): T =>
        inTransaction ? of(...args) : effect({ kind: 'state' }, () => of(...args));
    };
    const { state, backend } = context;
    const steppedState: State = {
      ...state,
      transact: (work) =>
        inTransaction
          ? work()
          : effect({ kind: 'state' }, () =>
              state.transact(() => {
                inTransaction = true;
                try {
                  return work();
                } finally {
                  inTransaction = false;
                }
              }),
            ),
      find: onState(state.find),
      put: onState(state.put),
      finish: onState(state.finish),
      remove: onState(state.remove),
      isUsedByOthers: onState(state.isUsedByOthers),
      isAnyUsedByOthers: onState(state.isAnyUsedByOthers),
      claim: onState(state.claim),
      isClaimed: onState(state.isClaimed),
      unclaim: onState(state.unclaim),
      ownerOf: onState(state.ownerOf),
    };
    const stepped: CallContext = {
      ...context,
      state: steppedState,
      backend: {
        observe: (scope) => effect({ kind: 'observe' }, () => backend.observe(scope)),
        execute: (op) => effect({ kind: 'execute', op }, () => backend.execute(op)),
        lacks: (extra) => backend.lacks(extra),
        close: () => undefined,
      },
      exclusively: (work) => {
        effect({ kind: 'lock' }, () => {
          if (lock.holder !== undefined) throw WAITING;
          lock.holder = self;
        });
        try {
          return work();
        } finally {
          effect({ kind: 'unlock' }, () => {
            lock.holder = undefined;
          });
        }
      },
      log: () => undefined,
    };
    try {
      run(stepped);
      ended = true;
    } catch (error) {
      if (!stopped) {
        ended = true;
        failure = error;
      }
    }
    return waits;
  };

  return {
    step: () => {
      if (ended) return 'ended';
      const waits = runTo(answers.length + 1);
      return waits ?? (ended ? 'ended' : 'stepped');
    },
    effects: () => answers.length,
    error: () => failure,
    kill: () => {
      ended = true;
      // flock(2): a lock ends with the process that holds it.
      if (lock.holder === self) lock.holder = undefined;
    },
    pid: context.worker.pid,
  };
}

/** Runs a call to its end. Fails when it waits for a lock that nobody gives back. */
export function runToEnd(call: StepwiseCall): void {
  for (;;) {
    const outcome = call.step();
    if (outcome === 'ended') return;
    if (outcome === 'waits') throw new Error('the call waits for ever');
  }
}
