/**
 * Random programs of operations over a small universe of names, where collisions are the point. A
 * program is a list of seeds; each is resolved against the host as the model has it by then, so that
 * most operations make sense and the others are near misses.
 */
import fc from 'fast-check';
import { makeAddress } from '../../model/address.ts';
import type { Host, NetnsName } from '../../model/host.ts';
import { findNetns } from '../../model/host.ts';
import type { Ifname } from '../../model/ifname.ts';
import { familyOf, parseIp } from '../../model/ip.ts';
import type { Link } from '../../model/link.ts';
import { parseMac } from '../../model/mac.ts';
import type { NftCommand, SetElement, Statement, Verdict } from '../../model/nftables.ts';
import type { Op } from '../../model/op.ts';
import { applyOp } from '../../model/ops.ts';
import type { LinkAttribute } from '../../model/ops/link-set.ts';
import { parsePrefix, parsePrefixedIp } from '../../model/prefix.ts';
import { PROTOCOL_KERNEL, makeRoute } from '../../model/route.ts';

/** Numbers that decide one operation: the first its kind, the others its parameters. */
export type OpSeed = readonly number[];

const SEED_LENGTH = 8;

/** Draws from a seed in order; runs on with zeros at its end, which shrinking leads to. */
interface Draw {
  /** One of `items`. */
  readonly of: <T>(items: readonly T[]) => T;
  /** True in about one of `n` draws. */
  readonly oneIn: (n: number) => boolean;
}

function drawFrom(seed: OpSeed): Draw {
  let at = 1;
  const next = (): number => seed[at++] ?? 0;
  return {
    of: (items) => items[next() % items.length] as (typeof items)[number],
    oneIn: (n) => next() % n === n - 1,
  };
}

const BRIDGES = ['br0', 'br1'] as Ifname[];
const VETHS = ['v0', 'v1', 'v2', 'v3'] as Ifname[];
const MACS = [
  '02:00:00:00:00:01',
  '02:00:00:00:00:02',
  '02:00:00:00:00:0a',
  '02:00:00:00:0b:00',
].map(parseMac);
const MTUS = [1500, 1400, 9000, 1280];
const MTU_MISSES = [67, 65536, 1279];
const ADDRESSES = [
  '10.0.0.1/24',
  '10.0.0.2/24',
  '10.0.0.3/24',
  '10.0.0.1/16',
  '10.0.1.2/31',
  '10.9.9.9/32',
  '192.168.5.1/30',
  'fd00::1/64',
  'fd00::2/64',
  'fd01::1/128',
  'fd02::7/112',
].map(parsePrefixedIp);
const DESTINATIONS = [
  '0.0.0.0/0',
  '10.1.0.0/16',
  '10.0.0.0/24',
  '10.0.0.77/32',
  '::/0',
  'fd05::/64',
  'fd00::/64',
].map(parsePrefix);
const GATEWAYS = [
  '10.0.0.254',
  '10.0.0.2',
  '10.0.1.3',
  '10.77.0.1',
  '192.168.5.2',
  'fd00::fe',
  'fd00::2',
  'fd77::1',
  'fd02::8',
].map(parseIp);
const CHAINS = ['base', 'other', 'third'];
const SETS = ['v4', 'v6', 'map4'];

function linksOf(host: Host, netns: NetnsName): Link[] {
  return Object.values(findNetns(host, netns)?.links ?? {}).filter(
    (link) => link.kind !== 'loopback',
  );
}

/** The name of a link that is there, or now and then of one that may not be. */
function someLink(host: Host, netns: NetnsName, draw: Draw): Ifname {
  const names = linksOf(host, netns).map((link) => link.ifname);
  return names.length === 0 || draw.oneIn(8) ? draw.of([...VETHS, ...BRIDGES]) : draw.of(names);
}

