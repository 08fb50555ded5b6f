import type { Ip } from './ip.ts';
import type { Prefix } from './prefix.ts';

/** Table families that hold IP rules here (include/uapi/linux/netfilter.h, NFPROTO_*). */
export type NftFamily = 'ip' | 'ip6' | 'inet';

/** What becomes of a packet, or where evaluation goes on. */
export type Verdict =
  | { readonly verdict: 'accept' | 'drop' | 'return' | 'continue' }
  | { readonly verdict: 'jump' | 'goto'; readonly chain: string };

/** A header field that rules look at. */
export type Field = 'ip saddr' | 'ip daddr' | 'ip6 saddr' | 'ip6 daddr';

/** One part of a rule; they are evaluated left to right, a match that fails ends the rule. */
export type Statement =
  | {
      readonly kind: 'match';
      readonly field: Field;
      readonly negate: boolean;
      readonly value: Ip | Prefix;
    }
  | {
      readonly kind: 'lookup';
      readonly field: Field;
      readonly negate: boolean;
      readonly set: string;
    }
  /** Takes the verdict that the map holds for the field; goes on when it holds none. */
  | { readonly kind: 'vmap'; readonly field: Field; readonly map: string }
  | { readonly kind: 'masquerade' }
  | ({ readonly kind: 'verdict' } & Verdict)
  /** Something that is not understood: kept by the kernel's expression names, never written. */
  | { readonly kind: 'opaque'; readonly expression: string };

export interface Rule {
  readonly statements: readonly Statement[];
  /** '' when there is none. */
  readonly comment: string;
}

/** Where a base chain is hooked in. */
export interface ChainHook {
  readonly type: 'filter' | 'nat' | 'route';
  readonly hook: 'prerouting' | 'input' | 'forward' | 'output' | 'postrouting';
  /** Lower runs first; NF_IP_PRI_* (include/uapi/linux/netfilter_ipv4.h). */
  readonly priority: number;
  readonly policy: 'accept' | 'drop';
}

export interface Chain {
  readonly name: string;
  /** Null: a chain that only jumps reach. */
  readonly hook: ChainHook | null;
  readonly rules: readonly Rule[];
}

export type SetKeyType = 'ipv4_addr' | 'ipv6_addr';

export interface SetElement {
  readonly key: Ip;
  /** Null in a set, the verdict in a map of verdicts. */
  readonly verdict: Verdict | null;
  /** '' when there is none. */
  readonly comment: string;
}

/** A named set, or with `holds: 'verdict'` a verdict map. */
export interface NftSet {
  readonly name: string;
  readonly keyType: SetKeyType;
  readonly holds: 'nothing' | 'verdict';
  readonly elements: Readonly<Record<string, SetElement>>;
}

export interface Table {
  readonly family: NftFamily;
  readonly name: string;
  readonly chains: Readonly<Record<string, Chain>>;
  readonly sets: Readonly<Record<string, NftSet>>;
}

/** The tables of a netns by `tableKey`. */
export type Ruleset = Readonly<Record<string, Table>>;

/** Names a table within a netns. */
export interface TableRef {
  readonly family: NftFamily;
  readonly table: string;
}

export function tableKey({ family, table }: TableRef): string {
  return `${family} ${table}`;
}

/** One step of a batch, as `nft` says it. `add` is satisfied by an equal object; `delete` is not by a missing one. */
export type NftCommand = TableRef &
  (
    | { readonly do: 'add table' | 'delete table' }
    | { readonly do: 'add chain'; readonly chain: string; readonly hook: ChainHook | null }
    | { readonly do: 'delete chain' | 'flush chain'; readonly chain: string }
    | { readonly do: 'add rule'; readonly chain: string; readonly rule: Rule }
    | {
        readonly do: 'add set';
        readonly set: string;
        readonly keyType: SetKeyType;
        readonly holds: NftSet['holds'];
      }
    | { readonly do: 'delete set'; readonly set: string }
    | { readonly do: 'add element'; readonly set: string; readonly element: SetElement }
    | { readonly do: 'delete element'; readonly set: string; readonly key: Ip }
  );

function formatVerdict(verdict: Verdict): string {
  return 'chain' in verdict ? `${verdict.verdict} ${verdict.chain}` : verdict.verdict;
}

function formatStatement(statement: Statement): string {
  switch (statement.kind) {
    case 'match':
      return `${statement.field} ${statement.negate ? '!= ' : ''}${statement.value}`;
    case 'lookup':
      return `${statement.field} ${statement.negate ? '!= ' : ''}@${statement.set}`;
    case 'vmap':
      return `${statement.field} vmap @${statement.map}`;
    case 'masquerade':
      return 'masquerade';
    case 'verdict':
      return formatVerdict(statement);
    case 'opaque':
      return `(${statement.expression})`;
  }
}

function formatComment(comment: string): string {
  return comment === '' ? '' : ` comment "${comment}"`;
}

/** A rule as `nft list ruleset` prints it. */
export function formatRule(rule: Rule): string {
  return rule.statements.map(formatStatement).join(' ') + formatComment(rule.comment);
}

/** An element as it stands between the braces of `nft add element`. */
export function formatElement(element: SetElement): string {
  const verdict = element.verdict === null ? '' : ` : ${formatVerdict(element.verdict)}`;
  return `${element.key}${formatComment(element.comment)}${verdict}`;
}

function formatHook({ type, hook, priority, policy }: ChainHook): string {
  return ` { type ${type} hook ${hook} priority ${priority}; policy ${policy}; }`;
}

/** One command of a batch, as a line that `nft -f` reads. */
export function formatCommand(command: NftCommand): string {
  const table = `${command.family} ${command.table}`;
  switch (command.do) {
    case 'add table':
    case 'delete table':
      return `${command.do} ${table}`;
    case 'add chain':
      return `add chain ${table} ${command.chain}${command.hook ? formatHook(command.hook) : ''}`;
    case 'delete chain':
    case 'flush chain':
      return `${command.do} ${table} ${command.chain}`;
    case 'add rule':
      return `add rule ${table} ${command.chain} ${formatRule(command.rule)}`;
    case 'add set': {
      const kind = command.holds === 'verdict' ? 'map' : 'set';
      const type = command.holds === 'verdict' ? `${command.keyType} : verdict` : command.keyType;
      return `add ${kind} ${table} ${command.set} { type ${type}; }`;
    }
    case 'delete set':
      return `delete set ${table} ${command.set}`;
    case 'add element':
      return `add element ${table} ${command.set} { ${formatElement(command.element)} }`;
    case 'delete element':
      return `delete element ${table} ${command.set} { ${command.key} }`;
  }
}
