/** VLANs of pods on the executable: as the reference bridge is tested, by packets, and on a kernel that has none. */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { requirement } from '../../requirements.ts';
import { ipAddresses, ipLink, kernelState, linkNames, vlansOf } from './kernel-state.ts';
import {
  type Call,
  NO_RECORDS,
  type Node,
  type Result,
  addressOf,
  errorOf,
  makeNode,
  recordsOf,
  runIn,
} from './node.ts';

/** What shows in the kernel does not depend on the version: the first whose results have links, and the newest. */
const VERSIONS = ['0.3.0', '1.1.0'] as const;

type Changes = Readonly<Record<string, unknown>>;

const LAYER_2: Changes = { isGateway: false, ipMasq: false, ipam: {} };

/** Everything of the host but forwarding, which stays on. */
function stateOf({ netns }: Node): unknown {
  return { ...kernelState(netns), forwarding: null, vlans: vlansOf(netns) };
}

/** The host's end of a pod's link. */
function hostEndOf(result: Result): string {
  return result.interfaces[1]?.name ?? '';
}

function expectGone(node: Node, call: Call, before: unknown): void {
  for (let time = 0; time < 2; time += 1) {
    node.del(call);
    expect(stateOf(node)).toEqual(before);
    expect(recordsOf(node.dataDir)).toEqual(NO_RECORDS);
  }
}

/** CHECK and STATUS have nothing to complain about, in versions that have them. */
function expectSound(node: Node, call: Call, prevResult: Result): void {
  const config = call.config as Changes;
  const sound = { status: 0, stdout: '', stderr: '' };
  const version = String(config['cniVersion']);
  if (version >= '0.4.0')
    expect(node.call('CHECK', { ...call, config: { ...config, prevResult } })).toMatchObject(sound);
  if (version >= '1.1.0') expect(node.call('STATUS', { config })).toMatchObject(sound);
}

/** From which of these addresses does one ping come back? All are asked at once. */
function reached(netns: string, addresses: readonly string[]): string[] {
  const probes = addresses.map((ip) => `{ busybox ping -c 1 -W 2 ${ip} >&2 && echo ${ip}; } &`);
  const lines = runIn(netns, 'sh', '-c', `${probes.join('\n')}\nwait`).split('\n');
  return addresses.filter((ip) => lines.includes(ip));
}

function pings(netns: string, address: string): boolean {
  return reached(netns, [address]).length === 1;
}

/** A pod in a VLAN, of one subnet with all others: only the VLAN says whom it reaches. */
function addTo(node: Node, containerId: string, vlans: Changes): { netns: string; ip: string } {
  const netns = node.addPod();
  const config = node.config({ isGateway: false, ipMasq: false, ...vlans });
  const ip = addressOf(node.add({ netns, containerId, config }));
  return { netns, ip };
}

const needed = requirement('root', 'iproute2', 'nftables', 'executable', 'busybox');

