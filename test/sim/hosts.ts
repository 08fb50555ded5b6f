/** Hosts that the simulator's laws and its comparison with the kernel share: a routed host, and what can break in it. */
import fc from 'fast-check';
import type { FdbEntry } from '../../model/fdb.ts';
import type { Host } from '../../model/host.ts';
import type { Ifname } from '../../model/ifname.ts';
import { type Family, parseIp } from '../../model/ip.ts';
import { type Mac, parseMac } from '../../model/mac.ts';
import type { Op } from '../../model/op.ts';
import { applyOp } from '../../model/ops.ts';
import type { LinkAttribute } from '../../model/ops/link-set.ts';
import type { PortFlag } from '../../model/ops/port-set.ts';
import { makePolicyRule } from '../../model/policy-rule.ts';
import { parsePrefix } from '../../model/prefix.ts';
import { PROTOCOL_KERNEL, makeRoute } from '../../model/route.ts';
import { type TokenBucket, tokenBucket } from '../../model/traffic-control.ts';
import {
  addressOps,
  applyAll,
  bridgeOps,
  netnsOps,
  routeOps,
  TWO_PODS_OPS,
  vethOps,
} from './pods.ts';

const name = (text: string): Ifname => text as Ifname;

function forwardingOps(netns: string): Op[] {
  return [
    { op: 'sysctl.set', netns, key: 'net/ipv4/ip_forward', value: '1' },
    { op: 'sysctl.set', netns, key: 'net/ipv6/conf/all/forwarding', value: '1' },
  ];
}

/** What comes in by a port goes through an ifb that limits it. */
function shapedOps(port: string, ifb: string): Op[] {
  const [ifname, redirect, mac] = [name(port), name(ifb), parseMac('02:00:00:00:01:0f')];
  return [
    {
      op: 'link.add',
      netns: 'node',
      link: { kind: 'ifb', ifname: redirect, mac, mtuBytes: 1500, up: true },
    },
    limit('node', ifb, tokenBucket(1_000_000, 100_000)),
    { op: 'qdisc.add', netns: 'node', ifname, qdisc: { kind: 'clsact' } },
    { op: 'filter.add', netns: 'node', ifname, redirect },
  ];
}

function limit(netns: string, ifname: string, bucket: TokenBucket): Op {
  return { op: 'qdisc.add', netns, ifname: name(ifname), qdisc: { kind: 'tbf', ...bucket } };
}

/** The two pods, and behind netns node, which forwards, netns c on a bridge of its own and d on a bare veth. */
export const ROUTED_OPS: readonly Op[] = [
  ...TWO_PODS_OPS,
  ...forwardingOps('node'),
  ...bridgeOps('node', 'cni1', '02:00:00:00:00:11'),
  ...addressOps('node', 'cni1', '10.244.2.1/24', 'fd00:2::1/64', 'fe80::11/64'),
  ...addressOps('node', 'cni0', 'fe80::1/64'),
  ...netnsOps('c'),
  ...vethOps('node', 'v-c', '02:00:00:00:01:04', 'cni1', 'c', 'eth0', '02:00:00:00:00:04'),
  ...addressOps('c', 'eth0', '10.244.2.4/24', 'fd00:2::4/64'),
  ...routeOps('c', 'eth0', '0.0.0.0/0', '10.244.2.1'),
  ...routeOps('c', 'eth0', '::/0', 'fd00:2::1'),
  ...netnsOps('d'),
  ...vethOps('node', 'v-d', '02:00:00:00:01:05', null, 'd', 'eth0', '02:00:00:00:00:05'),
  ...addressOps('node', 'v-d', '10.244.3.1/30', 'fd00:3::1/126', 'fe80::15/64'),
  ...addressOps('d', 'eth0', '10.244.3.2/30', 'fd00:3::2/126'),
  ...routeOps('d', 'eth0', '0.0.0.0/0', '10.244.3.1'),
  ...routeOps('d', 'eth0', '::/0', 'fd00:3::1'),
  ...shapedOps('v-c', 'ifb0'),
  { op: 'qdisc.add', netns: 'node', ifname: name('v-b'), qdisc: { kind: 'clsact' } },
];

export const ROUTED: Host = applyAll({ netns: {} }, ROUTED_OPS);

