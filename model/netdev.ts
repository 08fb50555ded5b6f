/**
 * What links do by themselves when something changes: carrier, IPv6 link-local addresses, the routes
 * of links that come and go, the MAC and MTU of bridges. Every function takes and returns a whole host.
 */
import type { Address } from './address.ts';
import {
  asStored,
  connectedPrefix,
  hasIpv6,
  linkLocalOf,
  multicastRoute,
  routesOfAddress,
} from './connected.ts';
import {
  type Host,
  type Netns,
  type NetnsName,
  findLink,
  findNetns,
  getLink,
  getNetns,
  portsOf,
  withLink,
  withNetns,
  without,
} from './host.ts';
import { familyOf, ipFromBytes, type Ip } from './ip.ts';
import type { BridgeLink, Link, LinkRef } from './link.ts';
import { macBytes, type Mac, ZERO_MAC } from './mac.ts';
import { type Route, routeFamily, sameRouteKey } from './route.ts';
import { dropLinkSysctls, linkSysctl } from './sysctl.ts';

/** Can frames pass (IFF_LOWER_UP)? K-1.6, K-1.7. */
export function hasCarrier(host: Host, ref: LinkRef): boolean {
  const link = findLink(host, ref);
  if (!link?.up) return false;
  switch (link.kind) {
    case 'loopback':
      return true;
    case 'veth':
      return link.peer === null || (findLink(host, link.peer)?.up ?? true);
    case 'bridge':
      return (
        !link.hadPorts ||
        portsOf(getNetns(host, ref.netns), link.ifname).some((port) =>
          hasCarrier(host, { netns: ref.netns, ifname: port.ifname }),
        )
      );
    case 'device':
      return link.carrier;
  }
}

function sameRoute(a: Route, b: Route): boolean {
  return (
    sameRouteKey(a, b) &&
    a.type === b.type &&
    a.device === b.device &&
    a.gateway === b.gateway &&
    a.scope === b.scope &&
    a.source === b.source
  );
}

function addRoutes(host: Host, name: NetnsName, routes: readonly Route[]): Host {
  const netns = getNetns(host, name);
  const fresh: Route[] = [];
  for (const route of routes) {
    if (![...netns.routes, ...fresh].some((r) => sameRoute(r, route))) fresh.push(route);
  }
  return fresh.length === 0
    ? host
    : withNetns(host, name, { ...netns, routes: [...netns.routes, ...fresh] });
}

function dropRoutes(host: Host, name: NetnsName, gone: (route: Route) => boolean): Host {
  const netns = getNetns(host, name);
  const routes = netns.routes.filter((route) => !gone(route));
  return routes.length === netns.routes.length ? host : withNetns(host, name, { ...netns, routes });
}

/** Adds an address that nothing speaks against, with its routes. */
export function addAddress(host: Host, ref: LinkRef, address: Address): Host {
  const link = getLink(host, ref);
  const stored = asStored(link, address);
  const after = withLink(host, ref.netns, { ...link, addresses: [...link.addresses, stored] });
  const netns = getNetns(after, ref.netns);
  return addRoutes(after, ref.netns, routesOfAddress(netns, getLink(after, ref), stored));
}

/** Removes IPv4 addresses and what goes with them; net/ipv4/devinet.c __inet_del_ifa, fib_frontend.c fib_del_ifaddr. */
function dropIpv4(host: Host, ref: LinkRef, gone: readonly Address[]): Host {
  const link = getLink(host, ref);
  const netns = getNetns(host, ref.netns);
  const addresses = link.addresses.filter((a) => !gone.includes(a));
  let after = withLink(host, ref.netns, { ...link, addresses });
  const left = addresses.filter((a) => familyOf(a.ip) === 4);
  // The last address takes every IPv4 route of the link with it (K-3.5).
  if (left.length === 0)
    return dropRoutes(after, ref.netns, (r) => r.device === ref.ifname && routeFamily(r) === 4);
  const kept = left.flatMap((a) => routesOfAddress(netns, { ...link, addresses }, a));
  const lost = gone
    .flatMap((a) => routesOfAddress(netns, link, a))
    .filter((r) => !kept.some((k) => sameRoute(k, r)));
  after = dropRoutes(after, ref.netns, (r) => lost.some((l) => sameRoute(l, r)));
  const ips = new Set<Ip | null>(
    gone.map((a) => a.ip).filter((ip) => !left.some((a) => a.ip === ip)),
  );
  return dropRoutes(after, ref.netns, (r) => routeFamily(r) === 4 && ips.has(r.source));
}

