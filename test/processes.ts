/** Long runs in several processes, each of which tells what it has come to in lines of JSON, and how signals end them. */
import { type ChildProcess, spawn } from 'node:child_process';
import { writeSync } from 'node:fs';
import { createInterface } from 'node:readline';

const ENDINGS = ['SIGINT', 'SIGTERM'] as const;

/** The status of a run that a signal has ended, whichever: as if it were SIGINT, which a shell gives as 128 and its number. */
export const INTERRUPTED = 130;

const interruption = new AbortController();

/** From now on signals end this process no more, but are noted; as is that nobody hears any more what it tells. */
export function noteSignals(): AbortSignal {
  for (const signal of ENDINGS) process.on(signal, () => interruption.abort());
  return interruption.signal;
}

/** Tells the process that has started this one, should it still be there. */
export function tell(news: object): void {
  try {
    writeSync(1, `${JSON.stringify(news)}\n`);
  } catch (error) {
    const isGone = error instanceof Error && 'code' in error && error.code === 'EPIPE';
    if (!isGone) throw error;
    interruption.abort();
  }
}

/** Hears what a process tells until it ends; rejects when it ends otherwise than it should. */
async function listen(child: ChildProcess, hear: (line: string) => void): Promise<void> {
  const ended = new Promise<number | NodeJS.Signals | null>((resolve) => {
    child.on('close', (status, signal) => resolve(signal ?? status));
  });
  if (child.stdout) {
    for await (const line of createInterface({ input: child.stdout })) hear(line);
  }
  const how = await ended;
  // By a signal that came before it could note it, when it had begun nothing.
  if (how !== 0 && !ENDINGS.some((signal) => signal === how))
    throw new Error(`a process of the fuzz ended by ${how}`);
}

/**
 * Starts processes of this program with these arguments, hears each line that one tells, by its number, and answers when all have ended.
 * A signal is theirs to obey: they end what they have begun, and tell what they have come to by then; so does `stop`.
 */
export async function hearProcesses(
  commands: readonly (readonly string[])[],
  hear: (at: number, line: string, stop: () => void) => void,
): Promise<{ readonly isInterrupted: boolean }> {
  let isInterrupted = false;
  // In groups of their own: a terminal gives SIGINT to all of a group, and would end also what they have started.
  const children = commands.map((command) =>
    spawn(process.execPath, command, { detached: true, stdio: ['ignore', 'pipe', 'inherit'] }),
  );
  const stop = (): void => {
    for (const child of children) child.kill('SIGTERM');
  };
  const interrupt = (): void => {
    isInterrupted = true;
    stop();
  };
  for (const signal of ENDINGS) process.on(signal, interrupt);
  try {
    await Promise.all(children.map((child, at) => listen(child, (line) => hear(at, line, stop))));
  } finally {
    stop();
    for (const signal of ENDINGS) process.off(signal, interrupt);
  }
  return { isInterrupted };
}
