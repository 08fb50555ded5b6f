/**
 * What links do by themselves when something changes: carrier, IPv6 link-local addresses, the routes
 * of links that come and go, the MAC and MTU of bridges. Every function takes and returns a whole host.
 */
import type { Address } from './address.ts';
import { hasCarrier, neighbourhood } from './carrier.ts';
import { hostPrefix, routesOfAddress } from './connected.ts';
import { withOwnMac, withoutStrangers } from './fdb.ts';
import { dropRoutes, sameRoute, withRoutes } from './fib.ts';
import {
  type Host,
  type Netns,
  type NetnsName,
  findLink,
  getLink,
  getNetns,
  portsOf,
  withLink,
  withNetns,
  without,
} from './host.ts';
import { addAddress, dropSourced, ipv4AddressFault } from './inet.ts';
import { type Ip, familyOf, parseIp } from './ip.ts';
import { endIpv6, followMtu, readyIpv6, startIpv6 } from './ipv6-link.ts';
import { type BridgeLink, type Link, type LinkRef, MTU_MAX_BYTES, MTU_MIN_BYTES } from './link.ts';
import { type Mac, ZERO_MAC } from './mac.ts';
import { type Route, routeFamily } from './route.ts';
import { dropLinkSysctls } from './sysctl.ts';
import { lowerOf, macvlansOver, retellLower, uppersOf } from './upper.ts';
import { tunnelsIn } from './vxlan.ts';

const LOOPBACK_ADDRESS: Address = {
  ip: parseIp('127.0.0.1'),
  prefixLength: 8,
  peer: null,
  broadcast: null,
  scope: 'host',
  secondary: false,
  noPrefixRoute: false,
  noDad: false,
  tentative: false,
};

/** Lets IPv6 begin on every link whose carrier a change brought. */
export function settleCarrier(before: Host, after: Host, changed: LinkRef): Host {
  const refs = [...neighbourhood(before, changed), ...neighbourhood(after, changed)];
  return readyIpv6(
    after,
    refs.filter((ref) => !hasCarrier(before, ref) && hasCarrier(after, ref)),
  );
}

/** A loopback that goes up has 127.0.0.1 (K-2.1; net/ipv4/devinet.c, inetdev_event). */
function startLoopback(host: Host, ref: LinkRef): Host {
  const fault = ipv4AddressFault(getLink(host, ref), LOOPBACK_ADDRESS);
  return fault ? host : addAddress(host, ref, LOOPBACK_ADDRESS);
}

/**
 * The routes that an address has when its link goes up. That to an IPv6 peer comes with the local route, once: when the
 * address was added, also to a link that was down (addrconf.c, fixup_permanent_addr and __ipv6_ifa_notify).
 */
function routesOfRise(netns: Netns, link: Link, address: Address): Route[] {
  const routes = routesOfAddress(netns, link, address);
  const known = netns.routes.some(
    (r) => r.type === 'local' && routes.some((own) => own.type === 'local' && sameRoute(own, r)),
  );
  if (familyOf(address.ip) === 4 || address.peer === null || !known) return routes;
  const peer = hostPrefix(address.peer);
  return routes.filter((r) => r.destination !== peer || r.type !== 'unicast');
}

/** Admin up: the routes of the addresses come (K-3.1, K-4.1); routes made by hand do not come back. */
export function linkUp(before: Host, ref: LinkRef): Host {
  const link = getLink(before, ref);
  if (link.up) return before;
  // Addresses that were kept go through duplicate address detection again, and it ends well.
  const addresses = link.addresses.map((a) => (a.tentative ? { ...a, tentative: false } : a));
  let host = before;
  let risen: Link = { ...link, addresses, up: true };
  if (link.kind === 'loopback') {
    host = startIpv6(startLoopback(withLink(host, ref.netns, risen), ref), ref);
    risen = getLink(host, ref);
  }
  const netns = getNetns(host, ref.netns);
  const own = risen.addresses.flatMap((address) => routesOfRise(netns, risen, address));
  const links = { ...netns.links, [ref.ifname]: risen };
  host = withNetns(host, ref.netns, { ...netns, links, routes: withRoutes(netns.routes, own) });
  return settleCarrier(before, host, ref);
}

