/** What routing answers: for a packet of the netns's own, and for one that arrived. */
import type { Netns } from '../model/host.ts';
import type { Ifname } from '../model/ifname.ts';
import { type Ip, familyOf, isLoopback } from '../model/ip.ts';
import { policyRuleText } from '../model/policy-rule.ts';
import {
  type Doubt,
  type Flow,
  OWN_PACKETS,
  localType,
  lookupSurely,
} from '../model/route-lookup.ts';
import type { Route } from '../model/route.ts';
import { linkSysctl } from '../model/sysctl.ts';
import { coveringRoutes } from './covering-routes.ts';
import { type ErrorKind, isLinkLocal, isMulticast, isUnspecified } from './frame.ts';
import { byOne, hopsText, isAlive, leadsBy, waysOf } from './next-hop.ts';
import type { DropReason } from './reason.ts';
import { oncePer, oncePerWord, oncePerWords } from './remembered.ts';

/** No way on, and the reason. */
export interface NoRoute {
  readonly kind: 'drop';
  readonly reason: DropReason;
  readonly text: string;
  readonly rule: string;
  /** What the packet's sender is told, if that is anything. */
  readonly error?: ErrorKind;
}

/** It hangs on something that is not known. */
export interface UnknownRoute {
  readonly kind: 'unknown';
  readonly text: string;
}

export type OutputRoute =
  | { readonly kind: 'local' | 'forward'; readonly route: Route }
  | NoRoute
  | UnknownRoute;

/** A doubt in words: `whether rule 50 (not from 10.244.0.0/16 blackhole) fits is not known`. */
export function unknownRoute({ doubtful }: Doubt): UnknownRoute {
  const text = `whether rule ${doubtful.priority} (${policyRuleText(doubtful)}) fits is not known`;
  return { kind: 'unknown', text };
}

/** What a lookup without a usable route answers a sender (K-5.1). */
const SEND_ERROR: Readonly<Record<string, string>> = {
  unreachable: 'EHOSTUNREACH',
  blackhole: 'EINVAL',
  prohibit: 'EACCES',
};

/** What an address is to the netns by its table local alone, whatever its policy rules (inet_addr_type). */
export const localTypeOf = oncePerWord(
  (netns: Netns, ip: Ip): Route['type'] | 'none' =>
    localType(coveringRoutes(netns, ip), ip) ?? 'none',
);

/** A route that leads on, and nobody has read by which link: in a snapshot from before routes by several next hops were read. */
function unreadHops(route: Route): UnknownRoute {
  return { kind: 'unknown', text: `the next hops of route ${formatRoute(route)} are not read` };
}

/** The best route of a netns: link-local destinations are only ever on the link that is meant. */
function findRoute(
  netns: Netns,
  destination: Ip,
  device: Ifname | null,
  flow: Flow,
): Route | Doubt | undefined {
  const onLink = device !== null && isLinkLocal(destination);
  const found = lookupSurely(
    coveringRoutes(netns, destination),
    destination,
    flow,
    (route) => isAlive(route) && (!onLink || leadsBy(route, device) || route.type === 'local'),
  );
  return found && 'doubtful' in found ? found : found && byOne(found);
}

/** The route for a packet that the netns sends itself, from `source` if it is chosen; `device` is the link that a link-local destination is on. */
export function routeOutput(
  netns: Netns,
  source: Ip | null,
  destination: Ip,
  device: Ifname | null,
  mark = 0,
): OutputRoute {
  // An answer of IPv6 has to leave by where it was asked (icmpv6_echo_reply), one of IPv4 may go by any link (icmp_reply).
  const oif = familyOf(destination) === 6 ? device : null;
  const route = findRoute(netns, destination, device, { ...OWN_PACKETS, source, oif, mark });
  if (route && 'doubtful' in route) return unknownRoute(route);
  if (route?.type === 'local' || route?.type === 'anycast') return { kind: 'local', route };
  if (route?.type === 'unicast' && route.device !== null) return { kind: 'forward', route };
  if (route?.type === 'unicast') return unreadHops(route);
  if (route?.type === 'broadcast') {
    const text = `EACCES: ${destination} is a broadcast address`;
    return { kind: 'drop', reason: 'SOCKET_REFUSED', text, rule: 'K-5.1' };
  }
  const errno = SEND_ERROR[route?.type ?? ''] ?? 'ENETUNREACH';
  const found =
    route === undefined
      ? `no route to ${destination}`
      : `the route to ${destination} is ${route.type}`;
  return { kind: 'drop', reason: 'IP_OUTNOROUTES', text: `${errno}: ${found}`, rule: 'K-5.1' };
}

