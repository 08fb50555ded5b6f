import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Host } from '../../model/host.ts';
import { parseIp } from '../../model/ip.ts';
import { findingsOf } from '../../sim/findings/all.ts';
import { formatJourney, travel } from '../../sim/journey.ts';
import {
  type LegacyTable,
  type LegacyTables,
  deciding,
  tableText,
} from '../../sim/legacy-table.ts';
import { type ProbeRequest, probe } from '../../sim/probe.ts';
import { formatReach } from '../../sim/reach-text.ts';
import { reachDelta } from '../../sim/reach.ts';
import type { Hop, Trace } from '../../sim/trace.ts';
import { makeWorld } from '../../sim/world.ts';
import { legacyTablesIn } from '../arbitraries/legacy-table.ts';
import { C4, C6, set, sysctl } from '../broken/broken-host.ts';
import { ROUTED, ROUTED_DESTINATIONS, ROUTED_SENDERS, breakageLists, carriedOut } from './hosts.ts';
import { applyAll } from './pods.ts';

type HookName = LegacyTable['chains'][number]['hook'];

function table(
  name: string,
  hooks: readonly HookName[],
  family: LegacyTable['family'] = 'ip',
): LegacyTable {
  const chains = hooks.map((hook) => ({ hook, rules: 1, policy: 'accept' as const }));
  return { family, name, chains };
}

const ALL_HOOKS = ['prerouting', 'input', 'forward', 'output', 'postrouting'] as const;

/** A way through the router, unless something else is said. */
function ask(
  legacyTables: LegacyTables,
  host: Host = ROUTED,
  more: Partial<ProbeRequest> = {},
): Trace {
  const request = { netns: 'a', destination: parseIp(C4), ...more };
  return probe(makeWorld(host, legacyTables), request);
}

/** Where which tables were passed. */
function passed({ hops }: Pick<Trace, 'hops'>): string[] {
  return hops.flatMap(({ netns, link, lookedUp }) =>
    lookedUp?.kind === 'legacy table'
      ? [`${netns} ${link} ${lookedUp.hook} ${lookedUp.table}`]
      : [],
  );
}

/** Whose packets were seen. */
function families({ hops }: Trace): Set<string> {
  return new Set(
    hops.flatMap(({ lookedUp }) => (lookedUp?.kind === 'legacy table' ? [lookedUp.family] : [])),
  );
}

/** What a hop says. */
function told({ netns, link, stage, decision, dropped }: Hop): unknown {
  return [netns, link, stage, decision, dropped];
}

function decides({ rules, policy }: LegacyTable['chains'][number]): boolean {
  return rules > 0 || policy === 'drop';
}

/** How many chains may do something. */
function count(tables: LegacyTables): number {
  const all = Object.values(tables).flat();
  return all.flatMap(({ chains }) => chains).filter(decides).length;
}

