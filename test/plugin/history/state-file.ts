/** The state file of a node over its boots: in memory, where it ends with each, or in a folder that is kept. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { IN_MEMORY, openStore } from '../../../plugin/store/open.ts';
import type { Store } from '../../../plugin/store/store.ts';

/** Where the records of a node are. */
export interface StateFile {
  /** Opens it for another boot; what was open before is closed. */
  readonly boot: (state: 'kept' | 'lost') => Store;
  readonly close: () => void;
}

/** A state file that is kept in a folder of its own when a history asks for that, else in memory, which is faster. */
export function makeStateFile(place: 'folder' | 'memory'): StateFile {
  let folder: string | undefined;
  let open: Store | undefined;
  let boots = 0;
  const clear = (): void => {
    open?.close();
    open = undefined;
  };
  const forget = (): void => {
    if (folder !== undefined) rmSync(folder, { recursive: true });
    folder = undefined;
  };
  return {
    boot: (state) => {
      clear();
      if (state === 'lost') forget();
      if (place === 'folder') folder ??= mkdtempSync(join(tmpdir(), 'cube-cni-history-'));
      boots += 1;
      open = openStore(folder ?? IN_MEMORY, `boot ${boots}`);
      return open;
    },
    close: () => {
      clear();
      forget();
    },
  };
}
