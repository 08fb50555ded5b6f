/** Several hosts of one process take turns: while one is looked at by tracepoints, which tell links by names that all have, the others send nothing. */

/** Those who act together now. */
const acting = new Set<Promise<unknown>>();
/** Those who act alone or want to, in the order of their turns. */
const alone = new Set<Promise<unknown>>();

async function settled(promise: Promise<unknown> | undefined): Promise<void> {
  await promise?.catch(() => undefined);
}

/** Acts together with others, once nobody acts alone or wants to. */
export async function together<T>(act: () => Promise<T>): Promise<T> {
  while (alone.size > 0) await settled([...alone].at(-1));
  const mine = act();
  acting.add(mine);
  try {
    return await mine;
  } finally {
    acting.delete(mine);
  }
}

/** Acts alone, once all are done who act now. */
export async function exclusively<T>(act: () => Promise<T>): Promise<T> {
  const before = [...alone].at(-1);
  const turn = (async () => {
    await settled(before);
    await Promise.all([...acting].map(settled));
    return act();
  })();
  alone.add(turn);
  try {
    return await turn;
  } finally {
    alone.delete(turn);
  }
}