/** From where and to where a host is tried: every netns to every address, and to some that nobody has. */
export const ROUTED_DESTINATIONS = [
  '10.244.1.1',
  '10.244.1.2',
  '10.244.1.3',
  '10.244.2.1',
  '10.244.2.4',
  '10.244.3.1',
  '10.244.3.2',
  'fd00:1::1',
  'fd00:1::2',
  'fd00:1::3',
  'fd00:2::1',
  'fd00:2::4',
  'fd00:3::1',
  'fd00:3::2',
  '127.0.0.1',
  '::1',
  '10.244.1.99',
  '10.99.0.1',
  'fd00:1::99',
  'fd99::1',
].map(parseIp);
export const ROUTED_SENDERS = ['node', 'a', 'b', 'c', 'd'];

const LINKS: readonly (readonly [netns: string, ifname: string])[] = [
  ['node', 'cni0'],
  ['node', 'cni1'],
  ['node', 'v-a'],
  ['node', 'v-b'],
  ['node', 'v-c'],
  ['node', 'v-d'],
  ['node', 'ifb0'],
  ['a', 'eth0'],
  ['b', 'eth0'],
  ['c', 'eth0'],
  ['d', 'eth0'],
];

function set(netns: string, ifname: string, attribute: LinkAttribute): Op {
  return { op: 'link.set', netns, ifname: name(ifname), set: attribute };
}

/** A limit that ARP passes, and neither a ping nor a SYN, with options or without. */
function tiny(netns: string, ifname: string): Op {
  return limit(netns, ifname, tokenBucket(1_000_000, 50));
}

/** What breaks by traffic control, as programs that break several things each. */
export const TRAFFIC_CONTROL_BREAKAGES: readonly (readonly Op[])[] = [
  [
    set('node', 'ifb0', { up: false }),
    // Away by another port, of which no bridge hears.
    { op: 'filter.add', netns: 'node', ifname: name('v-b'), redirect: name('v-a') },
    tiny('node', 'v-d'),
  ],
  [{ op: 'link.del', netns: 'node', ifname: name('ifb0') }, tiny('node', 'v-a')],
];

const [MAC_A, MAC_B, MAC_C, MAC_CNI0] = ['00:02', '00:03', '00:04', '00:01'].map((end) =>
  parseMac(`02:00:00:00:${end}`),
) as [Mac, Mac, Mac, Mac];

function entry(port: string, mac: Mac, state: FdbEntry['state'] = 'static'): Op {
  return { op: 'fdb.add', netns: 'node', ifname: name(port), self: false, mac, state };
}

/** Where somebody says that MACs are, as programs: at other ports than they are, where nobody learns better, and for the bridge itself; and own entries that are gone. */
export const FDB_BREAKAGES: readonly (readonly Op[])[] = [
  [
    // It is seen elsewhere as soon as it sends.
    entry('v-b', MAC_A),
    // And this one is not.
    { op: 'port.set', netns: 'node', ifname: name('v-c'), flag: 'learning', on: false },
    entry('v-c', MAC_C),
    {
      op: 'fdb.del',
      netns: 'node',
      ifname: name('cni1'),
      self: true,
      mac: parseMac('02:00:00:00:00:11'),
    },
  ],
  [
    { op: 'port.set', netns: 'node', ifname: name('v-b'), flag: 'learning', on: false },
    entry('v-a', MAC_B),
  ],
  [entry('v-b', MAC_B, 'local')],
  [{ op: 'fdb.del', netns: 'node', ifname: name('cni0'), self: true, mac: MAC_CNI0 }],
];

type RuleWords = Omit<Parameters<typeof makePolicyRule>[0], 'priority' | 'family'> & {
  readonly priority?: number;
};

function ruleOp(netns: string, family: Family, words: RuleWords): Op {
  const { action = 'lookup' } = words;
  const table = action === 'lookup' ? { table: words.table ?? 100 } : {};
  const rule = makePolicyRule({ family, priority: 100, ...words, ...table });
  return { op: 'rule.add', netns, rule };
}

function withoutMain(netns: string, family: Family): Op {
  return { op: 'rule.del', netns, rule: makePolicyRule({ family, priority: 32_766 }) };
}

