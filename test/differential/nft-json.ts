/** What `nft -j list ruleset` prints (libnftables-json(5)), as a ruleset of the model. */
import type { Ip } from '../../model/ip.ts';
import type {
  AddressField,
  Chain,
  ChainHook,
  LookupField,
  NftFamily,
  NftSet,
  Rule,
  Ruleset,
  SetElement,
  SetKey,
  SetKeyType,
  Statement,
  Table,
  Target,
  Verdict,
} from '../../model/nftables.ts';
import { tableKey } from '../../model/nftables.ts';
import type { Prefix } from '../../model/prefix.ts';

type VerdictJson = Readonly<Record<string, { readonly target: string } | null>>;
interface PayloadJson {
  readonly payload: { readonly protocol: string; readonly field: string };
}
type FieldJson = PayloadJson | { readonly meta: { readonly key: string } };
type JoinedJson = FieldJson | { readonly concat: readonly FieldJson[] };
type KeyTextJson = string | { readonly concat: readonly (string | number)[] };
type ValueJson = string | { readonly prefix: { readonly addr: string; readonly len: number } };
interface MatchJson {
  readonly op: '==' | '!=';
  readonly left: JoinedJson;
  readonly right: ValueJson;
}
type MarkJson = Readonly<Record<string, readonly [unknown, number]>>;
interface SpecialMatchJson {
  readonly left: { readonly fib?: unknown } & MarkJson;
  readonly right: string | number;
}
interface DnatJson {
  readonly family: 'ip' | 'ip6';
  readonly addr: { readonly map: { readonly key: JoinedJson; readonly data: string } };
}
type ExpressionJson =
  | { readonly match: MatchJson }
  | { readonly vmap: { readonly key: JoinedJson; readonly data: string } }
  | { readonly masquerade: null }
  | { readonly counter: unknown }
  | { readonly dnat: DnatJson }
  | { readonly mangle: { readonly value: MarkJson } }
  | VerdictJson;
/** What an element of a map holds: a verdict, or where packets go. */
type HeldJson = VerdictJson | { readonly concat: readonly [string, number] };
type KeyJson =
  | KeyTextJson
  | { readonly elem: { readonly val: KeyTextJson; readonly comment?: string } };

interface Named {
  readonly family: NftFamily;
  readonly name: string;
  readonly table: string;
}
interface SetJson extends Named {
  readonly type: string | readonly string[];
  /** What a map holds. */
  readonly map?: NftSet['holds'];
  readonly elem?: readonly (KeyJson | readonly [KeyJson, HeldJson])[];
}
interface ChainJson extends Named {
  readonly type?: ChainHook['type'];
  readonly hook: ChainHook['hook'];
  readonly prio: number;
  readonly policy: ChainHook['policy'];
}
interface RuleJson extends Named {
  readonly chain: string;
  readonly comment?: string;
  readonly expr: readonly ExpressionJson[];
}
type ObjectJson =
  | { readonly table: Named }
  | { readonly set: SetJson }
  | { readonly map: SetJson }
  | { readonly chain: ChainJson }
  | { readonly rule: RuleJson }
  | { readonly metainfo: unknown };

function toVerdict(json: VerdictJson): Verdict {
  const [verdict, target] = Object.entries(json)[0] ?? [];
  return (target ? { verdict, chain: target.target } : { verdict }) as Verdict;
}

function toField(json: FieldJson): string {
  if (!('meta' in json)) return `${json.payload.protocol} ${json.payload.field}`;
  // Links are named by a word of their own, all else says where it comes from.
  const { key } = json.meta;
  return key === 'iifname' || key === 'oifname' ? key : `meta ${key}`;
}

function toLookupField(json: JoinedJson): LookupField {
  const parts = 'concat' in json ? json.concat : [json];
  return parts.map(toField).join(' . ') as LookupField;
}

function toKey(json: KeyTextJson): SetKey {
  return (typeof json === 'string' ? json : json.concat.join(' . ')) as SetKey;
}

