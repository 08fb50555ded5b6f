/** Other tables that drop what is forwarded: told of, and with `adoptForward` a rule there, judged by pings through the node. */
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { requirement } from '../../requirements.ts';
import { type Call, type Node, NO_RECORDS, addressOf, recordsOf, run, runIn } from './node.ts';
import { CLIENT, type Changes, makeOutside } from './outside.ts';

const skip = requirement('root', 'iproute2', 'nftables', 'executable', 'iptables');

const DUAL_STACK = {
  ipMasq: false,
  isDefaultGateway: true,
  ipam: {
    type: 'cube-ipam',
    ranges: [[{ subnet: '10.7.0.0/24' }], [{ subnet: 'fd07::/64' }]],
  },
};

/** A node that forwards between its pods and a host outside, which knows the way back. */
function makeForwarding(): { readonly node: Node; readonly outside: string } {
  const { node, client: outside } = makeOutside();
  awaitLinkLocal(node.netns, 'out0');
  awaitLinkLocal(outside, 'in0');
  return { node, outside };
}

/** A router without an address of the link's own cannot ask for others there (K-7.3). */
function awaitLinkLocal(netns: string, ifname: string): void {
  const words = ['-6', '-o', 'address', 'show', 'dev', ifname, 'scope', 'link', '-tentative'];
  const end = performance.now() + 5000;
  while (runIn(netns, 'ip', ...words) === '') {
    if (performance.now() > end) throw new Error(`${ifname} has no link-local address`);
    Bun.sleepSync(10);
  }
}

/** Who drops, and the rule by which somebody else's own traffic is let through. */
const DROPPERS: readonly (readonly [name: string, lines: readonly string[]])[] = [
  [
    'iptables by its policy, as docker has it',
    [
      'iptables -P FORWARD DROP',
      'iptables -A FORWARD -i docker0 -j ACCEPT',
      'ip6tables -P FORWARD DROP',
    ],
  ],
  [
    'nftables by the policy of a chain',
    [
      'nft add table inet site',
      "nft 'add chain inet site forward { type filter hook forward priority 10; policy drop; }'",
      'nft \'add rule inet site forward iifname "lan0" accept\'',
    ],
  ],
  [
    'a last rule that rejects, as firewalld has it',
    [
      'nft add table inet firewalld',
      "nft 'add chain inet firewalld filter_FORWARD { type filter hook forward priority 10; policy accept; }'",
      'nft add rule inet firewalld filter_FORWARD ct state established,related accept',
      'nft add rule inet firewalld filter_FORWARD reject with icmpx admin-prohibited',
    ],
  ],
  [
    'a last rule of iptables that rejects',
    [
      'iptables -A FORWARD -i docker0 -j ACCEPT',
      'iptables -A FORWARD -j REJECT',
      'ip6tables -P FORWARD DROP',
      'ip6tables -A FORWARD -j LOG',
      'ip6tables -A FORWARD -j REJECT',
    ],
  ],
  [
    'a last rule that logs and drops',
    [
      'nft add table inet site',
      "nft 'add chain inet site forward { type filter hook forward priority 10; policy drop; }'",
      'nft \'add rule inet site forward iifname "lan0" accept\'',
      'nft \'add rule inet site forward log prefix "no: " drop\'',
    ],
  ],
];

const CHAINS: Readonly<Record<string, readonly string[]>> = {
  [DROPPERS[0]?.[0] ?? '']: [
    'chain FORWARD of table ip filter by its policy',
    'chain FORWARD of table ip6 filter by its policy',
  ],
  [DROPPERS[1]?.[0] ?? '']: ['chain forward of table inet site by its policy'],
  [DROPPERS[2]?.[0] ?? '']: ['chain filter_FORWARD of table inet firewalld by its last rule'],
  [DROPPERS[3]?.[0] ?? '']: [
    'chain FORWARD of table ip filter by its last rule',
    'chain FORWARD of table ip6 filter by its last rule',
  ],
  [DROPPERS[4]?.[0] ?? '']: ['chain forward of table inet site by its last rule'],
};

function runAll(node: Node, lines: readonly string[]): void {
  for (const line of lines) node.run('sh', '-ec', line);
}

/** The tables of others, without what is counted, and without numbers of rules. */
function foreign(node: Node): string {
  const text = node.run('nft', 'list', 'ruleset').replaceAll(/ packets \d+ bytes \d+/g, '');
  return text.replaceAll(/table (inet|bridge) cube-cni \{\n(\t.*\n|\n)*\}\n/g, '');
}

