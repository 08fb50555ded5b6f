/** Rules of others in words, whatever they consist of; that the words are those of nft is asked on the kernel (test/linux/rule-text.test.ts). */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Expression, RawElement } from '../../model/nft-expression.ts';
import type { NftFamily, Statement } from '../../model/nftables.ts';
import { type RuleTable, ruleText } from '../../sim/rule-text/rule.ts';

const hex = fc
  .uint8Array({ minLength: 1, maxLength: 20 })
  .map((bytes) => [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join(''));
const register = fc.nat(19);
const SETS = ['__set0', '__map1', 'named'];

/** Expressions that stand in no order that makes sense. */
const expressions: fc.Arbitrary<Expression> = fc.oneof(
  fc.record({
    name: fc.constant('meta' as const),
    key: fc.constantFrom('mark', 'iifname', 'l4proto', 'nfproto', 'protocol'),
    to: register,
  }),
  fc.record({
    name: fc.constant('ct' as const),
    key: fc.constantFrom('state', 'saddr', 'proto-src', 'direction'),
    direction: fc.constantFrom('original', 'reply', null),
    to: register,
  }),
  fc.record({
    name: fc.constant('payload' as const),
    header: fc.constantFrom('network', 'transport'),
    offset: fc.nat(40),
    bytes: fc.integer({ min: 1, max: 20 }),
    to: register,
  }),
  fc.record({ name: fc.constant('immediate' as const), to: register, value: hex }),
  fc.record({
    name: fc.constant('bitwise' as const),
    from: register,
    to: register,
    mask: hex,
    xor: hex,
  }),
  fc.record({
    name: fc.constant('byteorder' as const),
    from: register,
    to: register,
    bytes: fc.constantFrom(2, 4),
    size: fc.constantFrom(2, 4),
  }),
  fc.record({
    name: fc.constant('cmp' as const),
    from: register,
    comparison: fc.constantFrom('eq', 'neq', 'lt', 'gte'),
    value: hex,
  }),
  fc.record({
    name: fc.constant('range' as const),
    from: register,
    low: hex,
    high: hex,
    negate: fc.boolean(),
  }),
  fc.record({
    name: fc.constant('lookup' as const),
    set: fc.constantFrom(...SETS),
    from: register,
    to: fc.oneof(register, fc.constantFrom('verdict', null)),
    negate: fc.boolean(),
  }),
  fc.record({ name: fc.constant('meta set' as const), key: fc.constant('mark'), from: register }),
  fc.record({
    name: fc.constant('nat' as const),
    side: fc.constantFrom('source', 'destination'),
    family: fc.constantFrom(4, 6),
    ip: fc.option(register),
    port: fc.option(register),
  }),
  fc.record({ name: fc.constant('redir' as const), port: fc.option(register) }),
  fc.constant({ name: 'masq' } as const),
);

const OPAQUE = ['log', 'ct', 'meta', 'limit', 'dynset', 'match limit', 'target LOG'];

const statements: fc.Arbitrary<Statement> = fc.oneof(
  expressions.map((detail) => ({ kind: 'opaque', expression: detail.name, detail }) as const),
  fc.constantFrom(...OPAQUE).map((expression) => ({ kind: 'opaque', expression }) as const),
  fc.constant({ kind: 'counter' } as const),
);

const rawElements: fc.Arbitrary<readonly RawElement[]> = fc
  .uniqueArray(
    fc.record(
      { key: hex, isEnd: fc.constant(true as const), data: hex, last: hex },
      { requiredKeys: ['key'] },
    ),
    { selector: ({ key }) => key },
  )
  .map((all) => all.toSorted((a, b) => (a.key < b.key ? -1 : 1)));

const tables: fc.Arbitrary<RuleTable> = fc
  .record({
    family: fc.constantFrom<NftFamily>('ip', 'ip6', 'inet', 'bridge'),
    sets: fc.constant({}),
    hasIntervals: fc.boolean(),
    fieldBytes: fc.array(fc.integer({ min: 1, max: 16 }), { minLength: 1, maxLength: 3 }),
    elements: rawElements,
  })
  .map(({ family, sets, ...set }) => ({
    family,
    sets,
    rawSets: Object.fromEntries(SETS.map((name) => [name, { ...set, name }])),
  }));

/** The names in parentheses. */
function named(text: string): string[] {
  return [...text.matchAll(/\(([^)]+)\)/g)].map(([, name = '']) => name);
}

function lookupOf(elements: readonly RawElement[], set = '__set0'): string {
  const rule = {
    statements: [
      { name: 'meta', key: 'l4proto', to: 0 },
      { name: 'cmp', from: 0, comparison: 'eq', value: '06' },
      { name: 'payload', header: 'transport', offset: 2, bytes: 2, to: 0 },
      { name: 'lookup', set, from: 0, to: null, negate: false },
    ].map((detail) => ({ kind: 'opaque', expression: detail.name, detail }) as Statement),
    comment: '',
  };
  const rawSets = { [set]: { name: set, hasIntervals: false, fieldBytes: [2], elements } };
  return ruleText(rule, { family: 'ip', sets: {}, rawSets });
}

function ports(count: number): RawElement[] {
  return Array.from({ length: count }, (_, i) => ({ key: (i + 1).toString(16).padStart(4, '0') }));
}

describe('rules of others in words', () => {
  it('name each expression that is not understood, in order, whatever is around them', () => {
    fc.assert(
      fc.property(fc.array(statements, { maxLength: 12 }), tables, (all, table) => {
        const opaque = all.flatMap((each) =>
          each.kind === 'opaque' && !each.detail ? [each.expression] : [],
        );
        expect(named(ruleText({ statements: all, comment: '' }, table))).toEqual(opaque);
      }),
    );
  });

  it('spell out a set that has no name, up to eight elements', () => {
    expect(lookupOf(ports(2))).toBe('tcp dport { 1, 2 }');
    expect(lookupOf(ports(8))).toBe('tcp dport { 1, 2, 3, 4, 5, 6, 7, 8 }');
    expect(lookupOf(ports(11))).toBe('tcp dport { 1, 2, 3, 4, 5, 6, 7, 8, ... 3 more }');
    expect(lookupOf(ports(2), 'web')).toBe('tcp dport @web');
  });
});