describe('a table of iptables-legacy', () => {
  it('is passed where it has a chain, there and back', () => {
    expect(passed(ask({ node: [table('filter', ['input', 'forward'])] }))).toEqual([
      'node cni0 forward filter',
      'node cni1 forward filter',
    ]);
    expect(passed(ask({ a: [table('filter', ['input', 'output'])] }))).toEqual([
      'a eth0 output filter',
      'a eth0 input filter',
    ]);
    expect(passed(ask({ node: [table('filter', ['input', 'output'])] }))).toEqual([]);
    expect(passed(ask({ d: [table('filter', ['forward'])] }))).toEqual([]);
  });

  it('is passed in the order of priorities, of which nat has the first packet of a connection only', () => {
    const names = ['security', 'filter', 'nat', 'mangle', 'raw'];
    const tables = names.map((name) => table(name, ALL_HOOKS));
    expect(passed(ask({ node: tables }))).toEqual([
      ...['raw', 'mangle', 'nat', 'filter', 'security'].map(
        (name) => `node cni0 prerouting ${name}`,
      ),
      ...['raw', 'mangle', 'filter', 'security'].map((name) => `node cni0 forward ${name}`),
      ...['raw', 'mangle', 'filter', 'security', 'nat'].map(
        (name) => `node cni1 postrouting ${name}`,
      ),
      ...['prerouting', 'forward'].flatMap((hook) =>
        ['raw', 'mangle', 'filter', 'security'].map((name) => `node cni1 ${hook} ${name}`),
      ),
      ...['raw', 'mangle', 'filter', 'security'].map((name) => `node cni0 postrouting ${name}`),
    ]);
  });

  it('sees packets of its family, and what neighbours ask each other', () => {
    const every = (['ip', 'ip6', 'arp'] as const).map((family) =>
      table('filter', ['input', 'forward', 'output'], family),
    );
    const of4 = ask({ node: every });
    expect(families(of4)).toEqual(new Set(['ip', 'arp']));
    expect(families(ask({ node: every }, ROUTED, { destination: parseIp(C6) }))).toEqual(
      new Set(['ip6']),
    );
    expect(passed(ask({ node: every.slice(2) }))).toEqual([
      'node cni0 input filter',
      'node cni0 output filter',
      'node cni1 output filter',
      'node cni1 input filter',
    ]);
  });

  it('sees what a bridge forwards, where that is switched on', () => {
    const tables = { node: [table('filter', ['forward'])] };
    const on = applyAll(ROUTED, [sysctl('node', 'net/bridge/bridge-nf-call-iptables', '1')]);
    const request = { destination: parseIp('10.244.1.3') };
    expect(passed(ask(tables, ROUTED, request))).toEqual([]);
    expect(passed(ask(tables, on, request))).toEqual([
      'node cni0 forward filter',
      'node cni0 forward filter',
    ]);
  });

  it('changes nothing, whatever it is and whatever is broken', () => {
    fc.assert(
      fc.property(
        breakageLists(),
        legacyTablesIn(ROUTED_SENDERS),
        fc.constantFrom(...ROUTED_SENDERS),
        fc.constantFrom(...ROUTED_DESTINATIONS),
        (ops, tables, netns, destination) => {
          const { host } = carriedOut(ROUTED, ops);
          const plain = ask({}, host, { netns, destination });
          const beside = ask(deciding(tables), host, { netns, destination });
          expect(beside.verdict).toEqual(plain.verdict);
          expect(beside.error).toEqual(plain.error);
          const others = beside.hops.filter(({ lookedUp }) => lookedUp?.kind !== 'legacy table');
          expect(others.map(told)).toEqual(plain.hops.map(told));
        },
      ),
      { numRuns: 200 },
    );
  });

  it('that is empty and accepts decides nothing', () => {
    fc.assert(
      fc.property(legacyTablesIn(ROUTED_SENDERS), (tables) => {
        const left = Object.values(deciding(tables)).flat();
        for (const { chains } of left) {
          expect(chains).not.toEqual([]);
          expect(chains.every(decides)).toBe(true);
        }
        expect(count(deciding(tables))).toBe(count(tables));
      }),
    );
  });
});

