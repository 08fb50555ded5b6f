/** Asking a socket for its options, among which are those of its netns's iptables (getsockopt(2)). */
import { closeSync } from 'node:fs';
import type { Fault } from '../../model/errno.ts';
import { lastErrno, optionFunctions, socketFunctions } from './libc.ts';
import { AF_INET, AF_INET6, SOCK_CLOEXEC, SOCK_DGRAM } from './socket.ts';

/** A socket that is asked for its options only. */
export class OptionSocket {
  readonly #fd: number;

  /** Takes over an open socket. */
  constructor(fd: number) {
    this.#fd = fd;
  }

  /** Writes an option's value into `buffer`, whose whole length the kernel is told: undefined when it did. */
  read(level: number, option: number, buffer: Uint8Array): Fault | undefined {
    const length = Uint32Array.of(buffer.length);
    return optionFunctions().getsockopt(this.#fd, level, option, buffer, length) < 0
      ? { errno: lastErrno(), text: 'getsockopt' }
      : undefined;
  }

  close(): void {
    closeSync(this.#fd);
  }
}

/** A socket in the present netns that sends nothing; EAFNOSUPPORT where the kernel has no such family. */
export function openOptions(family: 4 | 6): OptionSocket | Fault {
  const domain = family === 4 ? AF_INET : AF_INET6;
  const fd = socketFunctions().socket(domain, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  return fd < 0 ? { errno: lastErrno(), text: 'no socket for options' } : new OptionSocket(fd);
}