describe.skipIf(needed ?? requirement('bridge-vlans')).each(VERSIONS)('%s: VLANs', (cniVersion) => {
  /** VLANs of a port as `bridge vlan` has them. */
  test.each<[string, Changes, string[]]>([
    ['VLAN 100', { vlan: 100 }, ['100 PVID Egress Untagged']],
    [
      'a trunk, with VLAN 1 for frames without a tag',
      { vlanTrunk: [{ id: 101 }, { minID: 200, maxID: 210 }] },
      ['1 PVID Egress Untagged', '101', '200-210'],
    ],
    [
      'VLAN 100 and a trunk',
      { vlan: 100, vlanTrunk: [{ id: 101 }, { minID: 200, maxID: 210 }] },
      ['100 PVID Egress Untagged', '101', '200-210'],
    ],
    [
      'VLAN 100, and that of the bridge stays',
      { vlan: 100, preserveDefaultVlan: true },
      ['1 Egress Untagged', '100 PVID Egress Untagged'],
    ],
    [
      'VLAN 100, and that of the bridge goes',
      { vlan: 100, preserveDefaultVlan: false },
      ['100 PVID Egress Untagged'],
    ],
  ])('without addresses: %s', (_what, vlans, expected) => {
    const node = makeNode();
    const before = stateOf(node);
    const call = {
      netns: node.addPod(),
      config: node.config({ cniVersion, ...LAYER_2, ...vlans }),
    };
    const result = node.add(call);
    expect(result.interfaces.map(({ name }) => name)).toEqual(['cni0', hostEndOf(result), 'eth0']);
    expect(ipLink(node.netns, 'cni0')).toMatchObject({ vlanFiltering: 1 });
    expect(vlansOf(node.netns)[hostEndOf(result)]).toEqual(expected);
    expectSound(node, call, result);
    expectGone(node, call, before);
  });

  test.each<[string, string[], string[]]>([
    ['IPv4', ['10.1.2.0/24'], ['10.1.2.1/24']],
    ['IPv6', ['2001:db8::/64'], ['2001:db8::1/64']],
    ['both families', ['10.1.2.0/24', '2001:db8::/64'], ['10.1.2.1/24', '2001:db8::1/64']],
  ])('a gateway in VLAN 100, and default routes to it: %s', (_what, subnets, gateways) => {
    const node = makeNode();
    const before = stateOf(node);
    const ipam = { type: 'cube-ipam', ranges: subnets.map((subnet) => [{ subnet }]) };
    const changes = { isDefaultGateway: true, ipMasq: false, vlan: 100, ipam };
    const call = {
      netns: node.addPod(),
      config: node.config({ cniVersion, ...changes }),
    };
    const result = node.add(call);
    const end = hostEndOf(result);
    expect(result.interfaces.map(({ name }) => name)).toEqual(['cni0', end, 'eth0', 'cni0.100']);
    expect(result.interfaces[3]?.mac).toBe(ipLink(node.netns, 'cni0.100')['address']);
    expect(result.ips.map((each) => each.interface)).toEqual(subnets.map(() => 2));
    expect(ipLink(node.netns, 'cni0.100')).toMatchObject({ kind: 'veth', up: true });
    expect(ipAddresses(node.netns, 'cni0.100').toSorted()).toEqual(gateways);
    expect(ipAddresses(node.netns, 'cni0')).toEqual([]);
    const port = linkNames(node.netns).find((name) => name.startsWith('veth') && name !== end);
    expect(ipLink(node.netns, String(port))).toMatchObject({ up: true, master: 'cni0' });
    expect(vlansOf(node.netns)).toEqual({
      cni0: ['1 PVID Egress Untagged'],
      [end]: ['100 PVID Egress Untagged'],
      [String(port)]: ['100 PVID Egress Untagged'],
    });
    for (const { gateway } of result.ips) expect(pings(call.netns, gateway)).toBe(true);
    expectSound(node, call, result);
    expectGone(node, call, before);
  });
});

