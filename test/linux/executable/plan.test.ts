import { createHash } from 'node:crypto';
import { existsSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { release } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import type { Op } from '../../../model/op.ts';
import { describeOp } from '../../../model/ops.ts';
import { requirement } from '../../requirements.ts';
import { ipAddresses, kernelState, linkNames } from './kernel-state.ts';
import {
  type Answer,
  type Call,
  NO_RECORDS,
  type Node,
  addressOf,
  errorOf,
  makeNode,
  recordsOf,
  run,
  runIn,
} from './node.ts';

const skip = requirement('root', 'iproute2', 'nftables', 'executable');

const DUAL_STACK = {
  hairpinMode: true,
  ipam: {
    type: 'cube-ipam',
    ranges: [[{ subnet: '10.7.0.0/24' }], [{ subnet: 'fd07::/64' }]],
    routes: [{ dst: '0.0.0.0/0' }, { dst: '::/0' }],
  },
};

const HEAD = `Plan for Linux ${release()}`;

interface PlanJson {
  readonly verb: string;
  readonly summary: { readonly add: number; readonly change: number; readonly remove: number };
  readonly operations: readonly Op[];
}

/** The files of a folder by what is in them. The index of a write-ahead log (-shm) is made anew by every reader. */
function digests(folder: string): Record<string, string> {
  if (!existsSync(folder)) return {};
  return Object.fromEntries(
    readdirSync(folder)
      .filter((file) => !file.endsWith('-shm'))
      .toSorted()
      .map((file) => [
        file,
        createHash('sha256')
          .update(readFileSync(join(folder, file)))
          .digest('hex'),
      ]),
  );
}

/** Everything that a plan must leave as it is. */
function everything(node: Node, ...pods: readonly string[]): unknown {
  return [
    [node.netns, ...pods].map(kernelState),
    digests(node.dataDir),
    digests(join(node.logFile, '..')),
  ];
}

function success(answer: Answer): string {
  expect(answer).toMatchObject({ status: 0, stderr: '' });
  return answer.stdout;
}

/** A node with a pod, and perhaps another one that is attached already. */
function prepare(others: number): { readonly node: Node; readonly pod: string } {
  const node = makeNode();
  const config = node.config(DUAL_STACK);
  for (let i = 0; i < others; i += 1)
    node.add({ netns: node.addPod(), containerId: `other-${i}`, config });
  return { node, pod: node.addPod() };
}

const SITUATIONS: readonly (readonly [string, 'ADD' | 'DEL' | 'CHECK', number, number])[] = [
  ['ADD of the first pod', 'ADD', 0, 2],
  ['ADD of the second pod', 'ADD', 1, 2],
  ['DEL of the last pod', 'DEL', 0, 2],
  ['DEL of one of two pods', 'DEL', 1, 2],
  ['DEL of what was never added', 'DEL', 1, 0],
];

/** The node, and the call that a situation is about, which is yet to be made. */
function stage(
  verb: string,
  others: number,
  status: number,
): { node: Node; pod: string; call: Call } {
  const { node, pod } = prepare(others);
  const call: Call = { netns: pod, config: node.config(DUAL_STACK) };
  if (verb === 'DEL' && status === 2) node.add(call);
  return { node, pod, call };
}

describe.skipIf(skip)('--plan', () => {
  test.each(SITUATIONS)(
    '%s: changes nothing, and the call then does just that',
    (_name, verb, others, status) => {
      const { node, pod, call } = stage(verb, others, status);
      const before = everything(node, pod);
      const text = success(node.call(verb, { ...call, args: ['--plan'] }));
      expect(node.call(verb, { ...call, args: ['--plan', '--detailed-exitcode'] })).toMatchObject({
        status,
        stdout: text,
      });
      success(node.call(verb, { ...call, args: ['--plan=sh'] }));
      const plan: PlanJson = JSON.parse(
        success(node.call(verb, { ...call, args: ['--plan=json'] })),
      );
      expect(everything(node, pod)).toEqual(before);

      success(node.call(verb, call));
      const did = readFileSync(node.logFile, 'utf8')
        .split('\n')
        .filter((line) => line.includes('"container":"pod-a"'))
        .map((line) => JSON.parse(line) as Record<string, unknown>);
      const start = did.findLastIndex(({ msg }) => msg === `CNI ${verb}`);
      expect(
        did
          .slice(start)
          .filter(({ operation }) => operation !== undefined)
          .map(({ operation, netns, msg }) => ({ operation, netns, msg })),
      ).toEqual(
        plan.operations.map((op) => ({
          operation: op.op,
          netns: op.netns,
          msg: describeOp(op).join('; '),
        })),
      );
      for (const op of plan.operations)
        for (const line of describeOp(op)) expect(text).toContain(` ${line}\n`);
      const { add, change, remove } = plan.summary;
      expect(text).toContain(
        status === 0
          ? 'Plan: nothing to do.'
          : `${HEAD}: ${add} to add, ${change} to change, ${remove} to remove.`,
      );
      expect(add + change + remove).toBe(plan.operations.length);
    },
  );

  test('before the first call makes neither state nor log', () => {
    const { node, call } = stage('ADD', 0, 2);
    for (const form of ['text', 'json', 'sh'])
      success(node.call('ADD', { ...call, args: [`--plan=${form}`] }));
    expect(readdirSync(node.folder)).toEqual([]);
  });

  test('of CHECK is what would repair the attachment', () => {
    const { node, pod, call } = stage('DEL', 0, 2);
    const args = ['--plan', '--detailed-exitcode'];
    expect(node.call('CHECK', { ...call, args })).toMatchObject({
      status: 0,
      stdout: `${HEAD}: nothing to do.\n`,
    });
    runIn(pod, 'ip', 'route', 'del', 'default');
    expect(node.call('CHECK', { ...call, args })).toMatchObject({
      status: 2,
      stdout: expect.stringContaining('+ ip route add default via 10.7.0.1 dev eth0 proto 201\n'),
    });
  });

  test('of a call that would fail is its error', () => {
    const { node, pod, call } = stage('ADD', 1, 2);
    runIn(pod, 'ip', 'link', 'add', 'eth0', 'type', 'bridge');
    const before = everything(node, pod);
    const error = errorOf(node.call('ADD', { ...call, args: ['--plan'] }));
    expect(error).toMatchObject({ code: 101, msg: expect.stringContaining('"eth0"') });
    expect(everything(node, pod)).toEqual(before);
  });
});

describe.skipIf(skip)('--plan=sh', () => {
  const SYSCTLS = ['net.ipv4.ip_forward', 'net.ipv6.conf.all.forwarding'];
  const POD_SYSCTLS = ['accept_dad', 'disable_ipv6'].map((name) => `net.ipv6.conf.eth0.${name}`);

  /** The kernel as the executable itself sees it, with one name for the pod wherever it is. */
  function view({ node, pod }: { readonly node: Node; readonly pod: string }): unknown {
    const snapshot = JSON.parse(success(node.cli(['snapshot', pod])).replaceAll(pod, 'POD')) as {
      host: { netns: Record<string, { routes: unknown[] }> };
    };
    // Routes that the kernel adds when a link has its carrier come in any order.
    const netns = Object.entries(snapshot.host.netns).map(([name, state]) => [
      name,
      { ...state, routes: state.routes.map((route) => JSON.stringify(route)).toSorted() },
    ]);
    const sysctls = [
      ...SYSCTLS.map((key) => node.run('sysctl', '-n', key)),
      ...(linkNames(pod).length > 0
        ? POD_SYSCTLS.map((key) => runIn(pod, 'sysctl', '-n', key))
        : []),
    ];
    return { netns, sysctls };
  }

  test.each(SITUATIONS)(
    '%s: the script and the call lead to the same',
    async (_name, verb, others, status) => {
      const [one, two] = [stage(verb, others, status), stage(verb, others, status)];
      const script = success(two.node.call(verb, { ...two.call, args: ['--plan=sh'] }));
      const file = join(two.node.folder, 'plan.sh');
      writeFileSync(file, script);
      success(one.node.call(verb, one.call));
      two.node.run('/bin/sh', file);
      // Duplicate address detection of link-local addresses takes a while.
      await expect.poll(() => view(two), { timeout: 5000, interval: 100 }).toEqual(view(one));
      expect([kernelState(two.node.netns), kernelState(two.pod)]).toEqual([
        kernelState(one.node.netns),
        kernelState(one.pod),
      ]);
    },
  );

  test('stops at the first command that fails', () => {
    const { node, pod, call } = stage('ADD', 0, 2);
    const file = join(node.folder, 'plan.sh');
    writeFileSync(file, success(node.call('ADD', { ...call, args: ['--plan=sh'] })));
    runIn(pod, 'ip', 'link', 'add', 'eth0', 'type', 'bridge');
    expect(() => node.run('/bin/sh', file)).toThrow(/File exists/);
    expect(linkNames(node.netns)).toEqual(['cni0']);
  });
});

/** A node with a pod and a configuration list in a file. */
function terminal(): { node: Node; pod: string; flags: string[]; planFile: string } {
  const node = makeNode();
  const file = join(node.folder, 'net.conflist');
  const { name, cniVersion, ...plugin } = node.config(DUAL_STACK);
  writeFileSync(file, JSON.stringify({ name, cniVersion, plugins: [{ type: 'portmap' }, plugin] }));
  const pod = node.addPod();
  const flags = ['--config', file, '--netns', pod, '--container-id', 'pod-a'];
  return { node, pod, flags, planFile: join(node.folder, 'plan.json') };
}

describe.skipIf(skip)('the command line', () => {
  test('add, check, del', () => {
    const { node, pod, flags } = terminal();
    const result = JSON.parse(success(node.cli(['add', ...flags])));
    expect(addressOf(result)).toBe('10.7.0.2');
    expect(success(node.cli(['check', ...flags]))).toBe(
      '✓ attachment podnet/pod-a/eth0 is as ADD left it\n',
    );
    runIn(pod, 'ip', 'link', 'set', 'eth0', 'mtu', '1400');
    expect(node.cli(['check', ...flags])).toMatchObject({
      status: 1,
      stdout: `✗ netns ${pod}: link "eth0": mtu is 1400, should be 1500\n    ip link set eth0 mtu 1500\n`,
    });
    expect(success(node.cli(['del', ...flags]))).toBe('');
    expect(linkNames(node.netns)).toEqual([]);
    expect(recordsOf(node.dataDir)).toEqual(NO_RECORDS);
  });

  test('a netns by its name, and a configuration from standard input', () => {
    const { node, pod } = terminal();
    const flags = ['--config', '-', '--netns', pod.replace('/run/netns/', ''), '-i', 'pod-a'];
    const answer = node.cli(['add', ...flags], JSON.stringify(node.config()));
    expect(JSON.parse(success(answer)).interfaces[2].sandbox).toBe(pod);
  });

  test('plan add, del and check show what the calls would do', () => {
    const { node, flags } = terminal();
    const add = node.cli(['plan', 'add', ...flags, '--detailed-exitcode']);
    expect(add).toMatchObject({ status: 2, stderr: '' });
    expect(add.stdout).toMatch(/^netns host\n {2}\+ ip link add cni0 /);
    expect(existsSync(node.dataDir)).toBe(false);
    success(node.cli(['add', ...flags]));
    expect(node.cli(['plan', 'check', ...flags, '--detailed-exitcode'])).toMatchObject({
      status: 0,
      stdout: `${HEAD}: nothing to do.\n`,
    });
    const del = node.cli(['plan', 'del', ...flags, '--detailed-exitcode']);
    expect(del).toMatchObject({ status: 2, stderr: '' });
    expect(del.stdout).toContain('- ip link del cni0\n');
    expect(success(node.cli(['plan', 'del', ...flags, '--format', 'sh']))).toMatch(
      /^#!\/bin\/sh\n/,
    );
  });

  test('apply carries out a saved plan to add, to repair, to remove', () => {
    const { node, pod, flags, planFile } = terminal();
    const apply = (verb: string): string => {
      writeFileSync(planFile, success(node.cli(['plan', verb, ...flags, '--format', 'json'])));
      return success(node.cli(['apply', planFile, ...flags.slice(0, 2)]));
    };
    expect(addressOf(JSON.parse(apply('add')))).toBe('10.7.0.2');
    runIn(pod, 'ip', 'link', 'set', 'eth0', 'mtu', '1400');
    expect(node.cli(['check', ...flags]).status).toBe(1);
    expect(apply('check')).toBe('');
    expect(node.cli(['check', ...flags]).status).toBe(0);
    expect(apply('del')).toBe('');
    expect(linkNames(node.netns)).toEqual([]);
  });

  test.each<[string, 'add' | 'del', (node: Node, pod: string, flags: string[]) => void, string]>([
    [
      'an address was added to the bridge',
      'add',
      (node) => node.run('ip', 'address', 'add', 'fd99::1/64', 'dev', 'cni0', 'nodad'),
      'the host has changed since the plan was made',
    ],
    [
      'another ADD took the address',
      'add',
      (node) =>
        void node.add({
          netns: node.addPod(),
          containerId: 'faster',
          config: node.config(DUAL_STACK),
        }),
      'address 10.7.0.3 is taken by now',
    ],
    [
      'it was carried out already',
      'add',
      (node, pod) => void node.add({ netns: pod, config: node.config(DUAL_STACK) }),
      'already exists',
    ],
    [
      'the last other pod went',
      'del',
      (node) => node.del({ containerId: 'first' }),
      'the plan is another one by now',
    ],
    [
      'the attachment is gone',
      'del',
      (node) => node.del(),
      'there is no attachment podnet/pod-a/eth0 any more',
    ],
  ])('apply refuses when %s', (_what, verb, change, text) => {
    const { node, pod, flags, planFile } = terminal();
    node.add({ netns: node.addPod(), containerId: 'first', config: node.config(DUAL_STACK) });
    if (verb === 'del') success(node.cli(['add', ...flags]));
    writeFileSync(planFile, success(node.cli(['plan', verb, ...flags, '--format', 'json'])));
    change(node, pod, flags);
    const before = [kernelState(node.netns), kernelState(pod), recordsOf(node.dataDir)];
    const answer = node.cli(['apply', planFile, ...flags.slice(0, 2)]);
    expect(answer).toMatchObject({ status: 1, stdout: '', stderr: expect.stringContaining(text) });
    expect([kernelState(node.netns), kernelState(pod), recordsOf(node.dataDir)]).toEqual(before);
  });

  type Tampered = Record<string, unknown> & {
    operations: Record<string, unknown>[];
    attachment: Record<string, unknown>;
  };
  test.each<[string, (plan: Tampered) => unknown]>([
    ['without an operation', (plan) => ({ ...plan, operations: plan.operations.slice(1) })],
    [
      'with one more operation',
      ({ operations, ...plan }) => ({
        ...plan,
        operations: [...operations, { op: 'link.del', netns: 'host', ifname: 'lo' }],
      }),
    ],
    [
      'with another MAC',
      (plan) => ({ ...plan, attachment: { ...plan.attachment, podMac: '02:00:00:00:00:99' } }),
    ],
    [
      'with another netns',
      (plan) => ({ ...plan, attachment: { ...plan.attachment, netns: '/proc/self/ns/net' } }),
    ],
    [
      'with a name that no link can have',
      (plan) => ({ ...plan, attachment: { ...plan.attachment, bridge: '../etc' } }),
    ],
    ['of a newer format', (plan) => ({ ...plan, formatVersion: '2.0' })],
    ['that is no plan', () => ['no plan']],
  ])('apply refuses a plan %s', (_what, tamper) => {
    const { node, pod, flags, planFile } = terminal();
    const plan = JSON.parse(success(node.cli(['plan', 'add', ...flags, '--format', 'json'])));
    writeFileSync(planFile, JSON.stringify(tamper(plan)));
    const before = [kernelState(node.netns), kernelState(pod)];
    const answer = node.cli(['apply', planFile, ...flags.slice(0, 2)]);
    expect(answer).toMatchObject({ status: 1, stdout: '' });
    expect(answer.stderr).toMatch(/^error: .*\n( {2}.*\n)*$/);
    expect([kernelState(node.netns), kernelState(pod)]).toEqual(before);
    expect(recordsOf(node.dataDir)).toEqual(NO_RECORDS);
  });

  test('snapshot prints this netns and others', () => {
    const { node, pod, flags } = terminal();
    success(node.cli(['add', ...flags]));
    const snapshot = JSON.parse(success(node.cli(['snapshot', pod])));
    expect(snapshot.kernel).toBe(`Linux ${run('uname', '-r').trim()}`);
    expect(Object.keys(snapshot.host.netns)).toEqual(['host', pod]);
    expect(Object.keys(snapshot.host.netns.host.links).toSorted()).toEqual(
      ['lo', ...linkNames(node.netns)].toSorted(),
    );
    expect(snapshot.host.netns[pod].links.eth0.addresses).toContainEqual(
      expect.objectContaining({ ip: ipAddresses(pod, 'eth0')[0]?.split('/')[0], prefixLength: 24 }),
    );
    expect(node.cli(['snapshot', 'no-such-netns'])).toMatchObject({
      status: 1,
      stdout: '',
      stderr: expect.stringContaining('no-such-netns'),
    });
  });

  test.each([
    [
      ['--help'],
      ['plan', 'add', 'del', 'check', 'apply', 'trace', 'snapshot', 'version', '--version'],
    ],
    [
      ['plan', '--help'],
      ['add', 'del', 'check'],
    ],
    [
      ['plan', 'add', '--help'],
      ['--config', '--netns', '--container-id', '--ifname', '--format'],
    ],
    [
      ['plan', 'del', '--help'],
      ['--config', '--container-id', '--ifname', '--detailed-exitcode'],
    ],
    [
      ['plan', 'check', '--help'],
      ['--config', '--netns', '--container-id', '--ifname'],
    ],
    [
      ['add', '--help'],
      ['--config', '--netns', '--container-id', '--ifname'],
    ],
    [
      ['del', '--help'],
      ['--config', '--netns', '--container-id', '--ifname'],
    ],
    [
      ['check', '--help'],
      ['--config', '--netns', '--container-id', '--ifname'],
    ],
    [
      ['apply', '--help'],
      ['<file>', '--config'],
    ],
    [['snapshot', '--help'], ['[netns...]']],
    [['version', '--help'], ['Usage: cube-cni version']],
  ])('%j', (args, words) => {
    const text = success(makeNode().cli(args));
    for (const word of words) expect(text).toContain(word);
  });

  test('trace is loaded without the others, and is the same beside them', () => {
    const node = makeNode();
    expect(success(node.cli(['trace', '--help']))).toBe(success(node.cli(['help', 'trace'])));
    expect(success(node.cli(['trace', '--version']))).toBe(success(node.cli(['--version'])));
  });

  test('version', () => {
    expect(success(makeNode().cli(['version']))).toMatch(
      /^cube-cni \d+\.\d+\.\d+\nCNI 0\.1\.0, 0\.2\.0, 0\.3\.0, 0\.3\.1, 0\.4\.0, 1\.0\.0, 1\.1\.0\n$/,
    );
    expect(success(makeNode().cli(['--version']))).toMatch(/^cube-cni \d+\.\d+\.\d+\n$/);
  });

  test.each([
    [['nonsense'], /unknown command/],
    [['snapshot', '--nonsense'], /unknown option/],
    [['add'], /required option/],
    [['add', '--config', '/nowhere/net.conf', '-i', 'a', '-n', 'a'], /\/nowhere\/net\.conf/],
  ])('%j is refused on standard error', (args, text) => {
    const answer = makeNode().cli(args);
    expect(answer).toMatchObject({ status: 1, stdout: '', stderr: expect.stringMatching(text) });
  });

  test('a key that is nearly known is told of, on standard error', () => {
    const node = makeNode();
    const file = join(node.folder, 'net.json');
    writeFileSync(file, JSON.stringify(node.config({ hairpinMod: true })));
    const args = ['plan', 'add', '-c', file, '-n', node.addPod(), '-i', 'a'];
    expect(node.cli(args)).toMatchObject({
      status: 0,
      stderr: 'warning: unknown key hairpinMod is ignored: was hairpinMode meant?\n',
    });
    expect(
      node.add({ netns: node.addPod(), config: node.config({ hairpinMod: true }) }),
    ).toBeTruthy();
    expect(readFileSync(node.logFile, 'utf8')).toContain('was hairpinMode meant?');
  });
});
