/** STATUS leaves nothing behind, whatever it finds, and says what the next ADD would. */
import { Database } from 'bun:sqlite';
import { existsSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { requirement } from '../../requirements.ts';
import { kernelState } from './kernel-state.ts';
import { type Node, errorOf, makeNode, resultOf } from './node.ts';

const skip = requirement('root', 'iproute2', 'nftables', 'executable');

const SILENT = { status: 0, stdout: '', stderr: '' };

type Changes = Readonly<Record<string, unknown>>;

/** A network of one pod. */
const SMALL = { ipam: { type: 'cube-ipam', subnet: '10.7.0.0/30' } };

function configOf(node: Node, changes: Changes = {}): Record<string, unknown> {
  return node.config({ cniVersion: '1.1.0', ...changes });
}

function callStatus(node: Node, changes: Changes = {}) {
  return node.call('STATUS', {
    config: configOf(node, changes),
    env: { CNI_CONTAINERID: '', CNI_NETNS: '', CNI_IFNAME: '' },
  });
}

/**
 * The files of a folder with all that reading may not change. SQLite's index of the write-ahead log is none of them: there a
 * reader announces itself, and makes it where it is not. Nor is the time of a change of owner, which SQLite sets to what it is.
 */
function filesOf(folder: string): unknown {
  if (!existsSync(folder)) return 'no folder';
  return Object.fromEntries(
    readdirSync(folder)
      .filter((name) => !name.endsWith('-shm'))
      .toSorted()
      .map((name) => {
        const path = join(folder, name);
        const { mtimeNs, ino, mode } = statSync(path, { bigint: true });
        const digest = Bun.hash(readFileSync(path));
        return [name, { mtimeNs, ino, mode, digest }];
      }),
  );
}

/** A state file that was closed for good: all of it in one file. */
function closeState(node: Node): void {
  const db = new Database(join(node.dataDir, 'state.db'));
  db.run('PRAGMA wal_checkpoint(TRUNCATE)');
  db.close();
  for (const suffix of ['-wal', '-shm'])
    rmSync(join(node.dataDir, `state.db${suffix}`), { force: true });
}

describe.skipIf(skip)('STATUS', () => {
  test.each<[string, Changes]>([
    ['a plain network', {}],
    ['every option', { isDefaultGateway: true, macspoofchk: true, ipspoofchk: true, mtu: 1400 }],
    ['no addresses', { ipam: {} }],
    ['mode ptp', { mode: 'ptp', isGateway: false }],
  ])('of a node that nothing was added to leaves no folder and no file: %s', (_what, changes) => {
    const node = makeNode();
    const before = [readdirSync(node.folder), kernelState(node.netns)];
    expect(callStatus(node, changes)).toMatchObject(SILENT);
    expect([readdirSync(node.folder), kernelState(node.netns)]).toEqual(before);
  });

  test.each<[string, (node: Node) => void]>([
    ['as ADD left it', () => undefined],
    ['that was closed', closeState],
    ['whose index was lost', (node) => rmSync(join(node.dataDir, 'state.db-shm'), { force: true })],
    [
      'that is empty',
      (node) => (closeState(node), writeFileSync(join(node.dataDir, 'state.db'), '')),
    ],
  ])('changes nothing of a state file %s, and of the kernel', (_what, prepare) => {
    const node = makeNode();
    node.add({ netns: node.addPod(), config: configOf(node) });
    prepare(node);
    const before = [filesOf(node.dataDir), kernelState(node.netns)];
    const log = readFileSync(node.logFile, 'utf8');
    for (const changes of [
      {},
      { name: 'never-seen' },
      { name: 'small', bridge: 'other0', ...SMALL },
    ])
      expect(callStatus(node, changes)).toMatchObject(SILENT);
    expect([filesOf(node.dataDir), kernelState(node.netns)]).toEqual(before);
    expect(readFileSync(node.logFile, 'utf8')).toBe(log);
  });

  test.each<[string, string | Uint8Array]>([
    ['is something else', 'nonsense'.repeat(5000)],
    ['is short', 'SQLite format 3\0'],
  ])('is 50 of a state file that %s, and leaves it for the next call', (_what, content) => {
    const node = makeNode();
    node.add({ netns: node.addPod(), config: configOf(node) });
    closeState(node);
    writeFileSync(join(node.dataDir, 'state.db'), content);
    const before = filesOf(node.dataDir);
    expect(errorOf(callStatus(node))).toMatchObject({
      cniVersion: '1.1.0',
      code: 50,
      msg: `state file ${node.dataDir}/state.db is damaged`,
    });
    expect(filesOf(node.dataDir)).toEqual(before);
    node.add({ netns: node.addPod(), containerId: 'b', config: configOf(node) });
    expect(callStatus(node)).toMatchObject(SILENT);
  });

  test('reads what a write-ahead log has alone, while others write', async () => {
    const node = makeNode();
    const config = configOf(node, { ipam: { type: 'cube-ipam', subnet: '10.7.0.0/27' } });
    const pods = Array.from({ length: 12 }, (_, i) => ({
      netns: node.addPod(),
      containerId: `pod-${i}`,
      config,
    }));
    const adding = pods.map((pod) => node.start('ADD', pod).answer);
    const asking = Array.from({ length: 24 }, () => node.start('STATUS', { config }).answer);
    for (const answer of await Promise.all(asking)) expect(answer).toMatchObject(SILENT);
    for (const answer of await Promise.all(adding)) resultOf(answer);
  });

  test('of a file of an older schema still knows who has which address', () => {
    const node = makeNode();
    const call = { netns: node.addPod(), config: configOf(node, SMALL) };
    node.add(call);
    closeState(node);
    const db = new Database(join(node.dataDir, 'state.db'));
    db.run('DROP TABLE released');
    db.run('PRAGMA user_version = 1');
    db.run('PRAGMA wal_checkpoint(TRUNCATE)');
    db.close();
    const before = filesOf(node.dataDir);
    expect(errorOf(callStatus(node, SMALL))).toMatchObject({
      code: 50,
      msg: 'no IP addresses available in range set 0: 10.7.0.1-10.7.0.2',
    });
    expect(filesOf(node.dataDir)).toEqual(before);
    expect(
      errorOf(node.call('ADD', { ...call, netns: node.addPod(), containerId: 'b' })),
    ).toMatchObject({ code: 102 });
  });

  test.each(['0.1.0', '0.2.0', '0.3.0', '0.3.1', '0.4.0', '1.0.0'])(
    'and GC are not verbs of version %s, and do nothing',
    (cniVersion) => {
      const node = makeNode();
      node.add({ netns: node.addPod(), config: node.config() });
      const before = [filesOf(node.dataDir), kernelState(node.netns)];
      const config = node.config({ cniVersion, 'cni.dev/valid-attachments': [] });
      for (const verb of ['STATUS', 'GC'])
        expect(errorOf(node.call(verb, { config }))).toMatchObject({
          code: 1,
          msg: `config version does not allow ${verb}`,
        });
      expect([filesOf(node.dataDir), kernelState(node.netns)]).toEqual(before);
    },
  );
});