/** What policy rules do to packets of their own, to those of others, and to answers. */
export const POLICY_RULE_BREAKAGES: readonly (readonly Op[])[] = [
  [
    ruleOp('node', 4, { source: parsePrefix('10.244.1.2/32'), action: 'blackhole' }),
    ruleOp('node', 4, { iif: name('cni1'), action: 'prohibit' }),
    ruleOp('node', 6, { destination: parsePrefix('fd00:3::/64'), action: 'unreachable' }),
    // A table without a route is passed over.
    ruleOp('node', 6, { source: parsePrefix('fd00:1::2/128') }),
  ],
  [
    withoutMain('a', 4),
    // Answers have a source, and packets of its own have none yet.
    ruleOp('a', 4, { source: parsePrefix('10.244.1.2/32'), table: 254 }),
    withoutMain('b', 6),
    ruleOp('b', 6, { source: parsePrefix('fd00:1::/64'), table: 254 }),
    ruleOp('c', 6, { iif: name('lo'), action: 'prohibit' }),
    ruleOp('c', 4, { mark: { value: 1, mask: 1 }, action: 'blackhole' }),
    ruleOp('d', 4, { oif: name('eth0'), action: 'blackhole' }),
  ],
  [
    // Whoever is not of the first bridge; answers come from elsewhere too.
    ruleOp('node', 4, { source: parsePrefix('10.244.1.0/24'), inverted: true, action: 'prohibit' }),
    // Not by default, and a default route is all that these have.
    ruleOp('a', 4, { table: 254, suppressPrefixLength: 0 }),
    ruleOp('a', 4, { priority: 101, action: 'blackhole' }),
    ruleOp('c', 6, { table: 254, suppressPrefixLength: 63 }),
    ruleOp('c', 6, { priority: 101, action: 'nop' }),
    ruleOp('c', 6, { priority: 102, action: 'prohibit' }),
    // The host has no rule of that priority; then one is past what would end packets.
    ruleOp('d', 4, { action: 'goto', target: 200 }),
    ruleOp('d', 4, { priority: 150, source: parsePrefix('10.244.3.2/32'), action: 'blackhole' }),
    ruleOp('b', 6, { action: 'goto', target: 200 }),
    ruleOp('b', 6, { priority: 150, action: 'blackhole' }),
    ruleOp('b', 6, { priority: 200, table: 254 }),
  ],
];

