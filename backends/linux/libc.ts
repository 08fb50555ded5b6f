/**
 * The C functions that netlink and netns need, through Bun's foreign function interface. Each group
 * is opened at its first use (about 0.05 ms for the first, 0.03 ms for each further one), so that a call pays only
 * for what it does. A call and the reading of its errno are two steps: nothing may come between.
 */
import { type FFIFunction, type Library, type Pointer, dlopen, read } from 'bun:ffi';
import { type Errno, errnoName } from '../../model/errno.ts';

const ERRNO_FUNCTIONS = { __errno_location: { args: [], returns: 'ptr' } } as const;

/** The ssize_t answers are read as 32 bits: nothing here is longer, and -1 stays -1. */
const SOCKET_FUNCTIONS = {
  socket: { args: ['i32', 'i32', 'i32'], returns: 'i32' },
  setsockopt: { args: ['i32', 'i32', 'i32', 'ptr', 'u32'], returns: 'i32' },
  send: { args: ['i32', 'ptr', 'usize', 'i32'], returns: 'i32' },
  recv: { args: ['i32', 'ptr', 'usize', 'i32'], returns: 'i32' },
} as const;

/** The mode that openat(2) takes is left out: it is for files that are made. */
const FILE_FUNCTIONS = {
  openat: { args: ['i32', 'ptr', 'i32'], returns: 'i32' },
  read: { args: ['i32', 'ptr', 'usize'], returns: 'i32' },
  close: { args: ['i32'], returns: 'i32' },
} as const;

/** What an ICMP echo needs besides: connect(2) and bind(2) take a sockaddr. */
const ADDRESS_FUNCTIONS = {
  bind: { args: ['i32', 'ptr', 'u32'], returns: 'i32' },
  connect: { args: ['i32', 'ptr', 'u32'], returns: 'i32' },
} as const;

/** What reading the tables of iptables-legacy needs besides. */
const OPTION_FUNCTIONS = {
  getsockopt: { args: ['i32', 'i32', 'i32', 'ptr', 'ptr'], returns: 'i32' },
} as const;

/** What sending a frame through a link needs besides. */
const PACKET_FUNCTIONS = {
  sendto: { args: ['i32', 'ptr', 'usize', 'i32', 'ptr', 'u32'], returns: 'i32' },
} as const;

const NETNS_FUNCTIONS = { setns: { args: ['i32', 'i32'], returns: 'i32' } } as const;

const MOUNT_FUNCTIONS = {
  unshare: { args: ['i32'], returns: 'i32' },
  mount: { args: ['ptr', 'ptr', 'ptr', 'usize', 'ptr'], returns: 'i32' },
  umount2: { args: ['ptr', 'i32'], returns: 'i32' },
} as const;

/** syscall(2) for those that glibc has no function for before 2.36: a first argument that is text, or a number. */
const TEXT_SYSCALL = {
  syscall: { args: ['i64', 'ptr', 'i64', 'i64', 'i64', 'i64'], returns: 'i32' },
} as const;
const NUMBER_SYSCALL = {
  syscall: { args: ['i64', 'i64', 'i64', 'i64', 'i64', 'i64'], returns: 'i32' },
} as const;

const LOCK_FUNCTIONS = { flock: { args: ['i32', 'i32'], returns: 'i32' } } as const;

const PROCESS_FUNCTIONS = { _exit: { args: ['i32'], returns: 'void' } } as const;

const ARCHITECTURES: Readonly<Record<string, string>> = { x64: 'x86_64', arm64: 'aarch64' };

/** The C library by its file name: glibc, else musl, whose name carries the machine's. */
const NAMES = ['libc.so.6', `libc.musl-${ARCHITECTURES[process.arch] ?? process.arch}.so.1`];

/** Where this thread keeps its errno: one place for the life of the main thread. */
let errnoAt: Pointer | undefined;

function open<T extends Record<string, FFIFunction>>(functions: T): Library<T>['symbols'] {
  let problem: unknown;
  for (const name of NAMES) {
    try {
      // Before the first call that can fail, because opening a library changes errno.
      // oxlint-disable-next-line no-underscore-dangle -- the name that glibc and musl share
      errnoAt ??= dlopen(name, ERRNO_FUNCTIONS).symbols.__errno_location() as Pointer;
      return dlopen(name, functions).symbols;
    } catch (error) {
      problem = error;
    }
  }
  throw new Error(`No C library among ${NAMES.join(', ')} can be opened: ${String(problem)}`);
}

function once<T>(make: () => T): () => T {
  let made: T | undefined;
  return () => (made ??= make());
}

/** socket(2), setsockopt(2), send(2) and recv(2). */
export const socketFunctions = once(() => open(SOCKET_FUNCTIONS));
/** openat(2), read(2) and close(2). */
export const fileFunctions = once(() => open(FILE_FUNCTIONS));
/** bind(2) and connect(2). */
export const addressFunctions = once(() => open(ADDRESS_FUNCTIONS));
/** getsockopt(2). */
export const optionFunctions = once(() => open(OPTION_FUNCTIONS));
/** sendto(2). */
export const packetFunctions = once(() => open(PACKET_FUNCTIONS));
/** setns(2). */
export const netnsFunctions = once(() => open(NETNS_FUNCTIONS));
/** unshare(2), mount(2) and umount2(2). */
export const mountFunctions = once(() => open(MOUNT_FUNCTIONS));
/** syscall(2) with a text first. */
export const textSyscall = once(() => open(TEXT_SYSCALL));
/** syscall(2) with numbers only. */
export const numberSyscall = once(() => open(NUMBER_SYSCALL));
/** flock(2). */
export const lockFunctions = once(() => open(LOCK_FUNCTIONS));

/** _exit(2). */
const processFunctions = once(() => open(PROCESS_FUNCTIONS));

/**
 * Ends the process at once, without the runtime's tidying: that takes longer than a call, and would
 * make the next one begin the state file's write-ahead log anew. What is to be written must be written.
 */
export function exitNow(status: number): never {
  // oxlint-disable-next-line no-underscore-dangle -- the name that C gives it
  processFunctions()._exit(status);
  throw new Error('_exit returned');
}

/** The errno of the call that has just failed, by its name. */
export function lastErrno(): Errno {
  if (errnoAt === undefined) throw new Error('no C function was called yet');
  return errnoName(read.i32(errnoAt, 0));
}

/** A path as C takes it: UTF-8 with a NUL byte at its end. */
export function cString(text: string): Uint8Array {
  return new TextEncoder().encode(`${text}\0`);
}