describe.skipIf(needed ?? requirement('bridge-vlans'))('VLANs', () => {
  test('keep pods apart that are on one bridge and of one subnet', () => {
    const node = makeNode();
    const [a, b] = ['a', 'b'].map((id) => addTo(node, id, { vlan: 100 }));
    const [c, d] = ['c', 'd'].map((id) => addTo(node, id, { vlan: 200 }));
    const [e, f] = ['e', 'f'].map((id) => addTo(node, id, {}));
    const pods = [a, b, c, d, e, f] as { netns: string; ip: string }[];
    const ips = pods.map(({ ip }) => ip);
    const others = pods.map(({ netns, ip }) =>
      reached(
        netns,
        ips.filter((other) => other !== ip),
      ),
    );
    expect(others).toEqual([b, a, d, c, f, e].map((other) => [other?.ip]));
  });

  test.each([
    ['reach a pod by their tags', {}, [true, false]],
    ['are checked too where the addresses are', { ipspoofchk: true }, [false, false]],
  ])('of a trunk %s', (_what, changes, expected) => {
    const node = makeNode();
    const a = addTo(node, 'a', { vlan: 100 });
    const b = addTo(node, 'b', { vlan: 200 });
    const trunk = addTo(node, 't', { vlanTrunk: [{ minID: 90, maxID: 110 }], ...changes });
    const inTrunk = (line: string): string => runIn(trunk.netns, 'ip', ...line.split(' '));
    for (const [id, pod] of [
      [100, a],
      [200, b],
    ] as const) {
      const own = `10.7.0.${id}`;
      inTrunk(`link add link eth0 name v${id} up type vlan id ${id}`);
      inTrunk(`address add ${own}/24 dev v${id}`);
      inTrunk(`route add ${pod.ip}/32 dev v${id} src ${own}`);
    }
    expect([pings(trunk.netns, a.ip), pings(trunk.netns, b.ip)]).toEqual(expected);
  });

  test('come to a bridge of ours on which there are pods already, which go on as they were', () => {
    const node = makeNode();
    const plain = node.config();
    const first = { netns: node.addPod(), containerId: 'first', config: plain };
    const second = { netns: node.addPod(), containerId: 'second', config: plain };
    const [, there] = [node.add(first), node.add(second)];
    const before = stateOf(node);
    const vlan = node.config({
      name: 'other',
      vlan: 100,
      ipam: { type: 'cube-ipam', subnet: '10.8.0.0/24' },
    });
    const third = { netns: node.addPod(), containerId: 'third', config: vlan };
    node.add(third);
    expect(ipLink(node.netns, 'cni0')).toMatchObject({ vlanFiltering: 1 });
    expect(pings(first.netns, addressOf(there))).toBe(true);
    expect(pings(first.netns, '10.7.0.1')).toBe(true);
    expect(pings(third.netns, '10.8.0.1')).toBe(true);
    // Through the host, which routes between VLANs.
    runIn(third.netns, 'ip', 'route', 'add', 'default', 'via', '10.8.0.1');
    expect(pings(third.netns, addressOf(there))).toBe(true);
    node.del(third);
    expect(stateOf(node)).toEqual(before);
    expect(pings(first.netns, addressOf(there))).toBe(true);
  });

  test('share the link of their gateways, which goes with the last pod that uses it', () => {
    const node = makeNode();
    const before = stateOf(node);
    const config = node.config({ vlan: 100 });
    const calls = ['a', 'b'].map((containerId) => ({ netns: node.addPod(), containerId, config }));
    const [first, second] = calls as [Call, Call];
    node.add(first);
    const alone = stateOf(node);
    node.add(second);
    node.del(second);
    expect(stateOf(node)).toEqual(alone);
    expectGone(node, first, before);
  });

  test.each<[string, (node: Node, end: string) => void, string]>([
    [
      'that a port has no more',
      (node, end) => node.run('bridge', 'vlan', 'del', 'dev', end, 'vid', '100'),
      'VLAN 100 pvid untagged is missing',
    ],
    [
      'that a port should not have',
      (node, end) => node.run('bridge', 'vlan', 'add', 'dev', end, 'vid', '300-310'),
      'VLAN 300-310 should not be there',
    ],
    [
      'that a port has with a tag',
      (node, end) => node.run('bridge', 'vlan', 'add', 'dev', end, 'vid', '100'),
      'VLAN 100 should be 100 pvid untagged',
    ],
    [
      'that the bridge keeps apart no more',
      (node) => node.run('ip', 'link', 'set', 'cni0', 'type', 'bridge', 'vlan_filtering', '0'),
      'VLAN filtering is off, should be on',
    ],
    [
      'whose gateway is gone',
      (node) => node.run('ip', 'link', 'del', 'cni0.100'),
      'link "cni0.100" is missing',
    ],
  ])('CHECK finds one %s', (_what, spoil, finding) => {
    const node = makeNode();
    const config = node.config({ vlan: 100 });
    const call = { netns: node.addPod(), config };
    const prevResult = node.add(call);
    spoil(node, hostEndOf(prevResult));
    const answer = errorOf(node.call('CHECK', { ...call, config: { ...config, prevResult } }));
    expect(answer.code).toBe(103);
    expect(answer.details).toContain(finding);
    // What mends it is said too: after it CHECK finds nothing.
    if (finding.includes('cni0.100')) return;
    for (const line of (answer.details ?? '').split('\n'))
      if (line.startsWith('  + ')) node.run('sh', '-c', line.slice(4));
    expect(node.call('CHECK', { ...call, config: { ...config, prevResult } }).status).toBe(0);
  });

  test('are refused on a bridge of somebody else that keeps none apart, and used on one that does', () => {
    const node = makeNode();
    const mac = ['address', '02:00:00:00:00:10'];
    node.run('ip', 'link', 'add', 'cni0', 'up', ...mac, 'type', 'bridge');
    const before = stateOf(node);
    const config = node.config({ cniVersion: '1.1.0', vlan: 100 });
    const call = { netns: node.addPod(), config };
    const problem = 'bridge "cni0" does not filter VLANs, so that 100 would not be kept apart';
    expect(errorOf(node.call('ADD', call))).toMatchObject({
      code: 101,
      msg: problem,
      details: 'it is not ours to change: ip link set cni0 type bridge vlan_filtering 1',
    });
    expect(errorOf(node.call('STATUS', { config }))).toMatchObject({ code: 50, msg: problem });
    expect(stateOf(node)).toEqual(before);
    node.run('ip', 'link', 'set', 'cni0', 'type', 'bridge', 'vlan_filtering', '1');
    const filtering = stateOf(node);
    expect(node.call('STATUS', { config }).status).toBe(0);
    node.add(call);
    expect(pings(call.netns, '10.7.0.1')).toBe(true);
    expectGone(node, call, filtering);
  });

  test('are known again when the state file is lost', () => {
    const node = makeNode();
    const before = stateOf(node);
    const config = node.config({ vlan: 100 });
    const trunk = node.config({ name: 'trunk', ...LAYER_2, vlanTrunk: [{ id: 5 }] });
    const calls = [
      { netns: node.addPod(), containerId: 'a', config },
      { netns: node.addPod(), containerId: 'b', config: trunk },
    ];
    const results = calls.map((call) => node.add(call));
    for (const file of ['state.db', 'state.db-wal', 'state.db-shm'])
      rmSync(join(node.dataDir, file), { force: true });
    for (const [i, call] of calls.entries()) {
      const prevResult = results[i];
      const checked = { ...call, config: { ...call.config, prevResult } };
      expect(node.call('CHECK', checked)).toMatchObject({ status: 0, stdout: '', stderr: '' });
    }
    for (const call of calls) node.del(call);
    expect(stateOf(node)).toEqual(before);
  });

  test('are kept apart by an ingress policy, as bridges are', () => {
    const node = makeNode();
    const before = stateOf(node);
    const addIn = (vlan: number, containerId: string, ingressPolicy: string) => {
      const config = node.config({
        name: `net${vlan}`,
        isDefaultGateway: true,
        ipMasq: false,
        vlan,
        ingressPolicy,
        ipam: { type: 'cube-ipam', subnet: `10.8.${vlan}.0/24` },
      });
      const call = { netns: node.addPod(), containerId, config };
      return { call, ip: addressOf(node.add(call)) };
    };
    const pods = [
      addIn(1, 'a', 'open'),
      addIn(2, 'b', 'same-bridge'),
      addIn(2, 'c', 'same-bridge'),
      addIn(3, 'd', 'isolated'),
      addIn(3, 'e', 'isolated'),
    ] as const;
    const [a, b, c, d, e] = pods;
    const ips = pods.map(({ ip }) => ip);
    const from = (pod: (typeof pods)[number]): string[] =>
      reached(
        pod.call.netns,
        ips.filter((ip) => ip !== pod.ip),
      );
    expect(from(a)).toEqual([b.ip, c.ip, d.ip, e.ip]);
    expect(from(b)).toEqual([a.ip, c.ip]);
    expect(from(d)).toEqual([a.ip]);
    expect(reached(node.netns, ips)).toEqual(ips);
    for (const { call } of pods) node.del(call);
    expect(stateOf(node)).toEqual(before);
  });

  test('take no name from a bridge, which stays', () => {
    const node = makeNode();
    const pod = addTo(node, 'a', { name: 'other', bridge: 'cni0.100' });
    const before = stateOf(node);
    const config = node.config({ vlan: 100 });
    const call = { netns: node.addPod(), containerId: 'b', config };
    expect(errorOf(node.call('ADD', call))).toMatchObject({
      code: 101,
      msg: 'link "cni0.100" already exists and is a bridge',
    });
    node.del(call);
    expect(stateOf(node)).toEqual(before);
    const second = addTo(node, 'c', { name: 'other', bridge: 'cni0.100' });
    expect(pings(pod.netns, second.ip)).toBe(true);
  });

  test('are kept on a bridge with a port that nobody recorded', () => {
    const node = makeNode();
    const config = node.config({ vlan: 100 });
    const call = { netns: node.addPod(), config };
    node.add(call);
    node.run('ip', 'link', 'add', 'tap0', 'type', 'veth', 'peer', 'name', 'tap1');
    node.run('ip', 'link', 'set', 'tap0', 'master', 'cni0');
    node.del(call);
    expect(ipLink(node.netns, 'cni0')).toMatchObject({ vlanFiltering: 1 });
  });

  test('are shown before they are made', () => {
    const node = makeNode();
    const config = JSON.stringify(node.config({ vlan: 100, vlanTrunk: [{ minID: 7, maxID: 9 }] }));
    const netns = node.addPod();
    const flags = ['--config', '-', '--netns', netns, '--container-id', 'pod-a'];
    const { status, stdout, stderr } = node.cli(['plan', 'add', ...flags], config);
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(stdout).toContain('type bridge vlan_filtering 1');
    expect(stdout).toMatch(/bridge vlan add dev veth\w+ vid 7-9\n/);
    expect(stdout).toMatch(/bridge vlan add dev veth\w+ vid 100 pvid untagged\n/);
  });
});

