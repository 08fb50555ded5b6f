/** Runs other plugins by the CNI execution protocol (CNI specification, section 4; pkg/invoke of libcni). */
import { accessSync, constants, statSync } from 'node:fs';
import { execaSync } from 'execa';
import { CNI_ERROR, CniError } from '../cni/error.ts';
import { type Delegate, type DelegateCall, MissingPluginError } from '../ipam/delegate.ts';

/** Variables that would change how an executable of our kind runs, and mean nothing to any other. */
const OURS_ALONE = ['BUN_OPTIONS', 'BUN_BE_BUN'];

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}

/** Where the plugin with a name is: the first in the order of CNI_PATH. Throws an error that names both. */
function findPlugin(type: string, cniPath: string): string {
  const folders = cniPath.split(':').filter((folder) => folder !== '');
  const found = folders.map((folder) => `${folder}/${type}`).find(isExecutable);
  if (found !== undefined) return found;
  throw new MissingPluginError(type, folders);
}

/** The error that a plugin printed, or one that says that it printed none. */
function errorOf(type: string, stdout: string, how: string): CniError {
  try {
    const { code, msg, details } = JSON.parse(stdout) as Readonly<Record<string, unknown>>;
    if (typeof code === 'number' && typeof msg === 'string')
      return new CniError(code, msg, typeof details === 'string' ? details : '');
  } catch {
    // It is no JSON: what it printed is told as it is.
  }
  return new CniError(
    CNI_ERROR.internal,
    `plugin ${type} failed without an error of its own: ${how}`,
    stdout.trim().slice(0, 1000),
  );
}

/** Runs plugins from `cniPath` with the environment of the present call, but for the command. */
export function makeDelegate(
  cniPath: string,
  variables: Readonly<Record<string, string | undefined>>,
): Delegate {
  const inherited = Object.fromEntries(
    Object.entries(variables).filter(([name]) => !OURS_ALONE.includes(name)),
  );
  return ({ type, verb, stdin, key, netns }: DelegateCall): unknown => {
    const { stdout, failed, exitCode, signal } = execaSync(findPlugin(type, cniPath), [], {
      input: stdin,
      env: {
        ...inherited,
        CNI_COMMAND: verb,
        CNI_CONTAINERID: key?.containerId ?? '',
        CNI_IFNAME: key?.ifname ?? '',
        CNI_NETNS: netns,
        CNI_PATH: cniPath,
      },
      extendEnv: false,
      reject: false,
      stdin: 'pipe',
      stdout: 'pipe',
      stderr: 'inherit',
      stripFinalNewline: false,
    });
    if (failed)
      throw errorOf(type, stdout, signal === undefined ? `exit status ${exitCode}` : signal);
    if (stdout.trim() === '') return undefined;
    try {
      return JSON.parse(stdout);
    } catch {
      throw new CniError(
        CNI_ERROR.decode,
        `plugin ${type} did not answer JSON`,
        stdout.slice(0, 1000),
      );
    }
  };
}
