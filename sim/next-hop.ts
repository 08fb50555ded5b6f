/**
 * Routes by several next hops: the kernel takes one by a hash of the packet's addresses, and here it is the first (K-5.1; net/ipv4/fib_semantics.c,
 * fib_select_multipath; net/ipv6/route.c, fib6_select_path).
 */
import type { Host } from '../model/host.ts';
import type { Ifname } from '../model/ifname.ts';
import type { NextHop, Route } from '../model/route.ts';
import { oncePer } from './remembered.ts';

function aliveOf({ nextHops = [] }: Route): readonly NextHop[] {
  return nextHops.filter(({ dead }) => !dead);
}

/** Has a route a way that may be taken? One whose links are all down is as if it were not there (fib_lookup_good_nhc). */
export function isAlive(route: Route): boolean {
  return route.nextHops === undefined || aliveOf(route).length > 0;
}

/** A route by the first of its next hops that may be taken; the same where it has no several. */
export const byOne = oncePer((route: Route): Route => {
  const [first] = aliveOf(route);
  return first ? { ...route, gateway: first.gateway, device: first.device } : route;
});

/** Does a route lead by a link, maybe among others (fib_info_nh_uses_dev)? */
export function leadsBy(route: Route, device: Ifname): boolean {
  return route.device === device || aliveOf(route).some((hop) => hop.device === device);
}

/** By how many next hops a packet may take a route. */
export function waysOf(route: Route): number {
  return Math.max(1, aliveOf(route).length);
}

/** The host where of each route with several next hops others come first: each is the first of its route for one of as many numbers as there are. */
export function turned(host: Host, by: number): Host {
  const turn = (route: Route): Route => {
    const { nextHops } = route;
    if (nextHops === undefined || nextHops.length === 0) return route;
    const at = by % nextHops.length;
    return { ...route, nextHops: [...nextHops.slice(at), ...nextHops.slice(0, at)] };
  };
  const netns = Object.entries(host.netns).map(([name, state]) =>
    state.routes.some(({ nextHops }) => nextHops !== undefined)
      ? [name, { ...state, routes: state.routes.map(turn) }]
      : [name, state],
  );
  return { ...host, netns: Object.fromEntries(netns) };
}

function hopText({ gateway, device, weight, dead }: NextHop): string {
  const via = gateway === null ? '' : ` via ${gateway}`;
  const share = weight === 1 ? '' : ` weight ${weight}`;
  return `nexthop${via} dev ${device}${share}${dead ? ' dead' : ''}`;
}

/** The next hops of a route in the words of `ip route`. */
export function hopsText({ nextHops = [] }: Route): string {
  return nextHops.map(hopText).join(' ');
}