async function pings(netns: string, ip: string): Promise<boolean> {
  const words = ['nsenter', `--net=${netns}`, '--', 'busybox', 'ping', '-c', '1', '-W', '1', ip];
  return (await Bun.spawn(words, { stdout: 'ignore' }).exited) === 0;
}

interface Pod {
  readonly call: Call & { readonly netns: string };
  readonly addresses: readonly [string, string];
}

function addPod(node: Node, changes: Changes, containerId = 'pod-a'): Pod {
  const netns = node.addPod();
  const call = { netns, containerId, config: node.config({ ...DUAL_STACK, ...changes }) };
  const result = node.add(call);
  // The bridge, or the host's end of the pod's link.
  awaitLinkLocal(node.netns, result.interfaces[0]?.name ?? '');
  const second = result.ips[1]?.address.split('/')[0] ?? '';
  return { call, addresses: [addressOf(result), second] };
}

/** Who reaches whom of a pod and the outside, in both families. */
function reach({ call, addresses }: Pod, outside: string): Promise<boolean[]> {
  return Promise.all([
    ...Object.values(CLIENT).map((ip) => pings(call.netns, ip)),
    ...addresses.map((ip) => pings(outside, ip)),
  ]);
}

function warnings(node: Node): string[] {
  return readFileSync(node.logFile, 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as { readonly level: string; readonly msg: string })
    .filter(({ level }) => level === 'warn')
    .map(({ msg }) => msg.split(' drops ')[0] ?? '');
}

const ALL = [true, true, true, true];
const NONE = [false, false, false, false];

