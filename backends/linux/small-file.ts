/** Files that the kernel fills as they are read, such as those of /proc: opened by way of a folder, and short. */
import type { Fault } from '../../model/errno.ts';
import { fileFunctions, lastErrno } from './libc.ts';

const O_RDONLY = 0;
const O_CLOEXEC = 0o2000000;
/** O_PATH: to be looked in, and nothing else. */
const O_PATH = 0o10000000;

/** AT_FDCWD: names are whole paths. */
export const NO_FOLDER = -100;

/** The kernel tells of none more than a page holds at once (fs/proc/proc_sysctl.c; fs/seq_file.c). */
const PAGE_BYTES = 4096;

let page: Buffer | undefined;

/** A file descriptor of the folder at a path, for the caller to close. */
export function openFolder(path: Uint8Array): number | Fault {
  const fd = fileFunctions().openat(NO_FOLDER, path, O_PATH | O_CLOEXEC);
  return fd < 0 ? { errno: lastErrno(), text: '' } : fd;
}

/** What a file in an open folder says, up to a page of it; ENOENT where there is none. The name ends in a NUL byte. */
export function readFileAt(folder: number, name: Uint8Array): string | Fault {
  // For node:fs names are always paths.
  const { openat, read, close } = fileFunctions();
  const fd = openat(folder, name, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return { errno: lastErrno(), text: '' };
  page ??= Buffer.alloc(PAGE_BYTES);
  const length = read(fd, page, PAGE_BYTES);
  const fault: Fault | undefined = length < 0 ? { errno: lastErrno(), text: '' } : undefined;
  close(fd);
  return fault ?? page.toString('latin1', 0, length);
}
