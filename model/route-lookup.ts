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

/** Does a rule of the family speak of the packet? (fib_rule_match) */
export function fits(netns: Pick<Netns, 'links'>, rule: PolicyRule, ip: Ip, flow: Flow): boolean {
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

/** A rule that sends on to no table, as the route that ends a packet so; `unreachable` is as if there were none. */
function endOf({ family, action }: PolicyRule): Route | undefined {
  if (action !== 'blackhole' && action !== 'prohibit') return undefined;
  const everywhere = makeRoute({ destination: DEFAULT_PREFIX[family], device: 'lo' as Ifname });
  return { ...everywhere, type: action, device: null };
}

/** The route that a packet to `ip` would take: of the first table with one, in the order of the policy rules (K-5.1, K-5.4). */
export function lookup(
  netns: Pick<Netns, 'links' | 'routes' | 'policyRules' | 'hadIpv6Rules'>,
  ip: Ip,
  flow: Flow,
  usable: (route: Route) => boolean = () => true,
): Route | undefined {
  for (const rule of effectiveRules(netns, familyOf(ip))) {
    if (!fits(netns, rule, ip, flow)) continue;
    if (rule.table === null) return endOf(rule);
    const route = lookupIn(netns, rule.table, ip, usable);
    if (route && route.type !== 'throw') return route;
  }
  return undefined;
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
