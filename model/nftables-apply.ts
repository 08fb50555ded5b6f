import { sameJson } from './canonical.ts';
import type { Errno } from './errno.ts';
import { without } from './host.ts';
import { type KernelProfile, checksRegisters, tellsHooks } from './kernel-profile.ts';
import {
  type Chain,
  type ChainHook,
  FIELD_BYTES,
  FIELD_TYPES,
  type NftCommand,
  type NftSet,
  type Rule,
  type Ruleset,
  type SetElement,
  type Statement,
  type Table,
  type Verdict,
  fieldTypesOf,
  fieldsOf,
  holdsTargets,
  isLinkField,
  keyTypeOf,
  setsOfRule,
  tableKey,
  targetTypeOf,
} from './nftables.ts';
import { type Prefix, prefixLengthOf } from './prefix.ts';

/** What there is after a command or a batch, or why the kernel refuses it. */
type Answer = Ruleset | Errno;

/** The kernel's limit of chains below each other (include/net/netfilter/nf_tables.h, NFT_JUMP_STACK_SIZE). */
const JUMP_STACK_SIZE = 16;

function targetOf(verdict: Verdict | null): string[] {
  return verdict !== null && 'chain' in verdict ? [verdict.chain] : [];
}

function ruleTargets(rule: Rule): string[] {
  return rule.statements.flatMap((s) => (s.kind === 'verdict' ? targetOf(s) : []));
}

/** Does a rule, be it the chain's own, or a map element lead to it (nf_tables_delchain)? */
function chainInUse(table: Table, name: string): boolean {
  return (
    Object.values(table.chains).some((chain) =>
      chain.rules.some((r) => ruleTargets(r).includes(name)),
    ) ||
    Object.values(table.sets).some((set) =>
      Object.values(set.elements).some((e) => targetOf(e.verdict).includes(name)),
    )
  );
}

function setInUse(table: Table, name: string): boolean {
  return Object.values(table.chains).some((chain) =>
    chain.rules.some((r) => setsOfRule(r).includes(name)),
  );
}

/** Where packets are translated (nft_masq_validate, nft_nat_validate). */
const TRANSLATED_AT: Readonly<Partial<Record<Statement['kind'], readonly ChainHook['hook'][]>>> = {
  masquerade: ['postrouting'],
  dnat: ['prerouting', 'output'],
};

/** The chains that a statement leads to, directly or through a verdict map. */
function targetsOf(table: Table, statement: Statement): string[] {
  if (statement.kind === 'verdict') return targetOf(statement);
  if (statement.kind !== 'vmap') return [];
  const elements = Object.values(table.sets[statement.map]?.elements ?? {});
  return elements.flatMap((element) => targetOf(element.verdict));
}

/**
 * May a table be as a batch leaves it? From each base chain all that it leads to is looked at: a loop or a too deep
 * chain of jumps is EMLINK, a translation where none is made EOPNOTSUPP. What no base chain leads to is not looked at
 * (K-8.6; net/netfilter/nf_tables_api.c, nft_table_validate).
 */
function tableFault(table: Table): Errno | undefined {
  const visit = (chain: Chain, hook: ChainHook, depth: number): Errno | undefined => {
    if (depth >= JUMP_STACK_SIZE) return 'EMLINK';
    const seen = new Set<string>();
    for (const statement of chain.rules.flatMap((rule) => rule.statements)) {
      const hooks = TRANSLATED_AT[statement.kind];
      if (hooks && (hook.type !== 'nat' || !hooks.includes(hook.hook))) return 'EOPNOTSUPP';
      for (const name of targetsOf(table, statement)) {
        const next = seen.has(name) ? undefined : table.chains[name];
        seen.add(name);
        const fault = next && visit(next, hook, depth + 1);
        if (fault) return fault;
      }
    }
    return undefined;
  };
  for (const chain of Object.values(table.chains)) {
    const fault = chain.hook ? visit(chain, chain.hook, 0) : undefined;
    if (fault) return fault;
  }
  return undefined;
}

