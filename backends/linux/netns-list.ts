/** Which network namespaces have names on this machine. */
import { readdirSync, statSync } from 'node:fs';
import { HOST_NETNS, type NetnsName } from '../../model/host.ts';
import { netnsPath } from './netns.ts';

/** Folders of files with a netns mounted on each: iproute2's and the container runtimes', and Docker's own. */
const FOLDERS = ['/run/netns', '/run/docker/netns'];

function inodeOf(name: NetnsName): number | undefined {
  try {
    return statSync(netnsPath(name)).ino;
  } catch {
    // It went in the meantime.
    return undefined;
  }
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder).toSorted();
  } catch {
    return [];
  }
}

/** The netns of this process, and each other that has a name, once: by its name under /run/netns, else by its path. */
export function listNetns(): NetnsName[] {
  const seen = new Set([inodeOf(HOST_NETNS)]);
  const names: NetnsName[] = [HOST_NETNS];
  for (const folder of FOLDERS) {
    for (const file of namesIn(folder)) {
      const name = folder === FOLDERS[0] ? file : `${folder}/${file}`;
      const inode = inodeOf(name);
      if (inode === undefined || seen.has(inode)) continue;
      seen.add(inode);
      names.push(name);
    }
  }
  return names;
}

/** The name, among these, of the netns at a path; undefined where it is another's or none. */
export function nameOfNetns(path: string, names: readonly NetnsName[]): NetnsName | undefined {
  const inode = inodeOf(path);
  return inode === undefined ? undefined : names.find((name) => inodeOf(name) === inode);
}
