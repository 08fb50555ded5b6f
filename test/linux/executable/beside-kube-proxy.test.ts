/**
 * Host ports and services on one node, with the rules that kube-proxy makes in either of its modes, there before the pods or
 * after them: each works, whom the pod sees is not changed by the other, and no rule of kube-proxy is touched.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { requirement } from '../../requirements.ts';
import { hostState } from './kernel-state.ts';
import { type Cluster, iptablesRules, nftablesRules } from './kube-proxy-rules.ts';
import { type Call, type Node, NO_RECORDS, addressOf, recordsOf } from './node.ts';
import {
  CLIENT,
  NODE,
  TCP,
  UDP,
  addPod,
  ask,
  configFor,
  makeOutside,
  runLines,
  serve,
  watchMarks,
} from './outside.ts';

const skip = requirement('root', 'iproute2', 'nftables', 'iptables-nft', 'executable', 'conntrack');

const WEB = {
  name: 'default/web',
  clusterIp: { 4: '10.96.0.10', 6: 'fd96::10' },
  nodePort: 30_080,
  policy: 'Cluster',
} as const;
const LOCAL = {
  name: 'default/local',
  clusterIp: { 4: '10.96.0.11', 6: 'fd96::11' },
  nodePort: 30_081,
  policy: 'Local',
} as const;

/** The pod that is the endpoint, the one beside it, and what the bridge has: whom a pod sees of whose source is replaced. */
const POD = { 4: '10.7.0.2', 6: 'fd07::2' } as const;
const BESIDE = { 4: '10.7.0.3', 6: 'fd07::3' } as const;
const BRIDGE = { 4: '10.7.0.1', 6: 'fd07::1' } as const;

const CLUSTER: Cluster = {
  services: [WEB, LOCAL],
  port: 80,
  endpoint: { ip: POD, port: 80 },
  podCidr: { 4: '10.7.0.0/16', 6: 'fd07::/48' },
  nodeIp: NODE,
};

const FAMILIES = [4, 6] as const;

type Mode = 'iptables' | 'nftables';

/** kube-proxy on a node. */
interface KubeProxy {
  readonly load: () => void;
  /** Its rules as its own programs print them, without what they count. */
  readonly rules: () => string;
}

function load(node: Node, program: string, rules: string): void {
  const file = join(node.folder, 'rules');
  writeFileSync(file, rules);
  node.run(...program.split(' '), file);
}

