/** Which route a packet takes (K-5.1; net/ipv4/fib_trie.c, net/ipv6/route.c). */
import type { Netns } from './host.ts';
import { type Ip, familyOf, ipBits } from './ip.ts';
import { prefixContains, prefixLengthOf } from './prefix.ts';
import { type Route, TABLE_DEFAULT, TABLE_LOCAL, TABLE_MAIN, routeFamily } from './route.ts';

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

/** The route that a packet to `ip` would take: the table local comes before main, and in IPv4 default behind it (K-5.1). */
export function lookup(
  netns: Pick<Netns, 'routes'>,
  ip: Ip,
  usable: (route: Route) => boolean = () => true,
): Route | undefined {
  return (
    lookupIn(netns, TABLE_LOCAL, ip, usable) ??
    lookupIn(netns, TABLE_MAIN, ip, usable) ??
    // IPv6 has no rule for it (net/ipv6/fib6_rules.c).
    (familyOf(ip) === 4 ? lookupIn(netns, TABLE_DEFAULT, ip, usable) : undefined)
  );
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
