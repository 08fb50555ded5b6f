import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { requirement } from '../../requirements.ts';
import { ipAddresses, kernelState, linkNames } from './kernel-state.ts';
import {
  type Call,
  type ErrorAnswer,
  NO_RECORDS,
  type Node,
  errorOf,
  makeNode,
  recordsOf,
  run,
  runIn,
} from './node.ts';

const skip = requirement('root', 'iproute2', 'nftables', 'executable');

/** Makes a call that must fail, on a node with a pod that must not notice, and answers the error. */
function refusal(
  verb: string,
  make: (node: Node, pod: string) => Call,
  node: Node = makeNode(),
): ErrorAnswer {
  const neighbour = node.addPod();
  node.add({ netns: neighbour, containerId: 'neighbour' });
  const pod = node.addPod();
  const call = { netns: pod, ...make(node, pod) };
  const look = (): unknown => [
    kernelState(node.netns),
    kernelState(neighbour),
    kernelState(pod),
    recordsOf(node.dataDir),
  ];
  const before = look();
  const error = errorOf(node.call(verb, call));
  expect(look()).toEqual(before);
  return error;
}

function ipam(...sets: readonly (readonly object[])[]): object {
  return { ipam: { type: 'cube-ipam', ranges: sets } };
}

describe.skipIf(skip)('standard input', () => {
  test.each<[string, string | Uint8Array, number, string]>([
    ['broken JSON', '{"cniVersion":"1.0.0","name":', 6, 'error unmarshall network config'],
    ['nothing', '', 6, 'error unmarshall network config'],
    ['no object', '["podnet"]', 6, 'not a JSON object'],
    ['bytes that are no text', new Uint8Array(1000).fill(0xff), 6, 'error unmarshall'],
    ['10 MB of spaces', ' '.repeat(10_000_000), 6, 'larger than 1048576 bytes'],
    ['a name that is no string', '{"cniVersion":"1.0.0","name":5}', 6, 'name is not a string'],
    ['no name', '{"cniVersion":"1.0.0"}', 7, 'missing network name'],
    ['100000 levels', '['.repeat(100_000), 6, 'error unmarshall'],
  ])('%s', (_what, stdin, code, text) => {
    const error = refusal('ADD', () => ({ stdin }));
    expect(error).toMatchObject({ code, msg: expect.stringContaining(text) });
  });

  test('10 MB of configuration', () => {
    const error = refusal('ADD', (node) => ({
      config: node.config({ x: 'x'.repeat(10_000_000) }),
    }));
    expect(error).toMatchObject({ code: 6, msg: expect.stringContaining('larger than') });
  });
});

describe.skipIf(skip)('names and versions', () => {
  test.each<[string, Record<string, unknown>, number, string]>([
    ['an unknown version', { cniVersion: '9.0.0' }, 1, '9.0.0'],
    ['a network name with ../', { name: '../../etc' }, 7, '../../etc'],
    ['a network name with a line break', { name: 'a\nb' }, 7, 'a\nb'],
    ['a bridge name with /', { bridge: '../x' }, 7, '../x'],
    ['a bridge name that is too long', { bridge: 'b'.repeat(16) }, 7, 'b'.repeat(16)],
    ['a relative dataDir', { dataDir: 'here' }, 7, 'dataDir'],
    ['a relative logFile', { logFile: '../log' }, 7, 'logFile'],
    ['a key that is not there yet', { vlan: 100 }, 2, 'vlan'],
    ['hairpin and promiscuous mode', { hairpinMode: true, promiscMode: true }, 7, 'hairpin'],
    ['an MTU that is no number', { mtu: '1500' }, 7, 'mtu'],
    ['an ipam of somebody else', { ipam: { type: '../host-local' } }, 7, '../host-local'],
  ])('%s', (_what, changes, code, text) => {
    const error = refusal('ADD', (node) => ({ config: node.config(changes) }));
    expect(error.code).toBe(code);
    expect(`${error.msg} ${error.details}`).toContain(text);
  });

  test.each<[string, Call, string]>([
    ['a container id with ../', { containerId: '../../a' }, 'containerID'],
    ['a container id that begins with a dash', { containerId: '-rf' }, 'containerID'],
    ['a link name with /', { ifname: 'a/b' }, 'interface name contains /'],
    ['a link name that is too long', { ifname: 'e'.repeat(16) }, 'interface name is too long'],
    ['..', { ifname: '..' }, 'interface name is . or ..'],
    ['a link name that the kernel would fill in', { ifname: 'eth%d' }, 'contains %'],
  ])('%s', (_what, call, text) => {
    for (const verb of ['ADD', 'DEL'])
      expect(refusal(verb, () => call)).toMatchObject({
        code: 4,
        msg: expect.stringContaining(text),
      });
  });
});

