/** The way back from a plan that failed. */
import type { Retreat } from '../../backends/apply.ts';
import type { Scope } from '../../backends/backend.ts';
import { sameJson } from '../../model/canonical.ts';
import { type DesiredHost, type DesiredTable, desiredOf } from '../../model/desired.ts';
import { HOST_NETNS, getNetns } from '../../model/host.ts';
import { OWNER_MARK } from '../../model/link.ts';
import { type Chain, type Rule, type Ruleset, tableKey } from '../../model/nftables.ts';
import type { Plan } from '../../model/plan.ts';
import type { Attachment } from '../attachment.ts';
import { attachScope } from '../network.ts';

/** Which links the scope reads by name: the retreat must know what was missing. */
function namedLinks(scope: Scope): Record<string, readonly string[] | 'all'> {
  return Object.fromEntries(Object.entries(scope).map(([name, part]) => [name, part.links]));
}

/** A wish without routes where none were read: that none were seen does not mean that there were none. */
function withoutUnread(wish: DesiredHost, scope: Scope): DesiredHost {
  return Object.fromEntries(
    Object.entries(wish).map(([name, part]) => {
      if (part === 'absent' || scope[name]?.routes === 'all') return [name, part];
      const { routes: _unread, ...rest } = part;
      return [name, rest];
    }),
  );
}

/** The rules of ours that a chain of somebody else's has only after a plan. */
function newGuests(before: Chain | undefined, after: Chain): Rule[] {
  return after.rules.filter(
    (rule) =>
      rule.comment.startsWith(OWNER_MARK) &&
      !(before?.rules ?? []).some((each) => sameJson(each, rule)),
  );
}

/** Tables of others without the rules that a plan puts there; whatever else becomes of them meanwhile is theirs. */
function withoutGuests(before: Ruleset, after: Ruleset): Record<string, DesiredTable> {
  const tables: Record<string, DesiredTable> = {};
  for (const [key, { family, name, chains }] of Object.entries(after)) {
    if (name === OWNER_MARK) continue;
    const guests = Object.values(chains).flatMap((chain) => {
      const absent = newGuests(before[key]?.chains[chain.name], chain);
      return absent.length === 0 ? [] : [[chain.name, { present: [], absent }] as const];
    });
    if (guests.length > 0)
      tables[key] = {
        family,
        name,
        chains: {},
        sets: {},
        guests: Object.fromEntries(guests),
        others: 'keep',
      };
  }
  return tables;
}

/** The host's tables as they were: ours wholly, of others only what the plan does there. */
function tablesBefore(
  { before, after }: Plan,
  scope: Scope,
  wished: Readonly<Record<string, DesiredTable | 'absent'>>,
): Record<string, DesiredTable | 'absent'> {
  const named = scope[HOST_NETNS]?.nftables ?? [];
  const own = named === 'all' ? [] : named.map(tableKey);
  return {
    ...Object.fromEntries(own.map((key) => [key, wished[key] ?? ('absent' as const)])),
    ...withoutGuests(getNetns(before, HOST_NETNS).nftables, getNetns(after, HOST_NETNS).nftables),
  };
}

/** Back to what there was before a plan of this attachment. */
export function retreatOf(attachment: Attachment, plan: Plan): Retreat {
  const scope = attachScope(attachment);
  const wish = withoutUnread(desiredOf(plan.before, namedLinks(scope)), scope);
  const host = wish[HOST_NETNS];
  if (host === undefined || host === 'absent') return { scope, wish };
  const tables = tablesBefore(plan, scope, host.tables ?? {});
  return { scope, wish: { ...wish, [HOST_NETNS]: { ...host, tables, otherTables: 'keep' } } };
}
