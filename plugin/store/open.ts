/** Opening the state file: made when it is new, brought to this schema, cleared of earlier boots, or only read. */
import { Database, constants } from 'bun:sqlite';
import { closeSync, existsSync, mkdirSync, openSync } from 'node:fs';
import { CNI_ERROR, CniError } from '../cni/error.ts';
import { NewStateError, guarded, isBusy, isDamage } from './error.ts';
import { MIGRATIONS, OLDEST_COMPATIBLE, SCHEMA_VERSION } from './schema.ts';
import { type Store, storeOver } from './store.ts';

/** The state file's name in its folder. */
export const STATE_FILE = 'state.db';

/** In place of a folder: state that ends with the process. */
export const IN_MEMORY = ':memory:';

/** How long a call waits for the others' transactions, each of a few milliseconds. SQLite's waiting is not fair. */
const BUSY_TIMEOUT_MS = 20_000;

/** How far the write-ahead log may grow, in pages of 4 KiB: the next process reads it whole. */
const WAL_PAGES = 128;

/** What to do with a file that is new: before anybody else can read it, and as a whole or not at all. */
export type FillNew = (store: Store) => void;

function schemaVersion(db: Database): number {
  return (db.query('PRAGMA user_version').get() as { user_version: number }).user_version;
}

/** A file becomes one with a write-ahead log while nobody else reads it; SQLite does not wait for that moment by itself. */
function useWriteAheadLog(db: Database, busyTimeoutMs: number): void {
  const deadline = performance.now() + busyTimeoutMs;
  for (;;) {
    try {
      db.run('PRAGMA journal_mode = WAL');
      return;
    } catch (error) {
      if (!isBusy(error) || performance.now() >= deadline) throw error;
      Bun.sleepSync(1);
    }
  }
}

function migrate(db: Database, file: string, busyTimeoutMs: number): void {
  const version = schemaVersion(db);
  if (version === SCHEMA_VERSION) return;
  if (version > SCHEMA_VERSION) {
    const row = db.query("SELECT value FROM meta WHERE key = 'oldest_compatible'").get() as {
      value: string;
    } | null;
    if (Number(row?.value ?? version) <= SCHEMA_VERSION) return;
    throw new CniError(
      CNI_ERROR.io,
      `state file ${file} has schema ${version}, written by a newer cube-cni; this one understands schema ${SCHEMA_VERSION}`,
    );
  }
  useWriteAheadLog(db, busyTimeoutMs);
  db.run('BEGIN IMMEDIATE');
  try {
    const now = schemaVersion(db);
    if (now < SCHEMA_VERSION) {
      for (const sql of MIGRATIONS.slice(now)) db.run(sql);
      db.run("INSERT OR REPLACE INTO meta (key, value) VALUES ('oldest_compatible', ?)", [
        String(OLDEST_COMPATIBLE),
      ]);
      db.run(`PRAGMA user_version = ${SCHEMA_VERSION}`);
    }
    db.run('COMMIT');
  } catch (error) {
    if (db.inTransaction) db.run('ROLLBACK');
    throw error;
  }
  // Another process may have been first, and a newer one.
  migrate(db, file, busyTimeoutMs);
}

function bootOf(db: Database): string | undefined {
  const row = db.query("SELECT value FROM meta WHERE key = 'boot_id'").get();
  return (row as { value: string } | null)?.value;
}

/** Forgets the records of an earlier boot: their links and rules went with it, so their addresses are free. */
function forgetEarlierBoot(db: Database, file: string, bootId: string, fillNew: FillNew): void {
  if (bootOf(db) === bootId) return;
  db.run('BEGIN IMMEDIATE');
  try {
    const earlier = bootOf(db);
    if (earlier !== bootId) {
      for (const table of ['attachment', 'address', 'usage', 'claim'])
        db.run(`DELETE FROM ${table}`);
      db.run("INSERT OR REPLACE INTO meta (key, value) VALUES ('boot_id', ?)", [bootId]);
    }
    // Without any boot it was made just now: for the first time, or in place of one that was lost.
    if (earlier === undefined) fillNew(storeOver(db, file));
    db.run('COMMIT');
  } catch (error) {
    if (db.inTransaction) db.run('ROLLBACK');
    throw error;
  }
}

