/** Addresses that come and go, with the routes that they imply (net/ipv4/devinet.c, net/ipv6/addrconf.c). */
import type { Address, Scope } from './address.ts';
import { asStored, connectedPrefix, multicastRoute, routesOfAddress } from './connected.ts';
import { addRoutes, dropRoutes, sameRoute, withRoutes } from './fib.ts';
import {
  type Host,
  type Netns,
  type NetnsName,
  getLink,
  getNetns,
  withLink,
  withNetns,
} from './host.ts';
import { ADDRESS_BITS, type Ip, familyOf } from './ip.ts';
import type { Link, LinkRef } from './link.ts';
import { type Outcome, refuse } from './op.ts';
import { type Prefix, prefixContains, prefixLengthOf, prefixOf } from './prefix.ts';
import { answersTo, typeOfIpv4 } from './route-lookup.ts';
import { PROTOCOL_KERNEL, type Route, TABLE_LOCAL, TABLE_MAIN, routeFamily } from './route.ts';
import { linkSysctl } from './sysctl.ts';

/** How near an address is to the machine: one that reaches less far comes later among the addresses of a link. */
const NEARNESS: Readonly<Record<Scope, number>> = {
  global: 0,
  site: 200,
  link: 253,
  host: 253,
  nowhere: 255,
};

/**
 * Puts an address among those of a link, in the order in which the kernel keeps them and takes the first that fits.
 * IPv4 (__inet_insert_ifa): a primary behind the last primary that reaches no farther, a secondary at the end.
 * IPv6 (ipv6_link_dev_addr): before the first that reaches no farther, so of equals the latest is first.
 */
function insertAddress(addresses: readonly Address[], fresh: Address): Address[] {
  const family = familyOf(fresh.ip);
  const own = addresses.filter((a) => familyOf(a.ip) === family);
  const others = addresses.filter((a) => familyOf(a.ip) !== family);
  let at = own.length;
  if (family === 6) {
    const first = own.findIndex((a) => NEARNESS[a.scope] >= NEARNESS[fresh.scope]);
    at = first < 0 ? own.length : first;
  } else if (!fresh.secondary) {
    const fits = (a: Address): boolean => !a.secondary && SCOPE[fresh.scope] <= SCOPE[a.scope];
    at = own.findLastIndex(fits) + 1;
  }
  const placed = own.toSpliced(at, 0, fresh);
  return family === 4 ? [...placed, ...others] : [...others, ...placed];
}

/** RT_SCOPE_* (include/uapi/linux/rtnetlink.h): a greater number reaches less far. */
const SCOPE: Readonly<Record<Scope, number>> = { ...NEARNESS, host: 254 };

/** Why a link refuses an IPv4 address (find_matching_ifa, then __inet_insert_ifa; K-3.3). */
export function ipv4AddressFault(link: Link, address: Address): Outcome | undefined {
  const prefix = connectedPrefix(address);
  const beside = link.addresses.filter(
    (other) =>
      familyOf(other.ip) === 4 &&
      other.prefixLength === address.prefixLength &&
      connectedPrefix(other) === prefix,
  );
  if (beside.some((other) => other.ip === address.ip))
    return refuse('EEXIST', 'ipv4: Address already assigned');
  return beside.some((other) => other.scope !== address.scope)
    ? refuse('EINVAL', 'ipv4: Invalid scope value')
    : undefined;
}

/** Adds an address that nothing speaks against, with its routes. */
export function addAddress(host: Host, ref: LinkRef, address: Address): Host {
  const netns = getNetns(host, ref.netns);
  return withNetns(host, ref.netns, addAddressIn(netns, getLink(host, ref), address));
}

/** The netns of a link after that has another address that nothing speaks against. */
export function addAddressIn(netns: Netns, link: Link, address: Address): Netns {
  const stored = asStored(link, address);
  const changed = { ...link, addresses: insertAddress(link.addresses, stored) };
  const routes = routesOfAddress(netns, changed, stored);
  // With an IPv6 address a link that is up has the multicast route, carrier or not (addrconf_add_dev).
  const multicast =
    familyOf(stored.ip) === 6 && link.up && link.kind !== 'loopback'
      ? [multicastRoute(link.ifname)]
      : [];
  return {
    ...netns,
    links: { ...netns.links, [link.ifname]: changed },
    routes: withRoutes(netns.routes, [...multicast, ...routes]),
  };
}

/** Routes of the main table that name an address as their source go when nothing answers to it any more (K-3.5). */
export function dropSourced(host: Host, name: NetnsName, ips: readonly Ip[]): Host {
  if (ips.length === 0) return host;
  const netns = getNetns(host, name);
  const lost = new Set<Ip | null>(ips.filter((ip) => typeOfIpv4(netns, ip) !== 'local'));
  return dropRoutes(
    host,
    name,
    (r) => r.table === TABLE_MAIN && routeFamily(r) === 4 && lost.has(r.source),
  );
}

