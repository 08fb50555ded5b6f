/** The plugin's records as queries of an open state file. */
import type { Database, SQLQueryBindings } from 'bun:sqlite';
import type { Ifname } from '../../model/ifname.ts';
import { type Ip, familyOf, ipBytes } from '../../model/ip.ts';
import type { Attachment } from '../attachment.ts';
import type { AttachmentKey } from '../cni/request.ts';
import type { AttachmentRecord, RecordState, SharedObject, State, Worker } from '../state.ts';
import { asCniError, guarded } from './error.ts';

/** The state file, open. */
export interface Store extends State {
  /** Closes it for good; a process that ends soon need not (the next one reads the write-ahead log). */
  readonly close: () => void;
}

/** How many configurations are remembered as valid. */
const CONFIGS_KEPT = 32;

/** How long it is remembered that an address was used: as long as it can be kept from being used again, and longer than neighbours remember. */
const REMEMBERED_MS = 86_400_000;

/** A time behind every other. */
const NEVER_MS = Number.MAX_SAFE_INTEGER;

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

/** The records in `db`, whose file has this schema; `file` is its name in errors. Its methods throw CniErrors. */
export function storeOver(db: Database, file: string): Store {
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
    othersUsing: (kind, key) =>
      rows<{ object: string; network: string; container_id: string; ifname: Ifname }>(
        `SELECT object, network, container_id, ifname FROM usage WHERE object >= ? AND object < ? AND NOT (${OWNER})`,
        kind,
        `${kind.trimEnd()}!`,
        ...keyValues(key),
      ).map(({ object, network, container_id: containerId, ifname }) => ({
        object,
        user: { network, containerId, ifname },
      })),
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
