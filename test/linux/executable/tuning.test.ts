/** What the reference's plugin `tuning` does, in the same call, and beside that plugin. */
import { readFileSync, rmSync } from 'node:fs';
import { describe, expect, onTestFinished, test } from 'vitest';
import { requirement } from '../../requirements.ts';
import {
  type Call,
  NO_RECORDS,
  type Node,
  errorOf,
  makeNode,
  recordsOf,
  run,
  runIn,
} from './node.ts';

const skip = requirement('root', 'iproute2', 'nftables', 'executable');

type Changes = Readonly<Record<string, unknown>>;

const SYSCTLS = {
  'net.ipv4.conf.IFNAME.arp_filter': '1',
  'net.ipv6.conf.IFNAME.accept_ra': '0',
  'net/ipv4/neigh/IFNAME/gc_stale_time': '30',
  'net.core.somaxconn': '512',
  'net.ipv4.ip_local_port_range': '20000 30000',
};

const KEYS = Object.keys(SYSCTLS).map((key) => key.replaceAll('.', '/').replace('IFNAME', 'eth0'));

interface LinkJson {
  readonly flags: readonly string[];
  readonly promiscuity: number;
  readonly txqlen: number;
}

const OTHER_BRIDGE = { bridge: 'other0', ipam: { type: 'cube-ipam', subnet: '10.8.0.0/24' } };

/** The MTUs of the links that `ip link show` is asked for. */
function mtusOf(netns: string, ...which: readonly string[]): number[] {
  const links = JSON.parse(runIn(netns, 'ip', '-j', 'link', 'show', ...which)) as { mtu: number }[];
  return links.map(({ mtu }) => mtu);
}

/** A setting that a netns has for itself. */
function backlogOf(netns: string): string {
  return runIn(netns, 'cat', '/proc/sys/net/core/somaxconn').trim();
}

/** What there is to be seen of it in a pod. */
function view(netns: string): unknown {
  const [link] = JSON.parse(runIn(netns, 'ip', '-d', '-j', 'link', 'show', 'eth0')) as LinkJson[];
  return {
    sysctls: KEYS.map((key) => [key, runIn(netns, 'cat', `/proc/sys/${key}`).trim()]),
    promiscuous: link?.flags.includes('PROMISC'),
    allMulticast: link?.flags.includes('ALLMULTI'),
    txQueueLength: link?.txqlen,
  };
}

function configFor(node: Node, changes: Changes): Changes {
  return node.config({ cniVersion: '1.0.0', ...changes });
}

/** ADD, and CHECK that has nothing to complain about. */
function added(node: Node, config: Changes): Call & { netns: string; config: Changes } {
  const call = { netns: node.addPod(), config };
  const prevResult = node.add(call);
  const checked = { ...config, prevResult };
  expect(node.call('CHECK', { ...call, config: checked })).toMatchObject({ status: 0, stdout: '' });
  return { ...call, config: checked };
}

const ALL: Changes = { sysctl: SYSCTLS, promisc: true, allmulti: true, txQLen: 500 };