/** Removes IPv4 addresses and what goes with them; __inet_del_ifa, fib_frontend.c fib_del_ifaddr. */
function dropIpv4(host: Host, ref: LinkRef, gone: readonly Address[]): Host {
  const link = getLink(host, ref);
  const netns = getNetns(host, ref.netns);
  const addresses = link.addresses.filter((a) => !gone.includes(a));
  const left = addresses.filter((a) => familyOf(a.ip) === 4);
  // Also the routes that a link has only while it is up: the loopback keeps that to its network when it goes down.
  const up = { ...link, up: true };
  const lost = gone
    .flatMap((a) => routesOfAddress(netns, up, a))
    .filter(
      (r) =>
        !left
          .flatMap((a) => routesOfAddress(netns, { ...up, addresses }, a))
          .some((k) => sameRoute(k, r)),
    );
  const after = dropRoutes(
    withLink(host, ref.netns, { ...link, addresses }),
    ref.netns,
    (r) => r.protocol === PROTOCOL_KERNEL && lost.some((l) => sameRoute(l, r)),
  );
  const sourced = dropSourced(
    after,
    ref.netns,
    gone.map((a) => a.ip),
  );
  if (left.length > 0) return sourced;
  // The last address takes every IPv4 route of the link with it, and every neighbour (K-3.5; fib_disable_ip).
  const neighbours = link.neighbours.filter((n) => familyOf(n.ip) !== 4);
  return dropRoutes(
    withLink(sourced, ref.netns, { ...link, addresses, neighbours }),
    ref.netns,
    (r) => r.device === ref.ifname && routeFamily(r) === 4,
  );
}

/** Whose next hop is on the link itself. */
function isDirect(route: Route): boolean {
  return route.gateway === null;
}

/** The route that the kernel takes for the one of a prefix: the first to it by the link (addrconf_get_prefix_route). */
function dropPrefixRoute(
  host: Host,
  ref: LinkRef,
  prefix: Prefix,
  fits: (route: Route) => boolean,
): Host {
  const [first] = getNetns(host, ref.netns)
    .routes.filter(
      (r) =>
        r.table === TABLE_MAIN && r.destination === prefix && r.device === ref.ifname && fits(r),
    )
    .toSorted((a, b) => a.metric - b.metric);
  return dropRoutes(host, ref.netns, (r) => r === first);
}

/** Removes an IPv6 address and what goes with it; addrconf.c ipv6_del_addr, __ipv6_ifa_notify. */
function dropIpv6(host: Host, ref: LinkRef, gone: Address): Host {
  const link = getLink(host, ref);
  const netns = getNetns(host, ref.netns);
  const addresses = link.addresses.filter((a) => a !== gone);
  const left = addresses.filter((a) => familyOf(a.ip) === 6);
  const kept = left.flatMap((a) => routesOfAddress(netns, link, a));
  const lost = routesOfAddress(netns, link, gone).filter(
    (r) => r.table === TABLE_LOCAL && !kept.some((k) => sameRoute(k, r)),
  );
  let after = dropRoutes(withLink(host, ref.netns, { ...link, addresses }), ref.netns, (r) =>
    lost.some((l) => sameRoute(l, r)),
  );
  if (gone.peer !== null)
    after = dropPrefixRoute(after, ref, prefixOf(gone.peer, ADDRESS_BITS[6]), () => true);
  const prefix = prefixOf(gone.ip, gone.prefixLength);
  // Any other address with the prefix keeps its route, also one that did not make it (check_cleanup_prefix_route).
  const shared = left.some(
    (a) => a.prefixLength === prefixLengthOf(prefix) && prefixContains(prefix, a.ip),
  );
  if (!gone.noPrefixRoute && !shared) after = dropPrefixRoute(after, ref, prefix, isDirect);
  // A route that named it as its source stays, without one, unless another link has the address (K-4.5).
  const owner = getNetns(after, ref.netns);
  const isBereft = (r: Route): boolean =>
    r.source === gone.ip && (r.device === null || !answersTo(owner, gone.ip, r.device));
  if (!owner.routes.some(isBereft)) return after;
  const routes = owner.routes.map((r) => (isBereft(r) ? { ...r, source: null } : r));
  return withNetns(after, ref.netns, { ...owner, routes });
}

/** The first secondary takes the place of the primary; the routes of all get its name. */
function promote(
  host: Host,
  ref: LinkRef,
  primary: Address,
  [first, ...others]: readonly [Address, ...Address[]],
): Host {
  const link = getLink(host, ref);
  const netns = getNetns(host, ref.netns);
  const old = [first, ...others].flatMap((a) => routesOfAddress(netns, link, a));
  const silent = dropRoutes(
    host,
    ref.netns,
    (r) => r.protocol === PROTOCOL_KERNEL && old.some((o) => sameRoute(o, r)),
  );
  const demoted = dropIpv4(silent, ref, [primary]);
  const risen = { ...first, secondary: false };
  const rest = getLink(demoted, ref).addresses.filter((a) => a !== first);
  const addresses = insertAddress(rest, risen);
  const after = withLink(demoted, ref.netns, { ...getLink(demoted, ref), addresses });
  const routes = getLink(after, ref)
    .addresses.filter((a) => familyOf(a.ip) === 4)
    .flatMap((a) => routesOfAddress(getNetns(after, ref.netns), getLink(after, ref), a));
  return addRoutes(after, ref.netns, routes);
}

/** Removes an address of the link: an IPv4 primary takes its secondaries along, or promotes one (K-3.4). */
export function removeAddress(host: Host, ref: LinkRef, address: Address): Host {
  if (familyOf(address.ip) === 6) return dropIpv6(host, ref, address);
  const link = getLink(host, ref);
  if (address.secondary) return dropIpv4(host, ref, [address]);
  const prefix = connectedPrefix(address);
  const [first, ...others] = link.addresses.filter(
    (a) => a.secondary && a.prefixLength === address.prefixLength && connectedPrefix(a) === prefix,
  );
  const netns = getNetns(host, ref.netns);
  const promotes =
    linkSysctl(netns, 4, ref.ifname, 'promote_secondaries') !== '0' ||
    (netns.sysctls['net/ipv4/conf/all/promote_secondaries'] ?? '0') !== '0';
  if (first === undefined) return dropIpv4(host, ref, [address]);
  return promotes
    ? promote(host, ref, address, [first, ...others])
    : dropIpv4(host, ref, [address, first, ...others]);
}
