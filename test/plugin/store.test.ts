import { Database } from 'bun:sqlite';
import {
  chmodSync,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Ip } from '../../model/ip.ts';
import { CniError } from '../../plugin/cni/error.ts';
import { STATE_FILE, openStore } from '../../plugin/store/open.ts';
import { MIGRATIONS, SCHEMA_VERSION } from '../../plugin/store/schema.ts';
import type { Store } from '../../plugin/store/store.ts';
import { makeTestAttachment } from './attachment.ts';
import { refusal } from './refusal.ts';

let folder: string;
let dataDir: string;
let file: string;
let open: Store[];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'cube-cni-store-'));
  dataDir = join(folder, 'a/state');
  file = join(dataDir, STATE_FILE);
  open = [];
});

afterEach(() => {
  for (const each of open) each.close();
  rmSync(folder, { recursive: true });
});

function store(bootId = 'boot', busyTimeoutMs = 50): Store {
  const opened = openStore(dataDir, bootId, busyTimeoutMs);
  open.push(opened);
  return opened;
}

const WORKER = { pid: 42, startTime: '1234' };
const A = makeTestAttachment({ containerId: 'a', addresses: ['10.0.0.2', 'fd00::2'] });
const B = makeTestAttachment({ containerId: 'b', addresses: ['10.0.0.3'] });
const ELSEWHERE = makeTestAttachment({
  network: 'other',
  containerId: 'a',
  addresses: ['10.0.0.2'],
});

function taken(of: Store, network = 'net'): Ip[] {
  const book = of.addressBook(network);
  return [
    ...book.takenBetween('0.0.0.0' as Ip, '255.255.255.255' as Ip),
    ...book.takenBetween('::' as Ip, 'ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff' as Ip),
  ];
}

describe('records', () => {
  it('are pending until they are finished, and stay when the store is opened again', () => {
    const first = store();
    expect(first.find(A.key)).toBeUndefined();
    first.put(A, WORKER, []);
    expect(first.find(A.key)).toEqual({ attachment: A, state: 'pending', worker: WORKER });
    first.finish(A.key);
    expect(store().find(A.key)).toEqual({ attachment: A, state: 'finished', worker: WORKER });
    expect(store().list()).toHaveLength(1);
  });

  it('are told apart by network, container and ifname', () => {
    const other = makeTestAttachment({ containerId: 'a', ifname: 'eth1', addresses: ['10.0.0.9'] });
    const state = store();
    for (const each of [A, B, ELSEWHERE, other]) state.put(each, WORKER, []);
    expect(state.list()).toHaveLength(4);
    state.finish(ELSEWHERE.key);
    expect(state.find(A.key)?.state).toBe('pending');
    state.remove(other.key);
    expect(state.list().map(({ attachment }) => attachment)).toEqual([A, B, ELSEWHERE]);
    expect(taken(state)).toEqual(['10.0.0.2', '10.0.0.3', 'fd00::2']);
  });

  it('are replaced by one of the same key, which is pending again', () => {
    const state = store();
    state.put(A, WORKER, ['bridge cni0']);
    state.finish(A.key);
    const moved = makeTestAttachment({ containerId: 'a', addresses: ['10.0.0.7'] });
    state.put(moved, { pid: 43, startTime: '' }, ['bridge br1']);
    expect(state.list()).toEqual([
      { attachment: moved, state: 'pending', worker: { pid: 43, startTime: '' } },
    ]);
    expect(taken(state)).toEqual(['10.0.0.7']);
    expect(state.isUsedByOthers('bridge cni0', B.key)).toBe(false);
    expect(state.isUsedByOthers('bridge br1', B.key)).toBe(true);
  });

  it('that are not there can be removed and finished, and nothing happens', () => {
    const state = store();
    state.put(A, WORKER, []);
    state.remove(B.key);
    state.finish(B.key);
    expect(state.list()).toEqual([{ attachment: A, state: 'pending', worker: WORKER }]);
  });
});

