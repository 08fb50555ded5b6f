/** Saved hosts, as they are written and read. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Host, getNetns } from '../../model/host.ts';
import { parseIp } from '../../model/ip.ts';
import type { Expression } from '../../model/nft-expression.ts';
import type { Chain, ChainHook, Rule, Statement, Table } from '../../model/nftables.ts';
import { formatSnapshot, fromSnapshot, parseSnapshot } from '../../plugin/format/snapshot-file.ts';
import { findingsOf } from '../../sim/findings/all.ts';
import { travel } from '../../sim/journey.ts';
import { type WholeHost, deciding } from '../../sim/legacy-table.ts';
import { makeWorld } from '../../sim/world.ts';
import { legacyTablesIn } from '../arbitraries/legacy-table.ts';
import { ROUTED, ROUTED_SENDERS, breakageLists, carriedOut } from '../sim/hosts.ts';
import { rulesets } from '../sim/rulesets.ts';

type Json = Record<string, unknown>;

/** The places of a JSON value below its top, each as the object or list that it is in and its key there. */
function placesOf(value: unknown): { readonly within: Json; readonly key: string }[] {
  if (typeof value !== 'object' || value === null) return [];
  const within = value as Json;
  return Object.keys(within).flatMap((key) => [{ within, key }, ...placesOf(within[key])]);
}

function opaque(...details: readonly Expression[]): Rule {
  const statements = details.map((detail): Statement => ({
    kind: 'opaque',
    expression: detail.name,
    detail,
  }));
  return { statements, comment: '' };
}

/** Rules of others: `iif cni0 tcp dport { 80, 7000 } ip daddr 10.244.2.4 jump other`, and a match of iptables. */
const OF_OTHERS: readonly Rule[] = [
  opaque(
    { name: 'meta', key: 'iif', to: 0 },
    { name: 'cmp', from: 0, comparison: 'eq', value: '05000000' },
    { name: 'payload', header: 'network', offset: 16, bytes: 4, to: 0 },
    { name: 'bitwise', from: 0, to: 0, mask: 'ffffff00', xor: '00000000' },
    { name: 'cmp', from: 0, comparison: 'eq', value: '0af40200' },
  ),
  opaque(
    { name: 'match', match: 'mark', mark: 1, mask: 1, invert: true },
    { name: 'meta', key: 'l4proto', to: 0 },
    { name: 'lookup', set: 'protocols', from: 0, to: 'verdict', negate: false },
  ),
  opaque(
    { name: 'ct', key: 'state', direction: null, to: 0 },
    { name: 'range', from: 0, low: '00000000', high: '00000002', negate: false },
    { name: 'immediate', to: 1, value: '0af40204' },
  ),
];

function chain(name: string, hook: ChainHook | null, rules: readonly Rule[]): Chain {
  return { name, hook, rules };
}

function withForeignRules(host: Host): Host {
  const node = getNetns(host, 'node');
  const forward = { type: 'filter', hook: 'forward', priority: 0, policy: 'accept' } as const;
  const table: Table = {
    family: 'inet',
    name: 'others',
    chains: {
      other: chain('other', null, OF_OTHERS.slice(0, 1)),
      forward: chain('forward', forward, OF_OTHERS),
    },
    sets: {},
    rawSets: {
      protocols: {
        name: 'protocols',
        hasIntervals: false,
        fieldBytes: [1],
        elements: [
          { key: '01', verdict: { verdict: 'jump', chain: 'other' } },
          { key: '3a', verdict: { verdict: 'goto', chain: 'other' } },
        ],
      },
    },
  };
  const changed = { ...node, nftables: { others: table }, ifindexes: { lo: 1, cni0: 5 } };
  return { ...host, netns: { ...host.netns, node: changed } };
}

/** Hosts with rules, ours and of others. */
const RULED = fc.oneof(
  rulesets().map((ops) => carriedOut(ROUTED, ops).host),
  fc.constant(withForeignRules(ROUTED)),
);

const QUESTIONS = ['10.244.1.3', '10.244.2.4', 'fd00:2::4'].map(
  (destination) => ({ netns: 'a', destination: parseIp(destination) }) as const,
);

const CHAIN = { hook: 'forward', rules: 1, policy: 'accept' };
const TABLE = { family: 'ip', name: 'filter', chains: [CHAIN] };

/** What is written of the routed host, with something changed. */
function saved(change: Json): string {
  const text = formatSnapshot({ host: ROUTED, legacyTables: {} });
  return JSON.stringify({ ...(JSON.parse(text) as Json), ...change });
}

