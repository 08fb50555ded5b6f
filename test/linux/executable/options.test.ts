/** What configurations may ask for beyond a plain bridge, judged by what the kernel then does. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { echo } from '../../../backends/linux/echo.ts';
import { parseIp } from '../../../model/ip.ts';
import { requirement } from '../../requirements.ts';
import {
  ipAddresses,
  ipLink,
  kernelState,
  linkNames,
  mainRoutes,
  mapped,
  masqueraded,
} from './kernel-state.ts';
import {
  type Call,
  type Node,
  type Result,
  errorOf,
  makeNode,
  recordsOf,
  run,
  runIn,
} from './node.ts';

const skip = requirement('root', 'iproute2', 'nftables', 'executable');

/** An answer that is to come takes less than a millisecond; the machine may be busy. */
const ANSWER_MS = 5000;
/** Less than the kernel's pause before it asks again (retrans_timer), and than it looks for duplicates. */
const AT_ONCE_MS = 700;
/** How long silence is listened to. */
const SILENCE_MS = 300;

type Changes = Readonly<Record<string, unknown>>;

const DUAL_IPAM = {
  type: 'cube-ipam',
  ranges: [[{ subnet: '10.7.0.0/24' }], [{ subnet: 'fd07::/64' }]],
  routes: [{ dst: '0.0.0.0/0' }, { dst: '::/0' }],
};

/** What must be as it was: all but forwarding, which is never switched off again. */
function view(node: Node): unknown {
  return [{ ...kernelState(node.netns), forwarding: null }, recordsOf(node.dataDir)];
}

function isAnswered(timeoutMs: number, netns: string, destination: string, source?: string) {
  return echo({
    netns: netns.replace('/run/netns/', ''),
    destination: parseIp(destination),
    ...(source === undefined ? {} : { source: parseIp(source) }),
    timeoutMs,
  }).ok;
}

/** Does an address answer to a netns? */
function reaches(netns: string, destination: string, source?: string): boolean {
  return isAnswered(ANSWER_MS, netns, destination, source);
}

/** Does it, before the kernel would ask for the neighbour again? */
function reachesAtOnce(netns: string, destination: string): boolean {
  return isAnswered(AT_ONCE_MS, netns, destination);
}

/** Does it stay silent? */
function isSilent(netns: string, destination: string, source?: string): boolean {
  return !isAnswered(SILENCE_MS, netns, destination, source);
}

interface Pod {
  readonly netns: string;
  readonly result: Result;
  readonly hostIfname: string;
  readonly call: Call;
}

/** Attaches a pod of its own container. */
function attach(node: Node, containerId: string, changes: Changes = {}): Pod {
  const netns = node.addPod();
  const config = node.config({ ipam: DUAL_IPAM, ...changes });
  const result = node.add({ netns, containerId, config });
  const hostIfname = result.interfaces.find(({ name }) => name.startsWith('veth'))?.name ?? '';
  const call = { netns, containerId, config: { ...config, prevResult: result } };
  return { netns, result, hostIfname, call };
}

/** CHECK passes, and DEL of all leaves nothing. */
function expectSound(node: Node, before: unknown, ...pods: readonly Pod[]): void {
  for (const { call } of pods)
    expect(node.call('CHECK', call)).toMatchObject({ status: 0, stdout: '', stderr: '' });
  for (const { call } of pods) node.del(call);
  expect(view(node)).toEqual(before);
  for (const { netns } of pods) expect(linkNames(netns)).toEqual([]);
}

function hostRoutes(netns: string): string[] {
  return mainRoutes(netns)
    .map((route) => JSON.parse(route) as { dst: string; dev: string; gateway?: string })
    .map(({ dst, dev, gateway }) => [dst, ...(gateway ? ['via', gateway] : []), dev].join(' '));
}

