import { Database, constants, type SQLQueryBindings, SQLiteError } from 'bun:sqlite';
import { closeSync, existsSync, mkdirSync, openSync } from 'node:fs';
import type { Ifname } from '../../model/ifname.ts';
import { type Ip, familyOf, ipBytes } from '../../model/ip.ts';
import type { Attachment } from '../attachment.ts';
import { CNI_ERROR, CniError } from '../cni/error.ts';
import type { AttachmentKey } from '../cni/request.ts';
import type { AttachmentRecord, RecordState, SharedObject, State, Worker } from '../state.ts';
import { MIGRATIONS, OLDEST_COMPATIBLE, SCHEMA_VERSION } from './schema.ts';

/** The state file's name in its folder. */
export const STATE_FILE = 'state.db';

/** In place of a folder: state that ends with the process. */
export const IN_MEMORY = ':memory:';

/** The state file, open. */
export interface Store extends State {
  /** Closes it for good; a process that ends soon need not (the next one reads the write-ahead log). */
  readonly close: () => void;
}

/** How long a call waits for the others' transactions, each of a few milliseconds. SQLite's waiting is not fair. */
const BUSY_TIMEOUT_MS = 20_000;

/** How many configurations are remembered as valid. */
const CONFIGS_KEPT = 32;

/** How long it is remembered that an address was used: as long as it can be kept from being used again, and longer than neighbours remember. */
const REMEMBERED_MS = 86_400_000;

/** A time behind every other. */
const NEVER_MS = Number.MAX_SAFE_INTEGER;

/** How far the write-ahead log may grow, in pages of 4 KiB: the next process reads it whole. */
const WAL_PAGES = 128;

interface AttachmentRow {
  readonly state: string;
  readonly pid: number;
  readonly start_time: string;
  readonly record: string;
}

/** Text that sorts as the addresses do: family, then bytes in hexadecimal. */
function sortKey(ip: Ip): string {
  return `${familyOf(ip)}${Array.from(ipBytes(ip), (byte) => byte.toString(16).padStart(2, '0')).join('')}`;
}

function keyValues({ network, containerId, ifname }: AttachmentKey): [string, string, string] {
  return [network, containerId, ifname];
}

function recordOf(row: AttachmentRow): AttachmentRecord {
  return {
    attachment: JSON.parse(row.record) as Attachment,
    state: row.state as RecordState,
    worker: { pid: row.pid, startTime: row.start_time },
  };
}

/** The state file is not what was written to it: it cannot be used, and another is to take its place. */
export class DamagedStateError extends CniError {
  constructor(file: string, details: string) {
    super(CNI_ERROR.io, `state file ${file} is damaged`, details);
  }
}

/** The state file is new to this machine, and what the kernel has already is to be recorded first. */
export class NewStateError extends CniError {
  constructor(file: string) {
    super(CNI_ERROR.io, `state file ${file} is new`, 'nobody has recorded what the kernel has');
  }
}

/** What to do with a file that is new: before anybody else can read it, and as a whole or not at all. */
export type FillNew = (store: Store) => void;

function isDamage(error: unknown): boolean {
  // A record that is no JSON any more: SQLite does not notice what happens within a text.
  if (error instanceof SyntaxError) return true;
  return (
    error instanceof SQLiteError &&
    (error.code?.startsWith('SQLITE_CORRUPT') === true || error.code === 'SQLITE_NOTADB')
  );
}

function isBusy(error: unknown): boolean {
  return error instanceof SQLiteError && error.code?.startsWith('SQLITE_BUSY') === true;
}

/** Turns what SQLite says into an answer: busy is for another time, anything else names the file. */
function asCniError(error: unknown, file: string): unknown {
  if (isDamage(error))
    return new DamagedStateError(file, error instanceof Error ? error.message : String(error));
  if (!(error instanceof SQLiteError)) return error;
  if (isBusy(error)) {
    return new CniError(
      CNI_ERROR.tryAgainLater,
      `state file ${file} is in use by another call`,
      error.message,
    );
  }
  return new CniError(
    CNI_ERROR.io,
    `cannot use state file ${file}: ${error.message}`,
    error.code ?? '',
  );
}

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