describe.skipIf(needed ?? requirement('no-bridge-vlans'))('VLANs on a kernel without', () => {
  test.each<[string, Changes, string]>([
    ['a VLAN', { vlan: 100 }, 'vlan = 100'],
    ['a trunk', { vlanTrunk: [{ minID: 200, maxID: 210 }, { id: 5 }] }, 'vlanTrunk = 5, 200-210'],
  ])("%s is refused, with the kernel's reason, and nothing is left", (_what, vlans, field) => {
    const node = makeNode();
    const before = stateOf(node);
    const config = node.config({ cniVersion: '1.1.0', ...vlans });
    const missing = 'the kernel has no VLAN filtering of bridges (CONFIG_BRIDGE_VLAN_FILTERING)';
    expect(errorOf(node.call('ADD', { netns: node.addPod(), config }))).toMatchObject({
      code: 2,
      msg: `unsupported field: ${field}: ${missing}, it answers EOPNOTSUPP`,
    });
    expect(stateOf(node)).toEqual(before);
    expect(recordsOf(node.dataDir)).toEqual(NO_RECORDS);
    expect(errorOf(node.call('STATUS', { config }))).toMatchObject({ code: 50, msg: missing });
  });

  test('what is not asked for is not missed', () => {
    const node = makeNode();
    const config = node.config({ cniVersion: '1.1.0', vlan: 0, preserveDefaultVlan: true });
    node.add({ netns: node.addPod(), config });
    expect(node.call('STATUS', { config }).status).toBe(0);
  });
});
