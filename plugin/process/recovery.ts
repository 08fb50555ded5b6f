/** A damaged state file is moved aside, and what the kernel's own objects tell takes its place. */
import { existsSync, renameSync } from 'node:fs';
import type { Log } from '../call/context.ts';
import { rebuild } from '../call/rebuild.ts';
import { STATE_FILE, isSound } from '../store/store.ts';
import { linuxContext, underLock } from './context.ts';

/** SQLite's files beside the state file. */
const SUFFIXES = ['', '-wal', '-shm'];

/** Replaces the state file unless another call has done so already, and says so in the log. */
export function replaceDamagedState(dataDir: string, log: Log): void {
  underLock(dataDir, () => {
    const file = `${dataDir}/${STATE_FILE}`;
    if (isSound(file)) return;
    const aside = `${file}.damaged-${new Date().toISOString().replaceAll(':', '')}`;
    for (const suffix of SUFFIXES)
      if (existsSync(file + suffix)) renameSync(file + suffix, aside + suffix);
    log('error', `state file ${file} is damaged: it was moved to ${aside}`);
    const found = rebuild({ ...linuxContext(dataDir, log), exclusively: (work) => work() });
    log('warn', `${found.length} attachments were found in the kernel and recorded`, {
      attachments: found,
    });
  });
}