function linkAdd(netns: NetnsName, universe: readonly NetnsName[], host: Host, draw: Draw): Op {
  const end = {
    mac: draw.of(MACS),
    mtuBytes: draw.oneIn(10) ? draw.of(MTU_MISSES) : draw.of(MTUS),
    up: draw.oneIn(3),
  };
  if (draw.oneIn(3))
    return { op: 'link.add', netns, link: { kind: 'bridge', ifname: draw.of(BRIDGES), ...end } };
  const bridges = linksOf(host, netns)
    .filter((l) => l.kind === 'bridge')
    .map((l) => l.ifname);
  const peer = {
    netns: draw.of(universe),
    ifname: draw.of(VETHS),
    mac: draw.of(MACS),
    mtuBytes: draw.of(MTUS),
    up: draw.oneIn(3),
  };
  const master = draw.oneIn(2) && bridges.length > 0 ? draw.of(bridges) : null;
  return {
    op: 'link.add',
    netns,
    link: { kind: 'veth', ifname: draw.of(VETHS), ...end, master, peer },
  };
}

function linkSet(netns: NetnsName, host: Host, draw: Draw): Op {
  const ifname = someLink(host, netns, draw);
  const sets: readonly (() => LinkAttribute)[] = [
    () => ({ up: true }),
    () => ({ up: true }),
    () => ({ up: false }),
    () => ({ mtuBytes: draw.oneIn(6) ? draw.of(MTU_MISSES) : draw.of(MTUS) }),
    () => ({ mac: draw.oneIn(6) ? parseMac('01:00:5e:00:00:01') : draw.of(MACS) }),
    () => ({ promiscuous: draw.oneIn(2) }),
    () => ({ alias: draw.of(['', 'cube-cni', 'some text']) }),
    () => ({ master: draw.of([...BRIDGES, null, ifname, ...VETHS.slice(0, 1)]) }),
    () => ({ master: draw.of(BRIDGES) }),
  ];
  return { op: 'link.set', netns, ifname, set: draw.of(sets)() };
}

function routeAdd(netns: NetnsName, host: Host, draw: Draw): Op {
  const destination = draw.of(DESTINATIONS);
  const family = familyOf(destination);
  const gateways = GATEWAYS.filter((ip) => familyOf(ip) === family);
  const own = linksOf(host, netns)
    .flatMap((l) => l.addresses)
    .filter((a) => familyOf(a.ip) === family)
    .map((a) => a.ip);
  const route = makeRoute({
    destination,
    device: someLink(host, netns, draw),
    gateway: draw.oneIn(3) ? null : draw.of(gateways),
    ...(draw.oneIn(3) ? { metric: 100 } : {}),
    ...(draw.oneIn(4) ? { source: draw.of(own.length > 0 ? own : gateways) } : {}),
    protocol: draw.of([3, 201]),
    onlink: draw.oneIn(6),
  });
  // Without a gateway there is nothing to be taken on trust.
  return {
    op: 'route.add',
    netns,
    route: route.gateway === null ? { ...route, onlink: false } : route,
  };
}