/** A verdict that names a chain needs one that is no base chain (K-8.6). */
function verdictFault(table: Table, verdict: Verdict | null): Errno | undefined {
  for (const name of targetOf(verdict)) {
    const chain = table.chains[name];
    if (chain === undefined) return 'ENOENT';
    if (chain.hook !== null) return 'EOPNOTSUPP';
  }
  return undefined;
}

/** Frames have no chains but those of type filter (net/netfilter/nft_chain_filter.c, nft_chain_filter_bridge). */
function isUnknownType(table: Table, hook: ChainHook): boolean {
  return table.family === 'bridge' && hook.type !== 'filter';
}

/** Of a base chain only the policy may change (nft_chain_parse_hook, then nf_tables_updchain). */
function hookChangeFault(
  table: Table,
  before: ChainHook | null,
  after: ChainHook,
  kernel: KernelProfile | undefined,
): Errno | undefined {
  // The policy that comes with a hook is what a chain without one cannot have (nf_tables_newchain).
  if (before === null) return 'EOPNOTSUPP';
  const isElsewhere = after.hook !== before.hook || after.priority !== before.priority;
  if (isElsewhere && tellsHooks(kernel)) return 'EOPNOTSUPP';
  if (isUnknownType(table, after)) return 'ENOENT';
  return isElsewhere || after.type !== before.type ? 'EEXIST' : undefined;
}

function addChain(
  table: Table,
  command: NftCommand & { do: 'add chain' },
  kernel: KernelProfile | undefined,
): Table | Errno {
  const existing = table.chains[command.chain];
  if (existing) {
    if (command.hook === null) return table;
    const fault = hookChangeFault(table, existing.hook, command.hook, kernel);
    if (fault) return fault;
    const chain: Chain = { ...existing, hook: command.hook };
    return { ...table, chains: { ...table.chains, [command.chain]: chain } };
  }
  if (command.hook && isUnknownType(table, command.hook)) return 'ENOENT';
  // nat at a priority below conntrack's would see packets without a connection (nft_chain_parse_hook).
  if (command.hook?.type === 'nat' && command.hook.priority <= -200) return 'EOPNOTSUPP';
  if (command.hook?.type === 'nat' && command.hook.hook === 'forward') return 'EOPNOTSUPP';
  if (command.hook?.type === 'route' && command.hook.hook !== 'output') return 'EOPNOTSUPP';
  const chain: Chain = { name: command.chain, hook: command.hook, rules: [] };
  return { ...table, chains: { ...table.chains, [command.chain]: chain } };
}

/** Registers have four bytes each, and no two fields share one (K-8.6; include/net/netfilter/nf_tables.h, NFT_REG32_SIZE). */
const REGISTER_BYTES = 4;

function keyRegisters(type: Parameters<typeof fieldTypesOf>[0]): number {
  let registers = 0;
  for (const each of fieldTypesOf(type)) registers += Math.ceil(FIELD_BYTES[each] / REGISTER_BYTES);
  return registers;
}

/** How many registers a statement fills, counted from the first. */
function filledRegisters(statement: Statement): number {
  if (statement.kind === 'match' && !isLinkField(statement.field)) {
    const bytes = FIELD_BYTES[FIELD_TYPES[statement.field]];
    const length = statement.value.includes('/')
      ? prefixLengthOf(statement.value as Prefix)
      : bytes * 8;
    // A length in whole bytes is compared without the rest of the address.
    const isShort = length > 0 && length % 8 === 0;
    return Math.ceil((isShort ? length / 8 : bytes) / REGISTER_BYTES);
  }
  if (statement.kind === 'local' || statement.kind === 'mark' || statement.kind === 'marked')
    return 1;
  if (!('field' in statement)) return 0;
  let registers = 0;
  for (const field of fieldsOf(statement.field)) registers += keyRegisters(FIELD_TYPES[field]);
  return registers;
}

const PACKETS_ONLY: ReadonlySet<Statement['kind']> = new Set(['masquerade', 'local']);