describe('a snapshot', () => {
  it('says again what it was told', () => {
    fc.assert(
      fc.property(breakageLists(), legacyTablesIn(ROUTED_SENDERS), (ops, all) => {
        const whole = { host: carriedOut(ROUTED, ops).host, legacyTables: deciding(all) };
        expect(parseSnapshot(formatSnapshot(whole), 'host.json')).toEqual(whole);
      }),
      { numRuns: 20 },
    );
  });

  it('with any value in the place of another is refused, or answers as another host', () => {
    const told = { refused: 0, apart: 0, used: 0 };
    const others = fc.constantFrom(null, -1, 7, 'x', '', [], {}, true, 'forward', 'lo', '10.0.0.1');
    fc.assert(
      fc.property(RULED, fc.nat(), others, fc.nat(), (host, nth, other, donor) => {
        const file = JSON.parse(formatSnapshot({ host, legacyTables: {} })) as Json;
        const places = placesOf(file['host']);
        const place = places[nth % places.length];
        const from = places[donor % places.length];
        if (!place || !from) throw new Error('there is nothing to change');
        // Now and then something of the file itself, which is of the right kind more often.
        place.within[place.key] = donor % 3 === 0 ? other : structuredClone(from.within[from.key]);
        let whole: WholeHost;
        try {
          whole = parseSnapshot(JSON.stringify(file), 'host.json');
        } catch (error) {
          expect(String(error)).toContain('host.json is a damaged snapshot: ');
          told.refused += 1;
          return;
        }
        try {
          fromSnapshot('host.json', () => {
            const world = makeWorld(whole.host, whole.legacyTables);
            return [QUESTIONS.map((each) => travel(world, each)), findingsOf(whole.host)];
          });
          told.used += 1;
        } catch (error) {
          expect(String(error)).toContain('host.json is a damaged snapshot: ');
          told.apart += 1;
        }
      }),
      // Of a hundred some four do not fit together: none in so many is hardly ever.
      { numRuns: 400, endOnFailure: true },
    );
    for (const times of Object.values(told)) expect(times).toBeGreaterThan(0);
  }, 60_000);

  it.each([
    ['does what no rule does', { kind: 'lo' }, 'a rule cannot do "lo"'],
    [
      'leads to itself',
      { kind: 'verdict', verdict: 'goto', chain: 'forward' },
      'chain forward leads to itself',
    ],
  ])('whose chain %s is damaged', (_what, statement, why) => {
    const { host } = parseSnapshot(
      formatSnapshot({ host: withForeignRules(ROUTED), legacyTables: {} }),
      'host.json',
    );
    const { chains } = getNetns(host, 'node').nftables['others'] ?? {};
    const { rules = [] } = chains?.['forward'] ?? {};
    (rules as Rule[]).unshift({ statements: [statement as Statement], comment: '' });
    const go = (): unknown =>
      travel(makeWorld(host), { netns: 'a', destination: parseIp('10.244.2.4') });
    expect(() => fromSnapshot('host.json', go)).toThrow(
      `host.json is a damaged snapshot: its parts do not fit together: ${why}`,
    );
  });

  it('of format 1.0 has no tables of iptables-legacy', () => {
    const { legacyTables } = parseSnapshot(saved({ formatVersion: '1.0' }), 'host.json');
    expect(legacyTables).toEqual({});
  });

  it.each([
    ['none that is known', { node: [{ ...TABLE, family: 'bridge' }] }, 'node › 0 › family: '],
    ['without a name', { node: [{ ...TABLE, name: 7 }] }, 'node › 0 › name: '],
    ['without chains', { node: [{ family: 'ip', name: 'filter' }] }, 'node › 0 › chains: '],
    [
      'with a policy that no chain has',
      { node: [{ ...TABLE, chains: [{ ...CHAIN, policy: 'queue' }] }] },
      'node › 0 › chains › 0 › policy: ',
    ],
    [
      'with half a rule',
      { node: [{ ...TABLE, chains: [{ ...CHAIN, rules: 0.5 }] }] },
      'node › 0 › chains › 0 › rules: ',
    ],
    ['that are no list', { node: TABLE }, 'node: '],
    ['of nobody', [TABLE], ''],
  ])('with a table of iptables-legacy %s is damaged', (_what, legacyTables, place) => {
    const text = saved({ legacyTables });
    expect(() => parseSnapshot(text, 'host.json')).toThrow(
      `host.json is a damaged snapshot: legacyTables${place === '' ? '' : ' › '}${place}`,
    );
  });
});
