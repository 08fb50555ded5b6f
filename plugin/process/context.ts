import { existsSync } from 'node:fs';
import { makeLinuxBackend } from '../../backends/linux/linux.ts';
import { type Lock, lockFile } from '../../backends/linux/lock.ts';
import { sameNetns } from '../../backends/linux/netns.ts';
import type { CallContext, Log } from '../call/context.ts';
import { CNI_ERROR, CniError } from '../cni/error.ts';
import { IN_MEMORY, STATE_FILE, openStore } from '../store/store.ts';
import { bootId, isAlive, machineIdentity, thisWorker } from './machine.ts';

/** How long a call waits for the others on this machine. A runtime kills a call only after minutes. */
const LOCK_TIMEOUT_MS = 20_000;

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

/** The surroundings of a call on the kernel of this machine, with the state in `dataDir`. */
export function linuxContext(dataDir: string, log: Log): CallContext {
  const state = openStore(dataDir, bootId());
  return {
    backend: makeLinuxBackend(),
    state,
    identity: machineIdentity(),
    worker: thisWorker(),
    isAlive,
    exclusively: (work) => exclusively(`${dataDir}/lock`, work),
    isOwnNetns: sameNetns,
    clock: () => performance.now(),
    log,
  };
}

/** The same for a call that only looks: where there is no state yet, none is made. */
export function lookingContext(dataDir: string, log: Log): CallContext {
  if (existsSync(`${dataDir}/${STATE_FILE}`)) return linuxContext(dataDir, log);
  return {
    backend: makeLinuxBackend(),
    state: openStore(IN_MEMORY, bootId()),
    identity: machineIdentity(),
    worker: thisWorker(),
    isAlive,
    exclusively: (work) => work(),
    isOwnNetns: sameNetns,
    clock: () => performance.now(),
    log,
  };
}
