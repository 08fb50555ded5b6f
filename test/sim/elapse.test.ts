import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Host, getNetns } from '../../model/host.ts';
import type { Ifname } from '../../model/ifname.ts';
import { parseIp } from '../../model/ip.ts';
import { parseMac } from '../../model/mac.ts';
import type { Op } from '../../model/op.ts';
import { announce, elapse } from '../../sim/elapse.ts';
import { type ProbeRequest, probe } from '../../sim/probe.ts';
import {
  type World,
  findLearnedPort,
  findNeighbourEntry,
  makeWorld,
  withHost,
} from '../../sim/world.ts';
import { ROUTED, ROUTED_DESTINATIONS, ROUTED_SENDERS } from './hosts.ts';
import { MASQUERADE } from './icmp-errors.ts';
import { TWO_PODS, applyAll } from './pods.ts';

const MASQUERADED = applyAll(ROUTED, [MASQUERADE]);

const requests: fc.Arbitrary<ProbeRequest> = fc.record({
  netns: fc.constantFrom(...ROUTED_SENDERS),
  destination: fc.constantFrom(...ROUTED_DESTINATIONS),
});

const pauses = fc.integer({ min: 0, max: 100_000 });

/** What somebody does: asks, then waits. */
const histories = fc.array(fc.tuple(requests, pauses), { minLength: 1, maxLength: 5 });

function live(world: World, history: readonly (readonly [ProbeRequest, number])[]): World {
  return history.reduce((before, [request, ms]) => elapse(probe(before, request).world, ms), world);
}

/** What nobody remembers any more: more than all that a world remembers for some time. */
const LONG_MS = 600_000;

function minutes(count: number): number {
  return count * 60_000;
}

const NODE_BRIDGE = { netns: 'node', ifname: 'cni0' as Ifname };

describe('time that passes', () => {
  it('is the same in one go and bit by bit', () => {
    fc.assert(
      fc.property(histories, pauses, pauses, fc.nat(), (history, a, b, seed) => {
        const world = live(makeWorld(MASQUERADED, {}, { seed }), history);
        expect(elapse(elapse(world, a), b)).toEqual(elapse(world, a + b));
      }),
    );
  });

  it('changes nothing when there is none, and nothing about the host ever', () => {
    fc.assert(
      fc.property(histories, pauses, (history, ms) => {
        const world = live(makeWorld(MASQUERADED), history);
        expect(elapse(world, 0)).toEqual(world);
        expect(elapse(world, ms)).toMatchObject({ nowMs: world.nowMs + ms, host: MASQUERADED });
      }),
    );
  });

  it('lets nobody arrive elsewhere than in a world in which nothing was sent yet', () => {
    fc.assert(
      fc.property(histories, requests, fc.nat(), (history, request, seed) => {
        const world = elapse(live(makeWorld(MASQUERADED, {}, { seed }), history), LONG_MS);
        const { verdict } = probe(world, request);
        expect(verdict).toEqual(probe(makeWorld(MASQUERADED), request).verdict);
      }),
    );
  });

  it('leaves no connection and nothing that a bridge has learned, however long', () => {
    fc.assert(
      fc.property(histories, fc.nat(), (history, seed) => {
        const world = elapse(live(makeWorld(MASQUERADED, {}, { seed }), history), LONG_MS);
        expect(world.connections).toEqual({});
        expect(world.fdb).toEqual({});
      }),
    );
  });

  it('is the same for the same seed', () => {
    fc.assert(
      fc.property(histories, fc.nat(), (history, seed) => {
        const worlds = [0, 1].map(() => live(makeWorld(MASQUERADED, {}, { seed }), history));
        expect(worlds[0]).toEqual(worlds[1]);
      }),
    );
  });

  it('does not go back', () => {
    for (const ms of [-1, Number.NaN])
      expect(() => elapse(makeWorld(TWO_PODS), ms)).toThrow(/time does not pass/);
  });
});

const A = { netns: 'a', ifname: 'eth0' as Ifname };
const B_IP = parseIp('10.244.1.3');
const B_MAC = parseMac('02:00:00:00:00:03');
const NEW_MAC = parseMac('02:00:00:00:00:33');
const TO_B = { netns: 'a', destination: B_IP };

/** Asks, and answers the world after it: it has to arrive. */
function reached(world: World, request: ProbeRequest): World {
  const { verdict, world: after } = probe(world, request);
  expect(verdict.kind).toBe('delivered');
  return after;
}

function stateAt(world: World, ms: number): string | undefined {
  return findNeighbourEntry(elapse(world, ms), A, B_IP)?.state;
}