const KUBE_PROXY: Readonly<Record<Mode, (node: Node) => KubeProxy>> = {
  iptables: (node) => ({
    load: () => {
      // It answers at 127.0.0.1 too.
      node.run('sysctl', '-qw', 'net.ipv4.conf.all.route_localnet=1');
      load(node, 'iptables-nft-restore', iptablesRules(CLUSTER, 4));
      load(node, 'ip6tables-nft-restore', iptablesRules(CLUSTER, 6));
    },
    rules: () =>
      [
        // The lines in between say when.
        ...['iptables-nft-save', 'ip6tables-nft-save'].map((program) =>
          node.run(program).replaceAll(/^#.*\n/gm, ''),
        ),
        ...['ip nat', 'ip filter', 'ip6 nat', 'ip6 filter'].map((table) =>
          node.run('nft', '-s', 'list', 'table', ...table.split(' ')),
        ),
      ].join('\n'),
  }),
  nftables: (node) => ({
    load: () => {
      for (const family of FAMILIES) load(node, 'nft -f', nftablesRules(CLUSTER, family));
    },
    rules: () =>
      ['ip', 'ip6']
        .map((family) => node.run('nft', '-s', 'list', 'table', family, 'kube-proxy'))
        .join('\n'),
  }),
};

/** A node as kubeadm asks for one: bridged frames pass its rules, and it knows a way to services. */
function makeKubeNode(mode: Mode): {
  readonly node: Node;
  readonly client: string;
  readonly proxy: KubeProxy;
} {
  const { node, client } = makeOutside();
  for (const name of ['iptables', 'ip6tables'])
    node.run('sysctl', '-qw', `net.bridge.bridge-nf-call-${name}=1`);
  runLines(node.netns, [
    `route add default via ${CLIENT[4]}`,
    `-6 route add default via ${CLIENT[6]}`,
  ]);
  return { node, client, proxy: KUBE_PROXY[mode](node) };
}

/** The endpoint has a host port of UDP with the number of a node port of TCP. */
const PORTS = [TCP, UDP, { ...UDP, hostPort: WEB.nodePort }];

interface Pods {
  readonly pod: Call & { readonly netns: string };
  readonly beside: Call & { readonly netns: string };
}

/** Attaches the pods, of which the first says who it is. */
async function addPods(node: Node): Promise<Pods> {
  const pod = addPod(node, 'a', configFor(node, PORTS));
  const beside = addPod(node, 'b', configFor(node, []));
  await serve(pod.netns, 'a');
  return { pod, beside };
}

const ORDERS: readonly (readonly [Mode, 'before' | 'after'])[] = [
  ['iptables', 'before'],
  ['iptables', 'after'],
  ['nftables', 'before'],
  ['nftables', 'after'],
];

describe.skipIf(skip).each(ORDERS)(
  'beside kube-proxy in mode %s, there %s the pods,',
  (mode, when) => {
    async function makeAll() {
      const { node, client, proxy } = makeKubeNode(mode);
      if (when === 'before') proxy.load();
      const pods = await addPods(node);
      if (when === 'after') proxy.load();
      return { node, client, proxy, ...pods };
    }

    test('host ports work, and the pod sees whom it would see alone', async () => {
      const { node, client, pod, beside } = await makeAll();
      for (const protocol of ['tcp', 'udp'] as const) {
        for (const family of FAMILIES) {
          const at = (netns: string) => ask(netns, protocol, NODE[family], 8080);
          expect(at(client)).toBe(`a ${CLIENT[family]}`);
          expect(at(node.netns)).toBe(`a ${NODE[family]}`);
          expect(at(beside.netns)).toBe(`a ${BRIDGE[family]}`);
          expect(at(pod.netns)).toBe(`a ${BRIDGE[family]}`);
        }
        expect(ask(node.netns, protocol, '127.0.0.1', 8080)).toBe(`a ${BRIDGE[4]}`);
      }
    });

    test('services work, and the pod sees whom it would see alone', async () => {
      const { node, client, pod, beside } = await makeAll();
      for (const family of FAMILIES) {
        for (const { clusterIp } of [WEB, LOCAL]) {
          const at = (netns: string) => ask(netns, 'tcp', clusterIp[family], 80);
          expect(at(beside.netns)).toBe(`a ${BESIDE[family]}`);
          expect(at(pod.netns)).toBe(`a ${BRIDGE[family]}`);
          expect(at(node.netns)).toBe(`a ${BRIDGE[family]}`);
          expect(at(client)).toBe(`a ${BRIDGE[family]}`);
        }
        const atNodePort = (netns: string, { nodePort }: typeof WEB | typeof LOCAL) =>
          ask(netns, 'tcp', NODE[family], nodePort);
        expect(atNodePort(client, WEB)).toBe(`a ${BRIDGE[family]}`);
        // Nobody but kube-proxy replaces a source here, and it does not.
        expect(atNodePort(client, LOCAL)).toBe(`a ${CLIENT[family]}`);
        expect(atNodePort(beside.netns, WEB)).toBe(`a ${BRIDGE[family]}`);
        expect(atNodePort(beside.netns, LOCAL)).toBe(`a ${BESIDE[family]}`);
        expect(atNodePort(node.netns, LOCAL)).toBe(`a ${BRIDGE[family]}`);
      }
      const expected = mode === 'iptables' ? `a ${BRIDGE[4]}` : undefined;
      expect(ask(node.netns, 'tcp', '127.0.0.1', WEB.nodePort)).toBe(expected);
    });

    test('a host port of one protocol and a node port of another have one number', async () => {
      const { node, client, pod, beside } = await makeAll();
      for (const family of FAMILIES) {
        const at = (netns: string, protocol: 'tcp' | 'udp') =>
          ask(netns, protocol, NODE[family], WEB.nodePort);
        expect(at(client, 'udp')).toBe(`a ${CLIENT[family]}`);
        expect(at(client, 'tcp')).toBe(`a ${BRIDGE[family]}`);
        expect(at(beside.netns, 'udp')).toBe(`a ${BRIDGE[family]}`);
      }
      node.del(pod);
      expect(ask(client, 'udp', NODE[4], WEB.nodePort)).toBeUndefined();
      const successor = addPod(
        node,
        'c',
        configFor(node, [], {
          ipam: { type: 'cube-ipam', subnet: '10.7.0.0/24', rangeStart: POD[4], rangeEnd: POD[4] },
        }),
      );
      await serve(successor.netns, 'c');
      expect(ask(client, 'tcp', NODE[4], WEB.nodePort)).toBe(`c ${BRIDGE[4]}`);
    });

    test('each marks what is its own, and leaves the marks of the other', async () => {
      const { node, client, beside } = await makeAll();
      const door = { markMasqBit: 5, conditionsV4: ['-s', `${CLIENT[4]}/24`] };
      const behind = addPod(node, 'c', configFor(node, [{ ...TCP, hostPort: 8081 }], door));
      await serve(behind.netns, 'c');
      const marks = watchMarks(node);
      const marksOf = (netns: string, protocol: 'tcp' | 'udp', address: string, port: number) => {
        marks.seen();
        expect(ask(netns, protocol, address, port)).toMatch(/^[ac] /);
        return marks.seen();
      };
      for (const family of FAMILIES) {
        expect(marksOf(client, 'tcp', NODE[family], 8080)).toEqual([0x2000]);
        expect(marksOf(client, 'udp', NODE[family], WEB.nodePort)).toEqual([0x2000]);
        expect(marksOf(client, 'tcp', NODE[family], WEB.nodePort)).toEqual([0x4000]);
        expect(marksOf(client, 'tcp', NODE[family], LOCAL.nodePort)).toEqual([0]);
        expect(marksOf(beside.netns, 'tcp', WEB.clusterIp[family], 80)).toEqual([0]);
        expect(marksOf(node.netns, 'tcp', WEB.clusterIp[family], 80)).toEqual([0x4000]);
        expect(marksOf(client, 'tcp', NODE[family], 8081)).toEqual([0x20]);
      }
      expect(marksOf(node.netns, 'tcp', '127.0.0.1', 8080)).toEqual([0x2000]);
    });

    test('marks of kube-proxy that a packet comes with are there behind the maps of ports', async () => {
      const { node, client } = await makeAll();
      await serve(node.netns, 'host', 9090);
      const marks = watchMarks(node);
      expect(ask(client, 'tcp', NODE[4], 9090)).toBe(`host ${CLIENT[4]}`);
      node.run(
        'nft',
        'table inet early { chain in { type filter hook prerouting priority -150; iifname "out0" meta mark set 0xc000; }; }',
      );
      marks.seen();
      // By a host port, and by none; of either kube-proxy replaces the source, for the mark.
      expect(ask(client, 'tcp', NODE[4], 8080)).toBe(`a ${BRIDGE[4]}`);
      expect(marks.seen()).toEqual([0xe000]);
      expect(ask(client, 'tcp', NODE[4], LOCAL.nodePort)).toBe(`a ${BRIDGE[4]}`);
      expect(marks.seen()).toEqual([0xc000]);
      // KUBE-FIREWALL, which the mode with nftables has not.
      const expected = mode === 'iptables' ? undefined : `host ${CLIENT[4]}`;
      expect(ask(client, 'tcp', NODE[4], 9090)).toBe(expected);
    });

    test('its rules are byte for byte what they were, through ADD, CHECK, traffic and DEL', async () => {
      const { node, client, proxy } = makeKubeNode(mode);
      const others = (): unknown => ({ ...hostState(node.netns), nftables: 'its rules' });
      const before = others();
      if (when === 'before') proxy.load();
      const config = configFor(node, PORTS);
      const call = { netns: node.addPod(), containerId: 'a', config };
      const prevResult = node.add(call);
      expect(addressOf(prevResult)).toBe(POD[4]);
      if (when === 'after') proxy.load();
      const rules = proxy.rules();
      expect(rules).toContain('kube');
      const second = addPod(
        node,
        'b',
        configFor(node, [{ ...TCP, hostPort: 8081 }], { markMasqBit: 5 }),
      );
      await serve(call.netns, 'a');
      expect(ask(client, 'tcp', NODE[4], 8080)).toBe(`a ${CLIENT[4]}`);
      expect(ask(client, 'tcp', NODE[4], WEB.nodePort)).toBe(`a ${BRIDGE[4]}`);
      expect(proxy.rules()).toBe(rules);
      const checked = { ...call, config: { ...config, prevResult } };
      expect(node.call('CHECK', checked)).toMatchObject({ status: 0, stdout: '', stderr: '' });
      node.del(second);
      node.del(call);
      expect(proxy.rules()).toBe(rules);
      expect(recordsOf(node.dataDir)).toEqual(NO_RECORDS);
      expect(node.run('nft', 'list', 'tables')).not.toContain('cube-cni');
      expect(others()).toEqual(before);
    });
  },
);