/** What a router says of a route that ends packets: of a blackhole nothing (ip_error; ip6_pkt_drop says of an unreachable one what it says of none). */
function noRouteError(family: 4 | 6, type: string | undefined): { readonly error?: ErrorKind } {
  if (type === 'blackhole') return {};
  if (type === 'prohibit') return { error: 'admin prohibited' };
  const isNamed = family === 4 && type === 'unreachable';
  return { error: isNamed ? 'host unreachable' : 'net unreachable' };
}

function ipv4Number(netns: Netns, device: Ifname, name: string): number {
  const value = (of: Ifname | 'all'): number =>
    Number(
      of === 'all'
        ? (netns.sysctls[`net/ipv4/conf/all/${name}`] ?? 0)
        : linkSysctl(netns, 4, of, name),
    );
  return Math.max(value('all'), value(device));
}

/** A setting of which the greater of `all` and the link's own counts (IN_DEV_MAXCONF). */
export function strictest(netns: Netns, device: Ifname, name: 'rp_filter' | 'arp_ignore'): number {
  return ipv4Number(netns, device, name);
}

/** A setting that counts when either `all` or the link has it (IN_DEV_ORCONF). */
export function isSwitchedOn(
  netns: Netns,
  device: Ifname,
  name: 'accept_local' | 'arp_filter' | 'proxy_arp' | 'route_localnet',
): boolean {
  return ipv4Number(netns, device, name) !== 0;
}

/** Does a packet that came in by `device` go on to other hosts? K-7.6. */
export function forwards(netns: Netns, family: 4 | 6, device: Ifname): boolean {
  if (family === 6) return (netns.sysctls['net/ipv6/conf/all/forwarding'] ?? '0') !== '0';
  return linkSysctl(netns, 4, device, 'forwarding') !== '0';
}

function noRoute(reason: DropReason, text: string, rule: string): NoRoute {
  return { kind: 'drop', reason, text, rule };
}

/** May a packet from `source` come in by `device`? `back`: what would answer it. net/ipv4/fib_frontend.c, fib_validate_source; K-7.4 and K-7.5. */
function sourceFault(
  netns: Netns,
  device: Ifname,
  source: Ip,
  back: Flow,
): NoRoute | UnknownRoute | undefined {
  const acceptsLocal = isSwitchedOn(netns, device, 'accept_local');
  const isOwn = Object.values(netns.links).some((link) =>
    link.addresses.some((address) => address.ip === source),
  );
  if (isOwn && !acceptsLocal)
    return noRoute('IP_LOCAL_SOURCE', `${source} is an address of this netns`, 'K-7.5');
  const filter = strictest(netns, device, 'rp_filter');
  if (filter === 0) return undefined;
  const route = lookupSurely(coveringRoutes(netns, source), source, back, isAlive);
  if (route && 'doubtful' in route) return unknownRoute(route);
  if (route?.type === 'unicast' && (filter === 2 || leadsBy(route, device))) return undefined;
  if (route?.type === 'local' && acceptsLocal) return undefined;
  const text =
    route === undefined
      ? `there is no route back to ${source}`
      : route.nextHops === undefined
        ? `the route back to ${source} is by ${route.device}`
        : `none of the routes back to ${source} is by ${device}`;
  return noRoute('IP_RPFILTER', `rp_filter is ${filter}, and ${text}`, 'K-7.4');
}

/** Addresses that nothing from outside may carry (net/ipv4/route.c, ip_route_input_slow). */
function ipv4AddressFault(
  netns: Netns,
  device: Ifname,
  source: Ip,
  destination: Ip,
): NoRoute | undefined {
  if (isMulticast(source) || source === '255.255.255.255')
    return noRoute('IP_INVALID_SOURCE', `${source} is no host`, 'K-7.5');
  if (source.startsWith('0.')) return noRoute('IP_INVALID_SOURCE', `${source} is no host`, 'K-7.5');
  if (destination.startsWith('0.'))
    return noRoute('IP_INVALID_DEST', `${destination} is no host`, 'K-7.5');
  const loopback = isLoopback(source) ? source : isLoopback(destination) ? destination : undefined;
  if (loopback === undefined || isSwitchedOn(netns, device, 'route_localnet')) return undefined;
  return noRoute('IP_LOCALNET', `${loopback} came in by ${device}`, 'K-7.5');
}

export type InputRoute =
  | { readonly kind: 'local' | 'broadcast' | 'forward'; readonly route: Route }
  | NoRoute
  | UnknownRoute;

