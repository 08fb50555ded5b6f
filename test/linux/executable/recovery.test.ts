/** A state file that is damaged, or has no room to grow. */
import { Database } from 'bun:sqlite';
import { mkdirSync, readFileSync, readdirSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { requirement } from '../../requirements.ts';
import { ipAddresses, kernelState, linkNames, mapped } from './kernel-state.ts';
import { NO_RECORDS, type Node, errorOf, makeNode, recordsOf, resultOf, run } from './node.ts';

const skip = requirement('root', 'iproute2', 'nftables', 'executable');

const OPTIONS = {
  isDefaultGateway: true,
  hairpinMode: true,
  macspoofchk: true,
  ipam: {
    type: 'cube-ipam',
    ranges: [[{ subnet: '10.7.0.0/24' }], [{ subnet: 'fd07::/64' }]],
  },
};

/** All of which a kernel can have something, where somebody else chooses the MAC address. */
const EVERYTHING = {
  ...OPTIONS,
  ipMasq: true,
  ipspoofchk: true,
  portIsolation: true,
  podVerdict: 'drop',
  mtu: 1400,
};

const ROUTED = {
  mode: 'ptp',
  isGateway: false,
  ipMasq: true,
  ipspoofchk: true,
  mtu: 1400,
  ipam: OPTIONS.ipam,
};

/** Ways in which a file is not what was written to it. */
const DAMAGES: readonly (readonly [string, (file: string) => void])[] = [
  ['is something else', (file) => writeFileSync(file, 'nonsense'.repeat(5000))],
  ['has lost its end', (file) => truncateSync(file, 4096 * 2)],
  [
    'has a record that is no JSON',
    (file) => {
      const db = new Database(file);
      db.run("UPDATE attachment SET record = 'nonsense'");
      db.close();
    },
  ],
];

function damage(node: Node, how: (file: string) => void): void {
  const file = join(node.dataDir, 'state.db');
  // All of it in one file, so that what is damaged is what will be read.
  const db = new Database(file);
  db.run('PRAGMA wal_checkpoint(TRUNCATE)');
  db.close();
  for (const suffix of ['-wal', '-shm']) rmSync(file + suffix, { force: true });
  how(file);
}

function view(node: Node): unknown {
  return { ...kernelState(node.netns), forwarding: null };
}

describe.skipIf(skip)('a state file', () => {
  test.each(DAMAGES)('that %s is moved aside and rebuilt from the kernel', (_what, how) => {
    const node = makeNode();
    const config = node.config(OPTIONS);
    const before = view(node);
    const pods = ['a', 'b'].map((containerId) => {
      const netns = node.addPod();
      return { containerId, netns, result: node.add({ containerId, netns, config }) };
    });
    const [a, b] = pods as [(typeof pods)[number], (typeof pods)[number]];
    damage(node, how);
    const check = { ...config, prevResult: a.result };
    expect(node.call('CHECK', { containerId: 'a', netns: a.netns, config: check })).toMatchObject({
      status: 0,
      stdout: '',
    });
    const netns = node.addPod();
    const added = node.add({ containerId: 'c', netns, config });
    // Nobody gets an address that a pod has.
    expect(added.ips.map(({ address }) => address)).toEqual(['10.7.0.4/24', 'fd07::4/64']);
    expect(readdirSync(node.dataDir).filter((name) => name.includes('damaged'))).not.toEqual([]);
    const log = readFileSync(node.logFile, 'utf8');
    expect(log).toMatch(/state file .*state\.db is damaged: it was moved to /);
    expect(log).toContain('2 attachments were found in the kernel and recorded');
    for (const { containerId, netns: where, result } of pods)
      expect(
        node.call('CHECK', {
          containerId,
          netns: where,
          config: { ...config, prevResult: result },
        }),
      ).toMatchObject({ status: 0, stdout: '' });
    expect(errorOf(node.call('ADD', { containerId: 'b', netns: b.netns, config }))).toMatchObject({
      code: 101,
    });
    // The others need neither a record of before nor anything from the runtime.
    node.del({ containerId: 'a', config });
    expect(linkNames(a.netns)).toEqual([]);
    expect(mapped(node.netns)).toEqual(['10.7.0.3', '10.7.0.4', 'fd07::3', 'fd07::4']);
    expect(ipAddresses(b.netns, 'eth0')).toEqual(['10.7.0.3/24', 'fd07::3/64']);
    for (const containerId of ['b', 'c']) node.del({ containerId, config });
    expect(view(node)).toEqual(before);
    expect(recordsOf(node.dataDir)).toEqual(NO_RECORDS);
  });

  test.each<[string, (dataDir: string) => void]>([
    ['its folder', (dataDir) => rmSync(dataDir, { recursive: true })],
    ['the file', (dataDir) => rmSync(join(dataDir, 'state.db'))],
    ['what is in the file', (dataDir) => truncateSync(join(dataDir, 'state.db'))],
    [
      'the schema',
      (dataDir) => {
        const db = new Database(join(dataDir, 'state.db'));
        for (const table of ['attachment', 'address', 'usage', 'meta'])
          db.run(`DELETE FROM ${table}`);
        db.close();
      },
    ],
  ])('that has lost %s is filled from the kernel', (_what, lose) => {
    const node = makeNode();
    const config = node.config(OPTIONS);
    const before = view(node);
    const a = { containerId: 'a', netns: node.addPod(), config };
    const prevResult = node.add(a);
    lose(node.dataDir);
    const added = node.add({ containerId: 'b', netns: node.addPod(), config });
    expect(added.ips.map(({ address }) => address)).toEqual(['10.7.0.3/24', 'fd07::3/64']);
    expect(readFileSync(node.logFile, 'utf8')).toContain(
      '1 attachments were found in the kernel and recorded',
    );
    expect(node.call('CHECK', { ...a, config: { ...config, prevResult } })).toMatchObject({
      status: 0,
      stdout: '',
    });
    for (const containerId of ['a', 'b']) node.del({ containerId, config });
    expect(view(node)).toEqual(before);
    expect(recordsOf(node.dataDir)).toEqual(NO_RECORDS);
  });

  test.each<[string, Readonly<Record<string, unknown>>]>([
    ['with every option', EVERYTHING],
    ['checked by IP address alone', { ...EVERYTHING, macspoofchk: false }],
    ['checked by MAC address alone', { ...EVERYTHING, ipspoofchk: false }],
    ['without a bridge', ROUTED],
  ])('that was lost is enough for DEL and CHECK of pods %s', (_what, options) => {
    const node = makeNode();
    const before = view(node);
    const pods = ['02:00:00:00:77:01', undefined].map((mac, i) => {
      const config = node.config({ ...options, ...(mac ? { runtimeConfig: { mac } } : {}) });
      const call = { containerId: `pod-${i}`, netns: node.addPod(), config };
      return { call, prevResult: node.add(call) };
    });
    const [first, second] = pods as [(typeof pods)[number], (typeof pods)[number]];
    rmSync(node.dataDir, { recursive: true });
    for (const { call, prevResult } of pods) {
      const config = { ...call.config, prevResult };
      expect(node.call('CHECK', { ...call, config })).toMatchObject({ status: 0, stdout: '' });
    }
    node.del({ containerId: first.call.containerId, config: first.call.config });
    expect(node.run('nft', 'list', 'ruleset')).not.toContain('podnet/pod-0/eth0');
    node.del(second.call);
    expect(view(node)).toEqual(before);
    expect(recordsOf(node.dataDir)).toEqual(NO_RECORDS);
  });

  test("that was lost leaves somebody else's bridge where it is, with its last pod too", () => {
    const node = makeNode();
    node.run('ip', 'link', 'add', 'cni0', 'type', 'bridge');
    node.run('ip', 'link', 'set', 'cni0', 'up');
    const call = { netns: node.addPod(), config: node.config({ isGateway: false }) };
    node.add(call);
    rmSync(node.dataDir, { recursive: true });
    node.del({ ...call, netns: '' });
    expect(linkNames(node.netns)).toEqual(['cni0']);
    expect(recordsOf(node.dataDir)).toEqual(NO_RECORDS);
  });

  test('that was lost is filled once, however many calls want it at once', async () => {
    const node = makeNode();
    const config = node.config(OPTIONS);
    const before = view(node);
    const old = ['a', 'b', 'c'].map((containerId) => ({
      containerId,
      netns: node.addPod(),
      config,
    }));
    const had = old.map((call) => node.add(call));
    rmSync(node.dataDir, { recursive: true });
    const fresh = Array.from({ length: 12 }, (_, i) => ({
      containerId: `new-${i}`,
      netns: node.addPod(),
      config,
    }));
    const answers = await Promise.all(fresh.map((call) => node.start('ADD', call).answer));
    const addresses = [...had, ...answers.map(resultOf)].flatMap(({ ips }) =>
      ips.map(({ address }) => address),
    );
    expect(new Set(addresses).size).toBe(2 * 15);
    expect(recordsOf(node.dataDir)['attachment']).toHaveLength(15);
    expect(readFileSync(node.logFile, 'utf8').split('were found in the kernel')).toHaveLength(2);
    for (const call of [...old, ...fresh]) node.del(call);
    expect(view(node)).toEqual(before);
  });

  test.each(['DEL', 'CHECK', 'GC'])('that is damaged is replaced by %s too', (verb) => {
    const node = makeNode();
    const config = { ...node.config(OPTIONS), cniVersion: '1.1.0' };
    const netns = node.addPod();
    const prevResult = node.add({ netns, config });
    damage(node, (file) => writeFileSync(file, 'nonsense'));
    const call = { netns, config: { ...config, prevResult, 'cni.dev/valid-attachments': [] } };
    expect(node.call(verb, call)).toMatchObject({ status: 0, stdout: '', stderr: '' });
    expect(linkNames(node.netns)).toHaveLength(verb === 'CHECK' ? 2 : 0);
  });
});

describe.skipIf(skip)('a disk that is full', () => {
  test('fails ADD as a whole, and nothing is lost', () => {
    const node = makeNode();
    mkdirSync(node.dataDir);
    run('mount', '-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', node.dataDir);
    onTestFinished(() => void run('umount', node.dataDir));
    const config = node.config(OPTIONS);
    const first = node.addPod();
    node.add({ containerId: 'first', netns: first, config });
    const before = [view(node), recordsOf(node.dataDir)];
    const filler = join(node.dataDir, 'filler');
    // As much as there is room for.
    Bun.spawnSync(['dd', 'if=/dev/zero', `of=${filler}`, 'bs=1k', 'status=none']);
    const netns = node.addPod();
    // A little may still fit into what the files have already.
    let refused = 0;
    for (let i = 0; i < 200 && refused < 3; i += 1) {
      const answer = node.call('ADD', { containerId: `pod-${i}`, netns, config });
      if (answer.status === 0) {
        node.call('DEL', { containerId: `pod-${i}`, config });
        continue;
      }
      refused += 1;
      expect(errorOf(answer)).toMatchObject({
        code: 5,
        msg: expect.stringMatching(
          /state\.db: database or disk is full|state\.db: disk I\/O error/,
        ),
      });
      expect(linkNames(netns)).toEqual([]);
    }
    expect(refused).toBe(3);
    rmSync(filler);
    for (let i = 0; i < 200; i += 1) node.del({ containerId: `pod-${i}`, config });
    expect([view(node), recordsOf(node.dataDir)]).toEqual(before);
    node.add({ containerId: 'second', netns, config });
    for (const containerId of ['first', 'second']) node.del({ containerId, config });
    expect(linkNames(node.netns)).toEqual([]);
  });
});

/** Puts the node's folder of state on a file system of its own. */
function mountOn(node: Node): void {
  mkdirSync(node.dataDir);
  run('mount', '-t', 'tmpfs', '-o', 'size=4m', 'tmpfs', node.dataDir);
  onTestFinished(() => void run('umount', node.dataDir));
}

/** Makes that file system one that can only be read; answers how to make it writable again. */
function readOnly(node: Node): () => void {
  run('mount', '-o', 'remount,ro', node.dataDir);
  return () => void run('mount', '-o', 'remount,rw', node.dataDir);
}

describe.skipIf(skip)('a folder that cannot be written to', () => {
  test.each(['that is new', 'that pods are recorded in'])(
    '%s fails ADD and DEL as a whole, until it can',
    (which) => {
      const node = makeNode();
      mountOn(node);
      const config = node.config(OPTIONS);
      const first = { containerId: 'first', netns: node.addPod(), config };
      const isNew = which === 'that is new';
      if (!isNew) node.add(first);
      const before = [view(node), recordsOf(node.dataDir)];
      const release = readOnly(node);
      const netns = node.addPod();
      const call = { containerId: 'second', netns, config };
      for (const [verb, of] of [
        ['ADD', call],
        ['DEL', isNew ? call : first],
      ] as const)
        expect(errorOf(node.call(verb, of))).toMatchObject({
          code: 5,
          msg: expect.stringContaining(node.dataDir),
        });
      expect(linkNames(netns)).toEqual([]);
      expect([view(node), recordsOf(node.dataDir)]).toEqual(before);
      release();
      node.add(call);
      for (const containerId of ['first', 'second']) node.del({ containerId, config });
      expect(linkNames(node.netns)).toEqual([]);
      expect(recordsOf(node.dataDir)).toEqual(NO_RECORDS);
    },
  );

  test('is enough for STATUS', () => {
    const node = makeNode();
    mountOn(node);
    const config = { ...node.config(OPTIONS), cniVersion: '1.1.0' };
    node.add({ netns: node.addPod(), config });
    const release = readOnly(node);
    expect(node.call('STATUS', { config })).toMatchObject({ status: 0, stdout: '', stderr: '' });
    release();
  });
});
