import { type Host, type Netns, findLink, findNetns, getNetns, withNetns } from '../host.ts';
import { type Ip, familyOf, ipBits } from '../ip.ts';
import type { Link } from '../link.ts';
import { type OpKind, type Outcome, done, refuse } from '../op.ts';
import { prefixContains, prefixLengthOf } from '../prefix.ts';
import {
  PROTOCOL_BOOT,
  PROTOCOL_KERNEL,
  type Route,
  TABLE_LOCAL,
  TABLE_MAIN,
  routeFamily,
  sameRouteKey,
} from '../route.ts';

/** Adds a unicast route with one nexthop to the main table. */
export interface RouteAdd {
  readonly route: Route;
}

/** The route that a packet to `ip` would take: local table first, then the longest prefix, then the lowest metric (K-5.1). */
export function lookup(
  netns: Netns,
  ip: Ip,
  usable: (route: Route) => boolean = () => true,
): Route | undefined {
  const fits = netns.routes.filter((r) => prefixContains(r.destination, ip) && usable(r));
  for (const table of [TABLE_LOCAL, TABLE_MAIN]) {
    const best = fits
      .filter((r) => r.table === table)
      .toSorted(
        (a, b) =>
          prefixLengthOf(b.destination) - prefixLengthOf(a.destination) || a.metric - b.metric,
      )[0];
    if (best) return best;
  }
  return undefined;
}

function isLocal(netns: Netns, ip: Ip): boolean {
  return lookup(netns, ip)?.type === 'local';
}

/** net/ipv4/fib_semantics.c, fib_check_nh; texts as in K-5's table. */
function ipv4Fault(netns: Netns, route: Route, link: Link): Outcome | undefined {
  const { gateway } = route;
  if (gateway === null) {
    if (!link.up) return refuse('ENETDOWN', 'Device for nexthop is not up');
  } else if (route.onlink) {
    if (!link.up) return refuse('ENETDOWN', 'Nexthop device is not up');
    const local = lookup(netns, gateway, (r) => r.table === TABLE_LOCAL);
    if (local) return refuse('EINVAL', 'Nexthop has invalid gateway');
  } else {
    // Only a route that needs no gateway itself can lead to one.
    const via = lookup(netns, gateway, (r) => r.device === route.device && r.gateway === null);
    if (!via) return refuse('ENETUNREACH', 'Nexthop has invalid gateway');
    if (via.type !== 'unicast' && via.type !== 'local')
      return refuse('EINVAL', 'Nexthop has invalid gateway');
    if (!link.up) return refuse('ENETDOWN', 'Nexthop device is not up');
  }
  if (route.source !== null && !isLocal(netns, route.source))
    return refuse('EINVAL', 'Invalid prefsrc address');
  return undefined;
}

function isLinkLocal(ip: Ip): boolean {
  return ipBits(ip) >> 118n === 0x3fan; // fe80::/10
}

/** net/ipv6/route.c, ip6_validate_gw and fib6_nh_init. */
function ipv6Fault(netns: Netns, route: Route, link: Link): Outcome | undefined {
  const { gateway } = route;
  if (gateway !== null) {
    if (ipBits(gateway) >> 120n === 0xffn) return refuse('EINVAL', 'Invalid gateway address');
    const here = lookup(netns, gateway);
    if (here?.type === 'local' && here.device === route.device)
      return refuse('EINVAL', 'Gateway can not be a local address');
    if (!isLinkLocal(gateway) && !route.onlink) {
      const via = lookup(
        netns,
        gateway,
        (r) => r.device === route.device && r.table === TABLE_MAIN,
      );
      if (!via || via.gateway !== null) return refuse('EHOSTUNREACH');
    }
  }
  if (!link.up) return refuse('ENETDOWN', 'Nexthop device is not up');
  if (route.source !== null && !isLocal(netns, route.source))
    return refuse('EINVAL', 'Invalid source address');
  return undefined;
}

function insert(host: Host, name: string, route: Route): Outcome {
  const netns = getNetns(host, name);
  if (netns.routes.some((r) => sameRouteKey(r, route))) return refuse('EEXIST');
  return done(withNetns(host, name, { ...netns, routes: [...netns.routes, route] }));
}

/** A route as `ip route add` takes it. */
export function describeRoute(route: Route): string {
  const words: string[] = [route.destination.endsWith('/0') ? 'default' : route.destination];
  if (route.gateway !== null) words.push(`via ${route.gateway}`);
  if (route.device !== null) words.push(`dev ${route.device}`);
  if (route.protocol !== PROTOCOL_BOOT)
    words.push(`proto ${route.protocol === PROTOCOL_KERNEL ? 'kernel' : route.protocol}`);
  const usualScope =
    familyOf(route.destination) === 4 && route.gateway === null ? 'link' : 'global';
  if (route.scope !== usualScope) words.push(`scope ${route.scope}`);
  if (route.source !== null) words.push(`src ${route.source}`);
  if (route.metric !== (familyOf(route.destination) === 6 ? 1024 : 0))
    words.push(`metric ${route.metric}`);
  if (route.onlink) words.push('onlink');
  return words.join(' ');
}

/** `ip route` takes the family of `default` from its gateway or from this flag. */
export function familyFlag(route: Route): string {
  return routeFamily(route) === 6 ? '-6 ' : '';
}

export const routeAdd: OpKind<'route.add'> = {
  apply: (host, { netns: name, route }) => {
    const netns = findNetns(host, name);
    const link =
      route.device === null ? undefined : findLink(host, { netns: name, ifname: route.device });
    if (!netns || !link) return refuse('ENODEV');
    const fault =
      routeFamily(route) === 4 ? ipv4Fault(netns, route, link) : ipv6Fault(netns, route, link);
    return fault ?? insert(host, name, route);
  },
  describe: ({ route }) => [`ip ${familyFlag(route)}route add ${describeRoute(route)}`],
  sign: () => '+',
  reads: ({ netns, route }) => [
    `link ${netns}/${route.device}`,
    `up ${netns}/${route.device}`,
    `address ${netns}/${route.device}`,
    ...(route.gateway === null ? [] : [`onlink ${netns}/${route.device}`]),
  ],
  writes: ({ netns, route }) => [
    `route ${netns}/${route.destination}/${route.metric}`,
    ...(route.gateway === null ? [`onlink ${netns}/${route.device}`] : []),
  ],
  removes: () => [],
};
