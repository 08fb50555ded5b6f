/** Sysctls by file. What /proc/sys/net shows is that of the reading thread's netns (net/sysctl_net.c), so call this inside it. */
import { closeSync, openSync, readFileSync, writeSync } from 'node:fs';
import type { Fault } from '../../model/errno.ts';
import type { SysctlKey } from '../../model/host.ts';
import { faultOf } from './fault.ts';

function pathOf(key: SysctlKey): string {
  return `/proc/sys/${key}`;
}

/** The value without the newline at its end; ENOENT when this kernel, or this netns, has no such key. */
export function readSysctl(key: SysctlKey): { readonly value: string } | Fault {
  try {
    const text = readFileSync(pathOf(key), 'latin1');
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
