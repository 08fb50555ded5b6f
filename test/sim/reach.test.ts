import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { HOST_NETNS, type Host } from '../../model/host.ts';
import type { Ifname } from '../../model/ifname.ts';
import { familyOf } from '../../model/ip.ts';
import { planAdd } from '../../plugin/call/add.ts';
import { planRepair } from '../../plugin/call/check.ts';
import { planDel } from '../../plugin/call/del.ts';
import { parseConfig } from '../../plugin/cni/config.ts';
import { probe } from '../../sim/probe.ts';
import { formatReach } from '../../sim/reach-text.ts';
import { type Pair, endpointsOf, pairsOf, reachDelta, reachOf } from '../../sim/reach.ts';
import { makeWorld } from '../../sim/world.ts';
import {
  type Machine,
  afterOps,
  attachPod,
  makeMachine,
  plainHost,
  requestFor,
} from '../plugin/machine.ts';
import { ROUTED, breakageLists, carriedOut } from './hosts.ts';
import { addressOps, applyAll, netnsOps, routeOps, vethOps } from './pods.ts';

const ALL = 100_000;
const runs = { numRuns: 5 };

function brokenHosts(): fc.Arbitrary<Host> {
  return breakageLists().map((ops) => carriedOut(ROUTED, ops).host);
}

function textOf({ from, to }: Pair): string {
  return `${from.netns} ${from.ip} > ${to.netns} ${to.ip}`;
}

/** Who reaches whom, by asking everything that everybody has. */
function everyAnswer(host: Host): ReadonlySet<string> {
  const held = Object.entries(host.netns).flatMap(([netns, { links }]) =>
    Object.values(links).flatMap(({ kind, addresses }) =>
      kind === 'loopback' ? [] : addresses.map(({ ip, scope }) => ({ netns, ip, scope })),
    ),
  );
  const global = held.filter(({ scope }) => scope === 'global');
  const pairs = global.flatMap((from) => global.map((to) => ({ from, to })));
  const reached = pairs
    .filter(({ from, to }) => from.netns !== to.netns && familyOf(from.ip) === familyOf(to.ip))
    .filter(({ from, to }) => {
      const request = { netns: from.netns, source: from.ip, destination: to.ip };
      const { verdict, hops } = probe(makeWorld(host), request);
      // Somebody else may have the address too.
      const hasIt = hops.some(({ stage, netns }) => stage === 'deliver' && netns === to.netns);
      return verdict.kind === 'delivered' && hasIt;
    });
  return new Set(reached.map(textOf));
}

