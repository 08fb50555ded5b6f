/**
 * The cases by which the reference bridge is tested (plugins/main/bridge/bridge_test.go of containernetworking/plugins), for
 * every version of the specification, on the executable. Those of VLANs need another kernel: `vlan.test.ts`.
 */
import { existsSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
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
import { type Call, NO_RECORDS, type Node, errorOf, makeNode, recordsOf, runIn } from './node.ts';

const skip = requirement('root', 'iproute2', 'nftables', 'executable');

const VERSIONS = ['0.1.0', '0.2.0', '0.3.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0'] as const;
type Version = (typeof VERSIONS)[number];

/** From 0.3.0 on a result has links, and is given to the next plugin of a chain. */
const WITH_LINKS = VERSIONS.slice(2);
const WITH_CHECK = VERSIONS.slice(4);

function isBefore(version: Version, limit: Version): boolean {
  return VERSIONS.indexOf(version) < VERSIONS.indexOf(limit);
}

/** A subnet, its gateway and the address of its first pod. */
interface Subnet {
  readonly subnet: string;
  readonly gateway: string;
  readonly first: string;
}

const V4: Subnet = { subnet: '10.1.2.0/24', gateway: '10.1.2.1', first: '10.1.2.2' };
const V6: Subnet = { subnet: '2001:db8::/64', gateway: '2001:db8::1', first: '2001:db8::2' };
const OTHER_V6: Subnet = { subnet: 'fd00::/64', gateway: 'fd00::1', first: 'fd00::2' };

function is6({ subnet }: Subnet): boolean {
  return subnet.includes(':');
}

function withLength({ subnet }: Subnet, ip: string): string {
  return `${ip}/${subnet.split('/')[1]}`;
}

/** The subnets of which a pod gets its default routes: the first of each family. */
function leading(subnets: readonly Subnet[]): Subnet[] {
  return [false, true].flatMap((six) => subnets.find((each) => is6(each) === six) ?? []);
}

function defaultOf(subnet: Subnet): string {
  return is6(subnet) ? '::/0' : '0.0.0.0/0';
}

type Changes = Readonly<Record<string, unknown>>;

function ipamOf(subnets: readonly Subnet[], more: Changes = {}): Record<string, unknown> {
  return { type: 'cube-ipam', ranges: subnets.map(({ subnet }) => [{ subnet }]), ...more };
}

/** A bridge whose pods get a default route through it, unless the changes say otherwise. */
function configOf(node: Node, cniVersion: Version, changes: Changes = {}): Record<string, unknown> {
  return node.config({
    cniVersion,
    bridge: 'br0',
    isGateway: true,
    isDefaultGateway: true,
    ipMasq: false,
    ipam: ipamOf([V4]),
    ...changes,
  });
}

/** Everything of the host but forwarding, which stays on: others may rely on it by then. */
function stateWithoutForwarding({ netns }: Node): unknown {
  return { ...kernelState(netns), forwarding: 'as it is' };
}

type Json = Readonly<Record<string, unknown>>;

/** The result of an ADD that succeeded, whatever its version. */
function added(node: Node, call: Call): Json {
  const { status, stdout, stderr } = node.call('ADD', call);
  if (status !== 0 || stderr !== '') throw new Error(`ADD answered ${status}: ${stdout}${stderr}`);
  return JSON.parse(stdout) as Json;
}

/** The host's end of the first link that is a port of the bridge. */
function portOf(node: Node): string {
  return linkNames(node.netns).find((name) => name.startsWith('veth')) ?? '';
}

/** The result that has to be answered about a pod's first link, by what the kernel has. */
function resultFor(
  node: Node,
  version: Version,
  pod: string,
  subnets: readonly Subnet[],
  dns: object = {},
): Json {
  const routes = leading(subnets).map((subnet) => ({
    dst: defaultOf(subnet),
    gw: subnet.gateway,
  }));
  if (isBefore(version, '0.3.0')) {
    const blocks = leading(subnets).map((subnet) => [
      is6(subnet) ? 'ip6' : 'ip4',
      {
        ip: withLength(subnet, subnet.first),
        gateway: subnet.gateway,
        routes: [{ dst: defaultOf(subnet), gw: subnet.gateway }],
      },
    ]);
    return { cniVersion: version, ...Object.fromEntries(blocks), dns };
  }
  const mtu = isBefore(version, '1.1.0') ? {} : { mtu: 1500 };
  const port = portOf(node);
  return {
    cniVersion: version,
    interfaces: [
      { name: 'br0', mac: ipLink(node.netns, 'br0')['address'] },
      { name: port, mac: ipLink(node.netns, port)['address'], ...mtu },
      { name: 'eth0', mac: ipLink(pod, 'eth0')['address'], ...mtu, sandbox: pod },
    ],
    ...(subnets.length === 0
      ? {}
      : {
          ips: subnets.map((subnet) => ({
            ...(isBefore(version, '1.0.0') ? { version: is6(subnet) ? '6' : '4' } : {}),
            interface: 2,
            address: withLength(subnet, subnet.first),
            gateway: subnet.gateway,
          })),
          routes,
        }),
    ...(isBefore(version, '1.0.0') || Object.keys(dns).length > 0 ? { dns } : {}),
  };
}

/** The routes of a pod: one to each subnet, and the default ones, which name no source. */
function routesFor(subnets: readonly Subnet[]): string[] {
  return [
    ...subnets.map((subnet) =>
      is6(subnet)
        ? { dst: subnet.subnet, dev: 'eth0', scope: '0', metric: 256 }
        : { dst: subnet.subnet, dev: 'eth0', scope: '253', prefsrc: subnet.first },
    ),
    ...leading(subnets).map((subnet) => ({
      dst: 'default',
      gateway: subnet.gateway,
      dev: 'eth0',
      scope: '0',
      ...(is6(subnet) ? { metric: 1024 } : {}),
    })),
  ]
    .map((route) => JSON.stringify(route))
    .toSorted();
}

/** DEL, and a second one, leave the host as it was and nothing in the pod. */
function expectGone(node: Node, call: Call, before: unknown): void {
  for (let time = 0; time < 2; time += 1) {
    node.del(call);
    expect(linkNames(call.netns ?? '')).toEqual([]);
    expect(stateWithoutForwarding(node)).toEqual(before);
    expect(recordsOf(node.dataDir)).toEqual(NO_RECORDS);
  }
}

/** STATUS and CHECK have nothing to complain about, in versions that have them. */
function expectSound(node: Node, version: Version, call: Call, prevResult: Json): void {
  const config = call.config as Json;
  const sound = { status: 0, stdout: '', stderr: '' };
  if (!isBefore(version, '0.4.0'))
    expect(node.call('CHECK', { ...call, config: { ...config, prevResult } })).toMatchObject(sound);
  if (!isBefore(version, '1.1.0')) expect(node.call('STATUS', { config })).toMatchObject(sound);
}

/** ADD, what has to be there then, and DEL; answers the links that are left. */
function addAndDel(
  version: Version,
  subnets: readonly Subnet[],
  changes: (node: Node) => Changes = () => ({}),
  dns: object = {},
): string[] {
  const node = makeNode();
  const before = stateWithoutForwarding(node);
  const netns = node.addPod();
  const config = configOf(node, version, { ipam: ipamOf(subnets), ...changes(node) });
  const call = { netns, config };
  const result = added(node, call);
  expect(result).toEqual(resultFor(node, version, netns, subnets, dns));

  const port = portOf(node);
  expect(linkNames(node.netns)).toEqual(['br0', port]);
  expect(ipLink(node.netns, 'br0')).toMatchObject({ kind: 'bridge', up: true });
  expect(ipLink(node.netns, port)).toMatchObject({ kind: 'veth', up: true, master: 'br0' });
  const gateways = subnets.map((subnet) => withLength(subnet, subnet.gateway));
  expect(ipAddresses(node.netns, 'br0').toSorted()).toEqual(gateways.toSorted());
  const addresses = subnets.map((subnet) => withLength(subnet, subnet.first));
  expect(ipAddresses(netns, 'eth0').toSorted()).toEqual(addresses.toSorted());
  expect(mainRoutes(netns)).toEqual(routesFor(subnets));
  const macs = ['br0', port].map((name) => ipLink(node.netns, name)['address']);
  expect(macs[0]).toMatch(/^([0-9a-f]{2}:){5}[0-9a-f]{2}$/);
  expect(macs[0]).not.toBe(macs[1]);

  expectSound(node, version, call, result);
  expectGone(node, call, before);
  return linkNames(node.netns);
}

const RESOLV_CONF = `
; of a test
domain example.org
nameserver 10.0.0.53
nameserver 2001:db8::53
search a.example.org b.example.org
options ndots:2 edns0
`;

describe.skipIf(skip).each(VERSIONS)('%s: ADD and DEL', (version) => {
  test.each([
    ['IPv4', [V4]],
    ['IPv6', [V6]],
    ['both families', [V4, V6]],
  ])('a bridge and a link with a default route: %s', (_what, subnets) => {
    expect(addAndDel(version, subnets)).toEqual([]);
  });

  test('a bridge and a link with a default route: three subnets', () => {
    const subnets = [V4, V6, OTHER_V6];
    if (isBefore(version, '0.3.0')) {
      const node = makeNode();
      const config = configOf(node, version, { ipam: ipamOf(subnets) });
      expect(errorOf(node.call('ADD', { netns: node.addPod(), config }))).toMatchObject({
        code: 7,
        msg: `CNI version ${version} does not support more than 1 address per family`,
      });
      expect(recordsOf(node.dataDir)).toEqual(NO_RECORDS);
    } else expect(addAndDel(version, subnets)).toEqual([]);
  });

  test('a bridge and a link with a default route: name servers of a resolv.conf', () => {
    const withResolvConf = ({ folder }: Node): Changes => {
      const resolvConf = join(folder, 'resolv.conf');
      writeFileSync(resolvConf, RESOLV_CONF);
      return { ipam: ipamOf([V4], { resolvConf }) };
    };
    const dns = {
      nameservers: ['10.0.0.53', '2001:db8::53'],
      domain: 'example.org',
      search: ['a.example.org', 'b.example.org'],
      options: ['ndots:2', 'edns0'],
    };
    expect(addAndDel(version, [V4], withResolvConf, dns)).toEqual([]);
  });

  test('a link without addresses', () => {
    const node = makeNode();
    const before = stateWithoutForwarding(node);
    const netns = node.addPod();
    const layer2 = { isGateway: false, isDefaultGateway: false, ipam: {} };
    const call = { netns, config: configOf(node, version, layer2) };
    if (isBefore(version, '0.3.0')) {
      expect(errorOf(node.call('ADD', call))).toMatchObject({
        cniVersion: version,
        msg: 'cannot convert: no valid IP addresses',
      });
      expectGone(node, call, before);
      return;
    }
    const result = added(node, call);
    expect(result).toEqual(resultFor(node, version, netns, []));
    expect(ipLink(node.netns, portOf(node))).toMatchObject({ up: true, master: 'br0' });
    expect(ipLink(netns, 'eth0')).toMatchObject({ up: true });
    expect([ipAddresses(node.netns, 'br0'), ipAddresses(netns, 'eth0')]).toEqual([[], []]);
    expectSound(node, version, call, result);
    expectGone(node, call, before);
  });

  test.each<[string, Changes]>([
    ['isDefaultGateway, and no route configured', { isGateway: false }],
    [
      'isDefaultGateway, and the route configured without a gateway',
      { ipam: ipamOf([V4], { routes: [{ dst: '0.0.0.0/0' }] }) },
    ],
    [
      'the route configured with its gateway',
      {
        isDefaultGateway: false,
        ipam: ipamOf([V4], { routes: [{ dst: '0.0.0.0/0', gw: '10.1.2.1' }] }),
      },
    ],
  ])('one default route: %s', (_what, changes) => {
    expect(addAndDel(version, [V4], () => changes)).toEqual([]);
  });

  test('DEL of what was never added', () => {
    const node = makeNode();
    const before = stateWithoutForwarding(node);
    expectGone(node, { netns: node.addPod(), config: configOf(node, version) }, before);
    expect(linkNames(node.netns)).toEqual([]);
  });

  test('a bridge that is there already is used, and stays with its address', () => {
    const node = makeNode();
    node.run('ip', 'link', 'add', 'br0', 'address', '02:00:00:00:00:10', 'type', 'bridge');
    node.run('ip', 'address', 'add', '10.1.2.1/24', 'dev', 'br0');
    node.run('ip', 'link', 'set', 'br0', 'up');
    const index = (): string => node.run('ip', '-o', 'link', 'show', 'br0').split(':')[0] ?? '';
    const indexBefore = index();
    const before = stateWithoutForwarding(node);
    const call = { netns: node.addPod(), config: configOf(node, version) };
    const result = added(node, call);
    expect(result).toEqual(resultFor(node, version, call.netns, [V4]));
    expect(ipLink(node.netns, 'br0')['address']).toBe('02:00:00:00:00:10');
    expect(ipAddresses(node.netns, 'br0')).toEqual(['10.1.2.1/24']);
    expectGone(node, call, before);
    expect(index()).toBe(indexBefore);
  });

  test.each<[string, Changes, Call['env']]>([
    ['CNI_ARGS', {}, { CNI_ARGS: 'IgnoreUnknown=1;MAC=c2:11:22:33:44:55' }],
    [
      'args, before CNI_ARGS',
      { args: { cni: { mac: 'c2:11:22:33:44:55' } } },
      { CNI_ARGS: 'IgnoreUnknown=1;MAC=c2:11:22:33:44:66' },
    ],
    [
      'runtimeConfig, before both',
      {
        args: { cni: { mac: 'c2:11:22:33:44:77' } },
        RuntimeConfig: { mac: 'c2:11:22:33:44:55' },
      },
      { CNI_ARGS: 'IgnoreUnknown=1;MAC=c2:11:22:33:44:66' },
    ],
  ])("the pod's MAC address by %s", (_what, changes, env) => {
    const node = makeNode();
    const netns = node.addPod();
    const call = { netns, config: configOf(node, version, changes), ...(env ? { env } : {}) };
    expect(added(node, call)).toEqual(resultFor(node, version, netns, [V4]));
    expect(ipLink(netns, 'eth0')['address']).toBe('c2:11:22:33:44:55');
  });
});

/**
 * What shows only in the kernel depends on the version no more than by what ADD reads and refuses before it: the oldest,
 * the first whose results have links, and the newest stand for the rest, whose turn would cost another 20 s.
 */
const KERNEL_VERSIONS = ['0.1.0', '0.3.0', '1.1.0'] as const;

describe.skipIf(skip).each(KERNEL_VERSIONS)('%s: the bridge', (version) => {
  test.each([
    ['of IPv4', '10.0.0.1/8', '10.1.0.0/16', '10.1.2.3'],
    ['of IPv6 that overlaps', '2001:db8:1::1/48', '2001:db8:1:2::/64', '2001:db8:1:2::1'],
  ])('another address %s is refused, and replaced with forceAddress', (_what, have, subnet, gw) => {
    const node = makeNode();
    node.run('ip', 'link', 'add', 'br0', 'up', 'type', 'bridge');
    node.run('ip', 'address', 'add', have, 'dev', 'br0', ...(gw.includes(':') ? ['nodad'] : []));
    const before = stateWithoutForwarding(node);
    const netns = node.addPod();
    const ipam = { type: 'cube-ipam', subnet, gateway: gw };
    const config = configOf(node, version, { ipam });
    expect(errorOf(node.call('ADD', { netns, config }))).toMatchObject({
      code: 101,
      msg: `bridge "br0" already has address ${have}, which conflicts with ${gw}/${subnet.split('/')[1]}`,
    });
    expect(stateWithoutForwarding(node)).toEqual(before);
    added(node, { netns, config: { ...config, forceAddress: true } });
    expect(ipAddresses(node.netns, 'br0')).toEqual([`${gw}/${subnet.split('/')[1]}`]);
  });

  test.each([false, true])('an address of another IPv6 prefix stays: forceAddress %j', (force) => {
    const node = makeNode();
    node.run('ip', 'link', 'add', 'br0', 'up', 'type', 'bridge');
    node.run('ip', 'address', 'add', '2001:db8:1::1/64', 'dev', 'br0', 'nodad');
    const ipam = { type: 'cube-ipam', subnet: '2001:db8:2::/64' };
    const config = configOf(node, version, { ipam, forceAddress: force });
    added(node, { netns: node.addPod(), config });
    expect(ipAddresses(node.netns, 'br0').toSorted()).toEqual([
      '2001:db8:1::1/64',
      '2001:db8:2::1/64',
    ]);
  });

  test('is promiscuous where that is asked for', () => {
    const node = makeNode();
    added(node, { netns: node.addPod(), config: configOf(node, version, { promiscMode: true }) });
    expect(ipLink(node.netns, 'br0')['promiscuous']).toBe(1);
  });

  test.each([
    ['IPv4', [V4]],
    ['IPv6', [V6]],
  ])('keeps its MAC address as pods come and go: %s', (_what, subnets) => {
    const node = makeNode();
    const config = configOf(node, version, { ipam: ipamOf(subnets) });
    const mac = (): unknown => ipLink(node.netns, 'br0')['address'];
    const pods = ['c', 'a', 'b'].map((containerId) => ({
      netns: node.addPod(),
      containerId,
      config,
    }));
    const macs: unknown[] = [];
    for (const pod of pods) {
      added(node, pod);
      macs.push(mac());
    }
    for (const pod of pods.slice(1)) {
      node.del(pod);
      macs.push(mac());
    }
    expect(new Set(macs).size).toBe(1);
    for (const name of linkNames(node.netns).filter((each) => each.startsWith('veth')))
      expect(ipLink(node.netns, name)['address']).not.toBe(macs[0]);
  });

  test.each([false, true])('isolates its port: portIsolation %j', (portIsolation) => {
    const node = makeNode();
    added(node, { netns: node.addPod(), config: configOf(node, version, { portIsolation }) });
    expect(ipLink(node.netns, portOf(node))).toMatchObject({ port: { isolated: portIsolation } });
  });

  test('checks MAC addresses by a table that goes with the last pod', () => {
    const node = makeNode();
    const before = stateWithoutForwarding(node);
    const call = { netns: node.addPod(), config: configOf(node, version, { macspoofchk: true }) };
    added(node, call);
    const mac = String(ipLink(call.netns, 'eth0')['address']);
    expect(node.run('nft', 'list', 'set', 'bridge', 'cube-cni', 'macs')).toContain(
      `"${portOf(node)}" . ${mac}`,
    );
    expectGone(node, call, before);
  });

  test('the address is given back when ADD fails', () => {
    const node = makeNode();
    const before = stateWithoutForwarding(node);
    const netns = node.addPod();
    runIn(netns, 'ip', 'link', 'add', 'eth0', 'type', 'bridge');
    const config = configOf(node, version);
    expect(errorOf(node.call('ADD', { netns, config }))).toMatchObject({ code: 101 });
    expect(stateWithoutForwarding(node)).toEqual(before);
    expect(recordsOf(node.dataDir)).toEqual(NO_RECORDS);
  });

  test("the pod's link cannot stay down and have addresses", () => {
    const node = makeNode();
    const config = configOf(node, version, { disableContainerInterface: true });
    expect(errorOf(node.call('ADD', { netns: node.addPod(), config }))).toMatchObject({
      code: 7,
      msg: 'cannot use IPAM when DisableContainerInterface flag is set',
    });
    expect(linkNames(node.netns)).toEqual([]);
  });

  test("the pod's link stays down with disableContainerInterface", () => {
    const node = makeNode();
    const before = stateWithoutForwarding(node);
    const down = { disableContainerInterface: true, isDefaultGateway: false, ipam: {} };
    const call = { netns: node.addPod(), config: configOf(node, version, down) };
    if (isBefore(version, '0.3.0')) {
      expect(errorOf(node.call('ADD', call)).msg).toBe('cannot convert: no valid IP addresses');
    } else {
      const result = added(node, call);
      expect(result).toEqual(resultFor(node, version, call.netns, []));
      expect(ipLink(call.netns, 'eth0')).toMatchObject({ up: false });
      expect(ipLink(node.netns, portOf(node))).toMatchObject({ up: true, master: 'br0' });
      expectSound(node, version, call, result);
    }
    expectGone(node, call, before);
  });
});

describe.skipIf(skip).each(WITH_LINKS)('%s: in a chain', (version) => {
  test.each(['', 'iptables', 'nftables'])('masquerade with ipMasqBackend %j', (ipMasqBackend) => {
    const node = makeNode();
    const before = stateWithoutForwarding(node);
    const changes = { ipMasq: true, ipMasqBackend, ipam: ipamOf([V4, V6]) };
    const call = { netns: node.addPod(), config: configOf(node, version, changes) };
    const result = added(node, call);
    expect(masqueraded(node.netns)).toEqual([V4.first, V6.first]);
    expect(mapped(node.netns)).toEqual([V4.first, V6.first]);
    expectSound(node, version, call, result);
    expectGone(node, call, before);
  });
});

describe.skipIf(skip).each(WITH_CHECK)('%s: CHECK in a chain', (version) => {
  test.each([
    ['IPv4', [V4]],
    ['IPv6', [V6]],
    ['both families', [V4, V6]],
  ])('with what another plugin has added to the result: %s', (_what, subnets) => {
    const node = makeNode();
    const before = stateWithoutForwarding(node);
    const netns = node.addPod();
    const config = configOf(node, version, { ipam: ipamOf(subnets) });
    const result = added(node, { netns, config });
    const prevResult = {
      ...result,
      interfaces: [
        ...(result['interfaces'] as Json[]),
        { name: 'other0', mac: '02:00:00:00:00:77', sandbox: netns },
      ],
    };
    const call = { netns, config: { ...config, prevResult } };
    expect(node.call('CHECK', call)).toMatchObject({ status: 0, stdout: '', stderr: '' });
    const [first] = subnets as [Subnet];
    const family = is6(first) ? '-6' : '-4';
    runIn(netns, 'ip', family, 'route', 'del', 'default');
    expect(errorOf(node.call('CHECK', call))).toMatchObject({
      code: 103,
      details: expect.stringContaining(`default via ${first.gateway}`),
    });
    expectGone(node, call, before);
  });
});

describe.skipIf(skip || requirement('cni-plugins'))('addresses of host-local', () => {
  test('are given back when ADD fails, and by DEL', () => {
    const node = makeNode();
    const before = stateWithoutForwarding(node);
    const folder = join(node.folder, 'networks');
    const reserved = (): string[] =>
      existsSync(folder)
        ? readdirSync(join(folder, 'podnet')).filter((name) => /^\d+\.\d+/.test(name))
        : [];
    const ipam = { type: 'host-local', subnet: V4.subnet, dataDir: folder };
    const config = configOf(node, '1.0.0', { ipam });
    const taken = node.addPod();
    runIn(taken, 'ip', 'link', 'add', 'eth0', 'type', 'bridge');
    expect(errorOf(node.call('ADD', { netns: taken, config }))).toMatchObject({ code: 101 });
    expect(reserved()).toEqual([]);
    // The second default route of a netns: the kernel refuses it when the address is there.
    const crowded = node.addPod();
    runIn(crowded, 'ip', 'link', 'add', 'x0', 'up', 'type', 'bridge');
    runIn(crowded, 'ip', 'route', 'add', 'default', 'dev', 'x0');
    expect(errorOf(node.call('ADD', { netns: crowded, config }))).toMatchObject({ code: 100 });
    expect(reserved()).toEqual([]);
    const call = { netns: node.addPod(), config };
    const result = added(node, call);
    expect(reserved()).toHaveLength(1);
    expect(result['ips']).toMatchObject([{ address: `${reserved()[0]}/24` }]);
    expectGone(node, call, before);
    expect(reserved()).toEqual([]);
  });
});