function addRule(
  table: Table,
  command: NftCommand & { do: 'add rule' | 'insert rule' | 'delete rule' },
  kernel: KernelProfile | undefined,
): Table | Errno {
  const chain = table.chains[command.chain];
  if (chain === undefined) return 'ENOENT';
  // Frames are not translated, nor routed: there the expression is unknown, before any is looked at (nf_tables_newrule).
  const isUnknown = command.rule.statements.some(({ kind }) => PACKETS_ONLY.has(kind));
  if (table.family === 'bridge' && isUnknown) return 'ENOENT';
  let filled = 0;
  for (const statement of command.rule.statements) {
    filled = Math.max(filled, filledRegisters(statement));
    if (statement.kind === 'verdict') {
      const fault = verdictFault(table, statement);
      if (fault) return fault;
    }
    if (statement.kind === 'vmap' || statement.kind === 'lookup' || statement.kind === 'dnat') {
      const name = statement.kind === 'lookup' ? statement.set : statement.map;
      const set = table.sets[name];
      if (set === undefined) return 'ENOENT';
      // The kernel compares as many bytes as the set's keys have, wherever in the rule they were loaded; only `nft`
      // knows types (nf_tables_api.c, nft_parse_register_load).
      if (keyRegisters(set.keyType) > filled && checksRegisters(kernel)) return 'ENODATA';
      if (statement.kind === 'vmap' && set.holds !== 'verdict') return 'EINVAL';
      if (statement.kind === 'dnat' && !holdsTargets(set.holds)) return 'EINVAL';
      // Known for frames too, but not for what is in them (nft_nat_init).
      if (statement.kind === 'dnat' && table.family === 'bridge') return 'EOPNOTSUPP';
    }
  }
  if (command.do === 'insert rule' && chain.rules.length === 0) return 'ENOENT';
  const at = command.do === 'insert rule' ? chain.rules.length - 1 : chain.rules.length;
  const rules = chain.rules.toSpliced(at, 0, command.rule);
  return { ...table, chains: { ...table.chains, [chain.name]: { ...chain, rules } } };
}

function deleteRule(
  table: Table,
  command: NftCommand & { do: 'add rule' | 'insert rule' | 'delete rule' },
): Table | Errno {
  const chain = table.chains[command.chain];
  const at = chain?.rules.findIndex((rule) => sameJson(rule, command.rule)) ?? -1;
  if (chain === undefined || at < 0) return 'ENOENT';
  const rules = chain.rules.toSpliced(at, 1);
  return { ...table, chains: { ...table.chains, [chain.name]: { ...chain, rules } } };
}

function addSet(table: Table, command: NftCommand & { do: 'add set' }): Table | Errno {
  const existing = table.sets[command.set];
  if (existing) {
    return existing.keyType === command.keyType && existing.holds === command.holds
      ? table
      : 'EEXIST';
  }
  const set: NftSet = {
    name: command.set,
    keyType: command.keyType,
    holds: command.holds,
    elements: {},
  };
  return { ...table, sets: { ...table.sets, [command.set]: set } };
}

function withElements(
  table: Table,
  set: NftSet,
  elements: Readonly<Record<string, SetElement>>,
): Table {
  return { ...table, sets: { ...table.sets, [set.name]: { ...set, elements } } };
}

// A key of another length is refused (nft_setelem_parse_key). One of another type but the same length, an IPv6 address
// among names of links, the kernel would take for what it is not: here it is refused too, and nobody plans it.
function addElement(table: Table, command: NftCommand & { do: 'add element' }): Table | Errno {
  const set = table.sets[command.set];
  if (set === undefined) return 'ENOENT';
  const { element } = command;
  if (set.keyType !== keyTypeOf(element.key)) return 'EINVAL';
  if ((set.holds === 'verdict') !== (element.verdict !== null)) return 'EINVAL';
  const targetType = element.target === undefined ? undefined : targetTypeOf(element.target);
  if ((holdsTargets(set.holds) ? set.holds : undefined) !== targetType) return 'EINVAL';
  const fault = verdictFault(table, element.verdict);
  if (fault) return fault;
  const existing = set.elements[element.key];
  // An element that stands there with the same value stays as it is, with its first comment.
  if (existing)
    return sameJson([existing.verdict, existing.target], [element.verdict, element.target])
      ? table
      : 'EEXIST';
  return withElements(table, set, { ...set.elements, [element.key]: element });
}