function nftCommand(draw: Draw): NftCommand {
  const ref = { family: 'inet' as const, table: 'fuzz' };
  const verdict = (): Verdict =>
    draw.of<Verdict>([
      { verdict: 'accept' },
      { verdict: 'return' },
      { verdict: 'goto', chain: draw.of(CHAINS) },
      { verdict: 'jump', chain: draw.of(CHAINS) },
    ]);
  const element = (): SetElement => {
    const set = draw.of([0, 1]);
    return set === 0
      ? {
          key: parseIp(draw.of(['10.0.0.1', '10.0.0.2'])),
          verdict: null,
          comment: draw.of(['', 'pod']),
        }
      : { key: parseIp(draw.of(['10.0.0.1', '10.0.0.2'])), verdict: verdict(), comment: '' };
  };
  const statements = (): Statement[] => [
    ...draw.of<Statement[]>([
      [],
      [
        {
          kind: 'match',
          field: 'ip daddr',
          negate: draw.oneIn(2),
          value: parsePrefix(draw.of(['10.0.0.0/24', '224.0.0.0/4', '10.0.0.8/29'])),
        },
      ],
      [
        {
          kind: 'match',
          field: 'ip6 daddr',
          negate: draw.oneIn(2),
          value: parsePrefix(draw.of(['fd00::/64', 'ff00::/8'])),
        },
      ],
      [{ kind: 'match', field: 'ip saddr', negate: false, value: parseIp('10.0.0.1') }],
      [{ kind: 'lookup', field: 'ip saddr', negate: draw.oneIn(2), set: 'v4' }],
    ]),
    ...draw.of<Statement[]>([
      [{ kind: 'verdict', ...verdict() }],
      [{ kind: 'vmap', field: 'ip saddr', map: 'map4' }],
      [{ kind: 'masquerade' }],
    ]),
  ];
  const commands: readonly (() => NftCommand)[] = [
    () => ({ ...ref, do: 'add table' }),
    () => ({ ...ref, do: 'add chain', chain: draw.of(CHAINS), hook: null }),
    () => ({
      ...ref,
      do: 'add chain',
      chain: 'base',
      hook: { type: 'nat', hook: 'postrouting', priority: 100, policy: 'accept' },
    }),
    () => ({
      ...ref,
      do: 'add set',
      set: draw.of(['v4', 'map4']),
      keyType: 'ipv4_addr',
      holds: draw.of(['nothing', 'verdict'] as const),
    }),
    () => ({ ...ref, do: 'add set', set: 'v4', keyType: 'ipv4_addr', holds: 'nothing' }),
    () => ({ ...ref, do: 'add set', set: 'map4', keyType: 'ipv4_addr', holds: 'verdict' }),
    () => ({ ...ref, do: 'add element', set: draw.of(SETS), element: element() }),
    () => ({
      ...ref,
      do: 'add rule',
      chain: draw.of(CHAINS),
      rule: { statements: statements(), comment: draw.of(['', 'why']) },
    }),
    () => ({
      ...ref,
      do: 'delete element',
      set: draw.of(SETS),
      key: parseIp(draw.of(['10.0.0.1', '10.0.0.2'])),
    }),
    () => ({
      ...ref,
      do: draw.of(['delete chain', 'flush chain'] as const),
      chain: draw.of(CHAINS),
    }),
    () => ({ ...ref, do: 'delete set', set: draw.of(SETS) }),
    () => ({ ...ref, do: 'delete table' }),
  ];
  return draw.of(commands)();
}

/** One seed drives several commands of a batch: each reads it from another place. */
function nftBatch(netns: NetnsName, host: Host, seed: OpSeed): Op {
  const rotated = (by: number): OpSeed => [...seed.slice(by), ...seed.slice(0, by)];
  const count = 1 + ((seed[SEED_LENGTH - 1] ?? 0) % 4);
  const commands = Array.from({ length: count }, (_, i) => nftCommand(drawFrom(rotated(i))));
  const start: NftCommand[] = findNetns(host, netns)?.nftables['inet fuzz']
    ? []
    : [{ family: 'inet', table: 'fuzz', do: 'add table' }];
  return { op: 'nft.batch', netns, commands: [...start, ...commands] };
}

const SYSCTLS: readonly (readonly [string, readonly string[]])[] = [
  ['net/ipv4/ip_forward', ['0', '1']],
  ['net/ipv6/conf/all/forwarding', ['0', '1']],
  ['net/ipv6/conf/IF/disable_ipv6', ['0', '1']],
  ['net/ipv4/conf/IF/promote_secondaries', ['0', '1']],
  ['net/ipv4/conf/IF/arp_notify', ['0', '1']],
];