describe.skipIf(skip)('tuning', () => {
  test('settings of the link and of the netns, and the link itself', () => {
    const node = makeNode();
    const { netns } = added(node, configFor(node, ALL));
    expect(view(netns)).toEqual({
      sysctls: [
        [KEYS[0], '1'],
        [KEYS[1], '0'],
        [KEYS[2], '30'],
        [KEYS[3], '512'],
        [KEYS[4], '20000\t30000'],
      ],
      promiscuous: true,
      allMulticast: true,
      txQueueLength: 500,
    });
    // The host has none of it.
    expect(runIn(node.netns, 'cat', '/proc/sys/net/ipv4/ip_local_port_range')).not.toContain(
      '20000',
    );
  });

  test('CHECK finds what was changed, with what mends it, and lets a listener listen', () => {
    const node = makeNode();
    const call = added(node, configFor(node, { ...ALL, promisc: false }));
    // As tcpdump does.
    runIn(call.netns, 'ip', 'link', 'set', 'eth0', 'promisc', 'on');
    expect(node.call('CHECK', call)).toMatchObject({ status: 0, stdout: '' });
    runIn(call.netns, 'ip', 'link', 'set', 'eth0', 'allmulticast', 'off', 'txqueuelen', '7');
    runIn(call.netns, 'sysctl', '-qw', 'net.core.somaxconn=99');
    const { code, details = '' } = errorOf(node.call('CHECK', call));
    expect(code).toBe(103);
    expect(details).toContain('all-multicast mode is off, should be on');
    expect(details).toContain('transmit queue length is 7, should be 500');
    expect(details).toContain('net/core/somaxconn is 99, should be 512');
    for (const line of details.split('\n').filter((each) => each.startsWith('  + ')))
      runIn(call.netns, 'sh', '-c', line.slice(4));
    expect(node.call('CHECK', call)).toMatchObject({ status: 0, stdout: '' });
  });

  test('settings of a netns that outlives the attachment are as they were, unless somebody needs or changed them', () => {
    const node = makeNode();
    const sysctl = { 'net.core.somaxconn': '512', 'net.ipv4.ip_local_port_range': '20000 30000' };
    const config = configFor(node, { sysctl });
    const netns = node.addPod();
    const read = (): string[] =>
      ['core/somaxconn', 'ipv4/ip_local_port_range'].map((key) =>
        runIn(netns, 'cat', `/proc/sys/net/${key}`).trim(),
      );
    const before = read();
    const tuned = ['512', '20000\t30000'];
    const [first, second] = [
      { netns, config },
      { netns, config: { ...config, name: 'othernet', ...OTHER_BRIDGE }, ifname: 'eth1' },
    ];
    node.add(first);
    expect(read()).toEqual(tuned);
    node.del(first);
    expect(read()).toEqual(before);

    node.add(first);
    node.add(second);
    node.del(first);
    expect(read()).toEqual(tuned);
    runIn(netns, 'sysctl', '-qw', 'net.core.somaxconn=77');
    node.del({ ...second, netns: '' });
    expect(read()[0]).toBe('77');
  });

  test('another netns that has the path by now keeps its settings', () => {
    const node = makeNode();
    const config = configFor(node, { sysctl: { 'net.core.somaxconn': '512' } });
    const [netns, other] = [node.addPod(), node.addPod()];
    node.add({ netns, config });
    runIn(other, 'sysctl', '-qw', 'net.core.somaxconn=512');
    // As the path of a process whose number was given to another.
    run('umount', netns);
    run('mount', '--bind', other, netns);
    node.del({ netns: '', config });
    expect(backlogOf(other)).toBe('512');
  });

  test('attachments of one pod with different values take them back in turn', () => {
    const node = makeNode();
    const netns = node.addPod();
    const before = backlogOf(netns);
    const of = (value: string, changes: Changes = {}) =>
      configFor(node, { sysctl: { 'net.core.somaxconn': value }, ...changes });
    const first = { netns, config: of('512') };
    const second = {
      netns,
      ifname: 'eth1',
      config: of('99', { name: 'othernet', ...OTHER_BRIDGE }),
    };
    node.add(first);
    node.add(second);
    expect(backlogOf(netns)).toBe('99');
    node.del(second);
    expect(backlogOf(netns)).toBe('512');
    node.del(first);
    expect(backlogOf(netns)).toBe(before);
  });

  test('what the kernel does not take back keeps no pod from going', () => {
    const node = makeNode();
    const netns = node.addPod();
    const keys = ['ip_unprivileged_port_start', 'ip_local_port_range'];
    const read = (): string[] =>
      keys.map((key) => runIn(netns, 'cat', `/proc/sys/net/ipv4/${key}`).trim());
    const before = read();
    const config = configFor(node, {
      sysctl: { [`net.ipv4.${keys[0]}`]: '0', [`net.ipv4.${keys[1]}`]: '1000 5000' },
    });
    const call = { netns, config };
    node.add(call);
    node.del(call);
    expect(read()).toEqual(before);

    node.add(call);
    // Ports from 1024 on are no longer privileged, while others still use some below: the kernel refuses that.
    runIn(netns, 'sysctl', '-qw', 'net.ipv4.ip_local_port_range=1000 6000');
    node.del(call);
    expect(read()).toEqual(['0', '1000\t6000']);
    expect(readFileSync(node.logFile, 'utf8')).toContain('it stays as it is');
    expect(recordsOf(node.dataDir)).toEqual(NO_RECORDS);
  });

  test('an MTU of `args.cni` is that of both ends', () => {
    const node = makeNode();
    const call = added(node, configFor(node, { mtu: 1450, args: { cni: { mtu: 1300 } } }));
    expect(mtusOf(call.netns, 'dev', 'eth0')).toEqual([1300]);
    expect(mtusOf(node.netns, 'type', 'veth')).toEqual([1300]);
    const config = configFor(node, { args: { cni: { mtu: 67 } } });
    expect(
      errorOf(node.call('ADD', { netns: node.addPod(), containerId: 'b', config })),
    ).toMatchObject({
      code: 7,
      msg: 'invalid network configuration: args.cni.mtu: it must be a number from 68 to 65535, not 67',
    });
  });

  test('an MTU of one pod takes no IPv6 address from the bridge of others', () => {
    const node = makeNode();
    const ipam = { type: 'cube-ipam', subnet: 'fd07::/64' };
    const config = configFor(node, { isGateway: true, ipam });
    node.add({ netns: node.addPod(), config });
    const small = {
      ...OTHER_BRIDGE,
      bridge: 'cni0',
      name: 'othernet',
      args: { cni: { mtu: 1000 } },
    };
    const netns = node.addPod();
    const call = { netns, containerId: 'b', config: configFor(node, small) };
    expect(errorOf(node.call('ADD', call))).toMatchObject({
      msg: 'an MTU of 1000 would take address fd07::1/64 from bridge "cni0"',
    });
    expect(runIn(netns, 'ip', '-o', 'link').trim().split('\n')).toHaveLength(1);
    expect(node.run('ip', '-6', 'address', 'show', 'dev', 'cni0')).toContain('fd07::1/64');
  });

  test('what a pod cannot set is refused, and nothing is left', () => {
    const node = makeNode();
    const config = configFor(node, { sysctl: { 'net.core.rmem_max': '1' } });
    const netns = node.addPod();
    expect(errorOf(node.call('ADD', { netns, config }))).toMatchObject({
      code: 100,
      msg: expect.stringContaining('net/core/rmem_max'),
    });
    expect(runIn(netns, 'ip', '-o', 'link').trim().split('\n')).toHaveLength(1);
  });

  test.skipIf(requirement('cni-plugins'))('is what the reference makes of the same keys', () => {
    const node = makeNode();
    // Debian's does not know `txQLen` yet.
    const { txQLen: _newer, ...known } = ALL;
    const ours = added(node, configFor(node, known));
    const plain = { netns: node.addPod(), containerId: 'beside', config: configFor(node, {}) };
    const prevResult = node.add(plain);
    const reference = node.call('ADD', {
      ...plain,
      program: '/usr/lib/cni/tuning',
      config: { cniVersion: '1.0.0', name: 'podnet', type: 'tuning', ...known, prevResult },
    });
    onTestFinished(() => rmSync('/run/cni/tuning/beside_eth0.json', { force: true }));
    expect(reference.status, reference.stdout).toBe(0);
    expect(view(ours.netns)).toEqual(view(plain.netns));
  });
});