function deleteElement(
  table: Table,
  command: NftCommand & { do: 'delete element' },
): Table | Errno {
  const set = table.sets[command.set];
  if (set === undefined) return 'ENOENT';
  if (set.keyType !== keyTypeOf(command.key)) return 'EINVAL';
  if (!Object.hasOwn(set.elements, command.key)) return 'ENOENT';
  return withElements(table, set, without(set.elements, command.key));
}

function changeTable(
  table: Table,
  command: NftCommand,
  kernel: KernelProfile | undefined,
): Table | Errno {
  switch (command.do) {
    case 'add chain':
      return addChain(table, command, kernel);
    case 'delete chain':
      if (!Object.hasOwn(table.chains, command.chain)) return 'ENOENT';
      return chainInUse(table, command.chain)
        ? 'EBUSY'
        : { ...table, chains: without(table.chains, command.chain) };
    case 'flush chain': {
      const chain = table.chains[command.chain];
      return chain
        ? { ...table, chains: { ...table.chains, [chain.name]: { ...chain, rules: [] } } }
        : 'ENOENT';
    }
    case 'add rule':
    case 'insert rule':
      return addRule(table, command, kernel);
    case 'delete rule':
      return deleteRule(table, command);
    case 'add set':
      return addSet(table, command);
    case 'delete set':
      if (!Object.hasOwn(table.sets, command.set)) return 'ENOENT';
      return setInUse(table, command.set)
        ? 'EBUSY'
        : { ...table, sets: without(table.sets, command.set) };
    case 'add element':
      return addElement(table, command);
    case 'delete element':
      return deleteElement(table, command);
    case 'add table':
    case 'delete table':
      throw new Error(`${command.do} changes the ruleset, not a table`);
  }
}

function step(ruleset: Ruleset, command: NftCommand, kernel: KernelProfile | undefined): Answer {
  const key = tableKey(command);
  const table = ruleset[key];
  if (command.do === 'add table') {
    const added: Table = { family: command.family, name: command.table, chains: {}, sets: {} };
    return table ? ruleset : { ...ruleset, [key]: added };
  }
  if (table === undefined) return 'ENOENT';
  if (command.do === 'delete table') return without(ruleset, key);
  const after = changeTable(table, command, kernel);
  return typeof after === 'string' ? after : { ...ruleset, [key]: after };
}

/** Rules that are to be deleted, or to have others before them, are looked up before the batch is sent: only the kernel knows their numbers. */
function missesRule(before: Ruleset, command: NftCommand): boolean {
  if (command.do !== 'insert rule' && command.do !== 'delete rule') return false;
  const rules = before[tableKey(command)]?.chains[command.chain]?.rules ?? [];
  return command.do === 'insert rule'
    ? rules.length === 0
    : !rules.some((rule) => sameJson(rule, command.rule));
}

/** What a batch makes of a ruleset: all of it or nothing (K-8.6; net/netfilter/nfnetlink.c, nfnetlink_rcv_batch). */
export function applyBatch(
  before: Ruleset,
  commands: readonly NftCommand[],
  kernel?: KernelProfile,
): Answer {
  if (commands.some((command) => missesRule(before, command))) return 'ENOENT';
  let ruleset = before;
  for (const command of commands) {
    const after = step(ruleset, command, kernel);
    if (typeof after === 'string') return after;
    ruleset = after;
  }
  // Tables are looked at when all commands were taken (nf_tables_api.c, nf_tables_validate).
  for (const [key, table] of Object.entries(ruleset)) {
    const fault = table === before[key] ? undefined : tableFault(table);
    if (fault) return fault;
  }
  return ruleset;
}