/** A netns behind the node, which forwards already and gets what it is to send back. */
function addOutside(node: Node): string {
  node.run('sysctl', '-qw', 'net.ipv4.ip_forward=1', 'net.ipv6.conf.all.forwarding=1');
  const outside = node.addPod();
  const name = outside.replace('/run/netns/', '');
  node.run('ip', 'link', 'add', 'up0', 'type', 'veth', 'peer', 'name', 'eth0', 'netns', name);
  node.run('ip', 'address', 'add', '192.0.2.1/24', 'dev', 'up0');
  node.run('ip', 'address', 'add', 'fd99::1/64', 'dev', 'up0', 'nodad');
  node.run('sysctl', '-qw', 'net.ipv6.conf.up0.accept_dad=0');
  node.run('ip', 'link', 'set', 'up0', 'up');
  runIn(outside, 'ip', 'address', 'add', '192.0.2.2/24', 'dev', 'eth0');
  runIn(outside, 'ip', 'address', 'add', 'fd99::2/64', 'dev', 'eth0', 'nodad');
  runIn(outside, 'sysctl', '-qw', 'net.ipv6.conf.eth0.accept_dad=0');
  runIn(outside, 'ip', 'link', 'set', 'eth0', 'up');
  runIn(outside, 'ip', 'route', 'add', '10.7.0.0/24', 'via', '192.0.2.1');
  runIn(outside, 'ip', 'route', 'add', 'fd07::/64', 'via', 'fd99::1');
  return outside;
}

describe.skipIf(skip)('mode ptp', () => {
  const PTP = { mode: 'ptp' };

  test('a pod has the host as its only neighbour, and reaches it and other pods at once', () => {
    const node = makeNode();
    const before = view(node);
    const a = attach(node, 'a', PTP);
    expect(reachesAtOnce(a.netns, 'fd07::1')).toBe(true);
    expect(reachesAtOnce(a.netns, '10.7.0.1')).toBe(true);
    expect(a.result).toMatchObject({
      interfaces: [{ name: a.hostIfname }, { name: 'eth0', sandbox: a.netns }],
      ips: [
        { interface: 1, address: '10.7.0.2/32', gateway: '10.7.0.1' },
        { interface: 1, address: 'fd07::2/128', gateway: 'fd07::1' },
      ],
    });
    const b = attach(node, 'b', PTP);
    expect(ipAddresses(a.netns, 'eth0')).toEqual(['10.7.0.2/32', 'fd07::2/128']);
    expect(ipAddresses(node.netns, a.hostIfname)).toEqual(['10.7.0.1/32', 'fd07::1/128']);
    expect(ipLink(node.netns, a.hostIfname)['master']).toBeUndefined();
    expect(hostRoutes(node.netns)).toEqual(
      expect.arrayContaining([
        `10.7.0.2 ${a.hostIfname}`,
        `fd07::2 ${a.hostIfname}`,
        `10.7.0.3 ${b.hostIfname}`,
        `fd07::3 ${b.hostIfname}`,
      ]),
    );
    expect(hostRoutes(a.netns)).toEqual(
      expect.arrayContaining([
        '10.7.0.0/24 via 10.7.0.1 eth0',
        '10.7.0.1 eth0',
        'default via 10.7.0.1 eth0',
        'default via fd07::1 eth0',
        'fd07::/64 via fd07::1 eth0',
        'fd07::1 eth0',
      ]),
    );
    for (const destination of ['10.7.0.3', 'fd07::3'])
      expect(reaches(a.netns, destination)).toBe(true);
    for (const destination of ['10.7.0.2', 'fd07::2'])
      expect(reaches(b.netns, destination)).toBe(true);
    expectSound(node, before, a, b);
  });

  test('DEL without netns and prevResult', () => {
    const node = makeNode();
    const before = view(node);
    const { netns } = attach(node, 'a', PTP);
    run('ip', 'netns', 'del', netns.replace('/run/netns/', ''));
    node.del({ containerId: 'a', netns: '' });
    expect(view(node)).toEqual(before);
  });

  test('CHECK names what somebody took', () => {
    const node = makeNode();
    const { hostIfname, call } = attach(node, 'a', PTP);
    node.run('ip', 'route', 'del', '10.7.0.2', 'dev', hostIfname);
    expect(errorOf(node.call('CHECK', call))).toMatchObject({
      code: 103,
      msg: expect.stringContaining(`10.7.0.2/32 dev ${hostIfname}`),
    });
  });

  test('what is about a bridge is refused', () => {
    const node = makeNode();
    const netns = node.addPod();
    const answers = ['portIsolation', 'hairpinMode', 'macspoofchk'].map((key) =>
      errorOf(node.call('ADD', { netns, config: node.config({ ...PTP, [key]: true }) })),
    );
    expect(answers.map(({ code }) => code)).toEqual([7, 7, 7]);
  });
});