/** Admin down: K-3.1, K-4.2, K-5.2 and, for neighbours, K-7.3. IPv4 keeps its addresses and their local routes. */
export function linkDown(before: Host, ref: LinkRef): Host {
  const link = getLink(before, ref);
  if (!link.up) return before;
  let host = withLink(before, ref.netns, { ...link, up: false, neighbours: [] });
  host = dropRoutes(
    host,
    ref.netns,
    // What stays on the host needs no link that is up (fib_sync_down_dev: nexthops of scope nowhere).
    (r) =>
      r.device === ref.ifname && routeFamily(r) === 4 && r.type !== 'local' && r.scope !== 'host',
  );
  host = endIpv6(host, ref);
  return settleCarrier(before, host, ref);
}

/** The lowest MAC and the lowest MTU of a bridge's ports; undefined of none. */
function lowestOfPorts(
  { links }: Netns,
  bridge: Link['ifname'],
): { readonly mac: Mac | undefined; readonly mtuBytes: number | undefined } {
  let mac: Mac | undefined;
  let mtuBytes: number | undefined;
  for (const link of Object.values(links)) {
    if (link.port?.master !== bridge) continue;
    if (link.mac !== null && (mac === undefined || link.mac < mac)) mac = link.mac;
    if (mtuBytes === undefined || link.mtuBytes < mtuBytes) mtuBytes = link.mtuBytes;
  }
  return { mac, mtuBytes };
}

/** A bridge takes the lowest MAC and the lowest MTU of its ports until they are chosen (K-1.10, K-1.11; br_stp_if.c, br_if.c). */
function followPorts(host: Host, netnsName: NetnsName, bridge: BridgeLink, carrierIn: Host): Host {
  const lowest = lowestOfPorts(getNetns(host, netnsName), bridge.ifname);
  const mac = bridge.macChosen ? bridge.mac : (lowest.mac ?? ZERO_MAC);
  const changed = mac === bridge.mac ? bridge : withOwnMac({ ...bridge, mac }, mac);
  const known = withoutStrangers(getNetns(host, netnsName), changed);
  const leastBytes = lowest.mtuBytes ?? 1500;
  // What is more than a bridge can have it does not take.
  const mtuBytes = bridge.mtuChosen || leastBytes > MTU_MAX_BYTES ? bridge.mtuBytes : leastBytes;
  if (known === bridge && mtuBytes === bridge.mtuBytes) return host;
  // A new MAC ends the neighbours that were known by the old one (K-7.3).
  const neighbours = mac === bridge.mac ? bridge.neighbours : [];
  const after = withLink(host, netnsName, { ...known, neighbours });
  // Routes look at an MTU only when it becomes another.
  if (mtuBytes === bridge.mtuBytes) return after;
  return changeMtu(after, { netns: netnsName, ifname: bridge.ifname }, mtuBytes, carrierIn);
}

/** The bridge `master`, if it is one, after an address became its own or that of a port. */
export function claimMac(
  host: Host,
  netnsName: NetnsName,
  master: Link['ifname'] | undefined,
  mac: Mac | null,
): Host {
  const bridge =
    master === undefined ? undefined : findLink(host, { netns: netnsName, ifname: master });
  return bridge?.kind === 'bridge' && bridge.fdb
    ? withLink(host, netnsName, withOwnMac(bridge, mac))
    : host;
}

/**
 * After a port came, went or changed: the bridge follows. Of a port that goes its carrier goes last, when linkwatch
 * comes to it (K-1.9): then `carrierIn` is the host before.
 */
export function followMaster(
  host: Host,
  netnsName: NetnsName,
  master: Link['ifname'] | undefined,
  carrierIn: Host = host,
): Host {
  const bridge =
    master === undefined ? undefined : findLink(host, { netns: netnsName, ifname: master });
  return bridge?.kind === 'bridge' ? followPorts(host, netnsName, bridge, carrierIn) : host;
}

/**
 * A link has another MTU, and with it those that follow: macvlans over it that were larger, if they can be so small (K-1.18),
 * and its bridge (K-1.11).
 */
export function changeMtu(
  before: Host,
  ref: LinkRef,
  mtuBytes: number,
  carrierIn: Host = before,
): Host {
  const changed = followMtu(before, ref, mtuBytes, carrierIn);
  const followers = mtuBytes < MTU_MIN_BYTES ? [] : macvlansOver(changed, ref);
  const shrunk = followers.reduce(
    (host, macvlan) =>
      getLink(host, macvlan).mtuBytes > mtuBytes
        ? changeMtu(host, macvlan, mtuBytes, carrierIn)
        : host,
    changed,
  );
  return followMaster(shrunk, ref.netns, getLink(shrunk, ref).port?.master);
}

