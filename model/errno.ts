/** The errors that the kernel answers to what this project asks of it (include/uapi/asm-generic/errno*.h). */
export const ERRNO = {
  EPERM: 1,
  ENOENT: 2,
  ESRCH: 3,
  EINTR: 4,
  EIO: 5,
  ENXIO: 6,
  EBADF: 9,
  EAGAIN: 11,
  ENOMEM: 12,
  EACCES: 13,
  EFAULT: 14,
  EBUSY: 16,
  EEXIST: 17,
  ENODEV: 19,
  ENOTDIR: 20,
  EISDIR: 21,
  EINVAL: 22,
  ENFILE: 23,
  EMFILE: 24,
  ENOSPC: 28,
  EROFS: 30,
  EMLINK: 31,
  ERANGE: 34,
  ENOSYS: 38,
  ELOOP: 40,
  EXFULL: 54,
  ENODATA: 61,
  ERESTART: 85,
  EMSGSIZE: 90,
  EPROTONOSUPPORT: 93,
  EOPNOTSUPP: 95,
  EAFNOSUPPORT: 97,
  EADDRINUSE: 98,
  EADDRNOTAVAIL: 99,
  ENETDOWN: 100,
  ENETUNREACH: 101,
  ENOBUFS: 105,
  EISCONN: 106,
  ENOTCONN: 107,
  ETIMEDOUT: 110,
  ECONNREFUSED: 111,
  EHOSTUNREACH: 113,
  EALREADY: 114,
  EINPROGRESS: 115,
} as const;

/** An errno by its name; one without a name here is written as its number. */
export type Errno = keyof typeof ERRNO | `errno ${number}`;

const NAMES = new Map<number, Errno>(
  Object.entries(ERRNO).map(([name, value]) => [value, name as keyof typeof ERRNO]),
);

/** The name of a positive errno value. */
export function errnoName(value: number): Errno {
  return NAMES.get(value) ?? `errno ${value}`;
}

/** What the kernel answers when it refuses an operation: the errno, its extended-ACK text ('' without one). */
export interface Fault {
  readonly errno: Errno;
  readonly text: string;
}
