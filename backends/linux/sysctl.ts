/** Sysctls by file. What /proc/sys/net shows is that of the reading thread's netns (net/sysctl_net.c), so call this inside it. */
import { closeSync, openSync, readSync, writeSync } from 'node:fs';
import type { Fault } from '../../model/errno.ts';
import type { SysctlKey } from '../../model/host.ts';
import { faultOf } from './fault.ts';

let buffer: Buffer | undefined;

function pathOf(key: SysctlKey): string {
  return `/proc/sys/${key}`;
}

/** The kernel tells of none more than a page holds (fs/proc/proc_sysctl.c). */
const VALUE_BYTES = 4096;

/** The value without the newline at its end; ENOENT when this kernel, or this netns, has no such key. */
export function readSysctl(key: SysctlKey): { readonly value: string } | Fault {
  try {
    // Half the time of readFileSync, which does not know how long a value is.
    const fd = openSync(pathOf(key), 'r');
    let text: string;
    try {
      buffer ??= Buffer.alloc(VALUE_BYTES);
      text = buffer.toString('latin1', 0, readSync(fd, buffer, 0, VALUE_BYTES, 0));
    } finally {
      closeSync(fd);
    }
    return { value: text.endsWith('\n') ? text.slice(0, -1) : text };
  } catch (error) {
    return faultOf(error);
  }
}

/** Writes a value; EINVAL when the kernel cannot read it, EROFS where /proc/sys is mounted read-only. */
export function writeSysctl(key: SysctlKey, value: string): Fault | undefined {
  try {
    // 'r+' and not 'w': nothing is to be created or truncated, and one write is one value.
    const fd = openSync(pathOf(key), 'r+');
    try {
      writeSync(fd, `${value}\n`);
    } finally {
      closeSync(fd);
    }
    return undefined;
  } catch (error) {
    return faultOf(error);
  }
}