describe.skipIf(skip)('ranges', () => {
  test.each<[string, object, string]>([
    [
      'overlapping, in one set',
      ipam([{ subnet: '10.8.0.0/24' }, { subnet: '10.8.0.128/25' }]),
      '10.8.0.129-10.8.0.254 overlaps with 10.8.0.1-10.8.0.254',
    ],
    [
      'overlapping, in two sets',
      ipam([{ subnet: '10.8.0.0/24' }], [{ subnet: '10.8.0.0/16' }]),
      'overlaps with',
    ],
    ['of two families', ipam([{ subnet: '10.8.0.0/24' }, { subnet: 'fd08::/64' }]), 'mixed'],
    ['that are too small', ipam([{ subnet: '10.8.0.0/31' }]), '10.8.0.0/31 too small'],
    ['none', ipam(), 'no IP ranges'],
    ['that are no prefix', ipam([{ subnet: '10.8.0.0/33' }]), '10.8.0.0/33'],
    [
      'that start outside their subnet',
      ipam([{ subnet: '10.8.0.0/24', rangeStart: '10.9.0.1' }]),
      'rangeStart 10.9.0.1',
    ],
  ])('%s', (_what, changes, text) => {
    const error = refusal('ADD', (node) => ({ config: node.config({ ...changes }) }));
    expect(error).toMatchObject({ code: 7, msg: expect.stringContaining(text) });
  });

  test('that are full', () => {
    const error = refusal('ADD', (node) => {
      const config = node.config({
        name: 'small',
        bridge: 'small0',
        ...ipam([{ subnet: '10.9.0.0/30' }]),
      });
      node.add({ netns: node.addPod(), containerId: 'first', config });
      return { config };
    });
    expect(error).toMatchObject({
      code: 102,
      msg: 'no IP addresses available in range set 0: 10.9.0.1-10.9.0.2',
    });
  });

  test('of which the second is full: the first gives nothing away', () => {
    const error = refusal('ADD', (node) => {
      const ranges = ipam(
        [{ subnet: '10.9.0.0/24' }],
        [{ subnet: 'fd09::/126', rangeEnd: 'fd09::2' }],
      );
      const config = node.config({ name: 'small', bridge: 'small0', ...ranges });
      node.add({ netns: node.addPod(), containerId: 'first', config });
      return { config };
    });
    expect(error).toMatchObject({ code: 102, msg: expect.stringContaining('fd09::1-fd09::2') });
  });
});

describe.skipIf(skip)('a netns that is none', () => {
  test.each<[string, (path: string) => void]>([
    ['missing', () => undefined],
    ['a regular file', (path) => writeFileSync(path, '')],
    ['a directory', (path) => mkdirSync(path)],
    ['a FIFO that nobody writes to', (path) => run('mkfifo', path)],
    ['a netns of another kind', (path) => run('ln', '-s', '/proc/self/ns/mnt', path)],
    ['a symbolic link to itself', (path) => run('ln', '-s', path, path)],
    ['a device', (path) => run('ln', '-s', '/dev/zero', path)],
  ])('%s', (_what, make) => {
    const error = refusal('ADD', (node) => {
      const netns = join(node.folder, 'netns');
      make(netns);
      return { netns };
    });
    expect(error).toMatchObject({ code: 4, msg: expect.stringMatching(/CNI_NETNS ".*\/netns"/) });
  });
});