describe.skipIf(skip)('portIsolation', () => {
  test('pods reach the gateway and not each other', () => {
    const node = makeNode();
    const before = view(node);
    const changes = { portIsolation: true };
    const [a, b] = [attach(node, 'a', changes), attach(node, 'b', changes)];
    expect(ipLink(node.netns, a.hostIfname)).toMatchObject({ port: { isolated: true } });
    for (const [gateway, other] of [
      ['10.7.0.1', '10.7.0.3'],
      ['fd07::1', 'fd07::3'],
    ] as const) {
      expect(reaches(a.netns, gateway)).toBe(true);
      expect(isSilent(a.netns, other)).toBe(true);
    }
    // A pod whose port is not isolated reaches both.
    const c = attach(node, 'c');
    for (const other of ['10.7.0.2', 'fd07::3']) expect(reaches(c.netns, other)).toBe(true);
    expectSound(node, before, a, b, c);
  });
});

describe.skipIf(skip)('without addresses', () => {
  const L2 = { ipam: undefined, isGateway: false, ipMasq: false };

  test('pods are on one link, and give themselves addresses', () => {
    const node = makeNode();
    const before = view(node);
    const [a, b] = [attach(node, 'a', L2), attach(node, 'b', { ...L2, ipam: {} })];
    expect(a.result).toEqual({
      cniVersion: '1.0.0',
      interfaces: [
        expect.objectContaining({ name: 'cni0' }),
        expect.objectContaining({ name: a.hostIfname }),
        expect.objectContaining({ name: 'eth0', sandbox: a.netns }),
      ],
    });
    for (const { netns, hostIfname } of [a, b]) {
      expect(ipLink(netns, 'eth0')).toMatchObject({ up: true, addr_info: [] });
      expect(ipLink(node.netns, hostIfname)).toMatchObject({ up: true, master: 'cni0' });
    }
    for (const { call } of [a, b])
      expect(node.call('CHECK', call)).toMatchObject({ status: 0, stdout: '' });
    runIn(a.netns, 'ip', 'address', 'add', '192.0.2.1/24', 'dev', 'eth0');
    runIn(b.netns, 'ip', 'address', 'add', '192.0.2.2/24', 'dev', 'eth0');
    expect(reaches(a.netns, '192.0.2.2')).toBe(true);
    expectSound(node, before, a, b);
  });

  test('a gateway and masquerade without addresses', () => {
    const node = makeNode();
    const before = view(node);
    const a = attach(node, 'a', { ipam: undefined, isDefaultGateway: true });
    expect(ipAddresses(node.netns, 'cni0')).toEqual([]);
    expectSound(node, before, a);
  });

  test.each(['0.1.0', '0.2.0'])('version %s has no answer for it', (cniVersion) => {
    const node = makeNode();
    const before = view(node);
    const netns = node.addPod();
    const config = node.config({ ...L2, cniVersion });
    expect(errorOf(node.call('ADD', { netns, config }))).toMatchObject({
      cniVersion,
      msg: 'cannot convert: no valid IP addresses',
    });
    expect(view(node)).toEqual(before);
    expect(linkNames(netns)).toEqual([]);
  });

  test('a plan says nothing of addresses', () => {
    const node = makeNode();
    const call = { netns: node.addPod(), config: node.config(L2) };
    const { status, stdout } = node.call('ADD', { ...call, args: ['--plan'] });
    expect(status).toBe(0);
    expect(stdout).not.toMatch(/^note:/m);
  });

  test('disableContainerInterface: the link in the pod stays down', () => {
    const node = makeNode();
    const before = view(node);
    const a = attach(node, 'a', { ...L2, disableContainerInterface: true });
    expect(ipLink(a.netns, 'eth0')['up']).toBe(false);
    expect(ipLink(node.netns, a.hostIfname)['up']).toBe(true);
    expectSound(node, before, a);
  });

  test('disableContainerInterface goes with no IPAM', () => {
    const node = makeNode();
    const netns = node.addPod();
    const config = node.config({ disableContainerInterface: true });
    expect(errorOf(node.call('ADD', { netns, config }))).toMatchObject({
      code: 7,
      msg: 'cannot use IPAM when DisableContainerInterface flag is set',
    });
    expect(linkNames(netns)).toEqual([]);
  });
});