function dropIpv6(host: Host, ref: LinkRef, gone: Address): Host {
  const link = getLink(host, ref);
  const netns = getNetns(host, ref.netns);
  const addresses = link.addresses.filter((a) => a !== gone);
  let after = withLink(host, ref.netns, { ...link, addresses });
  const kept = addresses
    .filter((a) => familyOf(a.ip) === 6)
    .flatMap((a) => routesOfAddress(netns, link, a));
  const lost = routesOfAddress(netns, link, gone).filter((r) => !kept.some((k) => sameRoute(k, r)));
  after = dropRoutes(after, ref.netns, (r) => lost.some((l) => sameRoute(l, r)));
  // A route that named it as its source stays, without one (K-4.5).
  const owner = getNetns(after, ref.netns);
  if (!owner.routes.some((r) => r.source === gone.ip)) return after;
  const routes = owner.routes.map((r) => (r.source === gone.ip ? { ...r, source: null } : r));
  return withNetns(after, ref.netns, { ...owner, routes });
}

/** Removes an address of the link: an IPv4 primary takes its secondaries along, or promotes one (K-3.4). */
export function removeAddress(host: Host, ref: LinkRef, address: Address): Host {
  if (familyOf(address.ip) === 6) return dropIpv6(host, ref, address);
  const link = getLink(host, ref);
  if (address.secondary) return dropIpv4(host, ref, [address]);
  const prefix = connectedPrefix(address);
  const followers = link.addresses.filter(
    (a) => a.secondary && a.prefixLength === address.prefixLength && connectedPrefix(a) === prefix,
  );
  const promotes =
    linkSysctl(getNetns(host, ref.netns), 4, ref.ifname, 'promote_secondaries') !== '0';
  if (!promotes) return dropIpv4(host, ref, [address, ...followers]);
  const demoted = dropIpv4(host, ref, [address, ...followers]);
  return followers.reduce(
    (state, follower) => addAddress(state, ref, { ...follower, secondary: false }),
    demoted,
  );
}

function addLinkLocal(host: Host, ref: LinkRef): Host {
  const link = getLink(host, ref);
  const netns = getNetns(host, ref.netns);
  if (
    link.kind === 'loopback' ||
    link.mac === null ||
    link.mac === ZERO_MAC ||
    !hasIpv6(netns, link)
  )
    return host;
  if (linkSysctl(netns, 6, ref.ifname, 'addr_gen_mode') !== '0') return host;
  const ip = ipFromBytes(linkLocalOf(macBytes(link.mac)));
  if (link.addresses.some((a) => a.ip === ip)) return host;
  return addAddress(host, ref, {
    ip,
    prefixLength: 64,
    peer: null,
    broadcast: null,
    scope: 'link',
    secondary: false,
    noPrefixRoute: false,
    noDad: false,
    tentative: false,
  });
}

/** The links whose carrier can change with that of `ref`: itself, its veth peer, the bridges above them. */
function neighbourhood(host: Host, ref: LinkRef): LinkRef[] {
  const link = findLink(host, ref);
  const refs = [ref];
  if (link?.kind === 'veth' && link.peer) refs.push(link.peer);
  const masters = refs.flatMap((each): LinkRef[] => {
    const master = findLink(host, each)?.port?.master;
    return master === undefined ? [] : [{ netns: each.netns, ifname: master }];
  });
  return [...refs, ...masters];
}

/** Gives every link whose carrier a change brought its link-local address (K-4.1). */
export function settleCarrier(before: Host, after: Host, changed: LinkRef): Host {
  const refs = [...neighbourhood(before, changed), ...neighbourhood(after, changed)];
  return refs.reduce((host, ref) => {
    const gained = !hasCarrier(before, ref) && hasCarrier(host, ref);
    return gained ? addLinkLocal(host, ref) : host;
  }, after);
}

function addLoopbackAddresses(host: Host, ref: LinkRef): Host {
  const common = {
    peer: null,
    broadcast: null,
    scope: 'host',
    secondary: false,
    noPrefixRoute: false,
    tentative: false,
  } as const;
  const wanted: Address[] = [
    { ip: ipFromBytes(Uint8Array.of(127, 0, 0, 1)), prefixLength: 8, noDad: false, ...common },
    { ip: ipFromBytes(new Uint8Array(16).fill(1, 15)), prefixLength: 128, noDad: false, ...common },
  ];
  return wanted.reduce((state, address) => {
    const link = getLink(state, ref);
    const usable = familyOf(address.ip) === 4 || hasIpv6(getNetns(state, ref.netns), link);
    return usable && !link.addresses.some((a) => a.ip === address.ip)
      ? addAddress(state, ref, address)
      : state;
  }, host);
}

/** Admin up: the routes of the addresses come (K-3.1, K-4.1); routes made by hand do not come back. */
export function linkUp(before: Host, ref: LinkRef): Host {
  const link = getLink(before, ref);
  if (link.up) return before;
  let host = withLink(before, ref.netns, { ...link, up: true });
  if (link.kind === 'loopback') host = addLoopbackAddresses(host, ref);
  const netns = getNetns(host, ref.netns);
  const upLink = getLink(host, ref);
  for (const address of upLink.addresses)
    host = addRoutes(host, ref.netns, routesOfAddress(netns, upLink, address));
  if (link.kind !== 'loopback' && hasIpv6(netns, upLink))
    host = addRoutes(host, ref.netns, [multicastRoute(ref.ifname)]);
  return settleCarrier(before, host, ref);
}