function openDatabase(dataDir: string, file: string, busyTimeoutMs: number): Database {
  if (dataDir === IN_MEMORY) return new Database(IN_MEMORY);
  try {
    // Who may read here knows every pod's addresses: nobody but root.
    if (!existsSync(dataDir)) mkdirSync(dataDir, { recursive: true, mode: 0o700 });
  } catch (error) {
    throw new CniError(
      CNI_ERROR.io,
      `cannot make folder ${dataDir}: ${error instanceof Error ? error.message : String(error)}`,
    );
  }
  try {
    // SQLite gives its other files the mode of this one.
    if (!existsSync(file)) closeSync(openSync(file, 'a', 0o600));
  } catch (error) {
    throw new CniError(
      CNI_ERROR.io,
      `cannot use state file ${file}: ${error instanceof Error ? error.message : String(error)}`,
    );
  }
  const db = new Database(file);
  db.run(`PRAGMA busy_timeout = ${busyTimeoutMs}`);
  // No fsync per commit: a crash of this program loses nothing, and after a crash of the machine the
  // records count for nothing anyway (`forgetEarlierBoot`).
  db.run('PRAGMA synchronous = NORMAL');
  db.run(`PRAGMA wal_autocheckpoint = ${WAL_PAGES}`);
  return db;
}

/**
 * Opens the state file of `dataDir` (or `IN_MEMORY`), making folder and file when they are not there. `bootId` tells
 * this boot from others. Throws a CniError: 11 when it stays busy, 5 when it cannot be used. What `fillNew` throws leaves
 * a new file new.
 */
export function openStore(
  dataDir: string,
  bootId: string,
  busyTimeoutMs = BUSY_TIMEOUT_MS,
  fillNew: FillNew = () => undefined,
): Store {
  const file = `${dataDir}/${STATE_FILE}`;
  const db = guarded(file, () => openDatabase(dataDir, file, busyTimeoutMs));
  try {
    guarded(file, () => {
      migrate(db, file, busyTimeoutMs);
      forgetEarlierBoot(db, file, bootId, fillNew);
    });
  } catch (error) {
    db.close();
    throw error;
  }
  return storeOver(db, file);
}

/** The same, unless the file is new: throws a NewStateError then. */
export function openKnownStore(dataDir: string, bootId: string): Store {
  return openStore(dataDir, bootId, undefined, () => {
    throw new NewStateError(`${dataDir}/${STATE_FILE}`);
  });
}

/** A file that nobody writes to meanwhile, as SQLite's URIs name it. */
function immutableUri(file: string): string {
  return `file:${encodeURI(file).replaceAll(/[?#]/g, encodeURIComponent)}?immutable=1`;
}

/** Without the second one a URI is the name of a file. */
const READ_BY_URI = constants.SQLITE_OPEN_READONLY | constants.SQLITE_OPEN_URI;

/** The bytes of SQLite's header that say that there is a write-ahead log (fileformat2, section 1.3.3), which memory has not. */
const WRITE_VERSION_AT = 18;
const READ_VERSION_AT = 19;

/** A copy in memory, with what only the write-ahead log has. */
function copyOf(db: Database): Database {
  const bytes = db.serialize();
  bytes[WRITE_VERSION_AT] = 1;
  bytes[READ_VERSION_AT] = 1;
  return Database.deserialize(bytes);
}

/**
 * Opens the state file only to read it: nothing of it changes, and none is made where there is none. Of an earlier boot
 * an empty store stands in, and of an older schema a copy in memory: what the next writer would make of it.
 */
export function openStoreToRead(dataDir: string, bootId: string): Store {
  const file = `${dataDir}/${STATE_FILE}`;
  const empty = (): Store => openStore(IN_MEMORY, bootId);
  if (!existsSync(file)) return empty();
  return guarded(file, () => {
    // Without its write-ahead log nobody has the file open; SQLite would make one to find that out.
    const db = existsSync(`${file}-wal`)
      ? new Database(file, { readonly: true })
      : new Database(immutableUri(file), READ_BY_URI);
    const version = schemaVersion(db);
    // Without a schema it was never written to.
    const isKnown = version > 0 && bootOf(db) === bootId;
    if (isKnown && version >= SCHEMA_VERSION) return storeOver(db, file);
    const copy = isKnown ? copyOf(db) : undefined;
    db.close();
    if (!copy) return empty();
    migrate(copy, file, 0);
    return storeOver(copy, file);
  });
}

/** Can the file be read as a whole? */
export function isSound(file: string): boolean {
  try {
    const db = new Database(file, { readonly: true });
    try {
      const [check] = db.query('PRAGMA quick_check(1)').all() as { quick_check: string }[];
      for (const row of db.query('SELECT record FROM attachment').all())
        JSON.parse((row as { record: string }).record);
      return check?.quick_check === 'ok';
    } finally {
      db.close();
    }
  } catch (error) {
    if (isDamage(error)) return false;
    throw error;
  }
}
