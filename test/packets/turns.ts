/**
 * Hosts take turns, those of several processes too: while one is looked at by tracepoints, which tell links by names that all
 * have, the others send nothing. A process that dies gives its turn back, since flock(2) does.
 */
import { closeSync, openSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { lastErrno, lockFunctions } from '../../backends/linux/libc.ts';

const LOCKS = { shared: 1, exclusive: 2 } as const;
const LOCK_NB = 4;

/** Whoever acts is in the room. */
const ROOM = join(tmpdir(), 'cube-fz-room');
/** Through here everybody comes into it, and whoever wants it alone stays here meanwhile, so that no more come. */
const DOOR = join(tmpdir(), 'cube-fz-door');

const PAUSE_MS = 2;

/** Takes a lock on a file; answers what gives it back. */
async function take(path: string, how: keyof typeof LOCKS): Promise<() => void> {
  const { flock } = lockFunctions();
  const fd = openSync(path, 'a', 0o600);
  while (flock(fd, LOCKS[how] | LOCK_NB) !== 0) {
    const errno = lastErrno();
    if (errno !== 'EAGAIN' && errno !== 'EINTR') {
      closeSync(fd);
      throw new Error(`cannot lock ${path}: ${errno}`);
    }
    await Bun.sleep(PAUSE_MS);
  }
  let isHeld = true;
  return () => {
    if (isHeld) closeSync(fd);
    isHeld = false;
  };
}

/** Acts together with others, once nobody acts alone or wants to. Who calls `leave` minds no more if others act alone. */
export async function together<T>(act: (leave: () => void) => Promise<T>): Promise<T> {
  const closeDoor = await take(DOOR, 'shared');
  const leave = await take(ROOM, 'shared').finally(closeDoor);
  try {
    return await act(leave);
  } finally {
    leave();
  }
}

/** Acts alone, once all are done who act now. */
export async function exclusively<T>(act: () => Promise<T>): Promise<T> {
  const closeDoor = await take(DOOR, 'exclusive');
  try {
    const leave = await take(ROOM, 'exclusive');
    try {
      return await act();
    } finally {
      leave();
    }
  } finally {
    closeDoor();
  }
}
