import { setTimeout as sleep } from 'node:timers/promises';

const TIMEOUT_MS = 30_000;

/** Waits until something is so. `why` says what it still is instead, for the error when that takes too long. */
export async function waitFor(
  what: string,
  why: () => string,
  done: () => Promise<boolean>,
): Promise<void> {
  const deadline = Date.now() + TIMEOUT_MS;
  while (!(await done())) {
    if (Date.now() > deadline) throw new Error(`Waited in vain for ${what}: ${why()}`);
    await sleep(20);
  }
}