/** Both forget what they know of each other, so that asking for the neighbour is part of what follows. */
function forgetNeighbours(...pods: readonly Pod[]): void {
  for (const { netns } of pods) runIn(netns, 'ip', 'neighbour', 'flush', 'all');
}

describe.skipIf(skip)('what a pod sends in the name of others', () => {
  test.each([false, true])('macspoofchk: %s', (macspoofchk) => {
    const node = makeNode();
    const before = view(node);
    const [a, b] = [attach(node, 'a', { macspoofchk }), attach(node, 'b')];
    for (const own of ['10.7.0.3', 'fd07::3']) expect(reaches(a.netns, own)).toBe(true);
    expect(node.call('CHECK', a.call)).toMatchObject({ status: 0, stdout: '' });
    runIn(a.netns, 'ip', 'link', 'set', 'eth0', 'address', '02:00:00:00:00:99');
    forgetNeighbours(a, b);
    for (const other of ['10.7.0.3', 'fd07::3'])
      expect((macspoofchk ? isSilent : reaches)(a.netns, other)).toBe(true);
    runIn(a.netns, 'ip', 'link', 'set', 'eth0', 'address', a.result.interfaces[2]?.mac ?? '');
    forgetNeighbours(a, b);
    for (const own of ['10.7.0.3', 'fd07::3']) expect(reaches(a.netns, own)).toBe(true);
    for (const { call } of [b, a]) node.del(call);
    expect(view(node)).toEqual(before);
  });

  test.each([false, true])('ipspoofchk: %s', (ipspoofchk) => {
    const node = makeNode();
    const before = view(node);
    const [a, b] = [attach(node, 'a', { ipspoofchk }), attach(node, 'b')];
    runIn(a.netns, 'ip', 'address', 'add', '10.7.0.66/24', 'dev', 'eth0');
    runIn(a.netns, 'ip', 'address', 'add', 'fd07::66/64', 'dev', 'eth0', 'nodad');
    for (const [other, own, foreign] of [
      ['10.7.0.3', '10.7.0.2', '10.7.0.66'],
      ['fd07::3', 'fd07::2', 'fd07::66'],
    ] as const) {
      forgetNeighbours(a, b);
      expect(reaches(a.netns, other, own)).toBe(true);
      expect((ipspoofchk ? isSilent : reaches)(a.netns, other, foreign)).toBe(true);
      forgetNeighbours(a, b);
      expect((ipspoofchk ? isSilent : reaches)(a.netns, other, foreign)).toBe(true);
    }
    expectSound(node, before, a, b);
  });

  test.each([false, true])('ipspoofchk in mode ptp: %s', (ipspoofchk) => {
    const node = makeNode();
    const before = view(node);
    const a = attach(node, 'a', { mode: 'ptp', ipspoofchk });
    for (const [gateway, own, foreign] of [
      ['10.7.0.1', '10.7.0.2', '10.7.0.66'],
      ['fd07::1', 'fd07::2', 'fd07::66'],
    ] as const) {
      runIn(a.netns, 'ip', 'address', 'add', foreign, 'dev', 'eth0');
      // The way back, so that nothing but the check is in the way.
      node.run('ip', 'route', 'add', foreign, 'dev', a.hostIfname);
      if (foreign.includes(':')) Bun.sleepSync(50);
      expect(reaches(a.netns, gateway, own)).toBe(true);
      expect((ipspoofchk ? isSilent : reaches)(a.netns, gateway, foreign)).toBe(true);
    }
    expectSound(node, before, a);
  });

  test('who is checked, and who no longer is', () => {
    const node = makeNode();
    const both = { macspoofchk: true, ipspoofchk: true };
    const [a, b] = [attach(node, 'a', both), attach(node, 'b', both)];
    const table = (): string => node.run('nft', 'list', 'table', 'bridge', 'cube-cni');
    expect(table()).toContain(`"${a.hostIfname}" . 10.7.0.2`);
    node.del(a.call);
    expect(table()).not.toContain(a.hostIfname);
    expect(table()).toContain(`"${b.hostIfname}" . 10.7.0.3`);
    node.run('nft', 'flush', 'set', 'bridge', 'cube-cni', 'ips4');
    expect(errorOf(node.call('CHECK', b.call))).toMatchObject({
      code: 103,
      details: expect.stringContaining('ips4 has no such element'),
    });
  });
});