/** Forgets the records of an earlier boot: their links and rules went with it, so their addresses are free. */
function bootOf(db: Database): string | undefined {
  const row = db.query("SELECT value FROM meta WHERE key = 'boot_id'").get();
  return (row as { value: string } | null)?.value;
}

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

/** A file that nobody writes to meanwhile, as SQLite's URIs name it. */
function immutableUri(file: string): string {
  return `file:${encodeURI(file).replaceAll(/[?#]/g, encodeURIComponent)}?immutable=1`;
}

/** Without the second one a URI is the name of a file. */
const READ_BY_URI = constants.SQLITE_OPEN_READONLY | constants.SQLITE_OPEN_URI;

/** The same, unless the file is new: throws a NewStateError then. */
export function openKnownStore(dataDir: string, bootId: string): Store {
  return openStore(dataDir, bootId, undefined, () => {
    throw new NewStateError(`${dataDir}/${STATE_FILE}`);
  });
}

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

function guarded<T>(file: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw asCniError(error, file);
  }
}

function storeOver(db: Database, file: string): Store {
  const guard = <T>(work: () => T): T => guarded(file, work);
  const rows = <T>(sql: string, ...values: SQLQueryBindings[]): T[] =>
    guard(() => db.query(sql).all(...values) as T[]);
  const records = (sql: string, ...values: SQLQueryBindings[]): AttachmentRecord[] =>
    guard(() => rows<AttachmentRow>(sql, ...values).map(recordOf));
  const run = (sql: string, ...values: SQLQueryBindings[]): void =>
    guard(() => void db.query(sql).run(...values));
  const RECORD = 'state, pid, start_time, record';
  const OWNER = 'network = ? AND container_id = ? AND ifname = ?';
  const forget = (key: AttachmentKey): void => {
    for (const table of ['attachment', 'address', 'usage'])
      run(`DELETE FROM ${table} WHERE ${OWNER}`, ...keyValues(key));
  };

  const transact = <T>(work: () => T): T => {
    if (db.inTransaction) return work();
    run('BEGIN IMMEDIATE');
    try {
      const result = work();
      run('COMMIT');
      return result;
    } catch (error) {
      if (db.inTransaction) db.run('ROLLBACK');
      throw error;
    }
  };

  const holds = (sql: string, ...values: SQLQueryBindings[]): boolean =>
    rows(`SELECT 1 WHERE EXISTS (${sql})`, ...values).length > 0;

  return {
    transact,
    find: (key) => records(`SELECT ${RECORD} FROM attachment WHERE ${OWNER}`, ...keyValues(key))[0],
    list: () => records(`SELECT ${RECORD} FROM attachment`),
    addressBook: (network, except, releasedAfterMs = NEVER_MS) => ({
      lastOf: (set) =>
        rows<{ ip: Ip }>(
          'SELECT ip FROM last_address WHERE network = ? AND range_set = ?',
          network,
          set,
        )[0]?.ip,
      takenBetween: function* (first, last) {
        const [, id, ifname] = except ? keyValues(except) : ['', '', ''];
        const [low, high] = [sortKey(first), sortKey(last)];
        const taken = db
          .query(
            `SELECT ip, sort_key FROM address WHERE network = ?1 AND sort_key BETWEEN ?2 AND ?3
             AND NOT (container_id = ?4 AND ifname = ?5)
             UNION SELECT ip, sort_key FROM released
             WHERE network = ?1 AND sort_key BETWEEN ?2 AND ?3 AND released_at > ?6 ORDER BY sort_key`,
          )
          .iterate(network, low, high, id, ifname, releasedAfterMs);
        try {
          for (const row of taken) yield (row as { ip: Ip }).ip;
        } catch (error) {
          throw asCniError(error, file);
        }
      },
      isTaken: (ip) => {
        const [, id, ifname] = except ? keyValues(except) : ['', '', ''];
        return holds(
          `SELECT 1 FROM address WHERE network = ? AND sort_key = ?
           AND NOT (container_id = ? AND ifname = ?)`,
          network,
          sortKey(ip),
          id,
          ifname,
        );
      },
    }),
    put: (attachment, worker: Worker, uses) =>
      transact(() => {
        const { key } = attachment;
        const [network, id, ifname] = keyValues(key);
        const kept = rows<{ ip: Ip }>(`SELECT ip FROM address WHERE ${OWNER}`, ...keyValues(key));
        forget(key);
        // Columns by name: a newer schema may have more of them.
        run(
          `INSERT INTO attachment (network, container_id, ifname, state, pid, start_time, record)
           VALUES (?, ?, ?, 'pending', ?, ?, ?)`,
          network,
          id,
          ifname,
          worker.pid,
          worker.startTime,
          JSON.stringify(attachment),
        );
        for (const [set, { ip }] of attachment.addresses.entries()) {
          run(
            `INSERT INTO address (network, sort_key, ip, container_id, ifname)
             VALUES (?, ?, ?, ?, ?)`,
            network,
            sortKey(ip),
            ip,
            id,
            ifname,
          );
          // What an attachment goes on with was handed out long ago: the round goes on behind the last.
          if (kept.some((each) => each.ip === ip)) continue;
          run(
            'INSERT OR REPLACE INTO last_address (network, range_set, ip) VALUES (?, ?, ?)',
            network,
            set,
            ip,
          );
        }
        for (const object of new Set(uses)) {
          run(
            'INSERT INTO usage (object, network, container_id, ifname) VALUES (?, ?, ?, ?)',
            object,
            network,
            id,
            ifname,
          );
        }
      }),
    finish: (key) =>
      run(`UPDATE attachment SET state = 'finished' WHERE ${OWNER}`, ...keyValues(key)),
    remove: (key, releasedAtMs) =>
      transact(() => {
        if (releasedAtMs !== undefined) {
          run(
            `INSERT OR REPLACE INTO released (network, sort_key, ip, released_at)
             SELECT network, sort_key, ip, ? FROM address WHERE ${OWNER}`,
            releasedAtMs,
            ...keyValues(key),
          );
          run('DELETE FROM released WHERE released_at < ?', releasedAtMs - REMEMBERED_MS);
        }
        forget(key);
      }),
    wasUsed: (network, ip) =>
      holds('SELECT 1 FROM released WHERE network = ? AND sort_key = ?', network, sortKey(ip)),
    released: (network) =>
      rows<{ ip: Ip; releasedAtMs: number }>(
        'SELECT ip, released_at AS releasedAtMs FROM released WHERE network = ? ORDER BY sort_key',
        network,
      ),
    forgetReleased: (network, ip) =>
      guard(
        () =>
          db
            .query('DELETE FROM released WHERE network = ? AND sort_key = ?')
            .run(network, sortKey(ip)).changes > 0,
      ),
    isUsedByOthers: (object: SharedObject, key) =>
      holds(`SELECT 1 FROM usage WHERE object = ? AND NOT (${OWNER})`, object, ...keyValues(key)),
    isAnyUsedByOthers: (kind, key) =>
      holds(
        `SELECT 1 FROM usage WHERE object >= ? AND object < ? AND NOT (${OWNER})`,
        kind,
        // Behind all that begins with the word and its space.
        `${kind.trimEnd()}!`,
        ...keyValues(key),
      ),
    claim: (object) => run('INSERT OR IGNORE INTO claim (object) VALUES (?)', object),
    isClaimed: (object) => holds('SELECT 1 FROM claim WHERE object = ?', object),
    unclaim: (object) => run('DELETE FROM claim WHERE object = ?', object),
    findConfig: (digest) =>
      rows<{ value: string }>('SELECT value FROM config WHERE digest = ?', digest)[0]?.value,
    putConfig: (digest, json) =>
      transact(() => {
        // One network has one configuration at a time: a few are kept for those that change.
        run(
          'DELETE FROM config WHERE digest IN (SELECT digest FROM config LIMIT -1 OFFSET ?)',
          CONFIGS_KEPT - 1,
        );
        run('INSERT OR REPLACE INTO config (digest, value) VALUES (?, ?)', digest, json);
      }),
    ownerOf: (network, ip) =>
      rows<{ container_id: string; ifname: Ifname }>(
        'SELECT container_id, ifname FROM address WHERE network = ? AND sort_key = ?',
        network,
        sortKey(ip),
      ).map(({ container_id: containerId, ifname }) => ({ network, containerId, ifname }))[0],
    close: () => db.close(),
  };
}