function routeInputIpv4(
  netns: Netns,
  device: Ifname,
  source: Ip,
  destination: Ip,
  mark: number,
): InputRoute {
  const fault = ipv4AddressFault(netns, device, source, destination);
  if (fault) return fault;
  const flow = { source, iif: device, mark };
  const route = findRoute(netns, destination, null, flow);
  if (route && 'doubtful' in route) return unknownRoute(route);
  if (route?.type === 'broadcast') return { kind: 'broadcast', route };
  if (route?.type === 'local')
    return (
      sourceFault(netns, device, source, { ...OWN_PACKETS, source: destination }) ?? {
        kind: 'local',
        route,
      }
    );
  if (!forwards(netns, 4, device)) {
    return noRoute(
      'IP_INADDRERRORS',
      `${destination} is not an address of this netns, and ${device} does not forward`,
      'K-7.6',
    );
  }
  if (route?.type === 'unicast' && route.device === null) return unreadHops(route);
  if (route?.type !== 'unicast' || route.device === null) {
    const found =
      route === undefined
        ? `no route to ${destination}`
        : `the route to ${destination} is ${route.type}`;
    return { ...noRoute('IP_INNOROUTES', found, 'K-7.7'), ...noRouteError(4, route?.type) };
  }
  const back = { source: destination, iif: route.device };
  return sourceFault(netns, device, source, back) ?? { kind: 'forward', route };
}

/** Whom a packet is for, be it to be forwarded or not (ip6_route_input). */
function findInputIpv6(
  netns: Netns,
  device: Ifname,
  source: Ip,
  destination: Ip,
  mark: number,
): InputRoute {
  if (isLoopback(source) || isLoopback(destination))
    return noRoute('IP_INHDR', '::1 came in by a link', 'K-7.5');
  if (isUnspecified(destination)) return noRoute('IP_INVALID_DEST', ':: is no host', 'K-7.5');
  const route = findRoute(netns, destination, device, { source, iif: device, mark });
  if (route && 'doubtful' in route) return unknownRoute(route);
  if (route?.type === 'local' || route?.type === 'anycast') return { kind: 'local', route };
  if (route?.type === 'unicast' && route.device !== null) return { kind: 'forward', route };
  if (route?.type === 'unicast') return unreadHops(route);
  const none = noRoute('IP_INNOROUTES', `no route to ${destination}`, 'K-7.7');
  return { ...none, ...noRouteError(6, route?.type) };
}

/** Why a packet may not be forwarded (ip6_forward). */
function forwardFaultIpv6(
  netns: Netns,
  device: Ifname,
  source: Ip,
  destination: Ip,
): NoRoute | undefined {
  if (!forwards(netns, 6, device)) {
    return noRoute(
      'IP_INADDRERRORS',
      `${destination} is not an address of this netns, and IPv6 forwarding is off`,
      'K-7.6',
    );
  }
  return isUnspecified(source) || isLinkLocal(source)
    ? noRoute('IP_INADDRERRORS', `${source} is not valid beyond its link`, 'K-7.7')
    : undefined;
}

function decideInput(
  netns: Netns,
  device: Ifname,
  source: Ip,
  destination: Ip,
  mark: number,
): InputRoute {
  const answer = findInput(netns, device, source, destination, mark);
  if (answer.kind !== 'forward' || familyOf(destination) === 4) return answer;
  return forwardFaultIpv6(netns, device, source, destination) ?? answer;
}

const decideUnmarked = oncePerWords(
  (netns: Netns, device: Ifname, source: Ip, destination: Ip): InputRoute =>
    decideInput(netns, device, source, destination, 0),
);

/** What becomes of a unicast packet that came in by a link other than loopback. */
export function routeInput(
  netns: Netns,
  device: Ifname,
  source: Ip,
  destination: Ip,
  mark = 0,
): InputRoute {
  return mark === 0
    ? decideUnmarked(netns, device, source, destination)
    : decideInput(netns, device, source, destination, mark);
}

/** Where a packet is to go, before IPv6 looks whether it may go on: a bridge that has another destination for one asks no more. */
export function findInput(
  netns: Netns,
  device: Ifname,
  source: Ip,
  destination: Ip,
  mark = 0,
): InputRoute {
  const find = familyOf(destination) === 4 ? routeInputIpv4 : findInputIpv6;
  return find(netns, device, source, destination, mark);
}

/** A route in the words of `ip route`. */
export const formatRoute = oncePer((route: Route): string => {
  const type = route.type === 'unicast' ? '' : `${route.type} `;
  const destination = route.destination.endsWith('/0') ? 'default' : route.destination;
  if (route.nextHops !== undefined && route.device === null)
    return `${type}${destination} ${hopsText(route)}`;
  const ways = waysOf(route);
  const among = ways === 1 ? '' : `, one of ${ways} next hops`;
  const via = route.gateway === null ? '' : ` via ${route.gateway}`;
  const device = route.device === null ? '' : ` dev ${route.device}`;
  return `${type}${destination}${via}${device}${among}`;
});
