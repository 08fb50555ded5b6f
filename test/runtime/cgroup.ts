import { existsSync } from 'node:fs';
import { readdir, rmdir } from 'node:fs/promises';
import path from 'node:path';
import { waitFor } from './wait.ts';

/** Removes a runtime's parent cgroup from all hierarchies: its pods' cgroups go with them, the parent does not. */
export async function removeCgroups(name: string): Promise<void> {
  const root = '/sys/fs/cgroup';
  const hierarchies = existsSync(path.join(root, 'cgroup.controllers'))
    ? ['.']
    : await readdir(root);
  for (const hierarchy of hierarchies) {
    const parent = path.join(root, hierarchy, name);
    if (!existsSync(parent)) continue;
    const children = (await readdir(parent, { recursive: true, withFileTypes: true }))
      .filter((entry) => entry.isDirectory())
      .map((entry) => path.join(entry.parentPath, entry.name));
    // Deepest first. A cgroup is busy for a moment after its last process has ended.
    for (const cgroup of [parent, ...children].toSorted((a, b) => b.length - a.length)) {
      await waitFor(
        `cgroup ${cgroup} to be empty`,
        () => 'busy',
        () =>
          rmdir(cgroup).then(
            () => true,
            () => false,
          ),
      );
    }
  }
}