describe('what a change of a host connects and cuts', () => {
  it('is nothing where the hosts are equal', () => {
    fc.assert(
      fc.property(brokenHosts(), (host) => {
        const { connected, cut, unclear, tried, leftOut } = reachDelta(
          host,
          structuredClone(host),
          ALL,
        );
        expect([connected, cut, unclear]).toEqual([[], [], []]);
        expect(tried).toBe(pairsOf(endpointsOf(host)).length);
        expect(leftOut).toBe(0);
      }),
      runs,
    );
  });

  it('is the inverse for the change back, also where pairs are left out', () => {
    fc.assert(
      fc.property(brokenHosts(), brokenHosts(), fc.integer({ min: 2, max: 120 }), (a, b, most) => {
        const there = reachDelta(a, b, most);
        const { connected, cut, ...rest } = reachDelta(b, a, most);
        expect({ ...rest, connected: cut, cut: connected }).toEqual(there);
      }),
      runs,
    );
  });

  it('is the difference of what everybody asks of everybody', () => {
    fc.assert(
      fc.property(brokenHosts(), (after) => {
        const [was, is] = [everyAnswer(ROUTED), everyAnswer(after)];
        const { connected, cut } = reachDelta(ROUTED, after, ALL);
        expect(new Set(connected.map(textOf))).toEqual(is.difference(was));
        expect(new Set(cut.map(textOf))).toEqual(was.difference(is));
      }),
      runs,
    );
  });

  it('is that also where somebody takes the address of another', () => {
    const after = applyAll(ROUTED, addressOps('a', 'eth0', '10.244.1.3/24'));
    const { connected, cut } = reachDelta(ROUTED, after, ALL);
    const [was, is] = [everyAnswer(ROUTED), everyAnswer(after)];
    expect(new Set(connected.map(textOf))).toEqual(is.difference(was));
    expect(new Set(cut.map(textOf))).toEqual(was.difference(is));
    expect(cut.map(textOf)).toContain('a 10.244.1.2 > b 10.244.1.3');
  });

  it('says of how many pairs it is, and finds no others than all of them would', () => {
    fc.assert(
      fc.property(brokenHosts(), fc.integer({ min: 2, max: 100 }), (after, most) => {
        const all = reachDelta(ROUTED, after, ALL);
        const some = reachDelta(ROUTED, after, most);
        expect(some.tried).toBeLessThanOrEqual(most);
        expect(some.tried + some.leftOut).toBe(all.tried);
        expect(all.connected.map(textOf)).toEqual(
          expect.arrayContaining(some.connected.map(textOf)),
        );
        expect(all.cut.map(textOf)).toEqual(expect.arrayContaining(some.cut.map(textOf)));
        expect(formatReach(some).includes('not tried')).toBe(some.leftOut > 0);
      }),
      runs,
    );
  });

  it('tries those first whose netns the change is about', () => {
    const port = 'v-d' as Ifname;
    const after = applyAll(ROUTED, [
      { op: 'link.set', netns: 'node', ifname: port, set: { up: false } },
    ]);
    const all = reachDelta(ROUTED, after, ALL);
    const ofPort = pairsOf(endpointsOf(ROUTED)).filter(({ from, to }) =>
      [from, to].some(({ netns }) => netns === 'd' || netns === 'node'),
    );
    const some = reachDelta(ROUTED, after, ofPort.length);
    expect(some.tried).toBe(ofPort.length);
    expect(some.cut.length).toBeGreaterThan(0);
    expect(new Set(some.cut.map(textOf))).toEqual(new Set(all.cut.map(textOf)));
  });

  it('does not take the answer of another netns with the same address for that of the one meant', () => {
    const twin = applyAll(ROUTED, [
      ...netnsOps('twin'),
      ...vethOps(
        'far',
        'v',
        '02:00:00:00:02:01',
        null,
        'twin',
        'eth0',
        '02:00:00:00:02:02',
      ).flatMap((op) => [...netnsOps('far'), op]),
      ...addressOps('twin', 'eth0', '10.244.1.3/24'),
    ]);
    const [from] = endpointsOf(twin).filter(({ netns, ip }) => netns === 'a' && ip.includes('.'));
    const targets = endpointsOf(twin).filter(({ ip }) => ip === '10.244.1.3');
    expect(targets.map((to) => [to.netns, from && reachOf(twin, { from, to })])).toEqual([
      ['b', 'reached'],
      ['twin', 'lost'],
    ]);
  });
});

const CONFIG = {
  cniVersion: '1.0.0',
  name: 'podnet',
  isDefaultGateway: true,
  ipMasq: true,
  ipam: { type: 'cube-ipam', subnet: '10.244.1.0/24' },
};

/** A node with a way out and so many pods more, of which the first is not attached. */
function machineWith(others: number): Machine {
  const pods = Array.from({ length: others + 1 }, (_, index) => `/run/netns/pod${index}`);
  const machine = makeMachine(
    afterOps(plainHost('without link-local', pods), [
      ...addressOps(HOST_NETNS, 'uplink', '192.168.1.5/24'),
      ...routeOps(HOST_NETNS, 'uplink', '0.0.0.0/0', '192.168.1.1'),
    ]),
  );
  for (const pod of [1, 2].slice(0, others)) attachPod(machine, CONFIG, pod);
  return machine;
}

