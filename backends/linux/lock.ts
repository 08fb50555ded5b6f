import { closeSync, openSync } from 'node:fs';
import { lastErrno, lockFunctions } from './libc.ts';

const LOCK_EX = 2;
const LOCK_NB = 4;

/** The shortest and the longest pause between two tries: a call holds the lock for some milliseconds. */
const PAUSE_MIN_MS = 0.3;
const PAUSE_MAX_MS = 2;

/** A lock that is held; it ends with `release` or with the process, however that dies. */
export interface Lock {
  readonly release: () => void;
}

/**
 * Takes the lock on a file, which is made if it is missing, alone among all processes (flock(2)); undefined when
 * others hold it for longer than `timeoutMs`. Waiting is a series of tries at irregular moments: flock has no time
 * limit, and those who wait shall not all try at once. Throws when the file cannot be opened or locked at all.
 */
export function lockFile(path: string, timeoutMs: number): Lock | undefined {
  const { flock } = lockFunctions();
  const fd = openSync(path, 'a', 0o600);
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    if (flock(fd, LOCK_EX | LOCK_NB) === 0) return { release: () => closeSync(fd) };
    const errno = lastErrno();
    if (errno !== 'EAGAIN' && errno !== 'EINTR') {
      closeSync(fd);
      throw new Error(`Cannot lock ${path}: ${errno}`);
    }
    if (performance.now() >= deadline) {
      closeSync(fd);
      return undefined;
    }
    Bun.sleepSync(PAUSE_MIN_MS + Math.random() * (PAUSE_MAX_MS - PAUSE_MIN_MS));
  }
}
