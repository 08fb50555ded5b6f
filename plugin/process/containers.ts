/** Which processes containers are, as their runtimes have left it in files under /run: so a container has a netns though we never saw it. */
import { readFileSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';

/** A container that a runtime has files of. */
export interface Container {
  readonly id: string;
  /** The folder that says so. */
  readonly folder: string;
  /** Where its netns can be opened; undefined where none of its processes runs. */
  readonly netnsPath: string | undefined;
}

/** What was found, and where it was looked for. */
export interface FoundContainers {
  readonly containers: readonly Container[];
  /** Folders, those that cannot be read with the reason. */
  readonly lookedIn: readonly string[];
}

/** A runtime's files: folders with a folder of each container, and within that the file with its process and its OCI configuration. */
interface Layout {
  /** A part `*` is every folder there. */
  readonly folders: string;
  readonly pidFile: string;
  readonly configFile: string;
}

/** containerd's shim (core/runtime/v2, Bundle), by itself, as k3s has it, and as Docker starts it. */
const BUNDLES = 'io.containerd.runtime.v2.task/*';
const OF_SHIM = { pidFile: 'init.pid', configFile: 'config.json' } as const;
const LAYOUTS: readonly Layout[] = [
  { folders: `run/containerd/${BUNDLES}`, ...OF_SHIM },
  { folders: `run/k3s/containerd/${BUNDLES}`, ...OF_SHIM },
  { folders: `run/docker/containerd/daemon/${BUNDLES}`, ...OF_SHIM },
  // containers/storage, of CRI-O and Podman, for each driver.
  {
    folders: 'run/containers/storage/*',
    pidFile: 'userdata/pidfile',
    configFile: 'userdata/config.json',
  },
];

/** As much of an id as names one: fewer digits are a word by chance. */
const PREFIX = /^[0-9a-f]{6,64}$/;
/** Ticks of /proc in a second: USER_HZ of every architecture that there is a build for. */
const TICKS_PER_SECOND = 100;
/** Times of files are kept by the tick of the kernel, those of processes by hundredths. */
const SLACK_MS = 1000;

function textOf(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    // It is not there, or not for us.
    return undefined;
  }
}

function namesIn(folder: string): readonly string[] | string {
  try {
    return readdirSync(folder);
  } catch (error) {
    return error instanceof Error && 'code' in error ? String(error.code) : String(error);
  }
}

/** The folders of a pattern that are there. */
function matching(root: string, pattern: string): string[] {
  let found = [root];
  for (const part of pattern.split('/')) {
    found = found.flatMap((folder) => {
      if (part !== '*') return [join(folder, part)];
      const names = namesIn(folder);
      return typeof names === 'string' ? [] : names.map((name) => join(folder, name));
    });
  }
  return found;
}

/** When a process began, in milliseconds since 1970; undefined where there is none (proc(5), field 22 of stat, behind a name that may hold anything). */
function startOf(root: string, pid: string): number | undefined {
  const [, rest] = /.*\) (.*)/s.exec(textOf(join(root, 'proc', pid, 'stat')) ?? '') ?? [];
  const uptimeSeconds = Number(textOf(join(root, 'proc/uptime'))?.split(' ')[0]);
  const ticks = Number(rest?.split(' ')[19]);
  const started = Date.now() - uptimeSeconds * 1000 + (ticks * 1000) / TICKS_PER_SECOND;
  return Number.isNaN(started) ? undefined : started;
}

/** The netns of the process that a file names; undefined where that has ended, also where another has its number by now. */
function netnsOfProcess(root: string, pidFile: string): string | undefined {
  const pid = textOf(pidFile)?.trim() ?? '';
  if (!/^[1-9]\d*$/.test(pid)) return undefined;
  const started = startOf(root, pid);
  if (started === undefined || started > statSync(pidFile).mtimeMs + SLACK_MS) return undefined;
  return join(root, 'proc', pid, 'ns/net');
}

/** The netns that a container was told to join (OCI runtime specification, linux.namespaces), where that is still there. */
function netnsOfConfig(root: string, configFile: string): string | undefined {
  try {
    const { linux } = JSON.parse(textOf(configFile) ?? '{}') as {
      readonly linux?: {
        readonly namespaces?: readonly { readonly type?: unknown; readonly path?: unknown }[];
      };
    };
    const path = linux?.namespaces?.find(({ type }) => type === 'network')?.path;
    if (typeof path !== 'string' || !path.startsWith('/')) return undefined;
    // That of a process may be another's by now.
    if (path.startsWith('/proc/')) return undefined;
    statSync(join(root, path));
    return join(root, path);
  } catch {
    // Half written, or the netns has gone.
    return undefined;
  }
}

/**
 * The containers whose id is the text or, where that is six hexadecimal digits or more, begins with it; one whose whole id it
 * is goes before all others. `root` is where /run and /proc are.
 */
export function findContainers(text: string, root = '/'): FoundContainers {
  const containers: Container[] = [];
  const lookedIn: string[] = [];
  for (const { folders, pidFile, configFile } of LAYOUTS) {
    lookedIn.push(join(root, folders));
    for (const folder of matching(root, folders)) {
      const names = namesIn(folder);
      if (typeof names === 'string') {
        if (names !== 'ENOENT' && names !== 'ENOTDIR') lookedIn.push(`${folder} (${names})`);
        continue;
      }
      for (const id of names) {
        if (id !== text && !(PREFIX.test(text) && id.startsWith(text))) continue;
        const place = join(folder, id);
        const netnsPath =
          netnsOfProcess(root, join(place, pidFile)) ??
          netnsOfConfig(root, join(place, configFile));
        containers.push({ id, folder: place, netnsPath });
      }
    }
  }
  const exact = containers.filter(({ id }) => id === text);
  return { containers: exact.length > 0 ? exact : containers, lookedIn };
}