/** What was redirected to a link that goes leads nowhere (net/sched/act_mirred.c, mirred_device_event). */
function withoutTarget(links: Netns['links'], gone: Link['ifname']): Netns['links'] {
  const redirecting = Object.values(links).filter(
    (link) => link.trafficControl?.ingress?.redirect === gone,
  );
  let rest = links;
  for (const link of redirecting) {
    const { trafficControl = {} } = link;
    const ingress = { kind: 'clsact' as const, ...trafficControl.ingress, redirect: null };
    rest = { ...rest, [link.ifname]: { ...link, trafficControl: { ...trafficControl, ingress } } };
  }
  return rest;
}

/**
 * The IPv4 addresses whose end is noticed when their link goes: a secondary is told from its primary, which went before it
 * (K-3.5; net/ipv4/fib_frontend.c, fib_del_ifaddr).
 */
function primariesOf(link: Link): Ip[] {
  const ipv4 = link.addresses.filter((a) => familyOf(a.ip) === 4);
  const unnoticed = new Set(ipv4.filter((a) => a.secondary).map((a) => a.ip));
  return ipv4.map((a) => a.ip).filter((ip) => !unnoticed.has(ip));
}

/** A link is no longer where it was, with everything that hung on it; its carrier goes from `before` (`followMaster`). */
export function forgetLink(host: Host, ref: LinkRef, before: Host): Host {
  const netns = getNetns(host, ref.netns);
  const link = getLink(host, ref);
  let links = withoutTarget(without(netns.links, ref.ifname), ref.ifname);
  // Ports of a bridge that goes are released as they are (K-1.14).
  for (const port of link.kind === 'bridge' ? portsOf(netns, link.ifname) : []) {
    // It may have redirected to the bridge as well.
    links = { ...links, [port.ifname]: { ...(links[port.ifname] ?? port), port: null } };
  }
  const after: Netns = {
    ...netns,
    links,
    routes: netns.routes.filter((r) => r.device !== ref.ifname),
    sysctls: dropLinkSysctls(netns, ref.ifname, [4, 6]),
  };
  const rest = dropSourced(withNetns(host, ref.netns, after), ref.netns, primariesOf(link));
  return followMaster(retellLower(rest, link, ref), ref.netns, link.port?.master, before);
}

/** A link is gone, a veth with its peer (K-1.5), with everything that hangs on them, and what is made over them (K-1.18, K-9.1). */
export function removeLink(before: Host, ref: LinkRef, carrierIn: Host = before): Host {
  const link = getLink(before, ref);
  const refs =
    link.kind === 'veth' && link.peer && findLink(before, link.peer) ? [ref, link.peer] : [ref];
  // Nobody gains carrier by it.
  return refs.reduce((host, each) => {
    // What an earlier one of them took along knows of it no longer.
    const uppers = uppersOf(host, each);
    return removeLinks(forgetLink(host, each, carrierIn), uppers, carrierIn);
  }, before);
}

/** Links go, those that are left of these. What follows them has the carrier that it has in `carrierIn`. */
export function removeLinks(
  before: Host,
  refs: readonly LinkRef[],
  carrierIn: Host = before,
): Host {
  return refs.reduce(
    (host, ref) => (findLink(host, ref) ? removeLink(host, ref, carrierIn) : host),
    before,
  );
}

/**
 * A netns is gone, with its links, the far ends of its veths (K-2.4, K-2.5), what is made over them, and the vxlans whose
 * packets were its own.
 */
export function removeNetns(whole: Host, name: NetnsName): Host {
  const away = tunnelsIn(whole, name).filter(({ netns }) => netns !== name);
  const before = removeLinks(whole, away);
  const links = Object.values(getNetns(before, name).links);
  const emptied = links.reduce((host, { ifname }) => {
    const link = findLink(host, { netns: name, ifname });
    const isTied = link && (link.kind === 'veth' || link.uppers || lowerOf(link));
    // All go at once: whoever is left has the carrier that it had before the first.
    return isTied ? removeLink(host, { netns: name, ifname }, whole) : host;
  }, before);
  return { ...emptied, netns: without(emptied.netns, name) };
}
