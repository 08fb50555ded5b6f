/** Routes over rtnetlink (include/uapi/linux/rtnetlink.h, struct rtmsg; net/ipv4/fib_frontend.c, net/ipv6/route.c). */
import type { Scope } from '../../model/address.ts';
import { type Family, type Ip, familyOf, ipBytes, ipFromBytes } from '../../model/ip.ts';
import { DEFAULT_PREFIX, type Prefix, prefixIp, prefixLengthOf } from '../../model/prefix.ts';
import { type NextHop, type Route, type RouteType, routeFamily } from '../../model/route.ts';
import {
  type Attributes,
  type Writer,
  closeNest,
  findBytes,
  findNest,
  findSpan,
  findU32,
  openNest,
  putBytes,
  putU32,
  readAttributes,
} from './attribute.ts';
import { AF_INET, AF_INET6, decodeScope, encodeScope } from './family.ts';
import {
  type Message,
  NLM_F_ACK,
  NLM_F_CREATE,
  NLM_F_DUMP,
  NLM_F_EXCL,
  encodeMessage,
} from './message.ts';

const RTM_NEWROUTE = 24;
const RTM_DELROUTE = 25;
const RTM_GETROUTE = 26;

/** struct rtmsg: family, destination length, source length, tos, table, protocol, scope, type, flags 32. */
const RTMSG_BYTES = 12;
const RTM_TABLE = 4;
const RTM_PROTOCOL = 5;
const RTM_SCOPE = 6;
const RTM_TYPE = 7;
const RTM_FLAGS = 8;

const RTA_DST = 1;
const RTA_OIF = 4;
const RTA_GATEWAY = 5;
const RTA_PRIORITY = 6;
const RTA_PREFSRC = 7;
const RTA_METRICS = 8;
const RTA_MULTIPATH = 9;
const RTA_TABLE = 15;
/** A gateway of the other family: its family in 16 bits, then its address. */
const RTA_VIA = 18;

const RTAX_MTU = 2;
const RTAX_ADVMSS = 8;

const RTM_F_CLONED = 0x200;
const RTNH_F_DEAD = 1;
const RTNH_F_ONLINK = 4;

/** struct rtnexthop: its length with attributes 16, flags 8, weight less one 8, ifindex 32. */
const RTNEXTHOP_BYTES = 8;

/** RTN_* in the order of their numbers, from 1 on. */
const TYPES: readonly RouteType[] = [
  'unicast',
  'local',
  'broadcast',
  'anycast',
  'multicast',
  'blackhole',
  'unreachable',
  'prohibit',
  'throw',
];

function putGateway(writer: Writer, destination: Prefix, gateway: Ip): void {
  const bytes = ipBytes(gateway);
  if (familyOf(gateway) === familyOf(destination)) return putBytes(writer, RTA_GATEWAY, bytes);
  const via = new Uint8Array(2 + bytes.length);
  via[0] = bytes.length === 4 ? AF_INET : AF_INET6;
  via.set(bytes, 2);
  return putBytes(writer, RTA_VIA, via);
}

function putMetrics(writer: Writer, { mtuBytes, advmssBytes }: Route): void {
  if (mtuBytes === undefined && advmssBytes === undefined) return;
  const metrics = openNest(writer, RTA_METRICS);
  if (mtuBytes !== undefined) putU32(writer, RTAX_MTU, mtuBytes);
  if (advmssBytes !== undefined) putU32(writer, RTAX_ADVMSS, advmssBytes);
  closeNest(writer, metrics);
}

function putRoute(
  writer: Writer,
  fixed: number,
  route: Route,
  ifindex: number | undefined,
  scope: Scope,
): void {
  const { bytes } = writer;
  const length = prefixLengthOf(route.destination);
  bytes[fixed] = routeFamily(route) === 4 ? AF_INET : AF_INET6;
  bytes[fixed + 1] = length;
  bytes[fixed + RTM_TABLE] = route.table < 256 ? route.table : 0;
  bytes[fixed + RTM_PROTOCOL] = route.protocol;
  bytes[fixed + RTM_SCOPE] = encodeScope(scope);
  bytes[fixed + RTM_TYPE] = TYPES.indexOf(route.type) + 1;
  if (route.onlink) writer.view.setUint32(fixed + RTM_FLAGS, RTNH_F_ONLINK, true);
  if (length > 0) putBytes(writer, RTA_DST, ipBytes(prefixIp(route.destination)));
  if (route.table >= 256) putU32(writer, RTA_TABLE, route.table);
  if (route.metric !== 0) putU32(writer, RTA_PRIORITY, route.metric);
  if (route.gateway !== null) putGateway(writer, route.destination, route.gateway);
  if (ifindex !== undefined) putU32(writer, RTA_OIF, ifindex);
  if (route.source !== null) putBytes(writer, RTA_PREFSRC, ipBytes(route.source));
}

/** Adds a route through the link with this ifindex; EEXIST when its table has one with that destination and metric. */
export function encodeRouteAdd(route: Route, ifindex: number | undefined): Uint8Array {
  return encodeMessage(
    RTM_NEWROUTE,
    NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL,
    RTMSG_BYTES,
    (writer, fixed) => {
      putRoute(writer, fixed, route, ifindex, route.scope);
      putMetrics(writer, route);
    },
  );
}

