/** What a lookup of a route passed over, and why: found out anew for those who ask, since a packet does not. */
import { type Host, type Netns, findNetns } from '../model/host.ts';
import { type Ip, familyOf } from '../model/ip.ts';
import { type PolicyRule, effectiveRules, formatPolicyRule } from '../model/policy-rule.ts';
import { prefixContains, prefixLengthOf } from '../model/prefix.ts';
import { type Flow, OWN_PACKETS, fitOf, isSuppressed, nextAfter } from '../model/route-lookup.ts';
import { type Route, TABLE_DEFAULT, TABLE_LOCAL, TABLE_MAIN } from '../model/route.ts';
import { type IpPacket, isLinkLocal, isUnspecified } from './frame.ts';
import type { Journey } from './journey.ts';
import { byOne } from './next-hop.ts';
import { formatRoute } from './route.ts';
import type { Hop } from './trace.ts';

/** A route to the destination, or a policy rule, that did not decide. */
export interface PassedOver {
  readonly what: { readonly route: Route } | { readonly rule: PolicyRule };
  readonly why: string;
}

const TABLE_NAMES: Readonly<Record<number, string>> = {
  [TABLE_LOCAL]: 'local',
  [TABLE_MAIN]: 'main',
  [TABLE_DEFAULT]: 'default',
};

function tableName(table: number | null): string {
  return `table ${TABLE_NAMES[table ?? 0] ?? table}`;
}

function byPreference(a: Route, b: Route): number {
  return prefixLengthOf(b.destination) - prefixLengthOf(a.destination) || a.metric - b.metric;
}

/** Why a route lost to another of its table. */
function loss(route: Route, winner: Route): string {
  if (prefixLengthOf(route.destination) < prefixLengthOf(winner.destination))
    return 'its prefix is shorter';
  return route.metric > winner.metric ? 'its metric is higher' : 'another was there before it';
}

/** The routes of a table to the destination, the best first. */
function candidatesIn(netns: Netns, table: number, ip: Ip): readonly Route[] {
  return netns.routes
    .filter((route) => route.table === table && prefixContains(route.destination, ip))
    .toSorted(byPreference);
}

/** What a table has that does not win, and the route with which the lookup ends there; undefined where it goes on. */
function inTable(
  netns: Netns,
  table: number,
  ip: Ip,
  found: Route | null,
): { readonly over: readonly PassedOver[]; readonly end: Route | undefined } {
  const candidates = candidatesIn(netns, table, ip);
  const winner = candidates.find((route) => route === found || (found && byOne(route) === found));
  // Without one the best ends the lookup, if it does not send on to the next table.
  const end = winner ?? candidates.find(({ type }) => type !== 'throw');
  const over = candidates
    .filter((route) => route !== winner)
    .map((route) => ({ what: { route }, why: whyNot(route, end, ip) }));
  return { over, end };
}

function whyNot(route: Route, end: Route | undefined, ip: Ip): string {
  if (route.type === 'throw') return 'it sends on to the next table';
  if (route === end) return isLinkLocal(ip) ? 'it is on another link' : `it is ${route.type}`;
  if (end && byPreference(end, route) <= 0) return loss(route, end);
  return 'it is on another link';
}

/** What may have decided about the packet: of its own a netns chooses the source after, or before it asks again (ip6_dst_lookup_tail). */
export function flowsOf({ stage, link }: Hop, { source, skb }: IpPacket): readonly Flow[] {
  const mark = skb?.mark ?? 0;
  if (stage !== 'route' && link !== null) return [{ iif: link, source, mark }];
  const known: Flow = { ...OWN_PACKETS, source: isUnspecified(source) ? null : source, mark };
  return [{ ...known, source: null }, known];
}

interface Walk {
  readonly over: readonly PassedOver[];
  /** Did it come to the route that was found, or to none where none was? */
  readonly isThat: boolean;
}

/** Why the rules in between are not asked. */
function leaptOver(rules: readonly PolicyRule[], at: number, next: number): PassedOver[] {
  const why = `rule ${rules[at]?.priority} leads past it`;
  return rules.slice(at + 1, next).map((rule) => ({ what: { rule }, why }));
}

/** The policy rules in their order, with the tables that they lead to, each once. */
function walk(netns: Netns, destination: Ip, found: Route | null, flow: Flow): Walk {
  const over: PassedOver[] = [];
  const asked = new Set<number>();
  const rules = effectiveRules(netns, familyOf(destination));
  let end: Route | null | undefined;
  let next = 0;
  for (const [at, rule] of rules.entries()) {
    if (at < next) continue;
    next = at + 1;
    const { action, table } = rule;
    if (fitOf(netns, rule, destination, flow) === false) {
      if (end === undefined) over.push({ what: { rule }, why: 'it does not fit' });
    } else if (action === 'goto' || action === 'nop') {
      if (end !== undefined) continue;
      next = nextAfter(rules, at);
      over.push(...leaptOver(rules, at, next));
    } else if (table === null) {
      end ??= null;
    } else if (!asked.has(table)) {
      const here = inTable(netns, table, destination, found);
      if (here.end && isSuppressed(rule, here.end)) {
        // Whoever leads there later may let it count.
        if (end === undefined) over.push({ what: { rule }, why: 'it wants a longer prefix' });
        continue;
      }
      asked.add(table);
      if (end === undefined) {
        over.push(...here.over);
        end = here.end;
      } else {
        const why = `${tableName(table)} is asked later`;
        const routes = candidatesIn(netns, table, destination);
        over.push(...routes.map((route) => ({ what: { route }, why })));
      }
    }
  }
  return { over, isThat: found === null || end === found || (end ? byOne(end) === found : false) };
}

/**
 * What the lookup of a hop passed over, in the order in which it is asked: policy rules that do not fit, routes that lost, and those
 * in tables that are asked later. Nothing where no route was looked up.
 */
export function passedOver(host: Host, hop: Hop): readonly PassedOver[] {
  const { lookedUp, data } = hop;
  const netns = findNetns(host, hop.netns);
  if (lookedUp?.kind !== 'route' || !netns || data.kind !== 'ip') return [];
  const { destination, found } = lookedUp;
  const walks = flowsOf(hop, data).map((flow) => walk(netns, destination, found, flow));
  return (walks.find(({ isThat }) => isThat) ?? walks[0])?.over ?? [];
}

/** In a line: `default via 10.0.0.1 dev eth0: its prefix is shorter`. */
export function formatPassedOver({ what, why }: PassedOver): string {
  return 'route' in what
    ? `${formatRoute(what.route)}: ${why}`
    : `rule ${formatPolicyRule(what.rule)}: ${why}`;
}

function explained(host: Host, hop: Hop): object {
  const over = passedOver(host, hop);
  return over.length === 0 ? hop : { ...hop, lookedUp: { ...hop.lookedUp, passedOver: over } };
}

/** A journey for machines: each lookup of a route with what it passed over. */
export function journeyJson(host: Host, journey: Journey): object {
  const all = (hops: readonly Hop[]): readonly object[] => hops.map((hop) => explained(host, hop));
  const { forward, return: back, acknowledgement, ...rest } = journey;
  return {
    ...rest,
    forward: all(forward),
    return: all(back),
    acknowledgement: all(acknowledgement),
  };
}
