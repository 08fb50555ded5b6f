/** Several hosts of one process take turns: while one is looked at by tracepoints, which tell links by names that all have, the others send nothing. */

/** Whoever came last and wants to be alone. */
let exclusive: Promise<unknown> = Promise.resolve();
let waitingForExclusive = 0;
const shared = new Set<Promise<unknown>>();

function settled(promise: Promise<unknown>): Promise<unknown> {
  return promise.catch(() => undefined);
}

/** Acts together with others, once nobody is alone or wants to be. */
export async function together<T>(act: () => Promise<T>): Promise<T> {
  while (waitingForExclusive > 0) await settled(exclusive);
  const acting = act();
  shared.add(acting);
  try {
    return await acting;
  } finally {
    shared.delete(acting);
  }
}

/** Acts alone, once all are done who act now. */
export function exclusively<T>(act: () => Promise<T>): Promise<T> {
  waitingForExclusive += 1;
  const turn = settled(exclusive)
    .then(() => Promise.all([...shared].map(settled)))
    .then(act)
    .finally(() => {
      waitingForExclusive -= 1;
    });
  exclusive = turn;
  return turn;
}