/**
 * Removes the first route of the table with that destination, metric, nexthop, type and protocol: what else a route
 * has is not compared, so it is not sent, and scope "nowhere" fits any (fib_table_delete). ESRCH without one.
 */
export function encodeRouteDel(route: Route, ifindex: number | undefined): Uint8Array {
  const compared = { ...route, source: null, onlink: false };
  return encodeMessage(RTM_DELROUTE, NLM_F_ACK, RTMSG_BYTES, (writer, fixed) => {
    putRoute(writer, fixed, compared, ifindex, routeFamily(route) === 4 ? 'nowhere' : 'global');
  });
}

/** Asks for the routes of both families and all tables through one link, or with 0 for all (filtered since kernel 4.20). */
export function encodeRouteDump(ifindex: number): Uint8Array {
  return encodeMessage(RTM_GETROUTE, NLM_F_DUMP, RTMSG_BYTES, (writer) => {
    if (ifindex !== 0) putU32(writer, RTA_OIF, ifindex);
  });
}

/** Asks for the routes of one family in one table. */
export function encodeTableDump(family: Family, table: number): Uint8Array {
  return encodeMessage(RTM_GETROUTE, NLM_F_DUMP, RTMSG_BYTES, ({ bytes }, fixed) => {
    bytes[fixed] = family === 4 ? AF_INET : AF_INET6;
    bytes[fixed + RTM_TABLE] = table;
  });
}

/** A route without its link's name, and the ifindex of that link; undefined without one, or with several nexthops. */
export interface RouteRecord {
  readonly ifindex: number | undefined;
  readonly route: Omit<Route, 'device' | 'nextHops'>;
  /** Several ways, each by its link. */
  readonly nextHops?: readonly NextHopRecord[];
}

export interface NextHopRecord {
  readonly ifindex: number;
  readonly hop: Omit<NextHop, 'device'>;
}

function findIp(attributes: Attributes, type: number): Ip | null {
  const bytes = findBytes(attributes, type);
  return bytes ? ipFromBytes(bytes) : null;
}

function findGateway(attributes: Attributes): Ip | null {
  const via = findBytes(attributes, RTA_VIA);
  return via ? ipFromBytes(via.subarray(2)) : findIp(attributes, RTA_GATEWAY);
}

function findMetrics(attributes: Attributes): Pick<Route, 'mtuBytes' | 'advmssBytes'> {
  const metrics = findNest(attributes, RTA_METRICS);
  if (!metrics) return {};
  const [mtuBytes, advmssBytes] = [findU32(metrics, RTAX_MTU), findU32(metrics, RTAX_ADVMSS)];
  return {
    ...(mtuBytes === undefined ? {} : { mtuBytes }),
    ...(advmssBytes === undefined ? {} : { advmssBytes }),
  };
}

function findNextHops(attributes: Attributes): readonly NextHopRecord[] | undefined {
  const span = findSpan(attributes, RTA_MULTIPATH);
  if (!span) return undefined;
  const { bytes, view } = attributes;
  const hops: NextHopRecord[] = [];
  let at = span.start;
  while (at + RTNEXTHOP_BYTES <= span.end) {
    const length = view.getUint16(at, true);
    if (length < RTNEXTHOP_BYTES || at + length > span.end) break;
    const own = readAttributes(attributes, at + RTNEXTHOP_BYTES, at + length);
    const isDead = ((bytes[at + 2] ?? 0) & RTNH_F_DEAD) !== 0;
    const hop = { gateway: findGateway(own), weight: (bytes[at + 3] ?? 0) + 1 };
    hops.push({
      ifindex: view.getInt32(at + 4, true),
      hop: isDead ? { ...hop, dead: true } : hop,
    });
    at += (length + 3) & ~3;
  }
  return hops;
}

/** A route in an answer; undefined for another message, another family, a cached route or a type that IP has no use for. */
export function decodeRoute(message: Message): RouteRecord | undefined {
  const { bytes, start, view } = message;
  const family = bytes[start];
  const type = TYPES[(bytes[start + RTM_TYPE] ?? 0) - 1];
  const flags = view.getUint32(start + RTM_FLAGS, true);
  if (message.type !== RTM_NEWROUTE || (family !== AF_INET && family !== AF_INET6) || !type)
    return undefined;
  if ((flags & RTM_F_CLONED) !== 0) return undefined;
  const attributes = readAttributes(message, start + RTMSG_BYTES, message.end);
  const nextHops = findNextHops(attributes);
  // Its host bits are zero already.
  const destination = findIp(attributes, RTA_DST);
  return {
    ifindex: findU32(attributes, RTA_OIF),
    ...(nextHops === undefined ? {} : { nextHops }),
    route: {
      destination:
        destination === null
          ? DEFAULT_PREFIX[family === AF_INET ? 4 : 6]
          : (`${destination}/${bytes[start + 1] ?? 0}` as Prefix),
      type,
      table: findU32(attributes, RTA_TABLE) ?? bytes[start + RTM_TABLE] ?? 0,
      metric: findU32(attributes, RTA_PRIORITY) ?? 0,
      gateway: findGateway(attributes),
      scope: decodeScope(bytes[start + RTM_SCOPE] ?? 0),
      protocol: bytes[start + RTM_PROTOCOL] ?? 0,
      source: findIp(attributes, RTA_PREFSRC),
      onlink: (flags & RTNH_F_ONLINK) !== 0,
      ...findMetrics(attributes),
    },
  };
}