describe.skipIf(skip)('IPv6 addresses', () => {
  test.each(['bridge', 'ptp'])('can be used at once: %s', (mode) => {
    const node = makeNode();
    const outside = addOutside(node);
    const a = attach(node, 'a', { mode });
    expect(reachesAtOnce(outside, 'fd07::2')).toBe(true);
    const b = attach(node, 'b', { mode });
    expect(reachesAtOnce(a.netns, 'fd07::3')).toBe(true);
    const c = attach(node, 'c', { mode });
    for (const there of ['fd07::1', 'fd07::2', 'fd99::2'])
      expect(reachesAtOnce(c.netns, there)).toBe(true);
    for (const { netns } of [a, b, c])
      expect(runIn(netns, 'ip', '-6', 'address', 'show', 'tentative', 'scope', 'global')).toBe('');
  });

  test('enabledad: nobody else was found to have it when ADD returns', () => {
    const node = makeNode();
    const before = view(node);
    const a = attach(node, 'a', { enabledad: true });
    expect(runIn(a.netns, 'ip', '-6', 'address', 'show', 'tentative', 'scope', 'global')).toBe('');
    expect(runIn(a.netns, 'sysctl', '-n', 'net.ipv6.conf.eth0.accept_dad').trim()).toBe('1');
    expect(reaches(a.netns, 'fd07::1')).toBe(true);
    expectSound(node, before, a);
  });

  test(
    'enabledad: what somebody else has is refused, and nothing stays',
    { timeout: 20_000 },
    () => {
      const node = makeNode();
      const a = attach(node, 'a');
      runIn(a.netns, 'ip', 'address', 'add', 'fd07::3/64', 'dev', 'eth0', 'nodad');
      const before = view(node);
      const netns = node.addPod();
      const config = node.config({ ipam: DUAL_IPAM, enabledad: true });
      expect(errorOf(node.call('ADD', { netns, containerId: 'b', config }))).toMatchObject({
        code: 100,
        msg: expect.stringContaining('address fd07::3/64 of link "eth0"'),
      });
      expect(view(node)).toEqual(before);
      expect(linkNames(netns)).toEqual([]);
    },
  );
});

