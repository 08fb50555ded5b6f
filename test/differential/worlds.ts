/** Tiny worlds: a host to begin with and a few operations over two or three names, for programs that are enumerated. */
import { makeAddress } from '../../model/address.ts';
import { canonicalJson } from '../../model/canonical.ts';
import type { Host } from '../../model/host.ts';
import type { Ifname } from '../../model/ifname.ts';
import { type Ip, parseIp } from '../../model/ip.ts';
import type { KernelProfile } from '../../model/kernel-profile.ts';
import { type Mac, parseMac } from '../../model/mac.ts';
import type { ChainHook, NftCommand, Statement } from '../../model/nftables.ts';
import type { Op, OpOf } from '../../model/op.ts';
import { applyOp } from '../../model/ops.ts';
import { makePolicyRule } from '../../model/policy-rule.ts';
import { parsePrefix, parsePrefixedIp } from '../../model/prefix.ts';
import { type RouteChoice, makeRoute } from '../../model/route.ts';
import { tokenBucket } from '../../model/traffic-control.ts';
import { PINS, universeOps } from '../arbitraries/sysctl-op.ts';

/** A host, as the operations that make it, and the operations that programs are made of. */
export interface World {
  readonly name: string;
  readonly base: readonly Op[];
  readonly alphabet: readonly Op[];
}

const [V0, V1, V2, BR0, BR1, I0] = ['v0', 'v1', 'v2', 'br0', 'br1', 'i0'] as Ifname[] as [
  Ifname,
  Ifname,
  Ifname,
  Ifname,
  Ifname,
  Ifname,
];
const [LOW, MIDDLE, HIGH] = ['02:00:00:00:00:01', '02:00:00:00:00:02', '02:00:00:00:00:03'].map(
  parseMac,
) as [Mac, Mac, Mac];
const ONE = 'one';
const TWO = 'two';

function veth(ifname: Ifname, peer: Ifname, there = ONE): Op {
  const end = { mtuBytes: 1500, up: true };
  return {
    op: 'link.add',
    netns: ONE,
    link: {
      kind: 'veth',
      ...end,
      ifname,
      mac: LOW,
      master: null,
      peer: { ...end, netns: there, ifname: peer, mac: MIDDLE },
    },
  };
}

function single(kind: 'bridge' | 'ifb', ifname: Ifname): Op {
  return {
    op: 'link.add',
    netns: ONE,
    link: { kind, ifname, mac: HIGH, mtuBytes: 1500, up: true },
  };
}

function set(ifname: Ifname, attribute: OpOf<'link.set'>['set'], netns = ONE): Op {
  return { op: 'link.set', netns, ifname, set: attribute };
}

function remove(ifname: Ifname): Op {
  return { op: 'link.del', netns: ONE, ifname };
}

function both(text: string): Op[] {
  const address = makeAddress(parsePrefixedIp(text));
  return [
    { op: 'address.add', netns: ONE, ifname: V0, address },
    { op: 'address.del', netns: ONE, ifname: V0, address },
  ];
}

function routes(choice: Omit<RouteChoice, 'destination'> & { readonly destination: string }): Op[] {
  const route = makeRoute({ ...choice, destination: parsePrefix(choice.destination) });
  return [
    { op: 'route.add', netns: ONE, route },
    { op: 'route.del', netns: ONE, route },
  ];
}

function neighbour(ip: Ip): Op[] {
  return [
    { op: 'neighbour.add', netns: ONE, ifname: V0, neighbour: { ip, mac: HIGH } },
    { op: 'neighbour.del', netns: ONE, ifname: V0, ip },
  ];
}

function sysctl(key: string, value: string): Op {
  return { op: 'sysctl.set', netns: ONE, key, value };
}

const ADDRESSES: World = {
  name: 'addresses and routes of a veth',
  base: [...universeOps([ONE], PINS), veth(V0, V1)],
  alphabet: [
    ...both('10.0.0.1/24'),
    ...both('10.0.0.2/24'),
    ...both('fd00::1/64'),
    ...routes({ destination: '10.1.0.0/16', device: V0, gateway: parseIp('10.0.0.9') }),
    ...routes({ destination: '10.1.0.0/16', device: V0, source: parseIp('10.0.0.2'), metric: 7 }),
    ...routes({ destination: 'fd05::/64', device: V0, gateway: parseIp('fd00::9') }),
    ...neighbour(parseIp('10.0.0.9')),
    ...neighbour(parseIp('fd00::9')),
    set(V0, { up: false }),
    set(V0, { up: true }),
    set(V1, { up: false }),
    set(V0, { mtuBytes: 1279 }),
    set(V0, { mtuBytes: 1500 }),
    set(V0, { mac: HIGH }),
    sysctl('net/ipv6/conf/v0/disable_ipv6', '1'),
    sysctl('net/ipv6/conf/v0/disable_ipv6', '0'),
    sysctl('net/ipv6/conf/v0/keep_addr_on_down', '1'),
    sysctl('net/ipv4/conf/v0/promote_secondaries', '1'),
    sysctl('net/ipv6/conf/all/forwarding', '1'),
    { op: 'link.rename', netns: ONE, ifname: V0, name: V2 },
    remove(V0),
  ],
};

