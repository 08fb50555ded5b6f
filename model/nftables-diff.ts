import { sameJson } from './canonical.ts';
import { OWNER_MARK } from './link.ts';
import {
  type Chain,
  type NftCommand,
  type NftSet,
  type Rule,
  type Ruleset,
  type Table,
  type TableRef,
  setsOfRule,
} from './nftables.ts';

/** Is a rule of ours, in whatever chain? */
function isOurs(rule: Rule): boolean {
  return rule.comment.startsWith(OWNER_MARK);
}

function isIn(rules: readonly Rule[], rule: Rule): boolean {
  return rules.some((each) => sameJson(each, rule));
}

/**
 * The commands between two forms of a chain that differ by rules of ours alone, which come in at its end, or before its
 * last rule; undefined for all other forms: those are written anew.
 */
function guestCommands(
  ref: TableRef & { readonly chain: string },
  from: readonly Rule[],
  to: readonly Rule[],
): { readonly gone: NftCommand[]; readonly fresh: NftCommand[] } | undefined {
  const isGone = (rule: Rule): boolean => isOurs(rule) && !isIn(to, rule);
  const isFresh = (rule: Rule): boolean => isOurs(rule) && !isIn(from, rule);
  const kept = from.filter((rule) => !isGone(rule));
  const rest = to.filter((rule) => !isFresh(rule));
  if (!sameJson(kept, rest) || (kept.length === from.length && rest.length === to.length))
    return undefined;
  const fresh: NftCommand[] = [];
  for (const [at, rule] of to.entries()) {
    if (!isFresh(rule)) continue;
    const behind = to.slice(at + 1).filter((each) => !isFresh(each)).length;
    if (behind > 1) return undefined;
    fresh.push({ ...ref, do: behind === 1 ? 'insert rule' : 'add rule', rule });
  }
  return {
    gone: from.filter(isGone).map((rule) => ({ ...ref, do: 'delete rule', rule })),
    fresh,
  };
}

const EMPTY: Pick<Table, 'chains' | 'sets'> = { chains: {}, sets: {} };

function sameSetShape(a: NftSet, b: NftSet): boolean {
  return a.keyType === b.keyType && a.holds === b.holds;
}

/** The policy alone can change in place; type, hook and priority cannot. */
function sameHookShape(a: Chain, b: Chain): boolean {
  return sameJson(a.hook && { ...a.hook, policy: '' }, b.hook && { ...b.hook, policy: '' });
}

function diffTable(ref: TableRef, from: Pick<Table, 'chains' | 'sets'>, to: Table): NftCommand[] {
  const fromSets = Object.values(from.sets);
  const toSets = Object.values(to.sets);
  const goneSets = fromSets.filter(
    (set) => !to.sets[set.name] || !sameSetShape(set, to.sets[set.name] as NftSet),
  );
  const goneNames = new Set(goneSets.map((set) => set.name));
  const goneChains = Object.values(from.chains).filter((chain) => {
    const after = to.chains[chain.name];
    return !after || !sameHookShape(chain, after);
  });
  const replaced = new Set(goneChains.map((chain) => chain.name));
  const leads = (rules: readonly Rule[]): boolean =>
    rules.some((rule) =>
      rule.statements.some((s) => s.kind === 'verdict' && 'chain' in s && replaced.has(s.chain)),
    );

  // A chain is written anew when its rules differ, or when they use an object that is made anew.
  const rewritten = Object.values(to.chains).filter((chain) => {
    const before = from.chains[chain.name];
    if (!before || replaced.has(chain.name)) return chain.rules.length > 0;
    return (
      !sameJson(before.rules, chain.rules) ||
      before.rules.flatMap(setsOfRule).some((name) => goneNames.has(name)) ||
      leads(before.rules)
    );
  });

  const commands: NftCommand[] = [];
  const guests = rewritten.flatMap((chain) => {
    const before = replaced.has(chain.name) ? undefined : from.chains[chain.name];
    const found = before && guestCommands({ ...ref, chain: chain.name }, before.rules, chain.rules);
    return found ? [{ chain, ...found }] : [];
  });
  const rewrittenWhole = rewritten.filter((each) => !guests.some(({ chain }) => chain === each));
  commands.push(...guests.flatMap(({ gone }) => gone));
  for (const chain of [...goneChains, ...rewrittenWhole]) {
    if ((from.chains[chain.name]?.rules.length ?? 0) > 0)
      commands.push({ ...ref, do: 'flush chain', chain: chain.name });
  }
  for (const set of fromSets) {
    if (goneNames.has(set.name)) continue;
    const after = to.sets[set.name]?.elements ?? {};
    for (const element of Object.values(set.elements)) {
      const verdict = element.verdict;
      const target = verdict !== null && 'chain' in verdict && replaced.has(verdict.chain);
      if (!sameJson(element, after[element.key]) || target) {
        commands.push({ ...ref, do: 'delete element', set: set.name, key: element.key });
      }
    }
  }
  for (const set of goneSets) commands.push({ ...ref, do: 'delete set', set: set.name });
  for (const chain of goneChains) commands.push({ ...ref, do: 'delete chain', chain: chain.name });

  for (const chain of Object.values(to.chains)) {
    const before = replaced.has(chain.name) ? undefined : from.chains[chain.name];
    if (!before || !sameJson(before.hook, chain.hook)) {
      commands.push({ ...ref, do: 'add chain', chain: chain.name, hook: chain.hook });
    }
  }
  for (const { name, keyType, holds } of toSets) {
    if (!from.sets[name] || goneNames.has(name))
      commands.push({ ...ref, do: 'add set', set: name, keyType, holds });
  }
  for (const set of toSets) {
    const before = goneNames.has(set.name) ? {} : (from.sets[set.name]?.elements ?? {});
    for (const element of Object.values(set.elements)) {
      const verdict = element.verdict;
      const target = verdict !== null && 'chain' in verdict && replaced.has(verdict.chain);
      if (!sameJson(before[element.key], element) || target) {
        commands.push({ ...ref, do: 'add element', set: set.name, element });
      }
    }
  }
  commands.push(...guests.flatMap(({ fresh }) => fresh));
  for (const chain of rewrittenWhole) {
    for (const rule of chain.rules)
      commands.push({ ...ref, do: 'add rule', chain: chain.name, rule });
  }
  return commands;
}

/**
 * The commands that turn one ruleset into another, in an order the kernel accepts as one batch:
 * references go before what they refer to, and come after it.
 */
export function diffRulesets(from: Ruleset, to: Ruleset): NftCommand[] {
  const commands: NftCommand[] = [];
  for (const [key, table] of Object.entries(from)) {
    if (!Object.hasOwn(to, key))
      commands.push({ family: table.family, table: table.name, do: 'delete table' });
  }
  for (const [key, table] of Object.entries(to)) {
    const ref: TableRef = { family: table.family, table: table.name };
    const before = from[key];
    if (!before) commands.push({ ...ref, do: 'add table' });
    commands.push(...diffTable(ref, before ?? EMPTY, table));
  }
  return commands;
}
