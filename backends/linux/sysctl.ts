/** Sysctls by file. What /proc/sys/net shows is that of the reading thread's netns (net/sysctl_net.c), so call this inside it. */
import { closeSync, openSync, writeSync } from 'node:fs';
import type { Fault } from '../../model/errno.ts';
import type { SysctlKey } from '../../model/host.ts';
import { faultOf } from './fault.ts';
import { cString } from './libc.ts';
import { NO_FOLDER, openFolder, readFileAt } from './small-file.ts';

function pathOf(key: SysctlKey): string {
  return `/proc/sys/${key}`;
}

/** One setting, and the path of its file from the folder that it is read by. */
interface Entry {
  readonly key: SysctlKey;
  readonly file: Uint8Array;
}

/** Settings that are read by way of a folder; undefined: by their whole paths. */
interface Shelf {
  readonly folder: Uint8Array | undefined;
  readonly entries: readonly Entry[];
}

/** As they are asked for again in each of many netns. */
const known = new WeakMap<readonly SysctlKey[], readonly Shelf[]>();

/** Of `net/ipv4/conf/all/rp_filter` it is `net/ipv4`. */
function folderOf(key: SysctlKey): string {
  const second = key.indexOf('/', key.indexOf('/') + 1);
  return key.slice(0, second < 0 ? key.lastIndexOf('/') : second);
}

function shelf(folder: string, keys: readonly SysctlKey[]): Shelf {
  const isFolder = keys.length > 1;
  return {
    folder: isFolder ? cString(pathOf(folder)) : undefined,
    entries: keys.map((key) => ({
      key,
      file: cString(isFolder ? key.slice(folder.length + 1) : pathOf(key)),
    })),
  };
}

function shelvesOf(keys: readonly SysctlKey[]): readonly Shelf[] {
  let shelves = known.get(keys);
  if (!shelves) {
    const folders = Map.groupBy(keys, folderOf);
    shelves = [...folders].map(([folder, inside]) => shelf(folder, inside));
    known.set(keys, shelves);
  }
  return shelves;
}

/** Puts the values of a shelf among `values`; why one of them cannot be read. */
function readShelf(
  { folder, entries }: Shelf,
  values: Record<SysctlKey, string>,
): Fault | undefined {
  const opened = folder ? openFolder(folder) : NO_FOLDER;
  if (typeof opened !== 'number') return opened.errno === 'ENOENT' ? undefined : opened;
  try {
    for (const { key, file } of entries) {
      const text = readFileAt(opened, file);
      if (typeof text === 'string') values[key] = text.endsWith('\n') ? text.slice(0, -1) : text;
      else if (text.errno !== 'ENOENT') return { ...text, text: key };
    }
    return undefined;
  } finally {
    if (folder) closeSync(opened);
  }
}

/**
 * The values of those of the keys that this kernel, and this netns, has, each without the newline at its end. Several of one
 * protocol are found through its folder: the kernel looks for the netns's own `net/ipv4` among those of all netns
 * (fs/proc/proc_sysctl.c, proc_sys_compare), which beside hundreds of them takes several times as long as all the rest.
 */
export function readSysctls(keys: readonly SysctlKey[]): Record<SysctlKey, string> | Fault {
  const values: Record<SysctlKey, string> = {};
  for (const each of shelvesOf(keys)) {
    const fault = readShelf(each, values);
    if (fault) return fault;
  }
  return values;
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