describe('addresses', () => {
  it('belong to one attachment of a network', () => {
    const state = store();
    state.put(A, WORKER, []);
    state.put(ELSEWHERE, WORKER, []);
    expect(state.ownerOf('net', '10.0.0.2' as Ip)).toEqual(A.key);
    expect(state.ownerOf('other', '10.0.0.2' as Ip)).toEqual(ELSEWHERE.key);
    expect(state.ownerOf('net', '10.0.0.3' as Ip)).toBeUndefined();
    const thief = makeTestAttachment({ containerId: 'thief', addresses: ['10.0.0.9', '10.0.0.2'] });
    expect(() => state.put(thief, WORKER, [])).toThrow(/UNIQUE constraint failed/);
    expect(state.find(thief.key)).toBeUndefined();
    expect(taken(state)).toEqual(['10.0.0.2', 'fd00::2']);
  });

  it('come in the order of their values, within the bounds', () => {
    const state = store();
    const texts = [
      '10.0.0.100',
      '10.0.0.20',
      '9.255.255.255',
      'fd00::1:0:0',
      'fd00::ffff',
      '10.0.0.3',
    ];
    for (const [i, text] of texts.entries())
      state.put(makeTestAttachment({ containerId: `c${i}`, addresses: [text] }), WORKER, []);
    expect(taken(state)).toEqual([
      '9.255.255.255',
      '10.0.0.3',
      '10.0.0.20',
      '10.0.0.100',
      'fd00::ffff',
      'fd00::1:0:0',
    ]);
    const book = state.addressBook('net');
    expect([...book.takenBetween('10.0.0.3' as Ip, '10.0.0.20' as Ip)]).toEqual([
      '10.0.0.3',
      '10.0.0.20',
    ]);
  });

  it('of the one who asks count as free', () => {
    const state = store();
    state.put(A, WORKER, []);
    state.put(B, WORKER, []);
    const book = state.addressBook('net', A.key);
    expect([...book.takenBetween('10.0.0.0' as Ip, '10.0.0.9' as Ip)]).toEqual(['10.0.0.3']);
  });

  it('handed out last are remembered for each set, after they came back too', () => {
    const state = store();
    expect(state.addressBook('net').lastOf(0)).toBeUndefined();
    state.put(A, WORKER, []);
    state.put(B, WORKER, []);
    state.remove(B.key);
    expect(state.addressBook('net').lastOf(0)).toBe('10.0.0.3');
    expect(state.addressBook('net').lastOf(1)).toBe('fd00::2');
    expect(state.addressBook('other').lastOf(0)).toBeUndefined();
  });

  it('that an attachment keeps were not handed out anew', () => {
    const state = store();
    state.put(A, WORKER, []);
    state.put(B, WORKER, []);
    state.put(A, WORKER, []);
    expect(state.addressBook('net').lastOf(0)).toBe('10.0.0.3');
  });
});

describe('shared objects', () => {
  it('are used until the last record that names them is gone', () => {
    const state = store();
    state.put(A, WORKER, ['bridge cni0', 'subnet 10.0.0.0/24', 'bridge cni0']);
    state.put(B, WORKER, ['bridge cni0']);
    expect(state.isUsedByOthers('bridge cni0', A.key)).toBe(true);
    expect(state.isUsedByOthers('subnet 10.0.0.0/24', A.key)).toBe(false);
    expect(state.isUsedByOthers('subnet 10.0.0.0/24', B.key)).toBe(true);
    state.remove(B.key);
    expect(state.isUsedByOthers('bridge cni0', A.key)).toBe(false);
    expect(state.isUsedByOthers('bridge cni0', ELSEWHERE.key)).toBe(true);
  });

  it('that we made are claimed until they are not', () => {
    const state = store();
    expect(state.isClaimed('gateway br0 10.0.0.1')).toBe(false);
    state.claim('gateway br0 10.0.0.1');
    state.claim('gateway br0 10.0.0.1');
    expect(store().isClaimed('gateway br0 10.0.0.1')).toBe(true);
    state.unclaim('gateway br0 10.0.0.1');
    expect(state.isClaimed('gateway br0 10.0.0.1')).toBe(false);
  });
});

describe('a transaction', () => {
  it('that throws leaves nothing of itself', () => {
    const state = store();
    expect(() =>
      state.transact(() => {
        state.put(A, WORKER, ['bridge cni0']);
        state.transact(() => state.claim('gateway br0 10.0.0.1'));
        throw new Error('enough');
      }),
    ).toThrow('enough');
    expect(state.list()).toEqual([]);
    expect(taken(state)).toEqual([]);
    expect(state.isClaimed('gateway br0 10.0.0.1')).toBe(false);
    expect(state.transact(() => 5)).toBe(5);
  });

  it('of another process is waited for, and not for ever', () => {
    const state = store();
    state.put(A, WORKER, []);
    const other = new Database(file);
    other.run('BEGIN IMMEDIATE');
    const busy = `11 state file ${file} is in use by another call | database is locked`;
    expect(refusal(() => state.put(B, WORKER, []))).toBe(busy);
    expect(refusal(() => state.transact(() => undefined))).toBe(busy);
    expect(refusal(() => state.remove(A.key))).toBe(busy);
    expect(refusal(() => store('next boot'))).toBe(busy);
    // Who only reads does not wait.
    expect(state.find(A.key)?.attachment).toEqual(A);
    other.run('ROLLBACK');
    other.close();
    state.put(B, WORKER, []);
    expect(state.list()).toHaveLength(2);
  });
});

