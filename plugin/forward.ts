/**
 * What is forwarded has to pass every chain that filters it, and an accept of ours ends none but our own. Where another table
 * (docker's, firewalld's, an administrator's) drops what none of its rules lets through, only a rule there helps.
 */
import type { DesiredTable } from '../model/desired.ts';
import { HOST_NETNS, type Host, findNetns } from '../model/host.ts';
import { type Ifname, ifnameProblem } from '../model/ifname.ts';
import type { Family } from '../model/ip.ts';
import { OWNER_MARK } from '../model/link.ts';
import {
  type Chain,
  type LinkField,
  type NftFamily,
  type Rule,
  type Ruleset,
  endsAll,
  filtersForwarded,
} from '../model/nftables.ts';

/** A chain of somebody else's. */
interface Foreign {
  readonly key: string;
  readonly family: NftFamily;
  readonly table: string;
  readonly chain: Chain;
}

/** The chains of others through which what is forwarded has to pass. */
function foreignChains(ruleset: Ruleset): Foreign[] {
  return Object.entries(ruleset).flatMap(([key, { family, name, chains }]) =>
    name === OWNER_MARK
      ? []
      : Object.values(chains)
          .filter(({ hook }) => hook && filtersForwarded(family, hook))
          .map((chain) => ({ key, family, table: name, chain })),
  );
}

/** Does a chain drop what none of its rules let through: by its policy, or by a last rule that ends every packet? */
function dropsTheRest({ hook, rules }: Chain): boolean {
  const last = rules.at(-1);
  if (!last || !endsAll(last)) return hook?.policy === 'drop';
  return !last.statements.some((each) => each.kind === 'verdict' && each.verdict === 'accept');
}

/** Is a chain asked about packets of these families? */
function isAsked({ family }: Foreign, families: readonly Family[]): boolean {
  if (family === 'inet') return families.length > 0;
  return families.includes(family === 'ip' ? 4 : 6);
}

/** `chain FORWARD of table ip filter`, with why it drops, of each chain that drops what it does not know. */
export function droppingChains(observed: Host, families: readonly Family[]): string[] {
  return foreignChains(findNetns(observed, HOST_NETNS)?.nftables ?? {})
    .filter((each) => isAsked(each, families) && dropsTheRest(each.chain))
    .map(({ key, chain }) => {
      const last = chain.rules.at(-1);
      const by = last && endsAll(last) ? 'its last rule' : 'its policy';
      return `chain ${chain.name} of table ${key} by ${by}`;
    });
}

/** iptables counts by every rule, and reads none that does not. */
function letThrough(field: LinkField, link: Ifname): Rule {
  return {
    statements: [
      { kind: 'match', field, negate: false, value: link },
      { kind: 'counter' },
      { kind: 'verdict', verdict: 'accept' },
    ],
    comment: `${OWNER_MARK} ${field === 'iifname' ? 'from' : 'to'} ${link}`,
  };
}

/** The rules that let through what pods behind a link send and are sent. */
function rulesFor(link: Ifname): Rule[] {
  return [letThrough('iifname', link), letThrough('oifname', link)];
}

function tablesWith(
  chains: readonly Foreign[],
  rules: Partial<NonNullable<DesiredTable['guests']>[string]>,
): Record<string, DesiredTable> {
  const tables: Record<string, DesiredTable> = {};
  for (const { key, family, table, chain } of chains) {
    const guests = {
      ...tables[key]?.guests,
      [chain.name]: { present: [], absent: [], ...rules },
    };
    tables[key] = { family, name: table, chains: {}, sets: {}, guests, others: 'keep' };
  }
  return tables;
}

/** Rules in every chain that would drop what the pods behind a link, which have addresses of these families, send and are sent. */
export function adopted(
  observed: Host,
  link: Ifname,
  families: readonly Family[],
): Record<string, DesiredTable> {
  const chains = foreignChains(findNetns(observed, HOST_NETNS)?.nftables ?? {});
  return tablesWith(
    chains.filter((each) => isAsked(each, families) && dropsTheRest(each.chain)),
    { present: rulesFor(link) },
  );
}

/** The comments of our rules in chains of others, before the name of the link. */
const MARKS = [`${OWNER_MARK} from `, `${OWNER_MARK} to `];

/** The links for which chains of others have such rules. */
export function adoptedLinks(observed: Host): Ifname[] {
  const chains = foreignChains(findNetns(observed, HOST_NETNS)?.nftables ?? {});
  const links = chains.flatMap(({ chain: { rules } }) =>
    rules.flatMap(({ comment }): Ifname[] => {
      const mark = MARKS.find((each) => comment.startsWith(each));
      const link = mark === undefined ? '' : comment.slice(mark.length);
      return ifnameProblem(link) === undefined ? [link as Ifname] : [];
    }),
  );
  return [...new Set(links)];
}

/** The chains that have such rules for some of the links, without them. */
export function abandoned(observed: Host, links: readonly Ifname[]): Record<string, DesiredTable> {
  const rules = links.flatMap(rulesFor);
  const comments = rules.map(({ comment }) => comment);
  const chains = foreignChains(findNetns(observed, HOST_NETNS)?.nftables ?? {});
  return tablesWith(
    chains.filter(({ chain }) => chain.rules.some(({ comment }) => comments.includes(comment))),
    { absent: rules },
  );
}

/** Has a chain such rules for the link? */
export function isAdoptedIn(observed: Host, link: Ifname): boolean {
  return adoptedLinks(observed).includes(link);
}