function toStatement(json: ExpressionJson): Statement {
  if ('vmap' in json && json.vmap) {
    const { key, data } = json.vmap as { readonly key: JoinedJson; readonly data: string };
    return { kind: 'vmap', field: toLookupField(key), map: data.slice(1) };
  }
  if ('masquerade' in json) return { kind: 'masquerade' };
  if ('counter' in json) return { kind: 'counter' };
  if ('dnat' in json && json.dnat) {
    const { family, addr } = json.dnat as DnatJson;
    return {
      kind: 'dnat',
      family: family === 'ip' ? 4 : 6,
      field: toLookupField(addr.map.key),
      map: addr.map.data.slice(1),
    };
  }
  if ('mangle' in json && json.mangle) {
    const [[operator, [, mask]]] = Object.entries((json.mangle as { value: MarkJson }).value) as [
      [string, [unknown, number]],
    ];
    return { kind: 'mark', bits: operator === '|' ? mask : ~mask >>> 0, on: operator === '|' };
  }
  if (!('match' in json) || !json.match)
    return { kind: 'verdict', ...toVerdict(json as VerdictJson) };
  // A match is either of two records, which nothing but their fields tells apart.
  const special = json.match as unknown as SpecialMatchJson;
  if (special.left.fib !== undefined) return { kind: 'local' };
  if (typeof special.right === 'number') return { kind: 'marked', bits: special.right };
  const { op, left, right } = json.match as MatchJson;
  const field = toLookupField(left);
  const negate = op === '!=';
  if (typeof right !== 'string') {
    const value = `${right.prefix.addr}/${right.prefix.len}` as Prefix;
    return { kind: 'match', field: field as AddressField, negate, value };
  }
  return right.startsWith('@')
    ? { kind: 'lookup', field, negate, set: right.slice(1) }
    : { kind: 'match', field: field as AddressField, negate, value: right as Ip };
}

function toElement(json: KeyJson | readonly [KeyJson, HeldJson]): SetElement {
  const [key, held] = Array.isArray(json)
    ? // Array.isArray knows no tuples that are readonly.
      (json as unknown as readonly [KeyJson, HeldJson])
    : [json as KeyJson, null];
  const { val, comment } =
    typeof key === 'string' || 'concat' in key ? { val: key, comment: undefined } : key.elem;
  return {
    key: toKey(val),
    ...(held && 'concat' in held
      ? { verdict: null, target: (held.concat as readonly unknown[]).join(' . ') as Target }
      : { verdict: held ? toVerdict(held) : null }),
    comment: comment ?? '',
  };
}

function toSet(json: SetJson, holds: NftSet['holds']): NftSet {
  const elements = (json.elem ?? []).map(toElement);
  return {
    name: json.name,
    keyType: [json.type].flat().join(' . ') as SetKeyType,
    holds,
    elements: Object.fromEntries(elements.map((element) => [element.key, element])),
  };
}

function toChain(json: ChainJson, rules: readonly Rule[]): Chain {
  const { type, hook, prio, policy } = json;
  const base = type === undefined ? null : { type, hook, priority: prio, policy };
  return { name: json.name, hook: base, rules };
}

function ofTable<T extends Named>(table: Named, all: readonly T[]): T[] {
  return all.filter((each) => each.family === table.family && each.table === table.name);
}

/** The tables that the parsed output holds. */
export function readRuleset(json: unknown): Ruleset {
  const { nftables } = json as { readonly nftables: readonly ObjectJson[] };
  const chains = nftables.flatMap((each) => ('chain' in each ? [each.chain] : []));
  const rules = nftables.flatMap((each) => ('rule' in each ? [each.rule] : []));
  const sets = nftables.flatMap((each) => ('set' in each ? [each.set] : []));
  const maps = nftables.flatMap((each) => ('map' in each ? [each.map] : []));
  const tables = nftables.flatMap((each) => ('table' in each ? [each.table] : []));
  return Object.fromEntries(
    tables.map((table): [string, Table] => {
      const rulesOf = (chain: ChainJson): Rule[] =>
        ofTable(table, rules)
          .filter((rule) => rule.chain === chain.name)
          .map(({ expr, comment }) => ({
            statements: expr.map(toStatement),
            comment: comment ?? '',
          }));
      const found = [
        ...ofTable(table, sets).map((set) => toSet(set, 'nothing')),
        ...ofTable(table, maps).map((set) => toSet(set, set.map ?? 'verdict')),
      ];
      return [
        tableKey({ family: table.family, table: table.name }),
        {
          family: table.family,
          name: table.name,
          chains: Object.fromEntries(
            ofTable(table, chains).map((c) => [c.name, toChain(c, rulesOf(c))]),
          ),
          sets: Object.fromEntries(found.map((set) => [set.name, set])),
        },
      ];
    }),
  );
}
