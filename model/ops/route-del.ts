import { findLink, findNetns, withNetns } from '../host.ts';
import { type OpKind, done, refuse } from '../op.ts';
import { type Route, routeFamily } from '../route.ts';
import { describeRoute, familyFlag } from './route-add.ts';

/** Removes the route with this destination, metric, nexthop and protocol from its table. */
export interface RouteDel {
  readonly route: Route;
}

/** Metric 0 asks for the first that fits (net/ipv4/fib_trie.c fib_table_delete, net/ipv6/route.c ip6_route_del). */
function matches(wanted: Route, route: Route): boolean {
  return (
    route.table === wanted.table &&
    route.destination === wanted.destination &&
    (wanted.metric === 0 || route.metric === wanted.metric) &&
    route.device === wanted.device &&
    (wanted.gateway === null
      ? routeFamily(wanted) === 6 || route.gateway === null
      : route.gateway === wanted.gateway) &&
    route.protocol === wanted.protocol
  );
}

export const routeDel: OpKind<'route.del'> = {
  apply: (host, { netns: name, route: wanted }) => {
    const netns = findNetns(host, name);
    if (!netns) return refuse('ENOENT');
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
  removes: ({ netns, route }) => [`route ${netns}/${route.destination}/${route.metric}`],
};
