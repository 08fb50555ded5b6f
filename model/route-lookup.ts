/** Which route a packet takes (K-5.1; net/ipv4/fib_trie.c, net/ipv6/route.c). */
import type { Netns } from './host.ts';
import type { Ifname } from './ifname.ts';
import { type Ip, familyOf, ipBits } from './ip.ts';
import { type PolicyRule, effectiveRules } from './policy-rule.ts';
import { DEFAULT_PREFIX, type Prefix, prefixContains, prefixLengthOf } from './prefix.ts';
import { type Route, TABLE_LOCAL, makeRoute, routeFamily } from './route.ts';

/** The best route to `ip` in a table among those that are usable: the longest prefix, then the lowest metric (K-5.1). */
export function lookupIn(
  netns: Pick<Netns, 'routes'>,
  table: number,
  ip: Ip,
  usable: (route: Route) => boolean,
): Route | undefined {
  return netns.routes
    .filter((r) => r.table === table && prefixContains(r.destination, ip) && usable(r))
    .toSorted(
      (a, b) =>
        prefixLengthOf(b.destination) - prefixLengthOf(a.destination) || a.metric - b.metric,
    )[0];
}

/** What of a packet policy rules ask for, beside its destination; what is not said no condition fits. */
export interface Flow {
  readonly source?: Ip | null;
  /** The link that it came in by; the loopback for what the netns sends itself. */
  readonly iif?: Ifname;
  /** The link that it has to leave by. */
  readonly oif?: Ifname | null;
  readonly mark?: number;
}

/** What the netns sends itself comes in by the loopback (LOOPBACK_IFINDEX). */
export const OWN_PACKETS: Flow = { iif: 'lo' as Ifname };

function isCovered(prefix: Prefix | null, ip: Ip | null | undefined): boolean {
  if (prefix === null) return true;
  if (ip !== null && ip !== undefined) return prefixContains(prefix, ip);
  // No source yet counts as 0.0.0.0; IPv6 asks for one (fib6_rule_match).
  return familyOf(prefix) === 4 && prefixContains(prefix, '0.0.0.0' as Ip);
}

/** Do the conditions of a rule that are heeded fit the packet? (fib_rule_match, without FIB_RULE_INVERT) */
function heededFit(netns: Pick<Netns, 'links'>, rule: PolicyRule, ip: Ip, flow: Flow): boolean {
  const { iif, oif, mark } = rule;
  const isAt = (name: Ifname | null, link: Ifname | null | undefined): boolean =>
    name === null || (name === link && Object.hasOwn(netns.links, name));
  return (
    isAt(iif, flow.iif) &&
    isAt(oif, flow.oif) &&
    (mark === null || (((flow.mark ?? 0) ^ mark.value) & mark.mask) === 0) &&
    isCovered(rule.source, flow.source) &&
    isCovered(rule.destination, ip)
  );
}

/** Is it not even known what a rule says that is not heeded? */
function isObscure({ isPartlyRead, unheeded }: PolicyRule): boolean {
  return isPartlyRead === true && unheeded === undefined;
}

/** Does a rule of the family speak of the packet? Not known where that hangs on a condition that is not heeded (fib_rule_match). */
export function fitOf(
  netns: Pick<Netns, 'links'>,
  rule: PolicyRule,
  ip: Ip,
  flow: Flow,
): boolean | 'not known' {
  if (isObscure(rule)) return 'not known';
  const fits = heededFit(netns, rule, ip, flow);
  if (fits && rule.isPartlyRead) return 'not known';
  return fits !== (rule.inverted ?? false);
}

/** A rule that sends on to no table, as the route that ends a packet so; `unreachable` is as if there were none. */
function endOf({ family, action }: PolicyRule): Route | undefined {
  if (action !== 'blackhole' && action !== 'prohibit') return undefined;
  const everywhere = makeRoute({ destination: DEFAULT_PREFIX[family], device: 'lo' as Ifname });
  return { ...everywhere, type: action, device: null };
}

/** The rule on which it hangs which route a packet takes: whether it fits is not known, or what it does then. */
export interface Doubt {
  readonly doubtful: PolicyRule;
}

type Answer = { readonly route: Route | undefined } | Doubt;

/** A packet that is looked up. */
interface Query {
  readonly netns: Pick<Netns, 'links' | 'routes'>;
  readonly rules: readonly PolicyRule[];
  readonly ip: Ip;
  readonly flow: Flow;
  readonly usable: (route: Route) => boolean;
  /** Are rules that may fit asked both ways? Else they are taken to fit. */
  readonly doubts: boolean;
}

/** Does a rule not let a route count? One that ends packets always does (fib_rules_lookup, fib4_rule_suppress). */
export function isSuppressed({ suppressPrefixLength }: PolicyRule, route: Route): boolean {
  return (
    suppressPrefixLength !== undefined &&
    !['blackhole', 'unreachable', 'prohibit'].includes(route.type) &&
    prefixLengthOf(route.destination) <= suppressPrefixLength
  );
}

