/** The ruleset that is wanted of a netns, given the one there is. */
import { sameJson } from './canonical.ts';
import type { DesiredNetns, DesiredTable } from './desired.ts';
import {
  type Chain,
  type NftSet,
  type Ruleset,
  type SetElement,
  type Table,
  endsAll,
} from './nftables.ts';

function mergeNamed<T, W>(
  have: Readonly<Record<string, T>>,
  want: Readonly<Record<string, W | 'absent'>>,
  keepOthers: boolean,
  merge: (have: T | undefined, want: W, name: string) => T,
): Record<string, T> {
  const merged: Record<string, T> = keepOthers ? { ...have } : {};
  for (const [name, wish] of Object.entries(want)) {
    if (wish === 'absent') delete merged[name];
    else merged[name] = merge(have[name], wish, name);
  }
  return merged;
}

/** Chains with rules of ours in them; of a chain that is not there nothing is wanted. */
function withGuests(
  chains: Readonly<Record<string, Chain>>,
  guests: NonNullable<DesiredTable['guests']>,
): Record<string, Chain> {
  const merged = { ...chains };
  for (const [name, { present, absent }] of Object.entries(guests)) {
    const chain = merged[name];
    if (!chain) continue;
    const rules = chain.rules.filter((rule) => !absent.some((each) => sameJson(each, rule)));
    const missing = present.filter((each) => !rules.some((rule) => sameJson(each, rule)));
    const last = rules.at(-1);
    const at = last && endsAll(last) ? rules.length - 1 : rules.length;
    merged[name] = { ...chain, rules: rules.toSpliced(at, 0, ...missing) };
  }
  return merged;
}

function mergeTable(have: Table | undefined, want: DesiredTable): Table {
  const keep = want.others === 'keep';
  const chains = mergeNamed<Chain, Chain>(
    have?.chains ?? {},
    want.chains,
    keep,
    (_have, chain) => chain,
  );
  return {
    family: want.family,
    name: want.name,
    chains: want.guests ? withGuests(chains, want.guests) : chains,
    sets: mergeNamed<NftSet, Exclude<DesiredTable['sets'][string], 'absent'>>(
      have?.sets ?? {},
      want.sets,
      keep,
      (set, wish, name) => ({
        name,
        keyType: wish.keyType,
        holds: wish.holds,
        elements: mergeNamed<SetElement, SetElement>(
          set?.elements ?? {},
          wish.elements,
          wish.others === 'keep',
          (_element, element) => element,
        ),
      }),
    ),
  };
}

/** The tables that are there with what is wanted of them, and those that are wanted beside them. */
export function desiredRuleset(have: Ruleset, want: DesiredNetns): Ruleset {
  return mergeNamed<Table, DesiredTable>(
    have,
    want.tables ?? {},
    want.otherTables !== 'remove',
    mergeTable,
  );
}