describe.skipIf(skip)('where what is forwarded is dropped elsewhere', () => {
  test.each(DROPPERS)('%s is named, and nothing of it changed', async (name, lines) => {
    const { node, outside } = makeForwarding();
    runAll(node, lines);
    const before = foreign(node);
    const pod = addPod(node, {});
    expect(await reach(pod, outside)).toEqual(NONE);
    expect(warnings(node)).toEqual(CHAINS[name]);
    expect(foreign(node)).toBe(before);
    addPod(node, {}, 'pod-b');
    expect(warnings(node)).toEqual(CHAINS[name]);
  });

  test.each(DROPPERS)(
    '%s is passed with adoptForward, until the last pod goes',
    async (_name, lines) => {
      const { node, outside } = makeForwarding();
      runAll(node, lines);
      const before = foreign(node);
      const a = addPod(node, { adoptForward: true });
      const b = addPod(node, { adoptForward: true }, 'pod-b');
      expect(await reach(a, outside)).toEqual(ALL);
      expect(await reach(b, outside)).toEqual(ALL);
      expect(warnings(node)).toEqual([]);
      const adopted = foreign(node);
      node.del(a.call);
      expect(foreign(node)).toBe(adopted);
      expect(await reach(b, outside)).toEqual(ALL);
      node.del({ ...b.call, netns: '' });
      expect(foreign(node)).toBe(before);
      expect(recordsOf(node.dataDir)).toEqual(NO_RECORDS);
    },
  );

  test.each(DROPPERS)(
    '%s that is loaded anew is found by CHECK, and mended',
    async (_name, lines) => {
      const { node, outside } = makeForwarding();
      runAll(node, lines);
      const netns = node.addPod();
      const config = node.config({ ...DUAL_STACK, adoptForward: true });
      const prevResult = node.add({ netns, config });
      const call = { netns, config: { ...config, prevResult } };
      const adopted = foreign(node);
      expect(node.call('CHECK', call)).toMatchObject({ status: 0, stdout: '' });
      for (const table of node.run('nft', 'list', 'tables').trim().split('\n'))
        if (!table.includes('cube-cni')) node.run('nft', 'delete', ...table.split(' '));
      runAll(node, lines);
      const { stdout } = node.call('CHECK', call);
      expect(stdout).toMatch(/chain \w+ lacks the rule/);
      const pod: Pod = { call, addresses: [addressOf(prevResult), 'fd07::2'] };
      expect(await reach(pod, outside)).toEqual(NONE);
      node.run('sh', '-ec', node.call('CHECK', { ...call, args: ['--plan=sh'] }).stdout);
      expect(foreign(node)).toBe(adopted);
      expect(await reach(pod, outside)).toEqual(ALL);
    },
  );

  test('iptables goes on reading and changing its table, and what it saves and restores is known again', async () => {
    const { node, outside } = makeForwarding();
    runAll(node, DROPPERS[0]?.[1] ?? []);
    const before = node.run('iptables', '-S');
    const pod = addPod(node, { adoptForward: true });
    expect(node.run('iptables', '-S')).toContain('-A FORWARD -i cni0 -m comment');
    node.run('iptables', '-I', 'FORWARD', '-s', '198.51.100.9', '-j', 'DROP');
    const saved = node.run('iptables-save');
    node.run('iptables', '-F');
    Bun.spawnSync(['nsenter', `--net=/run/netns/${node.netns}`, '--', 'iptables-restore'], {
      stdin: Buffer.from(saved),
    });
    node.run('iptables', '-D', 'FORWARD', '-s', '198.51.100.9', '-j', 'DROP');
    const another = addPod(node, { adoptForward: true }, 'pod-b');
    expect(await reach(another, outside)).toEqual(ALL);
    node.del(another.call);
    expect(await reach(pod, outside)).toEqual(ALL);
    node.del(pod.call);
    expect(node.run('iptables', '-S')).toBe(before);
  });

  test('a drop of another rule stays a drop, and isolation stays isolation', async () => {
    const { node, outside } = makeForwarding();
    runAll(node, DROPPERS[0]?.[1] ?? []);
    node.run('iptables', '-A', 'FORWARD', '-d', CLIENT[4], '-j', 'DROP');
    const other = {
      bridge: 'other0',
      ingressPolicy: 'same-bridge',
      ipam: { type: 'cube-ipam', subnet: '10.8.0.0/24' },
    };
    const a = addPod(node, { adoptForward: true, ingressPolicy: 'same-bridge' });
    const b = addPod(node, { ...other, name: 'othernet', adoptForward: true }, 'pod-b');
    expect(await pings(a.call.netns, CLIENT[4])).toBe(false);
    expect(await pings(a.call.netns, CLIENT[6])).toBe(true);
    expect(await pings(a.call.netns, b.addresses[0])).toBe(false);
    expect(await pings(outside, b.addresses[0])).toBe(false);
  });

  test('a lost state file', async () => {
    const { node, outside } = makeForwarding();
    runAll(node, DROPPERS[1]?.[1] ?? []);
    const before = foreign(node);
    const pod = addPod(node, { adoptForward: true });
    run('rm', '-r', node.dataDir);
    expect(await reach(pod, outside)).toEqual(ALL);
    node.del({ ...pod.call, netns: '' });
    expect(foreign(node)).toBe(before);
  });

  test('GC takes the rules of a pod whose record was lost and whose link is gone', () => {
    const { node } = makeForwarding();
    runAll(node, [
      ...(DROPPERS[1]?.[1] ?? []),
      'nft add rule inet site forward ip daddr 192.0.2.1 drop',
    ]);
    const before = foreign(node);
    const ptp = { mode: 'ptp', isGateway: false, adoptForward: true };
    const pods = [addPod(node, { adoptForward: true }), addPod(node, ptp, 'pod-b')];
    expect(foreign(node).match(/"cube-cni from/g)).toHaveLength(2);
    run('rm', '-r', node.dataDir);
    for (const { call } of pods) runIn(call.netns, 'ip', 'link', 'del', 'eth0');
    const config = { ...DUAL_STACK, cniVersion: '1.1.0', 'cni.dev/valid-attachments': [] };
    expect(node.call('GC', { config: node.config(config) })).toMatchObject({
      stdout: '',
      status: 0,
    });
    expect(foreign(node)).toBe(before);
  });

  test('the script of DEL takes no rule of somebody else that begins like ours', () => {
    const { node } = makeForwarding();
    runAll(node, DROPPERS[1]?.[1] ?? []);
    node.run('sh', '-ec', 'nft \'add rule inet site forward iifname "cni0" tcp dport 25 drop\'');
    node.run('sh', '-ec', 'nft \'add rule inet site forward iifname "cni0" counter drop\'');
    const before = foreign(node);
    const { call } = addPod(node, { adoptForward: true });
    node.run('sh', '-ec', node.call('DEL', { ...call, args: ['--plan=sh'] }).stdout);
    expect(foreign(node)).toBe(before);
  });

  test("without a bridge the rules are the pod's own", async () => {
    const { node, outside } = makeForwarding();
    runAll(node, DROPPERS[2]?.[1] ?? []);
    const before = foreign(node);
    const changes = { mode: 'ptp', isDefaultGateway: true, isGateway: false, adoptForward: true };
    const a = addPod(node, changes);
    const b = addPod(node, changes, 'pod-b');
    expect([...(await reach(a, outside)), ...(await reach(b, outside))]).toEqual([...ALL, ...ALL]);
    node.del(a.call);
    expect(await reach(b, outside)).toEqual(ALL);
    node.del(b.call);
    expect(foreign(node)).toBe(before);
  });
});
