/** The routes of a netns as a set that others add to and take from. */
import { type Host, type NetnsName, getNetns, withNetns } from './host.ts';
import { ADDRESS_BITS } from './ip.ts';
import { typeOfIpv4 } from './route-lookup.ts';
import { type Route, routeFamily, sameRouteKey } from './route.ts';

/** Are two routes the same but for who made them? */
export function sameRoute(a: Route, b: Route): boolean {
  return (
    sameRouteKey(a, b) &&
    a.type === b.type &&
    a.device === b.device &&
    a.gateway === b.gateway &&
    a.scope === b.scope &&
    a.source === b.source
  );
}

/**
 * IPv6 has no two routes to one destination by one next hop, whatever their types (rt6_duplicate_nexthop); IPv4 has them
 * when only who made them differs (K-3.1; fib_semantics.c, fib_find_info).
 */
function isTaken(a: Route, b: Route): boolean {
  if (!sameRouteKey(a, b) || a.device !== b.device || a.gateway !== b.gateway) return false;
  return routeFamily(a) === 6 || (a.protocol === b.protocol && sameRoute(a, b));
}

/** Only an address of the netns may be a source, but in the very route that makes it one (fib_valid_prefsrc). */
function isValidSource(routes: readonly Route[], route: Route): boolean {
  const { source, destination } = route;
  if (routeFamily(route) === 6 || source === null) return true;
  return (
    (route.type === 'local' && destination === `${source}/${ADDRESS_BITS[4]}`) ||
    typeOfIpv4({ routes }, source) === 'local'
  );
}

/** The routes with those of the kernel's own behind them that are not there yet and that nothing speaks against. */
export function withRoutes(routes: readonly Route[], wanted: readonly Route[]): readonly Route[] {
  if (wanted.length === 0) return routes;
  const all = [...routes];
  // A bridge of a thousand pods has thousands of routes, of which one link's are few.
  const devices = new Set(wanted.map(({ device }) => device));
  const rivals = routes.filter(({ device }) => devices.has(device));
  for (const route of wanted) {
    if (!isValidSource(all, route) || rivals.some((r) => isTaken(r, route))) continue;
    all.push(route);
    rivals.push(route);
  }
  return all;
}

/** Adds those of the kernel's own routes that are not there yet and that nothing speaks against. */
export function addRoutes(host: Host, name: NetnsName, wanted: readonly Route[]): Host {
  const netns = getNetns(host, name);
  const routes = withRoutes(netns.routes, wanted);
  return routes.length === netns.routes.length ? host : withNetns(host, name, { ...netns, routes });
}

/** Removes the routes that `gone` picks. */
export function dropRoutes(host: Host, name: NetnsName, gone: (route: Route) => boolean): Host {
  const netns = getNetns(host, name);
  const routes = netns.routes.filter((route) => !gone(route));
  return routes.length === netns.routes.length ? host : withNetns(host, name, { ...netns, routes });
}