const BRIDGES: World = {
  name: 'bridges and their ports',
  base: [...universeOps([ONE], PINS), veth(V0, V1), single('bridge', BR0)],
  alphabet: [
    single('bridge', BR1),
    set(V0, { master: BR0 }),
    set(V0, { master: BR1 }),
    set(V0, { master: null }),
    set(V1, { master: BR0 }),
    set(BR0, { master: BR0 }),
    set(V0, { up: false }),
    set(V0, { up: true }),
    set(BR0, { up: false }),
    set(BR0, { up: true }),
    set(V0, { mtuBytes: 1400 }),
    set(BR0, { mtuBytes: 1279 }),
    set(BR0, { mac: MIDDLE }),
    { op: 'port.set', netns: ONE, ifname: V0, flag: 'hairpin', on: true },
    {
      op: 'address.add',
      netns: ONE,
      ifname: BR0,
      address: makeAddress(parsePrefixedIp('fd00::1/64')),
    },
    { op: 'vlan.del', netns: ONE, ifname: V0, self: false, first: 1, last: 1 },
    { op: 'link.rename', netns: ONE, ifname: BR0, name: V2 },
    remove(V1),
    remove(BR0),
  ],
};

const ACROSS: World = {
  name: 'names, and links between two netns',
  base: [...universeOps([ONE, TWO], PINS), veth(V0, V0, TWO)],
  alphabet: [
    veth(V1, V1, TWO),
    { op: 'link.move', netns: ONE, ifname: V0, toNetns: TWO },
    { op: 'link.move', netns: ONE, ifname: V1, toNetns: TWO },
    { op: 'link.move', netns: TWO, ifname: V0, toNetns: ONE },
    { op: 'link.rename', netns: ONE, ifname: V0, name: V1 },
    { op: 'link.rename', netns: TWO, ifname: V0, name: V1 },
    { op: 'altname.add', netns: ONE, ifname: V0, altname: V1 },
    { op: 'altname.del', netns: ONE, ifname: V0, altname: V1 },
    set(V0, { up: false }, TWO),
    set(V1, { up: false }),
    ...both('fd00::1/64').slice(0, 1),
    remove(V1),
    { op: 'netns.del', netns: TWO },
    { op: 'netns.add', netns: TWO },
  ],
};

const CLSACT = { kind: 'clsact' } as const;

const TRAFFIC: World = {
  name: 'traffic control',
  base: [...universeOps([ONE], PINS), veth(V0, V1), single('ifb', I0)],
  alphabet: [
    { op: 'qdisc.add', netns: ONE, ifname: V0, qdisc: CLSACT },
    { op: 'qdisc.add', netns: ONE, ifname: V1, qdisc: CLSACT },
    {
      op: 'qdisc.add',
      netns: ONE,
      ifname: I0,
      qdisc: { kind: 'tbf', ...tokenBucket(125_000, 10_000) },
    },
    {
      op: 'qdisc.add',
      netns: ONE,
      ifname: V0,
      qdisc: { kind: 'tbf', ...tokenBucket(125_000, 10_000) },
    },
    { op: 'qdisc.del', netns: ONE, ifname: V0, at: 'ingress' },
    { op: 'qdisc.del', netns: ONE, ifname: V0, at: 'root' },
    { op: 'filter.add', netns: ONE, ifname: V0, redirect: I0 },
    { op: 'filter.add', netns: ONE, ifname: V1, redirect: V0 },
    { op: 'filter.del', netns: ONE, ifname: V0 },
    set(V0, { txQueueLength: 0 }),
    { op: 'link.rename', netns: ONE, ifname: I0, name: V2 },
    remove(I0),
    remove(V0),
  ],
};

const TABLE = { family: 'inet', table: 'fuzz' } as const;
const NAT: ChainHook = { type: 'nat', hook: 'postrouting', priority: 100, policy: 'accept' };

function nft(...commands: readonly NftCommand[]): Op {
  return { op: 'nft.batch', netns: ONE, commands };
}

function rule(chain: string, ...statements: readonly Statement[]): NftCommand {
  return { ...TABLE, do: 'add rule', chain, rule: { statements, comment: '' } };
}

const ELEMENT = { key: parseIp('10.0.0.1'), verdict: null, comment: '' } as const;

