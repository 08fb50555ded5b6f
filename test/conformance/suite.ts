/** One suite for every backend: the same operations, the same answers, the same state. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { type ApplyReport, applyPlan } from '../../backends/apply.ts';
import type { Backend, NetnsScope, Scope } from '../../backends/backend.ts';
import { makeAddress } from '../../model/address.ts';
import { canonicalJson } from '../../model/canonical.ts';
import { type DesiredHost, desiredOf } from '../../model/desired.ts';
import type { Host } from '../../model/host.ts';
import { parseIp } from '../../model/ip.ts';
import { type KernelProfile, isSince } from '../../model/kernel-profile.ts';
import { parseMac } from '../../model/mac.ts';
import type { Op, OpName, OpOf } from '../../model/op.ts';
import { type Plan, planTo } from '../../model/plan.ts';
import { parsePrefix } from '../../model/prefix.ts';
import { TABLE_MAIN, makeRoute } from '../../model/route.ts';
import { BR0, ETH0, PAIR, type Program, type ProgramOutcome, V0 } from './program.ts';
import { PROGRAMS, TABLE } from './programs.ts';

/** A backend on which nothing is yet, and the names by which it is to know the netns of the programs. */
export interface Place {
  readonly backend: Backend;
  readonly names: Readonly<Record<'one' | 'two', string>>;
}

const FORWARD = 'net/ipv4/ip_forward';
const EVERYTHING: NetnsScope = {
  links: 'all',
  routes: 'all',
  sysctls: [FORWARD],
  nftables: 'all',
  policyRules: true,
  fdb: true,
  vlans: true,
  trafficControl: true,
};

const NOTHING: NetnsScope = { links: [], routes: 'none', sysctls: [], nftables: [] };

const NETNS_KEYS = new Set(['netns', 'toNetns', 'underlay']);

/** The same with netns by other names. */
function renamed<T>(value: T, names: Readonly<Record<string, string>>): T {
  const rename = (key: string, part: unknown): unknown =>
    NETNS_KEYS.has(key) && typeof part === 'string' ? (names[part] ?? part) : part;
  return JSON.parse(JSON.stringify(value), rename) as T;
}

function mapKeys<T>(record: Readonly<Record<string, T>>, names: Readonly<Record<string, string>>) {
  return Object.fromEntries(
    Object.entries(record).map(([key, value]) => [names[key] ?? key, value]),
  );
}

/** A backend that refuses one operation, the first being number 0. */
function failingAt(backend: Backend, index: number): Backend {
  let count = 0;
  return {
    ...backend,
    execute: (op) => {
      count += 1;
      return count - 1 === index ? { errno: 'EIO', text: 'injected' } : backend.execute(op);
    },
  };
}

/** An attachment as ADD makes it, but for its own words. */
const DESIRED: DesiredHost = {
  one: {
    links: {
      [BR0]: {
        kind: 'bridge',
        mac: parseMac('02:00:00:00:00:01'),
        mtuBytes: 1450,
        up: true,
        addresses: {
          present: [makeAddress({ ip: parseIp('10.1.0.1'), prefixLength: 24 })],
          others: 'keep',
        },
      },
      [V0]: {
        kind: 'veth',
        peer: { netns: 'two', ifname: ETH0 },
        mac: parseMac('02:00:00:00:00:02'),
        mtuBytes: 1450,
        alias: 'cube-cni net/pod/eth0',
        port: { master: BR0, hairpin: true },
        up: true,
      },
    },
    sysctls: { [FORWARD]: '1' },
    tables: {
      'inet conform': {
        family: 'inet',
        name: 'conform',
        chains: { masq: { name: 'masq', hook: null, rules: [] } },
        sets: {},
        others: 'keep',
      },
    },
  },
  two: {
    links: {
      [ETH0]: {
        kind: 'veth',
        peer: { netns: 'one', ifname: V0 },
        mac: parseMac('02:00:00:00:00:03'),
        mtuBytes: 1450,
        up: true,
        addresses: {
          present: [makeAddress({ ip: parseIp('10.1.0.2'), prefixLength: 24 })],
          others: 'keep',
        },
      },
    },
    routes: {
      present: [
        makeRoute({
          destination: parsePrefix('0.0.0.0/0'),
          device: ETH0,
          gateway: parseIp('10.1.0.1'),
        }),
      ],
      others: 'keep',
    },
  },
};

const ADDRESS: Op = {
  op: 'address.add',
  netns: 'two',
  ifname: ETH0,
  address: makeAddress({ ip: parseIp('10.1.0.2'), prefixLength: 24 }),
};

function defaultRoute(metric: number, gateway: string, table = TABLE_MAIN): OpOf<'route.add'> {
  const destination = parsePrefix('0.0.0.0/0');
  const route = makeRoute({ destination, device: ETH0, gateway: parseIp(gateway), metric, table });
  return { op: 'route.add', netns: 'two', route };
}

/** Where the routes of `two` in the table main lead, IPv4 only. */
function mainRoutes(host: Host): unknown {
  return host.netns['two']?.routes
    .filter((route) => route.table === TABLE_MAIN && !isIpv6(route))
    .map(({ destination }) => destination);
}

