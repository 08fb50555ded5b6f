import {
  closeSync,
  constants,
  fstatSync,
  mkdirSync,
  openSync,
  renameSync,
  statSync,
  writeSync,
} from 'node:fs';
import { dirname } from 'node:path';

/** Without waiting for anybody: a named pipe that nobody reads is an error, not a wait. */
const FLAGS = constants.O_WRONLY | constants.O_APPEND | constants.O_CREAT | constants.O_NONBLOCK;

function open(path: string): number {
  try {
    return openSync(path, FLAGS, 0o600);
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'ENOENT')) throw error;
    mkdirSync(dirname(path), { recursive: true, mode: 0o755 });
    return openSync(path, FLAGS, 0o600);
  }
}

/** Is the open file still the one at the path? Another process may have rotated it. */
function isCurrent(fd: number, path: string): boolean {
  const here = fstatSync(fd);
  const there = statSync(path, { throwIfNoEntry: false });
  return here.ino === there?.ino && here.dev === there.dev;
}

/**
 * Appends text to a file in one write, so that lines of several processes do not mix. When it has grown
 * beyond `maxBytes` it becomes `PATH.1`, in place of the one before. Throws when it cannot be written.
 */
export function appendRotating(path: string, text: string, maxBytes: number): void {
  let fd = open(path);
  try {
    const { size } = fstatSync(fd);
    if (
      size > 0 &&
      size + text.length > maxBytes &&
      fstatSync(fd).isFile() &&
      isCurrent(fd, path)
    ) {
      renameSync(path, `${path}.1`);
      closeSync(fd);
      fd = open(path);
    }
    writeSync(fd, text);
  } finally {
    closeSync(fd);
  }
}
