/** When IPv6 begins and ends on a link, and what it makes by itself (net/ipv6/addrconf.c). */
import type { Address } from './address.ts';
import { hasCarrier } from './carrier.ts';
import { hasIpv6, linkLocalOf, multicastRoute } from './connected.ts';
import { dropRoutes, withRoutes } from './fib.ts';
import {
  type Host,
  type Netns,
  type NetnsName,
  getLink,
  getNetns,
  withLink,
  withNetns,
} from './host.ts';
import type { Ifname } from './ifname.ts';
import { addAddress, addAddressIn } from './inet.ts';
import { ADDRESS_BITS, familyOf, ipFromBytes, parseIp } from './ip.ts';
import { type Link, type LinkRef, IP6_MIN_MTU_BYTES, holdsIpv6 } from './link.ts';
import { ZERO_MAC, macBytes } from './mac.ts';
import { type Route, routeFamily } from './route.ts';
import { dropLinkSysctls, inheritSysctls, linkSysctl, linkSysctlKey } from './sysctl.ts';

function addLinkLocal(netns: Netns, link: Link): Netns {
  if (
    link.kind === 'loopback' ||
    link.mac === null ||
    link.mac === ZERO_MAC ||
    !hasIpv6(netns, link)
  )
    return netns;
  if (linkSysctl(netns, 6, link.ifname, 'addr_gen_mode') !== '0') return netns;
  const ip = ipFromBytes(linkLocalOf(macBytes(link.mac)));
  // A link that has one made of an earlier MAC was ready before: it gets another only when IPv6 begins anew.
  const own = link.addresses.filter((a) => familyOf(a.ip) === 6 && a.scope === 'link');
  if (own.some((a) => a.ip === ip || !a.noDad)) return netns;
  return addAddressIn(netns, link, {
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

/**
 * IPv6 begins to work on a link when it has carrier: the multicast route comes, and the link-local address
 * (K-4.1; net/ipv6/addrconf.c, addrconf_notify and addrconf_dev_config). Losing carrier takes neither away.
 */
function readyIn(netns: Netns, ifname: Ifname): Netns {
  const link = netns.links[ifname];
  if (!link || link.kind === 'loopback' || !hasIpv6(netns, link)) return netns;
  const addressed = addLinkLocal(netns, link);
  // With an address the multicast route has come already.
  if (addressed !== netns) return addressed;
  const routes = withRoutes(netns.routes, [multicastRoute(ifname)]);
  return routes.length === netns.routes.length ? netns : { ...netns, routes };
}

/** IPv6 begins to work on links that have carrier now. */
export function readyIpv6(host: Host, refs: readonly LinkRef[]): Host {
  const ready = new Map<NetnsName, Netns>();
  for (const { netns, ifname } of refs)
    ready.set(netns, readyIn(ready.get(netns) ?? getNetns(host, netns), ifname));
  // In one step: on a host of a thousand pods a copy of its netns is most of the work.
  const changed = [...ready].filter(([name, netns]) => netns !== getNetns(host, name));
  return changed.length === 0
    ? host
    : { ...host, netns: { ...host.netns, ...Object.fromEntries(changed) } };
}

const KEEP_ADDRESSES = 'keep_addr_on_down';

const LOOPBACK_ADDRESS: Address = {
  ip: parseIp('::1'),
  prefixLength: ADDRESS_BITS[6],
  peer: null,
  broadcast: null,
  scope: 'host',
  secondary: false,
  noPrefixRoute: false,
  noDad: false,
  tentative: false,
};

/** A loopback that is up has ::1 (K-2.1; addrconf.c, init_loopback), but not with too small an MTU. */
function startLoopback(host: Host, ref: LinkRef): Host {
  const link = getLink(host, ref);
  if (link.mtuBytes < IP6_MIN_MTU_BYTES) return flushIpv6(host, ref);
  const has = link.addresses.some((a) => a.ip === LOOPBACK_ADDRESS.ip);
  return has ? host : addAddress(host, ref, LOOPBACK_ADDRESS);
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
  const neighbours = link.neighbours.filter((n) => familyOf(n.ip) === 4);
  return withLink(host, ref.netns, { ...link, addresses, neighbours });
}

/**
 * IPv6 routes that have an MTU of their own take that of their link when it becomes less, or was the same
 * (K-5; net/ipv6/route.c, fib6_nh_mtu_change).
 */
function followRouteMtu(host: Host, ref: LinkRef, wasBytes: number, mtuBytes: number): Host {
  const netns = getNetns(host, ref.netns);
  const follows = (route: Route): boolean =>
    route.device === ref.ifname &&
    routeFamily(route) === 6 &&
    route.mtuBytes !== undefined &&
    (route.mtuBytes >= mtuBytes || route.mtuBytes === wasBytes);
  if (!netns.routes.some(follows)) return host;
  const routes = netns.routes.map((route) => (follows(route) ? { ...route, mtuBytes } : route));
  return withNetns(host, ref.netns, { ...netns, routes });
}

/**
 * IPv6 ends on a link whose MTU becomes too small and begins anew, with the settings of a new link, when it is large
 * enough again (K-4.4), at once when it has carrier in the host `carrierIn`. The loopback keeps its settings, and begins only when it goes up.
 */
export function followMtu(
  before: Host,
  ref: LinkRef,
  mtuBytes: number,
  carrierIn: Host = before,
): Host {
  const old = getLink(before, ref);
  const host = withLink(before, ref.netns, { ...old, mtuBytes });
  if (mtuBytes < IP6_MIN_MTU_BYTES) {
    const flushed = flushIpv6(host, ref);
    if (old.kind === 'loopback') return flushed;
    const netns = getNetns(flushed, ref.netns);
    return withNetns(flushed, ref.netns, {
      ...netns,
      sysctls: dropLinkSysctls(netns, ref.ifname, [6]),
    });
  }
  if (holdsIpv6(old)) return followRouteMtu(host, ref, old.mtuBytes, mtuBytes);
  const netns = getNetns(host, ref.netns);
  const sysctls = inheritSysctls(netns, old, [6]);
  return startIpv6(withNetns(host, ref.netns, { ...netns, sysctls }), ref, carrierIn);
}

/** IPv6 begins on a link that is up: after it was disabled, or when its MTU became large enough (K-4.3, K-4.4). */
export function startIpv6(before: Host, ref: LinkRef, carrierIn: Host = before): Host {
  const link = getLink(before, ref);
  if (!link.up || !hasIpv6(getNetns(before, ref.netns), link)) return before;
  if (link.kind === 'loopback') return startLoopback(before, ref);
  return hasCarrier(carrierIn, ref) ? readyIpv6(before, [ref]) : before;
}

/** Is it an address of one link or one machine, which a link that goes down never keeps (addr_is_local)? */
function isNear(address: Address): boolean {
  return address.scope === 'link' || address.scope === 'host';
}

/**
 * A link goes down: its IPv6 routes and neighbours go, and its addresses too unless they are kept (K-4.2;
 * addrconf_ifdown with keep_addr_on_down). Those that are kept go through DAD again.
 */
export function endIpv6(before: Host, ref: LinkRef): Host {
  const host = flushIpv6(before, ref);
  const netns = getNetns(host, ref.netns);
  const old = getLink(before, ref);
  const setting = [
    netns.sysctls[linkSysctlKey(6, 'all', KEEP_ADDRESSES)] ?? '0',
    linkSysctl(netns, 6, ref.ifname, KEEP_ADDRESSES),
  ].find((value) => value !== '0');
  if (!hasIpv6(netns, old) || Number(setting ?? '0') <= 0) return host;
  const kept = old.addresses
    .filter((a) => familyOf(a.ip) === 6 && !isNear(a))
    .map((a) => (a.noDad ? a : { ...a, tentative: true }));
  const link = getLink(host, ref);
  return withLink(host, ref.netns, { ...link, addresses: [...link.addresses, ...kept] });
}