function textFor(before: Host, after: Host): string {
  return formatReach(reachDelta(before, after, ALL));
}

describe('the reach of a plan, for people', () => {
  it('of ADD, and of DEL', () => {
    const machine = machineWith(2);
    const request = requestFor('ADD', CONFIG, 0);
    const { plan } = planAdd(machine.start(), request, parseConfig(request.config));
    const before = machine.backend.host();
    expect(textFor(before, afterOps(before, plan.ops))).toMatchInlineSnapshot(`
      "reach
        + /run/netns/pod0 10.244.1.4  <->  /run/netns/pod1 10.244.1.2
        + /run/netns/pod0 10.244.1.4  <->  /run/netns/pod2 10.244.1.3
        + /run/netns/pod0 10.244.1.4  <->  host 10.244.1.1
        + /run/netns/pod0 10.244.1.4  <->  host 192.168.1.5
        + /run/netns/pod0 10.244.1.4  ->   the outside (192.0.2.1)
      Reach: 9 connected, 0 cut, of 23 pairs tried.
      "
    `);
    attachPod(machine, CONFIG, 0);
    const removal = planDel(machine.start(), request.key);
    const attached = machine.backend.host();
    expect(textFor(attached, afterOps(attached, removal?.plan.ops ?? []))).toMatchInlineSnapshot(`
      "reach
        - /run/netns/pod0 10.244.1.4  <->  /run/netns/pod1 10.244.1.2
        - /run/netns/pod0 10.244.1.4  <->  /run/netns/pod2 10.244.1.3
        - /run/netns/pod0 10.244.1.4  <->  host 10.244.1.1
        - /run/netns/pod0 10.244.1.4  <->  host 192.168.1.5
        - /run/netns/pod0 10.244.1.4  ->   the outside (192.0.2.1)
      Reach: 0 connected, 9 cut, of 23 pairs tried.
      "
    `);
  });

  it('of a repair', () => {
    const machine = machineWith(2);
    const whole = machine.backend.host();
    const port = Object.values(whole.netns[HOST_NETNS]?.links ?? {}).find((link) => link.port);
    const broken = applyAll(whole, [
      {
        op: 'link.set',
        netns: HOST_NETNS,
        ifname: port?.ifname ?? ('' as Ifname),
        set: { up: false },
      },
    ]);
    const damaged = makeMachine(broken, machine.state);
    const { plan } = planRepair(damaged.start(), requestFor('CHECK', CONFIG, 1).key);
    expect(textFor(broken, afterOps(broken, plan.ops))).toMatchInlineSnapshot(`
      "reach
        + /run/netns/pod1 10.244.1.2  <->  /run/netns/pod2 10.244.1.3
        + /run/netns/pod1 10.244.1.2  <->  host 10.244.1.1
        + /run/netns/pod1 10.244.1.2  <->  host 192.168.1.5
        + /run/netns/pod1 10.244.1.2  ->   the outside (192.0.2.1)
      Reach: 7 connected, 0 cut, of 14 pairs tried.
      "
    `);
  });

  it('of many pairs names some', () => {
    const after = applyAll(ROUTED, [
      { op: 'link.set', netns: 'node', ifname: 'v-b' as Ifname, set: { up: false } },
    ]);
    expect(textFor(ROUTED, after)).toMatchInlineSnapshot(`
      "reach
        - b 10.244.1.3  <->  6 endpoints: a 10.244.1.2, c 10.244.2.4, d 10.244.3.2 and 3 more
        - b fd00:1::3   <->  6 endpoints: a fd00:1::2, c fd00:2::4, d fd00:3::2 and 3 more
      Reach: 0 connected, 24 cut, of 86 pairs tried.
      "
    `);
  });

  it('of no change is that', () => {
    expect(textFor(ROUTED, ROUTED)).toBe('Reach: nothing changes.\n');
  });
});