const NFTABLES: World = {
  name: 'a ruleset',
  base: [
    ...universeOps([ONE], PINS),
    nft(
      { ...TABLE, do: 'add table' },
      { ...TABLE, do: 'add chain', chain: 'base', hook: NAT },
      { ...TABLE, do: 'add chain', chain: 'other', hook: null },
    ),
  ],
  alphabet: [
    nft({ ...TABLE, do: 'add chain', chain: 'third', hook: null }),
    nft({ ...TABLE, do: 'add chain', chain: 'base', hook: { ...NAT, policy: 'drop' } }),
    nft({ ...TABLE, do: 'add chain', chain: 'other', hook: NAT }),
    nft(rule('base', { kind: 'verdict', verdict: 'jump', chain: 'other' })),
    nft(rule('other', { kind: 'verdict', verdict: 'goto', chain: 'third' })),
    nft(rule('third', { kind: 'verdict', verdict: 'jump', chain: 'other' })),
    nft(rule('other', { kind: 'verdict', verdict: 'jump', chain: 'base' })),
    nft(
      rule(
        'base',
        { kind: 'lookup', field: 'ip saddr', negate: false, set: 'v4' },
        { kind: 'masquerade' },
      ),
    ),
    nft({ ...TABLE, do: 'add set', set: 'v4', keyType: 'ipv4_addr', holds: 'nothing' }),
    nft({ ...TABLE, do: 'add set', set: 'v4', keyType: 'ipv4_addr', holds: 'verdict' }),
    nft({ ...TABLE, do: 'add element', set: 'v4', element: ELEMENT }),
    nft({ ...TABLE, do: 'delete element', set: 'v4', key: ELEMENT.key }),
    nft({ ...TABLE, do: 'flush chain', chain: 'base' }),
    nft({ ...TABLE, do: 'delete chain', chain: 'other' }),
    nft({ ...TABLE, do: 'delete set', set: 'v4' }),
    nft({ ...TABLE, do: 'delete table' }),
    nft({ ...TABLE, do: 'add table' }),
  ],
};

function policyRules(choice: Parameters<typeof makePolicyRule>[0]): Op[] {
  const made = makePolicyRule(choice);
  return [
    { op: 'rule.add', netns: ONE, rule: made },
    { op: 'rule.del', netns: ONE, rule: made },
  ];
}

const RULES: World = {
  name: 'policy rules and the tables that they choose',
  base: [
    ...universeOps([ONE], PINS),
    veth(V0, V1),
    {
      op: 'address.add',
      netns: ONE,
      ifname: V0,
      address: makeAddress(parsePrefixedIp('10.0.0.1/24')),
    },
  ],
  alphabet: [
    ...policyRules({ family: 4, priority: 100, table: 100 }),
    ...policyRules({ family: 4, priority: 100, table: 100, source: parsePrefix('10.0.0.0/24') }),
    ...policyRules({
      family: 4,
      priority: 50,
      action: 'prohibit',
      destination: parsePrefix('10.0.0.9/32'),
    }),
    ...policyRules({ family: 6, priority: 100, table: 100, iif: V0 }),
    { op: 'rule.del', netns: ONE, rule: makePolicyRule({ family: 4, priority: 0, table: 255 }) },
    ...routes({ destination: '10.1.0.0/16', device: V0, gateway: parseIp('10.0.0.9') }),
    ...routes({ destination: '10.0.0.9/32', device: V0, table: 100 }),
    ...routes({ destination: '10.2.0.0/16', device: V0, gateway: parseIp('10.0.0.9'), table: 100 }),
  ],
};

/** All of them. */
export const WORLDS: readonly World[] = [ADDRESSES, BRIDGES, ACROSS, TRAFFIC, NFTABLES, RULES];

/** How many programs of one to `length` operations a world has. */
export function countPrograms({ alphabet }: World, length: number): number {
  let count = 0;
  for (let n = 1; n <= length; n += 1) count += alphabet.length ** n;
  return count;
}

/** The host that a world begins with. */
export function hostOf({ base }: World, kernel: KernelProfile): Host {
  return base.reduce(
    (host, op) => {
      const outcome = applyOp(host, op);
      if (!outcome.ok) throw new Error(`${JSON.stringify(op)}: ${outcome.fault.errno}`);
      return outcome.host;
    },
    { netns: {}, kernel } as Host,
  );
}

/**
 * Programs that stand for all of up to `length` operations. What the model says changes nothing, a refusal above all, is
 * tried where a program stands, all of it in a row: the state is the same before and after, which the comparison at its
 * end makes sure of. So only what changes something leads on.
 */
export function* standingPrograms(
  world: World,
  length: number,
  kernel: KernelProfile,
): Generator<readonly Op[]> {
  const walk = function* walk(ops: readonly Op[], host: Host): Generator<readonly Op[]> {
    if (ops.length === length) {
      yield [...world.base, ...ops];
      return;
    }
    const text = canonicalJson(host);
    const idle: Op[] = [];
    const leading: (readonly [Op, Host])[] = [];
    for (const op of world.alphabet) {
      const outcome = applyOp(host, op);
      if (outcome.ok && canonicalJson(outcome.host) !== text) leading.push([op, outcome.host]);
      else idle.push(op);
    }
    yield [...world.base, ...ops, ...idle];
    for (const [op, after] of leading) yield* walk([...ops, op], after);
  };
  yield* walk([], hostOf(world, kernel));
}
