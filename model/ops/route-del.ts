import { findLink, getNetns, withNetns } from '../host.ts';
import { type OpKind, done, refuse } from '../op.ts';
import { type Route, routeFamily, routeKey } from '../route.ts';
import { describeRoute, familyFlag } from './route-add.ts';

/** Removes the route with this destination, metric, nexthop, type and protocol from its table. */
export interface RouteDel {
  readonly route: Route;
}

/**
 * What is not said fits anything: metric 0, no gateway; the source never is. IPv6 does not look at the type
 * (net/ipv4/fib_trie.c fib_table_delete, net/ipv6/route.c ip6_route_del).
 */
function matches(wanted: Route, route: Route): boolean {
  return (
    route.table === wanted.table &&
    route.destination === wanted.destination &&
    (wanted.metric === 0 || route.metric === wanted.metric) &&
    (wanted.device === null || route.device === wanted.device) &&
    (wanted.gateway === null || route.gateway === wanted.gateway) &&
    (wanted.protocol === 0 || route.protocol === wanted.protocol) &&
    (routeFamily(wanted) === 6 || route.type === wanted.type)
  );
}

export const routeDel: OpKind<'route.del'> = {
  apply: (host, { netns: name, route: wanted }) => {
    const netns = getNetns(host, name);
    if (wanted.device !== null && !findLink(host, { netns: name, ifname: wanted.device }))
      return refuse('ENODEV');
    const [route] = netns.routes
      .filter((r) => matches(wanted, r))
      .toSorted((a, b) => a.metric - b.metric);
    if (!route) return refuse('ESRCH');
    return done(
      withNetns(host, name, { ...netns, routes: netns.routes.filter((r) => r !== route) }),
    );
  },
  describe: ({ route }) => [`ip ${familyFlag(route)}route del ${describeRoute(route)}`],
  sign: () => '-',
  reads: () => [],
  writes: () => [],
  removes: ({ netns, route }) => [`route ${netns}/${routeKey(route)}`],
};
