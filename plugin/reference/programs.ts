/** Running the machine's own programs: what iptables made, only iptables can list and remove in its own words. */
import { accessSync, constants } from 'node:fs';

/** What a program answered. */
export interface ProgramAnswer {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a program of the machine; undefined when it is not there. Throws when it cannot be run or takes too long. */
export type RunProgram = (name: string, args: readonly string[]) => ProgramAnswer | undefined;

/** Absolute, since a runtime's PATH may lack sbin. */
const FOLDERS = ['/usr/sbin', '/sbin', '/usr/bin', '/bin', '/usr/local/sbin'] as const;

/** Longer than iptables waits for its lock. */
const TIMEOUT_MS = 60_000;

function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

function findProgram(name: string): string | undefined {
  return FOLDERS.map((folder) => `${folder}/${name}`).find(isProgram);
}

/** Loads what it takes to run programs, which calls of our own attachments never need. */
export async function loadPrograms(): Promise<RunProgram> {
  const { execaSync } = await import('execa');
  return (name, args) => {
    const path = findProgram(name);
    if (path === undefined) return undefined;
    const { exitCode, stdout, stderr, timedOut, originalMessage } = execaSync(path, args, {
      // Answers in English, and nothing of the runtime's environment.
      env: { PATH: FOLDERS.join(':'), LC_ALL: 'C' },
      extendEnv: false,
      cwd: '/',
      stdin: 'ignore',
      reject: false,
      timeout: TIMEOUT_MS,
      killSignal: 'SIGKILL',
    });
    if (exitCode === undefined)
      throw new Error(
        `${path} ${timedOut ? `took more than ${TIMEOUT_MS / 1000} s` : `did not run: ${originalMessage}`}`,
      );
    return { status: exitCode, stdout, stderr };
  };
}