describe.skipIf(skip)('what a runtime chooses', () => {
  const [FIRST, SECOND, THIRD] = ['02:11:11:11:11:11', '02:22:22:22:22:22', '02:33:33:33:33:33'];

  test.each([
    ['runtimeConfig', { runtimeConfig: { mac: FIRST }, args: { cni: { mac: SECOND } } }, FIRST],
    ['args.cni', { args: { cni: { mac: SECOND } } }, SECOND],
    ['CNI_ARGS', {}, THIRD],
  ])('the MAC address: %s comes before what is further down', (_where, changes, mac) => {
    const node = makeNode();
    const netns = node.addPod();
    const result = node.add({
      netns,
      config: node.config(changes),
      env: { CNI_ARGS: `IgnoreUnknown=1;MAC=${THIRD}` },
    });
    expect(ipLink(netns, 'eth0')['address']).toBe(mac);
    expect(result.interfaces[2]?.mac).toBe(mac);
  });

  test('a MAC address in capitals, and one that nobody may have', () => {
    const node = makeNode();
    const netns = node.addPod();
    const macOf = (mac: string): Call => ({
      netns,
      config: node.config({ runtimeConfig: { mac } }),
    });
    expect(errorOf(node.call('ADD', macOf('01:00:00:00:00:01')))).toMatchObject({ code: 7 });
    expect(linkNames(netns)).toEqual([]);
    node.add(macOf('02:AA:BB:CC:DD:EE'));
    expect(ipLink(netns, 'eth0')['address']).toBe('02:aa:bb:cc:dd:ee');
  });

  test.each([
    ['runtimeConfig', { runtimeConfig: { ips: ['10.7.0.50/24', 'fd07::50'] } }, ''],
    ['args.cni', { args: { cni: { ips: ['10.7.0.50', 'fd07::50'] } } }, ''],
    ['CNI_ARGS and args.cni', { args: { cni: { ips: ['fd07::50'] } } }, ';IP=10.7.0.50'],
  ])('the addresses, by %s', (_where, changes, args) => {
    const node = makeNode();
    const netns = node.addPod();
    const call = {
      netns,
      config: node.config({ ipam: DUAL_IPAM, ...changes }),
      env: { CNI_ARGS: `IgnoreUnknown=1${args}` },
    };
    node.add(call);
    expect(ipAddresses(netns, 'eth0')).toEqual(['10.7.0.50/24', 'fd07::50/64']);
    const other = node.addPod();
    expect(
      errorOf(node.call('ADD', { ...call, netns: other, containerId: 'pod-b' })),
    ).toMatchObject({ code: 101, msg: expect.stringContaining('10.7.0.50 is not available') });
    expect(linkNames(other)).toEqual([]);
  });

  test('an address of no range', () => {
    const node = makeNode();
    const config = node.config({ runtimeConfig: { ips: ['192.0.2.1'] } });
    expect(errorOf(node.call('ADD', { netns: node.addPod(), config }))).toMatchObject({
      code: 7,
      msg: 'failed to allocate all requested IPs: 192.0.2.1',
    });
  });

  test('ranges, as Go writes them', () => {
    const node = makeNode();
    const netns = node.addPod();
    const config = node.config({
      runtimeConfig: {
        ipRanges: [
          [{ Subnet: '10.9.0.0/24', RangeStart: '', RangeEnd: '', Gateway: '' }],
          [{ Subnet: 'fd09::/64', RangeStart: 'fd09::10', RangeEnd: '', Gateway: 'fd09::5' }],
        ],
      },
      ipam: { type: 'cube-ipam', routes: [{ dst: '0.0.0.0/0' }, { dst: '::/0' }] },
    });
    expect(node.add({ netns, config })).toMatchObject({
      ips: [
        { address: '10.9.0.2/24', gateway: '10.9.0.1' },
        { address: 'fd09::10/64', gateway: 'fd09::5' },
      ],
    });
    expect(ipAddresses(netns, 'eth0')).toEqual(['10.9.0.2/24', 'fd09::10/64']);
  });
});

