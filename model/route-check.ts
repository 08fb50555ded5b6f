/** Why the kernel refuses a route (net/ipv4/fib_semantics.c fib_check_nh, net/ipv6/route.c fib6_nh_init), in its order. */
import type { Scope } from './address.ts';
import { hasIpv6 } from './connected.ts';
import type { Netns } from './host.ts';
import { type Ip, ipBits } from './ip.ts';
import { type Link, holdsIpv6 } from './link.ts';
import { type Outcome, refuse } from './op.ts';
import { prefixIp } from './prefix.ts';
import { OWN_PACKETS, answersTo, lookup, lookupIn, typeOfIpv4 } from './route-lookup.ts';
import { type Route, TABLE_MAIN } from './route.ts';

/** Scopes of what can be reached without a gateway: a route that has one itself cannot lead to another. */
const ON_LINK: readonly Scope[] = ['link', 'host', 'nowhere'];

/** Scopes within that of a link: what a route of that scope could have a gateway by. */
const WITHIN_LINK: readonly Scope[] = ['host', 'nowhere'];

function ipv4GatewayFault(
  netns: Netns,
  route: Route,
  gateway: Ip,
  link: Link,
): Outcome | undefined {
  if (route.onlink) {
    if (route.scope === 'link') return refuse('EINVAL', 'Nexthop has invalid scope');
    if (!link.up) return refuse('ENETDOWN', 'Nexthop device is not up');
    return typeOfIpv4(netns, gateway) === 'unicast'
      ? undefined
      : refuse('EINVAL', 'Nexthop has invalid gateway');
  }
  const nearer = route.scope === 'link' ? WITHIN_LINK : ON_LINK;
  const isOnLink = (r: Route): boolean => r.device === route.device && nearer.includes(r.scope);
  // A table of its own is asked before all others (fib_check_nh_v4_gw).
  const via =
    (route.table === TABLE_MAIN ? undefined : lookupIn(netns, route.table, gateway, isOnLink)) ??
    lookup(netns, gateway, { ...OWN_PACKETS, oif: route.device }, isOnLink);
  if (via?.device === null)
    return refuse(via.type === 'prohibit' ? 'EACCES' : 'EINVAL', 'Nexthop has invalid gateway');
  if (!via) return refuse('ENETUNREACH', 'Nexthop has invalid gateway');
  if (via.type !== 'unicast' && via.type !== 'local')
    return refuse('EINVAL', 'Nexthop has invalid gateway');
  return link.up ? undefined : refuse('ENETDOWN');
}

/** A route that stays on the host needs nothing but a device, up or not (fib_create_info). */
function hostScopeFault(route: Route): Outcome | undefined {
  return route.gateway === null
    ? undefined
    : refuse('EINVAL', 'Route with host scope can not have a gateway');
}

/** Why an IPv4 route is refused, undefined when only an equal one could be in its way. */
export function ipv4RouteFault(netns: Netns, route: Route, link: Link): Outcome | undefined {
  if (route.scope === 'nowhere') return refuse('EINVAL', 'Invalid scope');
  const fault =
    route.scope === 'host'
      ? hostScopeFault(route)
      : route.gateway === null
        ? link.up
          ? undefined
          : refuse('ENETDOWN', 'Device for nexthop is not up')
        : ipv4GatewayFault(netns, route, route.gateway, link);
  if (fault) return fault;
  return route.source !== null && typeOfIpv4(netns, route.source) !== 'local'
    ? refuse('EINVAL', 'Invalid prefsrc address')
    : undefined;
}

function isLinkLocal(ip: Ip): boolean {
  return ipBits(ip) >> 118n === 0x3fan; // fe80::/10
}

/** Routes through the loopback lead nowhere but to ::1 itself (fib6_is_reject). */
function isReject(netns: Netns, route: Route): boolean {
  return (
    route.device !== null &&
    netns.links[route.device]?.kind === 'loopback' &&
    route.type === 'unicast' &&
    ipBits(prefixIp(route.destination)) !== 1n
  );
}

function ipv6GatewayFault(
  netns: Netns,
  route: Route,
  gateway: Ip,
  link: Link,
): Outcome | undefined {
  const isOwn = isLinkLocal(gateway)
    ? answersTo(netns, gateway, link.ifname)
    : Object.values(netns.links).some((l) => l.addresses.some((a) => a.ip === gateway));
  if (isOwn) return refuse('EINVAL', 'Gateway can not be a local address');
  if (ipBits(gateway) >> 120n === 0xffn) return refuse('EINVAL', 'Invalid gateway address');
  if (isLinkLocal(gateway)) return undefined;
  const onDevice = (r: Route): boolean => r.device === route.device;
  if (route.onlink) {
    // Of routes to it that have one metric, that of the device counts (find_rr_leaf).
    const best = lookupIn(netns, TABLE_MAIN, gateway, () => true);
    const isEqual = (r: Route): boolean =>
      onDevice(r) && r.destination === best?.destination && r.metric === best.metric;
    const via = lookupIn(netns, TABLE_MAIN, gateway, isEqual) ?? best;
    const misfit =
      via &&
      !isReject(netns, via) &&
      !via.destination.startsWith('::/') &&
      (via.type !== 'unicast' || via.device !== route.device);
    return misfit ? refuse('EINVAL', 'Nexthop has invalid gateway or device mismatch') : undefined;
  }
  const leads = (via: Route | undefined): boolean =>
    via !== undefined && via.device !== null && via.gateway === null && !isReject(netns, via);
  return leads(lookupIn(netns, route.table, gateway, onDevice)) ||
    // Here alone the kernel does not say that the packet is its own (rt6_lookup).
    leads(lookup(netns, gateway, { oif: route.device }, onDevice))
    ? undefined
    : refuse('EHOSTUNREACH');
}

/** Why an IPv6 route is refused, undefined when only an equal one could be in its way. */
export function ipv6RouteFault(netns: Netns, route: Route, link: Link): Outcome | undefined {
  if (!holdsIpv6(link)) return refuse('ENODEV');
  if (route.onlink && !link.up) return refuse('ENETDOWN', 'Nexthop device is not up');
  if (route.gateway !== null) {
    const fault = ipv6GatewayFault(netns, route, route.gateway, link);
    if (fault) return fault;
    if (link.kind === 'loopback')
      return refuse('EINVAL', 'Egress device can not be loopback device for this route');
  }
  if (!hasIpv6(netns, link)) return refuse('EACCES', 'IPv6 is disabled on nexthop device');
  if (!link.up) return refuse('ENETDOWN', 'Nexthop device is not up');
  return route.source !== null && !answersTo(netns, route.source, link.ifname)
    ? refuse('EINVAL', 'Invalid source address')
    : undefined;
}
