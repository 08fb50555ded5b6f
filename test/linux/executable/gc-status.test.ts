/** GC and STATUS as a runtime calls them. */
import { Database } from 'bun:sqlite';
import { readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { requirement } from '../../requirements.ts';
import { kernelState, linkNames } from './kernel-state.ts';
import { NO_RECORDS, type Node, errorOf, makeNode, recordsOf } from './node.ts';

const skip = requirement('root', 'iproute2', 'nftables', 'executable');

const SILENT = { status: 0, stdout: '', stderr: '' };

/** GC and STATUS have none of these. */
const NO_ATTACHMENT = { CNI_CONTAINERID: '', CNI_NETNS: '', CNI_IFNAME: '' };

type Changes = Readonly<Record<string, unknown>>;

function configOf(node: Node, changes: Changes = {}): Record<string, unknown> {
  return node.config({ cniVersion: '1.1.0', ...changes });
}

function callNetwork(node: Node, verb: string, changes: Changes = {}): ReturnType<Node['call']> {
  return node.call(verb, { config: configOf(node, changes), env: NO_ATTACHMENT });
}

/** A node with three containers on a network, and one on another with the same bridge. */
function busyNode(): Node {
  const node = makeNode();
  for (const containerId of ['a', 'b', 'c'])
    node.add({ netns: node.addPod(), containerId, config: configOf(node) });
  const ipam = { type: 'cube-ipam', subnet: '10.7.0.0/24', rangeStart: '10.7.0.100' };
  const other = configOf(node, { name: 'other', ipam });
  node.add({ netns: node.addPod(), containerId: 'o', config: other });
  return node;
}

function containers(node: Node): string[] {
  return (recordsOf(node.dataDir)['attachment'] ?? [])
    .map((row) => String(row['container_id']))
    .toSorted();
}

function valid(...ids: readonly string[]): { containerID: string; ifname: string }[] {
  return ids.map((containerID) => ({ containerID, ifname: 'eth0' }));
}

describe.skipIf(skip)('GC', () => {
  test('without a list removes nothing', () => {
    const node = busyNode();
    const before = kernelState(node.netns);
    expect(callNetwork(node, 'GC', {})).toMatchObject(SILENT);
    expect(kernelState(node.netns)).toEqual(before);
    expect(containers(node)).toEqual(['a', 'b', 'c', 'o']);
  });

  test.each<[string, Changes, string[]]>([
    ['with a list', { 'cni.dev/valid-attachments': valid('a', 'c') }, ['a', 'c', 'o']],
    ['with a list by its earlier name', { 'cni.dev/attachments': valid('b') }, ['b', 'o']],
    [
      'with both names',
      { 'cni.dev/valid-attachments': valid('a'), 'cni.dev/attachments': valid('a') },
      ['a', 'o'],
    ],
    [
      'with another link of the container',
      { 'cni.dev/valid-attachments': [{ containerID: 'a', ifname: 'eth1' }] },
      ['o'],
    ],
    ['with an empty list', { 'cni.dev/valid-attachments': [] }, ['o']],
    ['with an empty list as Go writes it', { 'cni.dev/valid-attachments': null }, ['o']],
  ])('%s leaves what is on it, and other networks', (_what, changes, left) => {
    const node = busyNode();
    expect(callNetwork(node, 'GC', changes)).toMatchObject(SILENT);
    expect(containers(node)).toEqual(left);
    expect(linkNames(node.netns).filter((name) => name.startsWith('veth'))).toHaveLength(
      left.length,
    );
    expect(linkNames(node.netns)).toContain('cni0');
  });

  test('with an empty list leaves nothing where there is no other network', () => {
    const node = makeNode();
    const stateOf = (): unknown => ({ ...kernelState(node.netns), forwarding: 'as it is' });
    const before = stateOf();
    node.add({ netns: node.addPod(), config: configOf(node) });
    for (let time = 0; time < 2; time += 1) {
      const list = { 'cni.dev/valid-attachments': [] };
      expect(callNetwork(node, 'GC', list)).toMatchObject(SILENT);
      expect(stateOf()).toEqual(before);
      expect(recordsOf(node.dataDir)).toEqual(NO_RECORDS);
    }
  });

  test('with a list that is none is refused', () => {
    const node = busyNode();
    for (const list of [{}, 'a', [5], [{ containerID: 'a' }]])
      expect(errorOf(callNetwork(node, 'GC', { 'cni.dev/valid-attachments': list }))).toMatchObject(
        { code: 7, msg: expect.stringContaining('cni.dev/valid-attachments') },
      );
    expect(containers(node)).toEqual(['a', 'b', 'c', 'o']);
  });
});

describe.skipIf(skip)('STATUS', () => {
  const SMALL = { ipam: { type: 'cube-ipam', subnet: '10.7.0.0/30' } };

  test('has nothing to say of a node that is ready, and leaves nothing there', () => {
    const node = makeNode();
    const before = kernelState(node.netns);
    expect(callNetwork(node, 'STATUS')).toMatchObject(SILENT);
    expect(kernelState(node.netns)).toEqual(before);
    expect(recordsOf(node.dataDir)).toEqual(NO_RECORDS);
  });

  test('is 50 when no address is left, and not any more when one comes back', () => {
    const node = makeNode();
    const call = { netns: node.addPod(), config: configOf(node, SMALL) };
    node.add(call);
    expect(errorOf(callNetwork(node, 'STATUS', SMALL))).toEqual({
      cniVersion: '1.1.0',
      code: 50,
      msg: 'no IP addresses available in range set 0: 10.7.0.1-10.7.0.2',
    });
    node.del(call);
    expect(callNetwork(node, 'STATUS', SMALL)).toMatchObject(SILENT);
  });

  test("is 50 when the bridge's name is another link's", () => {
    const node = makeNode();
    node.run('ip', 'link', 'add', 'cni0', 'type', 'veth', 'peer', 'name', 'x0');
    expect(errorOf(callNetwork(node, 'STATUS'))).toMatchObject({
      code: 50,
      msg: 'link "cni0" already exists but is not a bridge',
    });
  });

  test('is 50 when the bridge has an address that conflicts with a gateway', () => {
    const node = makeNode();
    node.run('ip', 'link', 'add', 'cni0', 'up', 'type', 'bridge');
    node.run('ip', 'address', 'add', '192.0.2.1/24', 'dev', 'cni0');
    expect(errorOf(callNetwork(node, 'STATUS'))).toMatchObject({
      code: 50,
      msg: expect.stringContaining('192.0.2.1/24'),
    });
    expect(callNetwork(node, 'STATUS', { forceAddress: true })).toMatchObject(SILENT);
    expect(callNetwork(node, 'STATUS', { isGateway: false })).toMatchObject(SILENT);
  });

  test('is 50 when the state file is damaged', () => {
    const node = makeNode();
    node.add({ netns: node.addPod(), config: configOf(node) });
    node.run(
      'sh',
      '-c',
      `rm -f ${node.dataDir}/state.db-*; echo nonsense >${node.dataDir}/state.db`,
    );
    expect(errorOf(callNetwork(node, 'STATUS'))).toMatchObject({ code: 50 });
  });

  test('reads a state file that was closed, and leaves nothing beside it', () => {
    const node = makeNode();
    node.add({ netns: node.addPod(), config: configOf(node, SMALL) });
    const db = new Database(join(node.dataDir, 'state.db'));
    db.run('PRAGMA wal_checkpoint(TRUNCATE)');
    db.close();
    for (const file of ['state.db-wal', 'state.db-shm'])
      rmSync(join(node.dataDir, file), { force: true });
    const files = readdirSync(node.dataDir);
    expect(errorOf(callNetwork(node, 'STATUS', SMALL))).toMatchObject({
      code: 50,
      msg: expect.stringContaining('no IP addresses available'),
    });
    expect(readdirSync(node.dataDir)).toEqual(files);
  });

  test('with a wrong configuration is its error', () => {
    const node = makeNode();
    expect(errorOf(callNetwork(node, 'STATUS', { mtu: -1 }))).toMatchObject({ code: 7 });
  });
});