/** Two addresses, and how long one that was given back rests. */
const ipamWith = (reuseDelaySeconds: number) => ({
  ipam: {
    type: 'cube-ipam',
    ranges: [[{ subnet: '10.7.0.0/24', rangeStart: '10.7.0.2', rangeEnd: '10.7.0.3' }]],
    reuseDelaySeconds,
  },
});

describe.skipIf(skip)('which addresses are handed out', () => {
  test('excluded ones are not, nor if they are asked for', () => {
    const node = makeNode();
    const ipam = {
      type: 'cube-ipam',
      ranges: [[{ subnet: '10.7.0.0/24', exclude: ['10.7.0.4'] }], [{ subnet: 'fd07::/64' }]],
      exclude: ['10.7.0.2/31', 'fd07::/120'],
    };
    const a = attach(node, 'a', { ipam });
    expect(ipAddresses(a.netns, 'eth0')).toEqual(['10.7.0.5/24', 'fd07::100/64']);
    const config = node.config({ ipam, runtimeConfig: { ips: ['10.7.0.3'] } });
    expect(
      errorOf(node.call('ADD', { netns: node.addPod(), containerId: 'b', config })),
    ).toMatchObject({ code: 7, msg: 'requested IP address 10.7.0.3 cannot be handed out' });
  });

  test('reuseDelaySeconds: one that was given back is not, until then', async () => {
    const node = makeNode();
    const a = attach(node, 'a', ipamWith(60));
    node.del(a.call);
    const b = attach(node, 'b', ipamWith(60));
    expect(ipAddresses(b.netns, 'eth0')).toEqual(['10.7.0.3/24']);
    const netns = node.addPod();
    const call = { netns, containerId: 'c', config: node.config(ipamWith(60)) };
    expect(errorOf(node.call('ADD', call))).toMatchObject({ code: 102 });
    expect(linkNames(netns)).toEqual([]);
    await Bun.sleep(1100);
    const c = attach(node, 'c', ipamWith(1));
    expect(ipAddresses(c.netns, 'eth0')).toEqual(['10.7.0.2/24']);
    node.del(c.call);
    expect(ipAddresses(attach(node, 'd', ipamWith(0)).netns, 'eth0')).toEqual(['10.7.0.2/24']);
  });
});

describe.skipIf(skip)('dns', () => {
  const fromConfig = { nameservers: ['192.0.2.1'], options: ['ndots:5'] };
  const fromRuntime = { servers: ['192.0.2.2'], searches: ['runtime.test'], options: ['edns0'] };

  test.each([
    ['resolvConf', {}, { nameservers: ['192.0.2.3'], domain: 'file.test', search: ['a', 'b'] }],
    ['the configuration', { dns: fromConfig }, fromConfig],
    [
      'the runtime',
      { dns: fromConfig, runtimeConfig: { dns: fromRuntime } },
      { nameservers: ['192.0.2.2'], search: ['runtime.test'], options: ['edns0'] },
    ],
  ])('by %s', (_who, changes, dns) => {
    const node = makeNode();
    const resolvConf = join(node.folder, 'resolv.conf');
    writeFileSync(resolvConf, '# a comment\nnameserver 192.0.2.3\ndomain file.test\nsearch a b\n');
    const { result } = attach(node, 'a', { ipam: { ...DUAL_IPAM, resolvConf }, ...changes });
    expect(result.dns).toEqual(dns);
  });

  test.each([
    ['is not there', '/nowhere/resolv.conf'],
    ['cannot be read', import.meta.dirname],
  ])('a resolvConf that %s: nothing stays', (_what, resolvConf) => {
    const node = makeNode();
    const before = view(node);
    const netns = node.addPod();
    const config = node.config({ ipam: { ...DUAL_IPAM, resolvConf } });
    expect(errorOf(node.call('ADD', { netns, config }))).toMatchObject({
      code: 5,
      msg: expect.stringContaining(resolvConf),
    });
    expect(view(node)).toEqual(before);
  });
});