/** Which rule is asked behind one that fits and ends nothing: `goto` leads to the first of a priority, if there is one (fib_nl2rule). */
export function nextAfter(rules: readonly PolicyRule[], at: number): number {
  const { action, target } = rules[at] ?? {};
  const found = action === 'goto' ? rules.findIndex(({ priority }) => priority === target) : -1;
  return found > at ? found : at + 1;
}

/** What a rule that fits answers by itself; undefined: another is asked. */
function answerOf({ netns, ip, usable, doubts }: Query, rule: PolicyRule): Answer | undefined {
  const { action, table } = rule;
  if (action === 'goto' || action === 'nop') return undefined;
  if (table === null) return { route: endOf(rule) };
  // The table of the link that it is by (l3mdev), which is not known.
  if (doubts && (table === 0 || isObscure(rule))) return { doubtful: rule };
  const route = lookupIn(netns, table, ip, usable);
  return route && route.type !== 'throw' && !isSuppressed(rule, route) ? { route } : undefined;
}

/** What of a route decides about packets that take it. */
function wayOf(route: Route): string {
  const { type, gateway, device, source, scope, mtuBytes, advmssBytes, nextHops } = route;
  return JSON.stringify([type, gateway, device, source, scope, mtuBytes, advmssBytes, nextHops]);
}

function isSame(a: Answer, b: Answer): boolean {
  if ('doubtful' in a || 'doubtful' in b)
    return 'doubtful' in a && 'doubtful' in b && a.doubtful === b.doubtful;
  return a.route === b.route || (a.route && wayOf(a.route)) === (b.route && wayOf(b.route));
}

/** The answer of the rules from one on (fib_rules_lookup). */
function askFrom(query: Query, first: number): Answer {
  const { netns, rules, ip, flow, doubts } = query;
  let at = first;
  for (let rule = rules[at]; rule; rule = rules[at]) {
    const fit = fitOf(netns, rule, ip, flow);
    const next = fit === false ? at + 1 : nextAfter(rules, at);
    const own = fit === false ? undefined : answerOf(query, rule);
    if (fit === 'not known' && doubts) {
      const passing = askFrom(query, at + 1);
      const fitting = own ?? (next === at + 1 ? passing : askFrom(query, next));
      return isSame(fitting, passing) ? passing : { doubtful: rule };
    }
    if (own) return own;
    at = next;
  }
  return { route: undefined };
}

/** The parts of a netns that a lookup asks. */
type Lookable = Pick<Netns, 'links' | 'routes' | 'policyRules' | 'hadIpv6Rules'>;

/**
 * The route that a packet to `ip` would take: of the first table with one, in the order of the policy rules (K-5.1, K-5.4). A rule that
 * may fit is taken to.
 */
export function lookup(
  netns: Lookable,
  ip: Ip,
  flow: Flow,
  usable: (route: Route) => boolean = () => true,
): Route | undefined {
  const rules = effectiveRules(netns, familyOf(ip));
  const answer = askFrom({ netns, rules, ip, flow, usable, doubts: false }, 0);
  return 'route' in answer ? answer.route : undefined;
}

/** The same; a doubt where another route is taken when a rule fits of which that is not known. */
export function lookupSurely(
  netns: Lookable,
  ip: Ip,
  flow: Flow,
  usable: (route: Route) => boolean = () => true,
): Route | Doubt | undefined {
  const rules = effectiveRules(netns, familyOf(ip));
  const answer = askFrom({ netns, rules, ip, flow, usable, doubts: true }, 0);
  return 'route' in answer ? answer.route : answer;
}

/** What an address is to the netns by its table local alone, whatever its policy rules (inet_addr_type). */
export function localType(netns: Pick<Netns, 'routes'>, ip: Ip): Route['type'] | undefined {
  return lookupIn(netns, TABLE_LOCAL, ip, () => true)?.type;
}

/** 0.0.0.0, 224/4 and the limited broadcast are never an address to come from. */
function isSpecial(ip: Ip): boolean {
  const bits = ipBits(ip);
  return bits === 0n || bits >> 28n === 0xen || bits === 0xffffffffn;
}

/**
 * What an IPv4 address is to a netns: local, broadcast, or unicast when it is another's (fib_frontend.c,
 * __inet_dev_addr_type). Before its first address a netns has no table local, and everything counts as broadcast.
 */
export function typeOfIpv4(netns: Pick<Netns, 'routes'>, ip: Ip): Route['type'] {
  if (isSpecial(ip)) return 'broadcast';
  const best = lookupIn(netns, TABLE_LOCAL, ip, () => true);
  if (best) return best.type;
  const isTable = netns.routes.some((r) => r.table === TABLE_LOCAL && routeFamily(r) === 4);
  return isTable ? 'unicast' : 'broadcast';
}

/** Has the netns an IPv6 address for packets by `device`? One that reaches no farther than a link counts on it alone (ipv6_chk_addr). */
export function answersTo(netns: Netns, ip: Ip, device: string): boolean {
  return Object.values(netns.links).some((link) =>
    link.addresses.some(
      (a) => a.ip === ip && (link.ifname === device || (a.scope !== 'link' && a.scope !== 'host')),
    ),
  );
}