/** Changes to the routed host that somebody might make, most of which break something. */
function breakages(): Op[] {
  const links = LINKS.flatMap(([netns, ifname]): Op[] => [
    set(netns, ifname, { up: false }),
    set(netns, ifname, { up: true }),
    { op: 'sysctl.set', netns, key: `net/ipv4/conf/${ifname}/forwarding`, value: '0' },
    { op: 'sysctl.set', netns, key: `net/ipv4/conf/${ifname}/rp_filter`, value: '1' },
    { op: 'sysctl.set', netns, key: `net/ipv4/conf/${ifname}/rp_filter`, value: '2' },
    { op: 'sysctl.set', netns, key: `net/ipv4/conf/${ifname}/arp_ignore`, value: '1' },
    { op: 'sysctl.set', netns, key: `net/ipv4/conf/${ifname}/arp_filter`, value: '1' },
    { op: 'sysctl.set', netns, key: `net/ipv4/conf/${ifname}/proxy_arp`, value: '1' },
  ]);
  const netnses = ROUTED_SENDERS.flatMap((netns): Op[] => [
    set(netns, 'lo', { up: false }),
    { op: 'sysctl.set', netns, key: 'net/ipv4/ip_forward', value: '0' },
    { op: 'sysctl.set', netns, key: 'net/ipv4/ip_forward', value: '1' },
    { op: 'sysctl.set', netns, key: 'net/ipv6/conf/all/forwarding', value: '0' },
  ]);
  const ports = ['v-a', 'v-b', 'v-c'].flatMap((port): Op[] => [
    set('node', port, { master: null }),
    set('node', port, { master: name('cni1') }),
    set('node', port, { master: name('cni0') }),
    ...(['isolated', 'hairpin', 'flood', 'learning'] satisfies PortFlag[]).flatMap((flag): Op[] =>
      [true, false].map((on) => ({ op: 'port.set', netns: 'node', ifname: name(port), flag, on })),
    ),
  ]);
  const addresses = LINKS.flatMap(([netns, ifname]): Op[] =>
    (ROUTED.netns[netns]?.links[ifname]?.addresses ?? []).map((address) => ({
      op: 'address.del',
      netns,
      ifname: name(ifname),
      address,
    })),
  );
  const routes = ROUTED_SENDERS.flatMap((netns): Op[] =>
    (ROUTED.netns[netns]?.routes ?? [])
      .filter((route) => route.table === 254 && route.protocol !== PROTOCOL_KERNEL)
      .map((route) => ({ op: 'route.del', netns, route })),
  );
  const others: Op[] = [
    ...addressOps('b', 'eth0', '10.244.1.99/24', 'fd00:1::99/64'),
    ...addressOps('a', 'eth0', '10.244.1.3/24', '10.99.0.1/32', 'fd99::1/128'),
    ...addressOps('c', 'eth0', '10.244.1.77/16', 'fd00:1::77/64'),
    ...addressOps('node', 'v-d', '10.244.1.100/25'),
    {
      op: 'route.add',
      netns: 'a',
      route: makeRoute({
        destination: parsePrefix('10.244.1.3/32'),
        device: name('eth0'),
        gateway: parseIp('10.244.1.1'),
      }),
    },
    {
      op: 'route.add',
      netns: 'a',
      route: makeRoute({
        destination: parsePrefix('fd00:1::3/128'),
        device: name('eth0'),
        gateway: parseIp('fd00:1::1'),
      }),
    },
    {
      op: 'route.add',
      netns: 'node',
      route: makeRoute({
        destination: parsePrefix('10.99.0.0/24'),
        device: name('cni0'),
        gateway: parseIp('10.244.1.2'),
      }),
    },
    {
      op: 'route.add',
      netns: 'node',
      route: makeRoute({
        destination: parsePrefix('fd99::/64'),
        device: name('cni0'),
        gateway: parseIp('fd00:1::2'),
      }),
    },
    {
      op: 'route.add',
      netns: 'node',
      route: makeRoute({ destination: parsePrefix('10.244.3.0/24'), device: name('cni1') }),
    },
    {
      op: 'neighbour.add',
      netns: 'a',
      ifname: name('eth0'),
      neighbour: { ip: parseIp('10.244.1.3'), mac: parseMac('02:00:00:00:00:01') },
    },
    {
      op: 'neighbour.add',
      netns: 'a',
      ifname: name('eth0'),
      neighbour: { ip: parseIp('fd00:1::3'), mac: parseMac('02:00:00:00:00:77') },
    },
    {
      op: 'neighbour.add',
      netns: 'b',
      ifname: name('eth0'),
      neighbour: { ip: parseIp('10.244.1.2'), mac: parseMac('02:00:00:00:01:03') },
    },
    { op: 'link.del', netns: 'node', ifname: name('v-b') },
    { op: 'link.del', netns: 'node', ifname: name('cni1') },
    { op: 'filter.del', netns: 'node', ifname: name('v-c') },
    { op: 'qdisc.del', netns: 'node', ifname: name('v-c'), at: 'ingress' },
    { op: 'qdisc.del', netns: 'node', ifname: name('ifb0'), at: 'root' },
    { op: 'filter.add', netns: 'node', ifname: name('v-b'), redirect: name('ifb0') },
    ...TRAFFIC_CONTROL_BREAKAGES.flat(),
    ...POLICY_RULE_BREAKAGES.flat(),
    ...FDB_BREAKAGES.flat(),
    withoutMain('node', 4),
    withoutMain('d', 6),
    tiny('b', 'eth0'),
    tiny('node', 'ifb0'),
    ...['cni0', 'cni1', 'v-c', 'v-d'].map((ifname) => set('node', ifname, { mtuBytes: 1400 })),
    set('d', 'eth0', { mtuBytes: 1400 }),
  ];
  return [...links, ...netnses, ...ports, ...addresses, ...routes, ...others];
}

/** The operations of a program that the kernel would carry out, and the host after them. */
export function carriedOut(
  start: Host,
  ops: readonly Op[],
): { readonly ops: readonly Op[]; readonly host: Host } {
  let host = start;
  const done: Op[] = [];
  for (const op of ops) {
    const outcome = applyOp(host, op);
    if (!outcome.ok) continue;
    host = outcome.host;
    done.push(op);
  }
  return { ops: done, host };
}

/** A few changes to the routed host, one after another. */
export function breakageLists(maxLength = 4): fc.Arbitrary<readonly Op[]> {
  return fc.array(fc.constantFrom(...breakages()), { maxLength });
}