describe.skipIf(skip)('a name that is taken', () => {
  test('the link in the pod', () => {
    const error = refusal('ADD', (_node, pod) => {
      runIn(pod, 'ip', 'link', 'add', 'eth0', 'type', 'bridge');
      return {};
    });
    expect(error).toMatchObject({
      code: 101,
      msg: expect.stringMatching(/^link "eth0" already exists in netns "\/run\/netns\/cube-test-/),
    });
  });

  test('the bridge, by a veth', () => {
    const error = refusal('ADD', (node) => {
      node.run('ip', 'link', 'add', 'taken0', 'type', 'veth', 'peer', 'name', 'taken1');
      return { config: node.config({ bridge: 'taken0' }) };
    });
    expect(error).toMatchObject({
      code: 101,
      msg: 'link "taken0" already exists but is not a bridge',
      details: 'it is a veth',
    });
  });
});

/** Somebody's bridge, with an address where the gateway's would have to be. */
function foreignBridge(node: Node): Record<string, unknown> {
  node.run('ip', 'link', 'add', 'br1', 'up', 'type', 'bridge');
  node.run('ip', 'address', 'add', '10.77.0.1/24', 'dev', 'br1');
  return { bridge: 'br1' };
}

describe.skipIf(skip)('a bridge with an address that is in the way', () => {
  test('is left alone', () => {
    const error = refusal('ADD', (node) => ({ config: node.config(foreignBridge(node)) }));
    expect(error).toMatchObject({
      code: 101,
      msg: 'bridge "br1" already has address 10.77.0.1/24, which conflicts with 10.7.0.1/24',
    });
  });

  test('loses it with forceAddress', () => {
    const node = makeNode();
    const config = node.config({ ...foreignBridge(node), forceAddress: true });
    node.add({ netns: node.addPod(), config });
    expect(ipAddresses(node.netns, 'br1')).toEqual(['10.7.0.1/24']);
  });
});

describe.skipIf(skip)('a state file that cannot be used', () => {
  test('in a folder that is read-only', () => {
    const node = makeNode();
    const folder = join(node.folder, 'read-only');
    mkdirSync(folder);
    run('mount', '-t', 'tmpfs', '-o', 'ro', 'tmpfs', folder);
    try {
      for (const dataDir of [folder, join(folder, 'below')]) {
        const error = refusal('ADD', () => ({ config: node.config({ dataDir }) }), node);
        expect(error).toMatchObject({ code: 5, msg: expect.stringContaining(dataDir) });
        node.del({ containerId: 'neighbour' });
      }
    } finally {
      run('umount', folder);
    }
  });

  test.each<[string, (folder: string) => void]>([
    ['in a folder that is a file', (folder) => writeFileSync(folder, '')],
    [
      'below a file',
      (folder) => {
        writeFileSync(folder.replace(/\/data$/, ''), '');
      },
    ],
    ['that is a folder', (folder) => mkdirSync(join(folder, 'state.db'), { recursive: true })],
    [
      'beside a lock that is a folder',
      (folder) => mkdirSync(join(folder, 'lock'), { recursive: true }),
    ],
  ])('%s', (_what, make) => {
    const node = makeNode();
    const dataDir = join(node.folder, 'damaged/data');
    if (!_what.startsWith('below')) mkdirSync(join(node.folder, 'damaged'));
    make(dataDir);
    const error = refusal('ADD', () => ({ config: node.config({ dataDir }) }), node);
    expect(error).toMatchObject({ code: 5, msg: expect.stringContaining(dataDir) });
  });

  test('that was damaged while pods ran: it is replaced, and an attachment is known again', () => {
    const node = makeNode();
    const pod = node.addPod();
    node.add({ netns: pod });
    rmSync(join(node.dataDir, 'state.db-wal'), { force: true });
    writeFileSync(join(node.dataDir, 'state.db'), 'x'.repeat(40_000));
    const before = [kernelState(node.netns), kernelState(pod)];
    expect(errorOf(node.call('ADD', { netns: pod }))).toMatchObject({
      code: 101,
      msg: 'attachment podnet/pod-a/eth0 already exists',
    });
    expect([kernelState(node.netns), kernelState(pod)]).toEqual(before);
    node.del({ netns: pod });
    expect(linkNames(node.netns)).toEqual([]);
  });

  test('that somebody keeps busy: to be tried again', async () => {
    const node = makeNode();
    node.del();
    const busy = Bun.spawn(
      [
        process.execPath,
        '-e',
        `const db = new (require('bun:sqlite').Database)(process.argv[1]);
         db.run('BEGIN EXCLUSIVE'); console.log('held'); setTimeout(() => {}, 30000);`,
        join(node.dataDir, 'state.db'),
      ],
      { stdout: 'pipe' },
    );
    onTestFinished(() => busy.kill());
    await busy.stdout.getReader().read();
    const answer = node.call('ADD', { netns: node.addPod() });
    expect(errorOf(answer)).toMatchObject({ code: 11, msg: expect.stringContaining('state.db') });
    busy.kill();
    await busy.exited;
    expect(recordsOf(node.dataDir)).toEqual(NO_RECORDS);
  });
});
