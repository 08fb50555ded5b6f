/** Saved hosts, as they are written and read. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { formatSnapshot, parseSnapshot } from '../../plugin/format/snapshot-file.ts';
import { deciding } from '../../sim/legacy-table.ts';
import { legacyTablesIn } from '../arbitraries/legacy-table.ts';
import { ROUTED, ROUTED_SENDERS, breakageLists, carriedOut } from '../sim/hosts.ts';

type Json = Record<string, unknown>;

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