/** Two netns in which nothing forwards. */
const TWO: readonly Op[] = [
  { op: 'netns.add', netns: 'one' },
  { op: 'netns.add', netns: 'two' },
  { op: 'sysctl.set', netns: 'one', key: FORWARD, value: '0' },
  { op: 'sysctl.set', netns: 'two', key: FORWARD, value: '0' },
];

function isIpv6({ ip, destination }: { readonly ip?: string; readonly destination?: string }) {
  return (ip ?? destination ?? '').includes(':');
}

function texts(values: readonly unknown[]): string[] {
  return values.map(canonicalJson).toSorted();
}

/**
 * A host in a form that compares equal when nothing that its maker decides differs: what IPv6 makes by itself comes
 * some time after the carrier, and what a bridge remembers cannot be read.
 */
function comparable(host: Host): unknown {
  return Object.entries(host.netns).map(([name, netns]) => ({
    name,
    links: texts(
      Object.values(netns.links).map(({ addresses, ...link }) => ({
        ...link,
        ...(link.kind === 'bridge' ? { hadPorts: null, macChosen: null, mtuChosen: null } : {}),
        addresses: addresses.filter((address) => !isIpv6(address)),
      })),
    ),
    routes: texts(netns.routes.filter((route) => !isIpv6(route))),
    forward: netns.sysctls[FORWARD],
    nftables: netns.nftables,
  }));
}

/** What a program comes to on a kernel. */
function outcomeOn(kernel: KernelProfile, program: Program): ProgramOutcome {
  const { outcome, withoutVlans, onLinux61 } = program;
  if (withoutVlans !== undefined && !kernel.bridgeVlans) return withoutVlans;
  return onLinux61 === undefined || isSince(kernel, 6, 2) ? outcome : onLinux61;
}