describe('a neighbour', () => {
  const known = reached(makeWorld(TWO_PODS), TO_B);

  it('is reachable for half a minute, and then stale until it is needed', () => {
    expect(stateAt(known, 29_999)).toBe('reachable');
    expect(stateAt(known, 30_000)).toBe('stale');
    expect(stateAt(known, minutes(60))).toBe('stale');
  });

  it('is asked whether it is still there five seconds after it was needed', () => {
    const needed = reached(elapse(known, minutes(1)), TO_B);
    expect(stateAt(needed, 4_999)).toBe('delay');
    expect(stateAt(needed, 5_000)).toBe('reachable');
  });

  it('has failed three seconds after that where it does not answer', () => {
    const down: Op = { op: 'link.set', netns: 'b', ifname: 'eth0' as Ifname, set: { up: false } };
    const needed = reached(elapse(known, minutes(1)), TO_B);
    const gone = withHost(needed, applyAll(TWO_PODS, [down]));
    expect(stateAt(gone, 7_999)).toBe('probe');
    expect(stateAt(gone, 8_000)).toBe('failed');
  });

  it('is reachable for half to three halves of that by chance', () => {
    fc.assert(
      fc.property(fc.nat(), (seed) => {
        const world = reached(makeWorld(TWO_PODS, {}, { seed }), TO_B);
        expect(stateAt(world, 14_999)).toBe('reachable');
        expect(stateAt(world, 45_000)).toBe('stale');
      }),
    );
  });

  it('is so as long as its link is set to', () => {
    const key = 'net/ipv4/neigh/eth0/base_reachable_time_ms';
    const host = applyAll(TWO_PODS, [{ op: 'sysctl.set', netns: 'a', key, value: '7000' }]);
    const world = reached(makeWorld(host), TO_B);
    expect(stateAt(world, 6_999)).toBe('reachable');
    expect(stateAt(world, 7_000)).toBe('stale');
  });

  it('is so as usual where a setting is no number', () => {
    const key = 'net/ipv4/neigh/eth0/base_reachable_time_ms';
    const a = getNetns(TWO_PODS, 'a');
    // The kernel takes none of these, but a saved host may hold them.
    for (const value of ['', 'x', '-1', '1e400', 'NaN']) {
      const sysctls = { ...a.sysctls, [key]: value };
      const host = { netns: { ...TWO_PODS.netns, a: { ...a, sysctls } } };
      expect(stateAt(reached(makeWorld(host), TO_B), 29_999)).toBe('reachable');
    }
  });
});

/** Where the bridge knows pod b. */
function portAt(world: World, ms: number): Ifname | undefined {
  return findLearnedPort(elapse(world, ms), NODE_BRIDGE, B_MAC, 0);
}

describe('what a bridge has learned', () => {
  it('is forgotten five minutes after it was last seen', () => {
    // After five seconds the pod asks whether who pinged it is still there.
    const known = elapse(reached(makeWorld(TWO_PODS), TO_B), 5_000);
    expect(portAt(known, minutes(5) - 1)).toBe('v-b');
    expect(portAt(known, minutes(5))).toBeUndefined();
    const again = reached(elapse(known, minutes(4)), TO_B);
    expect(portAt(again, minutes(5) - 1)).toBe('v-b');
  });

  it('is nothing where it is set to forget at once', () => {
    const world = reached(makeWorld(TWO_PODS, {}, { ageingMs: 0 }), TO_B);
    expect(world.fdb).toEqual({});
  });
});

/** Pod b is made anew behind the same port, with another MAC. */
function replaced(): Host {
  const mac: Op = { op: 'link.set', netns: 'b', ifname: 'eth0' as Ifname, set: { mac: NEW_MAC } };
  return applyAll(TWO_PODS, [mac]);
}

describe('an address that another pod has now', () => {
  const moved = withHost(reached(makeWorld(TWO_PODS), TO_B), replaced());
  const told = { netns: 'b', ifname: 'eth0' as Ifname, ip: B_IP, mac: NEW_MAC };

  it('is not reached by who knew the one before, until its neighbour fails', () => {
    expect(probe(moved, TO_B).verdict).toMatchObject({ kind: 'dropped', reason: 'OTHERHOST' });
    // It is stale after half a minute, and from then on has failed eight seconds after it was needed.
    const needed = probe(elapse(moved, minutes(1)), TO_B);
    expect(needed.verdict).toMatchObject({ kind: 'dropped', reason: 'OTHERHOST' });
    expect(probe(elapse(needed.world, 7_999), TO_B).verdict.kind).toBe('dropped');
    expect(probe(elapse(needed.world, 8_000), TO_B).verdict.kind).toBe('delivered');
  });

  it('is reached at once when that is announced', () => {
    expect(probe(announce(moved, told), TO_B).verdict.kind).toBe('delivered');
  });

  it('is reached at once by IPv6 too', () => {
    const ip = parseIp('fd00:1::3');
    const to = { netns: 'a', destination: ip };
    const before = withHost(reached(makeWorld(TWO_PODS), to), replaced());
    expect(probe(before, to).verdict).toMatchObject({ reason: 'OTHERHOST' });
    expect(probe(announce(before, { ...told, ip }), to).verdict.kind).toBe('delivered');
  });
});
