/** The executable under the name `loopback`: the cases of the reference's own tests, and the reference itself beside it. */
import { existsSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { SUPPORTED_VERSIONS } from '../../../plugin/cni/version.ts';
import { requirement } from '../../requirements.ts';
import { ipAddresses, ipLink, kernelState } from './kernel-state.ts';
import { type Answer, type Call, EXECUTABLE, type Node, errorOf, makeNode, runIn } from './node.ts';

const skip = requirement('root', 'iproute2', 'nftables', 'executable');

const REFERENCE = '/usr/lib/cni/loopback';

/** What a result holds of the loopback, in the forms of all versions. */
interface LoopbackResult {
  readonly interfaces?: readonly object[];
  readonly ips?: readonly { readonly address: string }[];
  readonly ip4?: { readonly ip: string };
  readonly ip6?: { readonly ip: string };
}

/** A node with a pod, and calls of the plugin for it. */
interface Loopback {
  readonly node: Node;
  readonly pod: string;
  readonly call: (verb: string, config?: Readonly<Record<string, unknown>>, call?: Call) => Answer;
  readonly isUp: () => unknown;
}

function makeLoopback(reference?: typeof REFERENCE): Loopback {
  const node = makeNode();
  const pod = node.addPod();
  const program = reference ?? join(node.folder, 'loopback');
  if (!reference) symlinkSync(EXECUTABLE, program);
  return {
    node,
    pod,
    call: (verb, changes = {}, call = {}) => {
      const { dataDir, logFile } = node;
      const config = { cniVersion: '1.0.0', name: 'loopback-test', dataDir, logFile, ...changes };
      return node.call(verb, { netns: pod, ifname: 'lo', config, program, ...call });
    },
    isUp: () => ipLink(pod, 'lo')['up'],
  };
}

/** A call that must succeed and say nothing. */
function silent(answer: Answer): void {
  expect(answer).toMatchObject({ status: 0, stdout: '', stderr: '' });
}

function resultOf({ status, stdout, stderr }: Answer): LoopbackResult {
  expect([status, stderr]).toEqual([0, '']);
  return JSON.parse(stdout) as LoopbackResult;
}

/** The error of a call, which must have left the pod as it was. */
function refused(
  loopback: Loopback,
  ...[verb, config, call]: Parameters<Loopback['call']>
): ReturnType<typeof errorOf> {
  const before = kernelState(loopback.pod);
  const error = errorOf(loopback.call(verb, config, call));
  expect(kernelState(loopback.pod)).toEqual(before);
  return error;
}

/** The result of ADD in the form of a version. */
function resultFor(cniVersion: string, sandbox: string): object {
  const interfaces = [{ name: 'lo', mac: '00:00:00:00:00:00', sandbox }];
  const [v4, v6] = [
    { interface: 0, address: '127.0.0.1/8' },
    { interface: 0, address: '::1/128' },
  ];
  if (cniVersion === '0.1.0' || cniVersion === '0.2.0')
    return { cniVersion, ip4: { ip: v4.address }, ip6: { ip: v6.address }, dns: {} };
  return cniVersion.startsWith('0')
    ? {
        cniVersion,
        interfaces,
        ips: [
          { version: '4', ...v4 },
          { version: '6', ...v6 },
        ],
        dns: {},
      }
    : { cniVersion, interfaces, ips: [v4, v6] };
}

describe.skipIf(skip)("the cases of the reference's own tests", () => {
  test.each(SUPPORTED_VERSIONS)('%s: ADD sets lo up', (cniVersion) => {
    const { pod, call, isUp } = makeLoopback();
    expect(isUp()).toBe(false);
    expect(resultOf(call('ADD', { cniVersion }))).toEqual(resultFor(cniVersion, pod));
    expect(isUp()).toBe(true);
    expect(ipAddresses(pod, 'lo')).toEqual(['127.0.0.1/8', '::1/128']);
  });

  test.each(SUPPORTED_VERSIONS)('%s: DEL sets lo down', (cniVersion) => {
    const { pod, call, isUp } = makeLoopback();
    silent(call('DEL', { cniVersion }));
    expect(isUp()).toBe(false);
    runIn(pod, 'ip', 'link', 'set', 'lo', 'up');
    silent(call('DEL', { cniVersion }));
    expect(isUp()).toBe(false);
  });
});

describe.skipIf(skip)('ADD', () => {
  test('the link is lo, whatever CNI_IFNAME says', () => {
    const { pod, call, isUp } = makeLoopback();
    expect(resultOf(call('ADD', {}, { ifname: 'eth0' }))).toEqual(resultFor('1.0.0', pod));
    expect(isUp()).toBe(true);
  });

  test('a second one answers the same', () => {
    const { call, isUp } = makeLoopback();
    const first = call('ADD');
    expect(call('ADD').stdout).toBe(first.stdout);
    expect(isUp()).toBe(true);
  });

  test('without IPv6 the link has no ::1', () => {
    const { pod, call } = makeLoopback();
    runIn(pod, 'sysctl', '-qw', 'net.ipv6.conf.lo.disable_ipv6=1');
    expect(resultOf(call('ADD')).ips).toEqual([{ interface: 0, address: '127.0.0.1/8' }]);
    expect(ipAddresses(pod, 'lo')).toEqual(['127.0.0.1/8']);
  });

  test.each(SUPPORTED_VERSIONS)(
    '%s: the result of the plugin before is passed on',
    (cniVersion) => {
      const { call, isUp } = makeLoopback();
      const address = { address: '10.1.0.2/16', gateway: '10.1.0.1' };
      const single = cniVersion === '0.1.0' || cniVersion === '0.2.0';
      const old = cniVersion.startsWith('0');
      const prevResult = {
        cniVersion,
        ...(single
          ? { ip4: { ip: address.address, gateway: address.gateway } }
          : {
              interfaces: [{ name: 'eth0', mac: '02:00:00:00:00:01', sandbox: '/run/netns/a' }],
              ips: [{ ...(old ? { version: '4' } : {}), interface: 0, ...address }],
              routes: [{ dst: '0.0.0.0/0', gw: '10.1.0.1' }],
            }),
        dns: { nameservers: ['10.1.0.1'] },
      };
      expect(resultOf(call('ADD', { cniVersion, prevResult }))).toEqual(prevResult);
      expect(isUp()).toBe(true);
    },
  );

  test('what is no result is refused', () => {
    expect(refused(makeLoopback(), 'ADD', { prevResult: { ips: 'all' } })).toMatchObject({
      code: 6,
      msg: 'prevResult is not a CNI result',
    });
  });

  test.each(['10.9.8.7/24', 'fd00::7/64'])('a link with %s is refused', (address) => {
    const loopback = makeLoopback();
    runIn(loopback.pod, 'ip', 'address', 'add', address, 'dev', 'lo');
    expect(refused(loopback, 'ADD')).toMatchObject({
      cniVersion: '1.0.0',
      code: 101,
      msg: `loopback interface found with non-loopback address "${address.split('/')[0]}"`,
    });
    expect(loopback.isUp()).toBe(false);
  });

  test('without a link of that name there is an error of the kernel', () => {
    const loopback = makeLoopback();
    runIn(loopback.pod, 'ip', 'link', 'set', 'lo', 'name', 'other');
    for (const verb of ['ADD', 'DEL'])
      expect(refused(loopback, verb)).toMatchObject({
        code: 100,
        msg: expect.stringMatching(/^Cannot do "ip link set lo (up|down)" .*: ENODEV/),
      });
    expect(refused(loopback, 'CHECK')).toMatchObject({ code: 103 });
  });
});

describe.skipIf(skip)('DEL', () => {
  test('twice, without a netns, after the netns is gone, of what is no netns', () => {
    const { node, call, isUp } = makeLoopback();
    call('ADD');
    silent(call('DEL'));
    silent(call('DEL'));
    expect(isUp()).toBe(false);
    const file = join(node.folder, 'file');
    writeFileSync(file, '');
    for (const netns of ['', '/run/netns/cube-test-gone', file]) silent(call('DEL', {}, { netns }));
  });
});

describe.skipIf(skip)('CHECK', () => {
  test('passes while lo is up, with and without prevResult', () => {
    const { call, isUp } = makeLoopback();
    const prevResult = resultOf(call('ADD'));
    silent(call('CHECK'));
    silent(call('CHECK', { prevResult }));
    expect(isUp()).toBe(true);
  });

  test('finds that lo is down', () => {
    const loopback = makeLoopback();
    loopback.call('ADD');
    runIn(loopback.pod, 'ip', 'link', 'set', 'lo', 'down');
    expect(refused(loopback, 'CHECK')).toEqual({
      cniVersion: '1.0.0',
      code: 103,
      msg: 'loopback interface is down',
      details: `netns "${loopback.pod}": ip link set lo up`,
    });
  });
});

describe.skipIf(skip)('as every call', () => {
  test('a version that is unknown, or too old for the verb', () => {
    const loopback = makeLoopback();
    for (const [verb, cniVersion] of [
      ['ADD', '9.0.0'],
      ['DEL', '9.0.0'],
      ['CHECK', '0.3.1'],
      ['GC', '1.0.0'],
      ['STATUS', '1.0.0'],
    ] as const)
      expect(refused(loopback, verb, { cniVersion })).toMatchObject({ code: 1 });
  });

  test('a netns that is not there, or is not one', () => {
    const loopback = makeLoopback();
    const file = join(loopback.node.folder, 'file');
    writeFileSync(file, '');
    for (const netns of ['/run/netns/cube-test-gone', file]) {
      expect(refused(loopback, 'ADD', {}, { netns })).toMatchObject({ code: 4 });
      expect(refused(loopback, 'CHECK', {}, { netns })).toMatchObject({ code: 103 });
    }
  });

  test("the plugin's own netns, unless CNI_NETNS_OVERRIDE allows it", () => {
    const loopback = makeLoopback();
    const { node, call } = loopback;
    const own = { netns: '/proc/self/ns/net' };
    for (const verb of ['ADD', 'DEL', 'CHECK'])
      expect(refused(loopback, verb, {}, own)).toMatchObject({ code: 8 });
    expect(ipLink(node.netns, 'lo')).toMatchObject({ up: false });
    const allowed = { ...own, env: { CNI_NETNS_OVERRIDE: '1' } };
    expect(resultOf(call('ADD', {}, allowed))).toEqual(resultFor('1.0.0', own.netns));
    expect(ipLink(node.netns, 'lo')).toMatchObject({ up: true });
    silent(call('DEL', {}, allowed));
    expect(ipLink(node.netns, 'lo')).toMatchObject({ up: false });
  });

  test('GC and STATUS do nothing', () => {
    const { pod, call } = makeLoopback();
    call('ADD');
    const before = kernelState(pod);
    silent(call('GC', { cniVersion: '1.1.0', 'cni.dev/valid-attachments': [] }));
    silent(call('STATUS', { cniVersion: '1.1.0' }));
    expect(kernelState(pod)).toEqual(before);
  });

  test('VERSION', () => {
    const { call } = makeLoopback();
    const { stdout } = call('VERSION');
    expect(JSON.parse(stdout)).toMatchObject({ supportedVersions: SUPPORTED_VERSIONS });
  });
});

describe.skipIf(skip)('files', () => {
  test('there are neither state nor log, whatever is called', () => {
    const { node, call } = makeLoopback();
    for (const verb of ['ADD', 'CHECK', 'DEL', 'CHECK', 'GC', 'STATUS'])
      call(verb, { cniVersion: '1.1.0', logLevel: 'debug' });
    expect([existsSync(node.dataDir), existsSync(node.logFile)]).toEqual([false, false]);
  });
});

describe.skipIf(skip)('--plan', () => {
  test('says what would be done, and does it not', () => {
    const { pod, call, isUp } = makeLoopback();
    const plan = (verb: string, ...args: string[]): Answer => call(verb, {}, { args });
    expect(plan('ADD', '--plan', '--detailed-exitcode')).toMatchObject({
      status: 2,
      stdout: expect.stringMatching(
        new RegExp(
          `^netns ${pod}\n {2}~ ip link set lo up\n(.*\n)+Plan for Linux \\S+: 0 to add, 1 to change`,
        ),
      ),
    });
    expect(plan('DEL', '--plan', '--detailed-exitcode')).toMatchObject({
      status: 0,
      stdout: expect.stringMatching(/^Plan for Linux \S+: nothing to do.\n$/),
    });
    expect(isUp()).toBe(false);
  });

  test('--plan=sh is a script that does it', () => {
    const { pod, call, isUp } = makeLoopback();
    const { stdout } = call('CHECK', {}, { args: ['--plan=sh'] });
    expect(isUp()).toBe(false);
    runIn(pod, 'sh', '-c', stdout);
    expect(isUp()).toBe(true);
  });

  test('there is none as JSON, and none of GC and STATUS', () => {
    const loopback = makeLoopback();
    for (const [verb, arg] of [
      ['ADD', '--plan=json'],
      ['GC', '--plan'],
      ['STATUS', '--plan'],
    ] as const)
      expect(refused(loopback, verb, { cniVersion: '1.1.0' }, { args: [arg] })).toMatchObject({
        code: 4,
        msg: expect.stringMatching(/^there is no plan of /),
      });
  });
});

/** What a pod is like before the calls, and what makes it so. */
const PODS: Readonly<Record<string, string>> = {
  'lo is up': 'ip link set lo up',
  'lo was up': 'ip link set lo up; ip link set lo down',
  'lo has other loopback addresses':
    'ip address add 127.0.0.53/32 dev lo; ip address add 127.1.2.3/8 dev lo',
  'lo has no IPv6': 'sysctl -qw net.ipv6.conf.lo.disable_ipv6=1',
};

interface Told extends LoopbackResult {
  readonly msg?: string;
}

/** What a call tells: the content of a result, which the reference gives in the form of 1.0.0 before that too, or an error's text. */
function told({ pod, call }: Loopback, verb: string, cniVersion: string): unknown {
  const { status, stdout } = call(verb, { cniVersion });
  const answer = JSON.parse(stdout.replaceAll(pod, 'POD') || '{}') as Told;
  const { interfaces, ips, ip4, ip6, msg } = answer;
  const addresses = ips?.map(({ address }) => address) ?? [ip4?.ip, ip6?.ip];
  return { verb, status, msg, addresses, ...(cniVersion < '0.3.0' ? {} : { interfaces }) };
}

/** What a plugin tells, call after call, and what it leaves each time. */
function story(loopback: Loopback, cniVersion: string): unknown {
  const verbs = ['ADD', 'CHECK', 'ADD', 'DEL', 'CHECK', 'DEL'];
  return verbs
    .filter((verb) => verb !== 'CHECK' || cniVersion >= '0.4.0')
    .map((verb) => [told(loopback, verb, cniVersion), kernelState(loopback.pod)]);
}

describe.skipIf(skip || requirement('cni-plugins'))('beside the reference', () => {
  const both = [undefined, REFERENCE] as const;

  test.each(SUPPORTED_VERSIONS.slice(0, -1))('%s: the same lo after each call', (cniVersion) => {
    const [ours, theirs] = both.map((plugin) => story(makeLoopback(plugin), cniVersion));
    expect(ours).toEqual(theirs);
  });

  test.each(Object.entries(PODS))('the same where %s', (_what, script) => {
    const [ours, theirs] = both.map((plugin) => {
      const loopback = makeLoopback(plugin);
      runIn(loopback.pod, 'sh', '-ec', script);
      return story(loopback, '1.0.0');
    });
    expect(ours).toEqual(theirs);
  });

  test('1.0.0: the same result, but for an empty dns', () => {
    const [ours, theirs] = both.map((plugin) => {
      const { pod, call } = makeLoopback(plugin);
      return JSON.parse(call('ADD').stdout.replaceAll(pod, 'POD')) as object;
    });
    expect({ dns: {}, ...ours }).toEqual({ dns: {}, ...theirs });
  });

  test('the same result of the plugin before', () => {
    const ips = [{ interface: 0, address: '10.1.0.2/16', gateway: '10.1.0.1' }];
    const interfaces = [{ name: 'eth0', mac: '02:00:00:00:00:01', sandbox: '/run/netns/a' }];
    const prevResult = { cniVersion: '1.0.0', interfaces, ips, dns: { nameservers: ['10.1.0.1'] } };
    const [ours, theirs] = both.map((plugin) =>
      resultOf(makeLoopback(plugin).call('ADD', { prevResult })),
    );
    expect(ours).toEqual(theirs);
  });

  test('the same words for an address of another kind, which ours leaves down', () => {
    const [ours, theirs] = both.map((plugin) => {
      const loopback = makeLoopback(plugin);
      runIn(loopback.pod, 'ip', 'address', 'add', '10.9.8.7/24', 'dev', 'lo');
      return [told(loopback, 'ADD', '1.0.0'), loopback.isUp()];
    });
    expect(ours?.[0]).toEqual(theirs?.[0]);
    expect([ours?.[1], theirs?.[1]]).toEqual([false, true]);
  });
});