/** Drops the IPv6 addresses and routes of a link. */
export function flushIpv6(before: Host, ref: LinkRef): Host {
  const host = dropRoutes(
    before,
    ref.netns,
    (r) => r.device === ref.ifname && routeFamily(r) === 6,
  );
  const link = getLink(host, ref);
  const addresses = link.addresses.filter((a) => familyOf(a.ip) === 4);
  return withLink(host, ref.netns, { ...link, addresses });
}

/** IPv6 begins on a link that is up: after it was disabled, or when its MTU became large enough (K-4.3, K-4.4). */
export function startIpv6(before: Host, ref: LinkRef): Host {
  const link = getLink(before, ref);
  if (!link.up || !hasIpv6(getNetns(before, ref.netns), link)) return before;
  if (link.kind === 'loopback') return addLoopbackAddresses(before, ref);
  const host = addRoutes(before, ref.netns, [multicastRoute(ref.ifname)]);
  return hasCarrier(host, ref) ? addLinkLocal(host, ref) : host;
}

/** Admin down: K-3.1, K-4.2, K-5.2 and, for neighbours, K-7.3. IPv4 keeps its addresses and their local routes. */
export function linkDown(before: Host, ref: LinkRef): Host {
  const link = getLink(before, ref);
  if (!link.up) return before;
  let host = withLink(before, ref.netns, { ...link, up: false, neighbours: [] });
  host = dropRoutes(
    host,
    ref.netns,
    (r) => r.device === ref.ifname && routeFamily(r) === 4 && r.type !== 'local',
  );
  host = flushIpv6(host, ref);
  return settleCarrier(before, host, ref);
}

function lowestMac(ports: readonly Link[]): Mac {
  const macs = ports.flatMap((port) => (port.mac === null ? [] : [port.mac])).toSorted();
  return macs[0] ?? ZERO_MAC;
}

/** A bridge takes the lowest MAC and the lowest MTU of its ports until they are chosen (K-1.10, K-1.11; br_stp_if.c, br_if.c). */
export function followPorts(host: Host, netnsName: NetnsName, bridge: BridgeLink): Host {
  const ports = portsOf(getNetns(host, netnsName), bridge.ifname);
  const mac = bridge.macChosen ? bridge.mac : lowestMac(ports);
  const mtuBytes = bridge.mtuChosen
    ? bridge.mtuBytes
    : Math.min(...(ports.length > 0 ? ports.map((p) => p.mtuBytes) : [1500]));
  return mac === bridge.mac && mtuBytes === bridge.mtuBytes
    ? host
    : withLink(host, netnsName, { ...bridge, mac, mtuBytes });
}

/** After a port came, went or changed: the bridge follows. */
export function followMaster(
  host: Host,
  netnsName: NetnsName,
  master: Link['ifname'] | undefined,
): Host {
  const bridge =
    master === undefined ? undefined : findLink(host, { netns: netnsName, ifname: master });
  return bridge?.kind === 'bridge' ? followPorts(host, netnsName, bridge) : host;
}

function forgetLink(host: Host, ref: LinkRef): Host {
  const netns = getNetns(host, ref.netns);
  const link = getLink(host, ref);
  let links = without(netns.links, ref.ifname);
  // Ports of a bridge that goes are released as they are (K-1.14).
  for (const port of link.kind === 'bridge' ? portsOf(netns, link.ifname) : []) {
    links = { ...links, [port.ifname]: { ...port, port: null } };
  }
  const after: Netns = {
    ...netns,
    links,
    routes: netns.routes.filter((r) => r.device !== ref.ifname),
    sysctls: dropLinkSysctls(netns, ref.ifname),
  };
  return followMaster(withNetns(host, ref.netns, after), ref.netns, link.port?.master);
}

/** A link is gone, a veth with its peer (K-1.5), with everything that hangs on them. */
export function removeLink(before: Host, ref: LinkRef): Host {
  const link = getLink(before, ref);
  const refs =
    link.kind === 'veth' && link.peer && findLink(before, link.peer) ? [ref, link.peer] : [ref];
  return refs.reduce((host, each) => {
    const after = forgetLink(host, each);
    const master = getLink(host, each).port?.master;
    return master ? settleCarrier(host, after, { netns: each.netns, ifname: master }) : after;
  }, before);
}

/** A netns is gone, with its links and the far ends of its veths (K-2.4, K-2.5). */
export function removeNetns(before: Host, name: NetnsName): Host {
  const links = Object.values(getNetns(before, name).links);
  const emptied = links.reduce((host, { ifname }) => {
    const link = findLink(host, { netns: name, ifname });
    return link?.kind === 'veth' ? removeLink(host, { netns: name, ifname }) : host;
  }, before);
  return { ...emptied, netns: without(emptied.netns, name) };
}

/** Is there a netns with this name? Operations answer ENODEV or ENOENT without one. */
export function hasNetns(host: Host, name: NetnsName): boolean {
  return findNetns(host, name) !== undefined;
}
