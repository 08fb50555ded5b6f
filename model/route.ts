import type { Scope } from './address.ts';
import type { Ifname } from './ifname.ts';
import { type Family, type Ip, familyOf } from './ip.ts';
import type { Prefix } from './prefix.ts';

/** include/uapi/linux/rtnetlink.h, RTN_*. */
export type RouteType =
  | 'unicast'
  | 'local'
  | 'broadcast'
  | 'anycast'
  | 'multicast'
  | 'blackhole'
  | 'unreachable'
  | 'prohibit'
  | 'throw';

/** RT_TABLE_DEFAULT, RT_TABLE_MAIN and RT_TABLE_LOCAL. */
export const TABLE_DEFAULT = 253;
export const TABLE_MAIN = 254;
export const TABLE_LOCAL = 255;

/** Who made a route (RTPROT_*). */
export const PROTOCOL_KERNEL = 2;
/** What iproute2 uses when nothing is said: a route made by hand. */
export const PROTOCOL_BOOT = 3;
/** Ours: in the range that the kernel leaves to user space, and unnamed in iproute2's rt_protos. */
export const PROTOCOL_CUBE = 201;

/** The metric IPv6 gives a route when none is asked for, and to routes of its own (K-5). */
const IP6_DEFAULT_METRIC = 1024;
export const IP6_KERNEL_METRIC = 256;

/** One of several ways of a route. */
export interface NextHop {
  readonly gateway: Ip | null;
  readonly device: Ifname | null;
  /** Its share of the packets, among those of the others. */
  readonly weight: number;
  /** Its link is down, and nothing takes it (RTNH_F_DEAD). */
  readonly dead?: true;
}

/** One route with one nexthop, several, or none. */
export interface Route {
  readonly destination: Prefix;
  readonly type: RouteType;
  readonly table: number;
  /** IPv4: 0 unless chosen; IPv6: `IP6_DEFAULT_METRIC` unless chosen. */
  readonly metric: number;
  readonly gateway: Ip | null;
  readonly device: Ifname | null;
  readonly scope: Scope;
  readonly protocol: number;
  /** The source address that packets without one take. */
  readonly source: Ip | null;
  /** The gateway is taken to be on the device's link without being checked. */
  readonly onlink: boolean;
  /** The MTU and the MSS to announce along the route (RTAX_MTU, RTAX_ADVMSS); absent: those of the link. */
  readonly mtuBytes?: number;
  readonly advmssBytes?: number;
  /** Where it has several: a packet takes one by chance, and what the route itself has of a gateway and a device is null. Nobody plans such a route. */
  readonly nextHops?: readonly NextHop[];
}

/** The fields of a route that its maker chooses. */
export interface RouteChoice {
  readonly destination: Prefix;
  readonly device: Ifname;
  readonly gateway?: Ip | null;
  readonly metric?: number;
  readonly source?: Ip | null;
  readonly protocol?: number;
  readonly onlink?: boolean;
  readonly table?: number;
  /** IPv6 has none: it is not looked at. */
  readonly scope?: Scope;
  readonly mtuBytes?: number;
  readonly advmssBytes?: number;
}

/** A unicast route, in the main table and with the scope iproute2 would choose unless others are chosen. */
export function makeRoute(choice: RouteChoice): Route {
  const gateway = choice.gateway ?? null;
  const family = familyOf(choice.destination);
  return {
    destination: choice.destination,
    type: 'unicast',
    table: choice.table ?? TABLE_MAIN,
    metric: choice.metric ?? (family === 6 ? IP6_DEFAULT_METRIC : 0),
    gateway,
    device: choice.device,
    scope: family === 6 ? 'global' : (choice.scope ?? (gateway === null ? 'link' : 'global')),
    protocol: choice.protocol ?? PROTOCOL_BOOT,
    source: choice.source ?? null,
    onlink: choice.onlink ?? false,
    ...(choice.mtuBytes === undefined ? {} : { mtuBytes: choice.mtuBytes }),
    ...(choice.advmssBytes === undefined ? {} : { advmssBytes: choice.advmssBytes }),
  };
}

export function routeFamily(route: Route): Family {
  return familyOf(route.destination);
}

/** May two routes not stand in one table together? The kernel tells them apart by destination and metric (K-5). */
export function sameRouteKey(a: Route, b: Route): boolean {
  return a.table === b.table && a.metric === b.metric && a.destination === b.destination;
}

/** What tells a route from the others of its netns, as one text. */
export function routeKey({ table, destination, metric }: Route): string {
  return `${table === TABLE_MAIN ? '' : `${table}/`}${destination}/${metric}`;
}