/** Declares the suite for one backend over a kernel; `open` makes a place for each test. */
export function conformance(kernel: KernelProfile, open: () => Place): void {
  let place: Place;
  let back: Record<string, string>;

  beforeEach(() => {
    place = open();
    back = Object.fromEntries(Object.entries(place.names).map(([name, real]) => [real, name]));
  });
  afterEach(() => {
    for (const netns of Object.values(place.names))
      place.backend.execute({ op: 'netns.del', netns });
    place.backend.close();
  });

  const execute = (op: Op) => place.backend.execute(renamed(op, place.names));
  const must = (ops: readonly Op[]): void => {
    for (const op of ops) expect([op.op, execute(op)]).toEqual([op.op, undefined]);
  };
  const observe = (scope: Readonly<Record<string, NetnsScope>>): Host => {
    const { netns } = renamed(place.backend.observe(mapKeys(scope, place.names)), back);
    return { netns: mapKeys(netns, back) };
  };
  const all: Scope = { one: EVERYTHING, two: EVERYTHING };
  /** The tables read when these elements are asked for, and the elements. */
  const elements = (...pods: readonly string[]): string[][] => {
    const nftables = [
      { family: 'inet', table: 'conform', elements: { pods: pods.map(parseIp) } },
      { family: 'inet', table: 'none', elements: 'all' },
    ] as const;
    const { one } = observe({ one: { ...NOTHING, nftables } }).netns;
    const read = one?.nftables['inet conform']?.sets['pods']?.elements;
    return [Object.keys(one?.nftables ?? {}), Object.keys(read ?? {})];
  };
  const observeAll = (): Host => place.backend.observe(mapKeys(all, place.names));
  const plan = (): Plan => {
    const wish = mapKeys(renamed(DESIRED, place.names), place.names);
    const planning = planTo(observeAll(), wish);
    if (!planning.ok) throw new Error(`${planning.op.op}: ${planning.fault.errno}`);
    return planning.plan;
  };
  const apply = (backend: Backend, made: Plan): ApplyReport => {
    const retreat = { scope: mapKeys(all, place.names), wish: desiredOf(made.before) };
    return applyPlan(backend, made, retreat, () => 0);
  };

  describe.each(Object.keys(PROGRAMS) as OpName[])('%s', (kind) => {
    const programs = PROGRAMS[kind].filter(({ needsVlans }) => kernel.bridgeVlans || !needsVlans);
    test.each(programs.map((program) => [program.name, program] as const))(
      '%s',
      (_name, program: Program) => {
        const { given, op } = program;
        const outcome = outcomeOn(kernel, program);
        must(given);
        const before = observe(all);
        const errno = execute(op)?.errno;
        const after = observe(all);
        const [got, wanted] =
          typeof outcome === 'string'
            ? [comparable(after), { errno: outcome, state: comparable(before) }]
            : [outcome.see(after), { errno: undefined, state: outcome.is }];
        expect({ errno, state: got }).toEqual(wanted);
      },
    );
  });

  describe('observe', () => {
    test('what is not asked for is absent', () => {
      must([...PAIR, TABLE]);
      expect(observe({ one: NOTHING })).toEqual({
        netns: { one: { links: {}, routes: [], sysctls: {}, nftables: {} } },
      });
    });

    test('a netns that is none is absent', () => {
      must([{ op: 'netns.add', netns: 'one' }]);
      expect(Object.keys(observe(all).netns)).toEqual(['one']);
    });

    test('links by name, without those that are none; a peer only where it is read too', () => {
      must(PAIR);
      const { one } = observe({ one: { ...NOTHING, links: [V0, ETH0] } }).netns;
      expect(Object.keys(one?.links ?? {})).toEqual([V0]);
      expect(one?.links[V0]).toMatchObject({ peer: null, port: { master: BR0 } });
      const both = observe({
        one: { ...NOTHING, links: [V0] },
        two: { ...NOTHING, links: [ETH0] },
      });
      expect(both.netns['one']?.links[V0]).toMatchObject({ peer: { netns: 'two', ifname: ETH0 } });
    });

    test('routes of the links that are read', () => {
      must([...PAIR, ADDRESS]);
      expect(mainRoutes(observe({ two: { ...NOTHING, links: [ETH0], routes: 'all' } }))).toEqual([
        '10.1.0.0/24',
      ]);
      expect(mainRoutes(observe({ two: { ...NOTHING, routes: 'all' } }))).toEqual([]);
    });

    test('the default route with its link, and no other', () => {
      must([...PAIR, ADDRESS, defaultRoute(200, '10.1.0.7'), defaultRoute(100, '10.1.0.8')]);
      const { two } = observe({ two: { ...NOTHING, routes: 'default' } }).netns;
      expect(two?.routes.map(({ gateway, device }) => [gateway, device])).toEqual([
        ['10.1.0.8', ETH0],
      ]);
      expect(Object.keys(two?.links ?? {})).toEqual([ETH0]);
      expect(two?.links[ETH0]?.mtuBytes).toBe(1400);
    });

    test('the default route of the table main only', () => {
      const aside = defaultRoute(50, '10.1.0.9', 100);
      must([...PAIR, ADDRESS, aside, defaultRoute(100, '10.1.0.8')]);
      const { two } = observe({ two: { ...NOTHING, routes: 'default' } }).netns;
      expect(two?.routes.map(({ gateway }) => gateway)).toEqual(['10.1.0.8']);
    });

    test('where there is no default route, none', () => {
      must(PAIR);
      expect(observe({ two: { ...NOTHING, routes: 'default' } }).netns['two']).toEqual({
        links: {},
        routes: [],
        sysctls: {},
        nftables: {},
      });
    });

    test('elements by key', () => {
      must([...PAIR, TABLE]);
      expect(elements('10.1.0.2', '10.1.0.3')).toEqual([['inet conform'], ['10.1.0.2']]);
      expect(elements('10.1.0.3')).toEqual([['inet conform'], []]);
    });

    test('a sysctl that is none is absent', () => {
      must([...PAIR, { op: 'sysctl.set', netns: 'one', key: FORWARD, value: '1' }]);
      const sysctls = [FORWARD, 'net/ipv4/conf/gone0/forwarding'];
      expect(observe({ one: { ...NOTHING, sysctls } }).netns['one']?.sysctls).toEqual({
        [FORWARD]: '1',
      });
    });
  });

  describe('a plan', () => {
    test('is carried out: what the model foretold is there, and nothing is left to do', () => {
      must(TWO);
      const made = plan();
      const report = apply(place.backend, made);
      expect(report).toMatchObject({ failed: undefined, undo: [], clean: true });
      expect(report.ran.map(({ op }) => op)).toEqual(made.ops);
      expect(comparable(observeAll())).toEqual(comparable(made.after));
      expect(plan().ops).toEqual([]);
    });

    test.each([
      ['MTU', { mtuBytes: 1300 }],
      ['MSS', { advmssBytes: 1200 }],
      ['scope', { scope: 'site' }],
    ] as const)('replaces a route that has another %s', (_name, change) => {
      must(TWO);
      apply(place.backend, plan());
      const add = defaultRoute(0, '10.1.0.1');
      const other: OpOf<'route.add'> = { ...add, route: { ...add.route, ...change } };
      must([{ ...add, op: 'route.del' }, other]);
      const made = plan();
      expect(made.ops).toMatchObject([
        { op: 'route.del', route: other.route },
        { op: 'route.add', route: add.route },
      ]);
      expect(apply(place.backend, made)).toMatchObject({ failed: undefined, clean: true });
      expect(plan().ops).toEqual([]);
    });

    test.each([
      ['on an empty host', TWO],
      ['beside others', [...TWO, ...PAIR.slice(2, 3), TABLE]],
    ])('is undone when any of its operations fails, %s', (_name, given) => {
      must(given);
      const before = comparable(observeAll());
      const { length } = plan().ops;
      expect(length).toBeGreaterThan(8);
      for (let index = 0; index < length; index += 1) {
        const made = plan();
        const report = apply(failingAt(place.backend, index), made);
        expect(report.failed).toEqual({
          op: made.ops[index],
          fault: { errno: 'EIO', text: 'injected' },
        });
        expect(report.ran).toHaveLength(index + 1);
        expect(report.clean).toBe(true);
        expect(comparable(observeAll()), `at ${index}`).toEqual(before);
      }
    });
  });
}