describe('a new boot', () => {
  it('has no records, and goes on behind the address handed out last', () => {
    const before = store('one');
    before.put(A, WORKER, ['bridge cni0']);
    before.claim('gateway br0 10.0.0.1');
    const after = store('two');
    expect(after.list()).toEqual([]);
    expect(taken(after)).toEqual([]);
    expect(after.isUsedByOthers('bridge cni0', B.key)).toBe(false);
    expect(after.isClaimed('gateway br0 10.0.0.1')).toBe(false);
    expect(after.addressBook('net').lastOf(0)).toBe('10.0.0.2');
    after.put(A, WORKER, []);
    expect(store('two').list()).toHaveLength(1);
  });
});

describe('configurations that were read', () => {
  it('are found by their digest, and the older ones forgotten', () => {
    const state = store();
    for (let i = 0; i < 100; i += 1) state.putConfig(`digest ${i}`, `{"mtu": ${i}}`);
    const known = Array.from({ length: 100 }, (_, i) => state.findConfig(`digest ${i}`));
    expect(known[99]).toBe('{"mtu": 99}');
    expect(known.filter((json) => json !== undefined).length).toBeLessThan(50);
  });
});

/** What a later version of this program may have made of the file: it only adds. */
function upgrade(oldestCompatible: number): void {
  store().put(A, WORKER, ['bridge cni0']);
  const db = new Database(file);
  db.run(`ALTER TABLE attachment ADD COLUMN speed INTEGER NOT NULL DEFAULT 7`);
  db.run('CREATE TABLE lease (ip TEXT PRIMARY KEY)');
  db.run(`UPDATE meta SET value = '${oldestCompatible}' WHERE key = 'oldest_compatible'`);
  db.run(`PRAGMA user_version = ${SCHEMA_VERSION + 3}`);
  db.close();
}

describe('the schema', () => {
  it('comes from nothing by its migrations, one after the other', () => {
    expect(MIGRATIONS).toHaveLength(SCHEMA_VERSION);
    store();
    const db = new Database(file);
    expect(db.query('PRAGMA user_version').get()).toEqual({ user_version: SCHEMA_VERSION });
    expect(db.query('PRAGMA journal_mode').get()).toEqual({ journal_mode: 'wal' });
    db.close();
  });

  it('of a newer version that is compatible is worked with', () => {
    upgrade(SCHEMA_VERSION);
    const state = store();
    expect(state.find(A.key)?.attachment).toEqual(A);
    state.put(B, WORKER, ['bridge cni0']);
    state.finish(B.key);
    state.remove(A.key);
    expect(store().list()).toEqual([{ attachment: B, state: 'finished', worker: WORKER }]);
    const db = new Database(file);
    expect(db.query('PRAGMA user_version').get()).toEqual({ user_version: SCHEMA_VERSION + 3 });
    db.close();
  });

  it('of a newer version that is not compatible is refused by name, and left alone', () => {
    upgrade(SCHEMA_VERSION + 1);
    expect(refusal(() => store())).toBe(
      `5 state file ${file} has schema ${SCHEMA_VERSION + 3}, written by a newer cube-cni; this one understands schema ${SCHEMA_VERSION}`,
    );
    const db = new Database(file);
    expect(db.query('SELECT count(*) AS n FROM attachment').get()).toEqual({ n: 1 });
    db.close();
  });
});

function mode(path: string): string {
  return (statSync(path).mode & 0o777).toString(8);
}

/** Brings everything from the write-ahead log into the file; the SQLite of macOS does not do so when it is closed. */
function settle(): void {
  const db = new Database(file);
  db.run('PRAGMA wal_checkpoint(TRUNCATE)');
  db.close();
  for (const end of ['-wal', '-shm']) rmSync(`${file}${end}`, { force: true });
}

