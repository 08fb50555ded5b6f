/** Letting a call fare as it was said: everything that it does to the world goes through its context. */
import type { Backend } from '../../../backends/backend.ts';
import type { CallContext } from '../../../plugin/call/context.ts';
import type { State } from '../../../plugin/state.ts';
import type { Fate } from './step.ts';

/** Thrown through a call whose process was killed, by everything that it still tries to do. */
const DEAD = new Error('the process was killed');

/** What a kernel answers that cannot be read. */
const UNREADABLE = 'Cannot read the links in netns "host": ENOBUFS';

/** A call under a fate. */
export interface Fated {
  readonly context: CallContext;
  /** Was the process killed? */
  readonly isDead: () => boolean;
  /** Did anything go wrong by the fate? */
  readonly isHit: () => boolean;
}

/** Is the error the fate's, and not an answer of the call? */
export function isOfFate(error: unknown): boolean {
  return error === DEAD || (error instanceof Error && error.message === UNREADABLE);
}

/** Every function of `of`, done as `as` does it. */
function wrapped<T extends object>(of: T, as: (work: () => unknown) => unknown): T {
  const entries = Object.entries(of).map(([name, value]: [string, unknown]) => {
    if (typeof value !== 'function') return [name, value];
    const call = value as (...args: unknown[]) => unknown;
    return [name, (...args: unknown[]) => as(() => call(...args))];
  });
  return Object.fromEntries(entries) as T;
}

/** A context whose process dies after so many effects: from then on nothing that it does has any. */
function mortal(context: CallContext, after: number): Fated {
  let effects = 0;
  let dead = false;
  let inTransaction = false;
  const effect = <T>(work: () => T): T => {
    if (dead || (!inTransaction && effects === after)) {
      dead = true;
      throw DEAD;
    }
    if (!inTransaction) effects += 1;
    return work();
  };
  const state = wrapped(context.state, effect);
  const transact: State['transact'] = (work) => {
    if (inTransaction) return context.state.transact(work);
    return effect(() => {
      inTransaction = true;
      try {
        return context.state.transact(work);
      } finally {
        inTransaction = false;
      }
    });
  };
  return {
    context: {
      ...context,
      backend: wrapped(context.backend, effect),
      state: { ...state, transact },
      exclusively: (work) => context.exclusively(() => effect(work)),
    },
    isDead: () => dead,
    isHit: () => dead,
  };
}

function withBackend(context: CallContext, change: Partial<Backend>): CallContext {
  return { ...context, backend: { ...context.backend, ...change } };
}

/** A context in which a call fares so. */
export function withFate(context: CallContext, fate: Fate): Fated {
  const { backend } = context;
  let seen = 0;
  let hit = false;
  const fated = (change: Partial<Backend>): Fated => ({
    context: withBackend(context, change),
    isDead: () => false,
    isHit: () => hit,
  });
  switch (fate.kind) {
    case 'fine':
      return fated({});
    case 'dies':
      return mortal(context, fate.after);
    case 'unreadable':
      return fated({
        observe: (scope) => {
          if (seen++ !== fate.at) return backend.observe(scope);
          hit = true;
          throw new Error(UNREADABLE);
        },
      });
    case 'refused':
    case 'half':
      return fated({
        execute: (op) => {
          const at = seen++;
          if (fate.lasts ? at < fate.at : at !== fate.at) return backend.execute(op);
          hit = true;
          if (fate.kind === 'half' && at === fate.at) backend.execute(op);
          return { errno: fate.errno, text: 'injected' };
        },
      });
  }
}
