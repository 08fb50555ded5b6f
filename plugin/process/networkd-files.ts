/** The configuration of systemd-networkd on this machine, and whether it runs. */
import { readFileSync, readdirSync } from 'node:fs';

/** Where systemd looks, the first first (networkd.conf(5)). */
const FOLDERS = ['etc', 'run', 'usr/local/lib', 'usr/lib'].map((top) => `${top}/systemd`);

/** The kernel keeps 15 characters of a program's name. */
const COMM = 'systemd-networkd'.slice(0, 15);

function readText(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    // It is not there, or went in the meantime.
    return undefined;
  }
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

/** Is there a process of that name? */
function runs(root: string): boolean {
  return namesIn(`${root}/proc`).some(
    (name) => /^\d+$/.test(name) && readText(`${root}/proc/${name}/comm`)?.trim() === COMM,
  );
}

/** The drop-ins by their names, of equal names the first. */
function dropIns(root: string): string[] {
  const found = new Map<string, string>();
  for (const folder of FOLDERS.toReversed())
    for (const name of namesIn(`${root}/${folder}/networkd.conf.d`))
      if (name.endsWith('.conf')) found.set(name, `${root}/${folder}/networkd.conf.d/${name}`);
  return [...found]
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .flatMap(([, path]) => readText(path) ?? []);
}

/**
 * The texts of its files below `root`, in the order in which they count: the main one, then the drop-ins by name, each of the first
 * folder that has it. Undefined where networkd does not run.
 */
export function readNetworkd(root = ''): string[] | undefined {
  if (!runs(root)) return undefined;
  const main = FOLDERS.map((folder) => readText(`${root}/${folder}/networkd.conf`)).find(
    (text) => text !== undefined,
  );
  return [...(main === undefined ? [] : [main]), ...dropIns(root)];
}