describe.skipIf(skip)('mtu', () => {
  test('a smaller one lowers the bridge that is ours', () => {
    const node = makeNode();
    const before = view(node);
    const a = attach(node, 'a', { mtu: 1450 });
    const mtus = (pod: Pod): unknown[] => [
      ipLink(node.netns, 'cni0')['mtu'],
      ipLink(node.netns, pod.hostIfname)['mtu'],
      ipLink(pod.netns, 'eth0')['mtu'],
    ];
    expect(mtus(a)).toEqual([1450, 1450, 1450]);
    const b = attach(node, 'b', { mtu: 1400 });
    expect(mtus(b)).toEqual([1400, 1400, 1400]);
    expect(mtus(a)).toEqual([1400, 1450, 1450]);
    const c = attach(node, 'c', { mtu: 1500 });
    expect(mtus(c)).toEqual([1400, 1500, 1500]);
    expectSound(node, before, a, b, c);
  });

  test('a bridge whose MTU somebody has chosen keeps it', () => {
    const node = makeNode();
    node.run('ip', 'link', 'add', 'cni0', 'type', 'bridge');
    node.run('ip', 'link', 'set', 'cni0', 'mtu', '1350');
    const a = attach(node, 'a', { mtu: 1300 });
    expect(ipLink(node.netns, 'cni0')['mtu']).toBe(1350);
    expect(ipLink(a.netns, 'eth0')['mtu']).toBe(1300);
  });
});

describe.skipIf(skip)('the map of pods', () => {
  test.each([{ mode: 'bridge' }, { mode: 'ptp' }])('holds each pod: %o', (mode) => {
    const node = makeNode();
    const before = view(node);
    const [a, b] = [attach(node, 'a', mode), attach(node, 'b', { ...mode, ipMasq: false })];
    expect(mapped(node.netns)).toEqual(['10.7.0.2', '10.7.0.3', 'fd07::2', 'fd07::3']);
    expect(masqueraded(node.netns)).toEqual(['10.7.0.2', 'fd07::2']);
    node.del(a.call);
    expect(mapped(node.netns)).toEqual(['10.7.0.3', 'fd07::3']);
    expectSound(node, before, b);
  });

  test.each([
    { mode: 'bridge', ipMasq: true },
    { mode: 'ptp', ipMasq: false },
  ])('podVerdict drop: nothing is forwarded from or to the pod: %o', (changes) => {
    const node = makeNode();
    const outside = addOutside(node);
    const before = view(node);
    const a = attach(node, 'a', changes);
    const b = attach(node, 'b', { ...changes, podVerdict: 'drop' });
    for (const far of ['192.0.2.2', 'fd99::2']) {
      expect(reaches(a.netns, far)).toBe(true);
      expect(isSilent(b.netns, far)).toBe(true);
    }
    expect(reaches(b.netns, '10.7.0.1')).toBe(true);
    expect(reaches(outside, '10.7.0.2')).toBe(true);
    expect(isSilent(outside, '10.7.0.3')).toBe(true);
    if (changes.mode === 'ptp') expect(isSilent(a.netns, '10.7.0.3')).toBe(true);
    expectSound(node, before, a, b);
  });

  test('who changes an element decides', () => {
    const node = makeNode();
    const outside = addOutside(node);
    const a = attach(node, 'a', { podVerdict: 'drop' });
    expect(isSilent(outside, '10.7.0.2')).toBe(true);
    node.run(
      'nft',
      'delete element inet cube-cni pods4 { 10.7.0.2 }; add element inet cube-cni pods4 { 10.7.0.2 : accept }',
    );
    expect(reaches(outside, '10.7.0.2')).toBe(true);
    node.del(a.call);
    expect(mapped(node.netns)).toEqual([]);
  });
});
