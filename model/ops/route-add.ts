import { type Host, findLink, getNetns, withNetns } from '../host.ts';
import { familyOf } from '../ip.ts';
import { type OpKind, type Outcome, done, refuse } from '../op.ts';
import { ipv4RouteFault, ipv6RouteFault } from '../route-check.ts';
import {
  PROTOCOL_BOOT,
  PROTOCOL_KERNEL,
  type Route,
  TABLE_LOCAL,
  TABLE_MAIN,
  routeFamily,
  routeKey,
  sameRouteKey,
} from '../route.ts';

/** Adds a unicast route with one nexthop to its table. */
export interface RouteAdd {
  readonly route: Route;
}

/** What is more than the kernel keeps is cut, and 0 is none (net/ipv4/metrics.c, ip_metrics_convert). */
function asStored({ mtuBytes = 0, advmssBytes = 0, ...route }: Route): Route {
  return {
    ...route,
    ...(mtuBytes === 0 ? {} : { mtuBytes: Math.min(mtuBytes, 65_520) }),
    ...(advmssBytes === 0 ? {} : { advmssBytes: Math.min(advmssBytes, 65_495) }),
  };
}

function insert(host: Host, name: string, given: Route): Outcome {
  const netns = getNetns(host, name);
  const route = asStored(given);
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
  if (route.table !== TABLE_MAIN && route.table !== TABLE_LOCAL) words.push(`table ${route.table}`);
  if (route.mtuBytes !== undefined) words.push(`mtu ${route.mtuBytes}`);
  if (route.advmssBytes !== undefined) words.push(`advmss ${route.advmssBytes}`);
  return words.join(' ');
}

/** `ip route` takes the family of `default` from its gateway or from this flag. */
export function familyFlag(route: Route): string {
  return routeFamily(route) === 6 ? '-6 ' : '';
}

export const routeAdd: OpKind<'route.add'> = {
  apply: (host, { netns: name, route }) => {
    const netns = getNetns(host, name);
    const link =
      route.device === null ? undefined : findLink(host, { netns: name, ifname: route.device });
    if (!link) return refuse('ENODEV');
    const fault =
      routeFamily(route) === 4
        ? ipv4RouteFault(netns, route, link)
        : ipv6RouteFault(netns, route, link);
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
    `route ${netns}/${routeKey(route)}`,
    ...(route.gateway === null ? [`onlink ${netns}/${route.device}`] : []),
  ],
  removes: () => [],
};
