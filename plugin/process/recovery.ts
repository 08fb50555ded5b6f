/** A state file that was lost or is damaged: what the kernel's own objects tell takes its place. */
import { existsSync, renameSync } from 'node:fs';
import type { Log } from '../call/context.ts';
import { rebuild } from '../call/rebuild.ts';
import { STATE_FILE, isSound, openStore } from '../store/open.ts';
import type { Store } from '../store/store.ts';
import { contextOver, underLock } from './context.ts';
import { bootId } from './machine.ts';

/** SQLite's files beside the state file. */
const SUFFIXES = ['', '-wal', '-shm'];

/** Opens the state file; one that is new gets records of what the kernel has. To be called under the lock. */
function openFilled(dataDir: string, log: Log): Store {
  return openStore(dataDir, bootId(), undefined, (state) => {
    const found = rebuild(contextOver(state, dataDir, log));
    if (found.length > 0)
      log('warn', `${found.length} attachments were found in the kernel and recorded`, {
        attachments: found,
      });
  });
}

/** Opens a state file that is new, unless another call was faster: nobody gets an address of a pod that a lost one told of. */
export function openNewState(dataDir: string, log: Log): Store {
  return underLock(dataDir, () => openFilled(dataDir, log));
}

/** Replaces the state file unless another call has done so already, and says so in the log. */
export function replaceDamagedState(dataDir: string, log: Log): void {
  underLock(dataDir, () => {
    const file = `${dataDir}/${STATE_FILE}`;
    if (isSound(file)) return;
    const aside = `${file}.damaged-${new Date().toISOString().replaceAll(':', '')}`;
    for (const suffix of SUFFIXES)
      if (existsSync(file + suffix)) renameSync(file + suffix, aside + suffix);
    log('error', `state file ${file} is damaged: it was moved to ${aside}`);
    openFilled(dataDir, log);
  });
}