describe('the file', () => {
  it('is for its owner alone, whatever the umask', () => {
    const umask = process.umask(0);
    try {
      store().put(A, WORKER, []);
    } finally {
      process.umask(umask);
    }
    expect([dataDir, join(folder, 'a')].map(mode)).toEqual(['700', '700']);
    expect([file, `${file}-wal`, `${file}-shm`].map(mode)).toEqual(['600', '600', '600']);
  });

  it('is made in a folder that is there already, whose mode is not ours to change', () => {
    mkdirSync(dataDir, { recursive: true });
    chmodSync(dataDir, 0o755);
    store();
    expect(mode(dataDir)).toBe('755');
    expect(mode(file)).toBe('600');
  });

  it('that is empty is a new one', () => {
    mkdirSync(dataDir, { recursive: true });
    writeFileSync(file, '');
    store().put(A, WORKER, []);
    expect(store().list()).toHaveLength(1);
  });

  it('that is not a database is refused by name, and left as it is', () => {
    mkdirSync(dataDir, { recursive: true });
    const bytes = Buffer.alloc(8192, 'not a database ');
    writeFileSync(file, bytes);
    expect(refusal(() => store())).toBe(`5 state file ${file} is damaged | file is not a database`);
    expect(readFileSync(file).equals(bytes)).toBe(true);
  });

  it('that is a folder is refused by name', () => {
    mkdirSync(file, { recursive: true });
    expect(refusal(() => store())).toMatch(`5 cannot use state file ${file}: `);
  });

  it('cannot be in a folder that is a file', () => {
    mkdirSync(join(folder, 'a'));
    writeFileSync(dataDir, '');
    expect(refusal(() => store())).toMatch(`5 cannot use state file ${file}: `);
  });

  it('cannot be below a file', () => {
    writeFileSync(join(folder, 'a'), '');
    expect(refusal(() => store())).toMatch(`5 cannot make folder ${dataDir}: `);
  });

  it('that lost its end is refused by name', () => {
    const first = store();
    for (let i = 2; i < 200; i += 1)
      first.put(
        makeTestAttachment({ containerId: `c${i}`, addresses: [`10.0.0.${i}`] }),
        WORKER,
        [],
      );
    first.close();
    open = [];
    settle();
    truncateSync(file, 4096 * 3);
    expect(refusal(() => store().list())).toMatch(`5 state file ${file} is damaged`);
  });

  it('that is damaged anywhere works, or is refused by name', () => {
    const first = store();
    for (let i = 2; i < 60; i += 1)
      first.put(makeTestAttachment({ containerId: `c${i}`, addresses: [`10.0.0.${i}`] }), WORKER, [
        'bridge cni0',
      ]);
    first.close();
    open = [];
    settle();
    const sound = join(folder, 'sound');
    copyFileSync(file, sound);
    const size = statSync(sound).size;
    const damage = fc.record({
      at: fc.nat(size - 1),
      bytes: fc.oneof(fc.uint8Array({ minLength: 1, maxLength: 600 }), fc.constant(undefined)),
    });
    let refused = 0;
    fc.assert(
      fc.property(damage, ({ at, bytes }) => {
        for (const end of ['', '-wal', '-shm']) rmSync(`${file}${end}`, { force: true });
        const content = readFileSync(sound);
        if (bytes) content.set(bytes.subarray(0, size - at), at);
        writeFileSync(file, bytes ? content : content.subarray(0, at));
        let opened: Store | undefined;
        try {
          opened = openStore(dataDir, 'boot', 50);
          opened.list();
          opened.find(A.key);
          taken(opened);
          opened.isUsedByOthers('bridge cni0', A.key);
          opened.transact(() => opened?.put(A, WORKER, ['bridge cni0']));
          opened.remove(A.key);
        } catch (error) {
          expect(error).toBeInstanceOf(CniError);
          expect(error).toMatchObject({ code: 5 });
          expect((error as CniError).message).toContain(file);
          refused += 1;
        } finally {
          opened?.close();
        }
      }),
      { numRuns: 200 },
    );
    expect(refused).toBeGreaterThan(20);
  });

  it('is made once by many processes that come at once', async () => {
    const source = join(import.meta.dirname, '../../plugin/store/open.ts');
    const program = `
      import { existsSync } from 'node:fs';
      import { openStore } from ${JSON.stringify(source)};
      const [dataDir, go, attachment] = JSON.parse(process.argv[1]);
      while (!existsSync(go));
      const store = openStore(dataDir, 'boot', 20000);
      store.put(attachment, { pid: process.pid, startTime: '' }, ['bridge cni0']);
    `;
    const go = join(folder, 'go');
    const processes = Array.from({ length: 12 }, (_, i) => {
      const record = makeTestAttachment({ containerId: `c${i}`, addresses: [`10.0.0.${i + 2}`] });
      const args = [process.execPath, '-e', program, JSON.stringify([dataDir, go, record])];
      return Bun.spawn(args, { stderr: 'pipe' });
    });
    // Time to start: then all of them wait for the same moment.
    await Bun.sleep(500);
    writeFileSync(go, '');
    const ends = await Promise.all(
      processes.map(async (each) => [await each.exited, await new Response(each.stderr).text()]),
    );
    expect(ends.filter(([status]) => status !== 0)).toEqual([]);
    expect(store().list()).toHaveLength(12);
  }, 30_000);
});
