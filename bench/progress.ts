/** What goes on while something is measured, and how it ends early. */
import { setTimeout as sleep } from 'node:timers/promises';

const REWRITE_LINE = '\r\u001B[2K';

/** Thrown between two steps after a signal, so that everything is cleaned up on the way out. */
export class Interruption extends Error {}

let signal: NodeJS.Signals | undefined;
let stageTold = '';

/** From now on Ctrl-C and its like end nothing by themselves: the next step does. */
export function catchSignals(): void {
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(name, () => {
      signal = name;
    });
  }
}

/** Rejects with an `Interruption` when a signal has come. */
export async function letSignalsThrough(): Promise<void> {
  await sleep(0);
  if (signal !== undefined) throw new Interruption(`Interrupted by ${signal}`);
}

/** On a terminal one line that is rewritten, elsewhere a line per stage. */
function tellProgress(stage: string, index: number, count: number): void {
  if (process.stderr.isTTY) {
    process.stderr.write(`${REWRITE_LINE}${stage}, ${index + 1} of ${count}`);
  } else if (stage !== stageTold) {
    process.stderr.write(`${stage}\n`);
  }
  stageTold = stage;
}

/** Says on standard error what begins now, the `index`th of `count`; rejects when a signal has come. */
export function step(stage: string, index: number, count: number): Promise<void> {
  tellProgress(stage, index, count);
  return letSignalsThrough();
}

/** Takes the line of progress away. */
export function endProgress(): void {
  if (process.stderr.isTTY) process.stderr.write(REWRITE_LINE);
}