/** The operation that a seed stands for, given the host as it is. */
export function resolveOp(host: Host, universe: readonly NetnsName[], seed: OpSeed): Op {
  const draw = drawFrom(seed);
  const netns = draw.of(universe);
  const kinds: readonly (() => Op)[] = [
    () => linkAdd(netns, universe, host, draw),
    () => linkAdd(netns, universe, host, draw),
    () => linkSet(netns, host, draw),
    () => linkSet(netns, host, draw),
    () => linkSet(netns, host, draw),
    () => ({
      op: 'address.add',
      netns,
      ifname: someLink(host, netns, draw),
      address: { ...makeAddress(draw.of(ADDRESSES)), noPrefixRoute: draw.oneIn(6) },
    }),
    () => ({
      op: 'address.add',
      netns,
      ifname: someLink(host, netns, draw),
      address: makeAddress(draw.of(ADDRESSES)),
    }),
    () => routeAdd(netns, host, draw),
    () => routeAdd(netns, host, draw),
    () => ({
      op: 'link.del',
      netns,
      ifname: draw.oneIn(8) ? ('lo' as Ifname) : someLink(host, netns, draw),
    }),
    () => ({
      op: 'port.set',
      netns,
      ifname: someLink(host, netns, draw),
      flag: draw.of(['hairpin', 'isolated', 'learning', 'flood']),
      on: draw.oneIn(2),
    }),
    () => {
      const ifname = someLink(host, netns, draw);
      const held = findNetns(host, netns)?.links[ifname]?.addresses ?? [];
      const address =
        held.length > 0 && !draw.oneIn(5) ? draw.of(held) : makeAddress(draw.of(ADDRESSES));
      return { op: 'address.del', netns, ifname, address };
    },
    () => {
      const held = (findNetns(host, netns)?.routes ?? []).filter(
        (r) => r.table === 254 && r.protocol !== PROTOCOL_KERNEL,
      );
      const missing = makeRoute({
        destination: draw.of(DESTINATIONS),
        device: someLink(host, netns, draw),
        metric: 77,
      });
      return {
        op: 'route.del',
        netns,
        route: held.length > 0 && !draw.oneIn(5) ? draw.of(held) : missing,
      };
    },
    () => ({
      op: 'neighbour.add',
      netns,
      ifname: someLink(host, netns, draw),
      neighbour: { ip: draw.of(GATEWAYS.slice(0, 2)), mac: draw.of(MACS) },
    }),
    () => ({
      op: 'neighbour.del',
      netns,
      ifname: someLink(host, netns, draw),
      ip: draw.of(GATEWAYS.slice(0, 2)),
    }),
    () => {
      const [key, values] = draw.of(SYSCTLS);
      return {
        op: 'sysctl.set',
        netns,
        key: key.replace('IF', someLink(host, netns, draw)),
        value: draw.of(values),
      };
    },
    () => nftBatch(netns, host, seed),
    () => nftBatch(netns, host, seed),
  ];
  return (kinds[(seed[0] ?? 0) % kinds.length] as () => Op)();
}

/** What a program starts with: fresh netns in which IPv6 makes no addresses and waits for nothing by itself. */
export function universeOps(universe: readonly NetnsName[]): Op[] {
  return universe.flatMap((netns): Op[] => [
    { op: 'netns.add', netns },
    { op: 'sysctl.set', netns, key: 'net/ipv6/conf/default/addr_gen_mode', value: '1' },
    { op: 'sysctl.set', netns, key: 'net/ipv6/conf/default/accept_dad', value: '0' },
    { op: 'sysctl.set', netns, key: 'net/ipv6/conf/all/forwarding', value: '0' },
    { op: 'sysctl.set', netns, key: 'net/ipv6/conf/default/disable_ipv6', value: '0' },
    { op: 'sysctl.set', netns, key: 'net/ipv4/conf/default/promote_secondaries', value: '0' },
    { op: 'sysctl.set', netns, key: 'net/ipv4/conf/default/arp_notify', value: '0' },
    { op: 'sysctl.set', netns, key: 'net/ipv4/ip_forward', value: '0' },
  ]);
}

/** The operations of a program and the host after each; one that is refused leaves the host as it was. */
export function runProgram(
  universe: readonly NetnsName[],
  seeds: readonly OpSeed[],
): { readonly ops: readonly Op[]; readonly host: Host } {
  let host: Host = { netns: {} };
  const ops: Op[] = [];
  const run = (op: Op): void => {
    ops.push(op);
    const outcome = applyOp(host, op);
    if (outcome.ok) host = outcome.host;
  };
  for (const op of universeOps(universe)) run(op);
  for (const seed of seeds) run(resolveOp(host, universe, seed));
  return { ops, host };
}

/** Seeds of programs of up to `maxLength` operations. */
export function programs(maxLength: number): fc.Arbitrary<OpSeed[]> {
  return fc.array(
    fc.array(fc.nat({ max: 5039 }), { minLength: SEED_LENGTH, maxLength: SEED_LENGTH }),
    { maxLength },
  );
}
