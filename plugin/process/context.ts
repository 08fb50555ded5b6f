import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { type LinuxChoice, makeLinuxBackend } from '../../backends/linux/linux.ts';
import { type Lock, lockFile } from '../../backends/linux/lock.ts';
import { sameNetns } from '../../backends/linux/netns.ts';
import { type Ip, findIp } from '../../model/ip.ts';
import type { CallContext, Log } from '../call/context.ts';
import { CNI_ERROR, CniError } from '../cni/error.ts';
import type { State } from '../state.ts';
import { NewStateError } from '../store/error.ts';
import {
  IN_MEMORY,
  STATE_FILE,
  openKnownStore,
  openStore,
  openStoreToRead,
} from '../store/open.ts';
import { bootId, isAlive, machineIdentity, thisWorker } from './machine.ts';

/** How long a call waits for the others on this machine: 200 at once take 20 s on two busy cores, and a runtime gives up after 2 minutes. */
const LOCK_TIMEOUT_MS = 60_000;

function takeLock(path: string): Lock | undefined {
  try {
    return lockFile(path, LOCK_TIMEOUT_MS);
  } catch (error) {
    throw new CniError(
      CNI_ERROR.io,
      `cannot use lock file ${path}: ${error instanceof Error ? error.message : String(error)}`,
    );
  }
}

function exclusively<T>(path: string, work: () => T): T {
  const lock = takeLock(path);
  if (!lock)
    throw new CniError(
      CNI_ERROR.tryAgainLater,
      `other calls hold ${path} for more than ${LOCK_TIMEOUT_MS / 1000} s`,
    );
  try {
    return work();
  } finally {
    lock.release();
  }
}

function readText(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    // What cannot be read may say no: it is not as if it were not there.
    const code = error instanceof Error && 'code' in error ? error.code : undefined;
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined;
    throw new CniError(CNI_ERROR.io, `cannot read ${path}`, String(code ?? error));
  }
}

/** host-local's files are named after the addresses. */
function reservedByHostLocal(folder: string): Ip[] {
  // To ask first is cheaper than an exception, and most nodes never had the folder.
  if (!existsSync(folder)) return [];
  return readdirSync(folder).flatMap((name) => findIp(name) ?? []);
}

/** In place of a plugin in a call that was found to need none. */
function noDelegate(): never {
  throw new Error('another plugin is needed, and none was loaded');
}

/** In place of the removal of what the reference plugins made, where they made nothing. */
function noDeparture(): never {
  throw new Error(
    'something of the reference plugins is to be removed, and what does it was not loaded',
  );
}

function surroundings(log: Log, choice?: LinuxChoice): Omit<CallContext, 'state' | 'exclusively'> {
  return {
    backend: makeLinuxBackend(choice),
    identity: machineIdentity(),
    worker: thisWorker(),
    isAlive,
    isOwnNetns: sameNetns,
    clock: () => performance.now(),
    now: () => Date.now(),
    pause: (durationMs) => Bun.sleepSync(durationMs),
    readText,
    reservedByHostLocal,
    delegate: noDelegate,
    depart: noDeparture,
    log,
  };
}

/** Runs `work` while no other call works on the network of which `dataDir` holds the state. */
export function underLock<T>(dataDir: string, work: () => T): T {
  return exclusively(`${dataDir}/lock`, work);
}

/** The surroundings of a call on the kernel of this machine, with this state. */
export function contextOver(
  state: State,
  dataDir: string,
  log: Log,
  choice?: LinuxChoice,
): CallContext {
  return { ...surroundings(log, choice), state, exclusively: (work) => underLock(dataDir, work) };
}

/** The same with the state in `dataDir`; a state file that is new first gets records of what the kernel has. */
export async function linuxContext(
  dataDir: string,
  log: Log,
  choice?: LinuxChoice,
): Promise<CallContext> {
  try {
    return contextOver(openKnownStore(dataDir, bootId()), dataDir, log, choice);
  } catch (error) {
    if (!(error instanceof NewStateError)) throw error;
    // A matter of once in the life of a node.
    const { openNewState } = await import('./recovery.ts');
    return contextOver(openNewState(dataDir, log), dataDir, log, choice);
  }
}

/** What plans want: that they say which kernel they were made for, and are compared by it. */
export const FOR_PLANS: LinuxChoice = { tellsRelease: true };

/** The same for a call that only looks, for a plan: where there is no state yet, none is made. */
export async function lookingContext(dataDir: string, log: Log): Promise<CallContext> {
  if (existsSync(`${dataDir}/${STATE_FILE}`)) return linuxContext(dataDir, log, FOR_PLANS);
  const state = openStore(IN_MEMORY, bootId());
  return { ...surroundings(log, FOR_PLANS), state, exclusively: (work) => work() };
}

/** The same for a call that must not even leave a trace of having looked. */
export function readingContext(dataDir: string, log: Log): CallContext {
  return {
    ...surroundings(log),
    state: openStoreToRead(dataDir, bootId()),
    exclusively: (work) => work(),
  };
}