describe('a journey past tables that are not read', () => {
  it('is known as far as none was passed, and names those that were', () => {
    fc.assert(
      fc.property(
        legacyTablesIn(ROUTED_SENDERS),
        fc.constantFrom(...ROUTED_SENDERS),
        fc.constantFrom(...ROUTED_DESTINATIONS),
        (all, netns, destination) => {
          const tables = deciding(all);
          const world = makeWorld(ROUTED, tables);
          const {
            forward,
            return: back,
            unread,
            reachable,
            verdict,
          } = travel(world, {
            netns,
            destination,
          });
          const [there, whole] = [
            passed({ hops: forward }),
            passed({ hops: [...forward, ...back] }),
          ];
          if (back.length > 0) expect(reachable.there).toBe(there.length === 0 ? true : null);
          if (verdict.kind === 'delivered')
            expect(reachable.back).toBe(whole.length === 0 ? true : null);
          if (verdict.kind === 'dropped') expect(reachable.back).toBe(false);
          expect(unread.length === 0).toBe(whole.length === 0);
          for (const { netns: of, object, hooks } of unread) {
            const named = tables[of]?.find((each) => tableText(each) === object);
            expect(named?.chains.map(({ hook }) => hook)).toEqual(
              expect.arrayContaining([...hooks]),
            );
          }
        },
      ),
    );
  });

  it('says on what its end hangs, and how to see that', () => {
    const tables = { node: [table('filter', ['forward']), table('nat', ALL_HOOKS)] };
    const request = { netns: 'a', destination: parseIp(C4) };
    const closing = (host: Host, all: LegacyTables): string[] => {
      const lines = formatJourney(travel(makeWorld(host, all), request));
      return lines.slice(lines.findIndex((line) => /^[✓✗?]/.test(line)));
    };
    expect(closing(ROUTED, tables)).toEqual([
      '? it arrives, and the answer too, unless one of 2 tables that are not read drops or changes it',
      '  netns node: table filter of iptables-legacy is not read (forward)',
      "    nsenter --net='/run/netns/node' iptables-legacy -t filter -S",
      '  netns node: table nat of iptables-legacy is not read (postrouting, prerouting)',
      "    nsenter --net='/run/netns/node' iptables-legacy -t nat -S",
    ]);
    const off = applyAll(ROUTED, [sysctl('node', 'net/ipv4/ip_forward', '0')]);
    expect(
      closing(off, { a: [table('mangle', ['output'])], node: tables.node.slice(0, 1) }),
    ).toEqual([
      '✗ it does not arrive, unless a table that is not read changes it',
      '  netns node: sysctl net.ipv4.ip_forward is 0, so that nothing is passed on to 10.244.2.4',
      "    nsenter --net='/run/netns/node' sysctl -w net.ipv4.ip_forward=1",
      '  netns a: table mangle of iptables-legacy is not read (output)',
      "    nsenter --net='/run/netns/a' iptables-legacy -t mangle -S",
    ]);
    expect(closing(ROUTED, { d: tables.node })).toEqual(['✓ it arrives, and the answer too']);
  });
});

describe('what else is said of tables that are not read', () => {
  it('is one note for all netns that have them', () => {
    const [forward, nat] = [table('filter', ['forward']), table('nat', ALL_HOOKS, 'ip6')];
    const inMany = Object.fromEntries(ROUTED_SENDERS.map((netns) => [netns, [forward]]));
    const found = findingsOf(ROUTED, { ...inMany, c: [forward, nat] });
    expect(found.map(({ netns, object, mend }) => [netns, object, mend])).toEqual([
      [
        'node',
        'table filter of iptables-legacy',
        ["nsenter --net='/run/netns/node' iptables-legacy -t filter -S"],
      ],
      [
        'c',
        'table nat of ip6tables-legacy',
        ["nsenter --net='/run/netns/c' ip6tables-legacy -t nat -S"],
      ],
    ]);
    expect(found[0]?.text).toContain('nor in 4 other netns');
    expect(found[0]?.evidence).toEqual([
      'netns node: table filter of iptables-legacy: forward has 1 rule',
      'netns a: table filter of iptables-legacy: forward has 1 rule',
      'netns b: table filter of iptables-legacy: forward has 1 rule',
      'and 2 more',
    ]);
  });

  it('stands under what a change connects and cuts', () => {
    const after = applyAll(ROUTED, [set('c', 'eth0', { up: false })]);
    const tables = { node: [table('filter', ['forward'])], d: [table('raw', ['prerouting'])] };
    const there = reachDelta(ROUTED, after, 100_000, tables);
    const back = reachDelta(after, ROUTED, 100_000, tables);
    expect(there.unread.map(({ netns, hooks }) => [netns, hooks])).toEqual([
      ['d', ['prerouting']],
      ['node', ['forward']],
    ]);
    expect({ ...back, connected: back.cut, cut: back.connected }).toEqual(there);
    expect(formatReach(there)).toContain(
      'note: netns node: table filter of iptables-legacy is not read, and taken to let everything on\n',
    );
    const { unread, ...known } = there;
    expect({ ...known, unread: [] }).toEqual(reachDelta(ROUTED, after, 100_000));
    expect(unread).toHaveLength(2);
  });
});
