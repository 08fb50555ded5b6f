/** The routes that addresses imply: what the kernel adds and removes by itself (K-3, K-4). */
import type { Address, Scope } from './address.ts';
import type { Netns } from './host.ts';
import type { Ifname } from './ifname.ts';
import { ADDRESS_BITS, type Ip, type Ipv4, familyOf, ipBits } from './ip.ts';
import { type Link, holdsIpv6 } from './link.ts';
import { type Prefix, lastIp, prefixIp, prefixOf } from './prefix.ts';
import {
  IP6_KERNEL_METRIC,
  PROTOCOL_KERNEL,
  type Route,
  TABLE_LOCAL,
  TABLE_MAIN,
} from './route.ts';
import { linkSysctl } from './sysctl.ts';

function kernelRoute(
  device: Ifname,
  route: Pick<Route, 'destination' | 'type' | 'scope' | 'source' | 'metric'>,
): Route {
  const table = route.type === 'unicast' ? TABLE_MAIN : TABLE_LOCAL;
  return { ...route, table, device, gateway: null, protocol: PROTOCOL_KERNEL, onlink: false };
}

/** The prefix that holds one address. */
export function hostPrefix(ip: Ip): Prefix {
  return prefixOf(ip, ADDRESS_BITS[familyOf(ip)]);
}

/** The prefix an address puts its link on: that of its peer where it has one. */
export function connectedPrefix(address: Address): Prefix {
  return prefixOf(address.peer ?? address.ip, address.prefixLength);
}

/** The first address of the link with the prefix of `address`: the primary whose name its routes carry (K-3.3). */
function primaryOf(link: Link, address: Address): Address {
  if (!address.secondary) return address;
  const prefix = connectedPrefix(address);
  return (
    link.addresses.find(
      (a) =>
        !a.secondary && connectedPrefix(a) === prefix && a.prefixLength === address.prefixLength,
    ) ?? address
  );
}

/** net/ipv4/fib_frontend.c, fib_add_ifaddr; K-3.1 and K-3.2. */
function routesOfIpv4(link: Link, address: Address): Route[] {
  const device = link.ifname;
  const source = primaryOf(link, address).ip;
  const prefix = connectedPrefix(address);
  const network = prefixIp(prefix);
  const local = kernelRoute(device, {
    destination: hostPrefix(address.ip),
    type: 'local',
    scope: 'host',
    source,
    metric: 0,
  });
  const routes = [local];
  if (!link.up) return routes;
  const broadcast = (ip: Ipv4): Route =>
    kernelRoute(device, {
      destination: hostPrefix(ip),
      type: 'broadcast',
      scope: 'link',
      source,
      metric: 0,
    });
  if (address.broadcast !== null && address.broadcast !== '255.255.255.255')
    routes.push(broadcast(address.broadcast));
  const zeroNet = ipBits(network) === 0n;
  if (!zeroNet && !address.secondary && (network !== address.ip || address.prefixLength < 32)) {
    const type = link.kind === 'loopback' ? 'local' : 'unicast';
    const scope = link.kind === 'loopback' ? 'host' : 'link';
    if (!address.noPrefixRoute)
      routes.push(kernelRoute(device, { destination: prefix, type, scope, source, metric: 0 }));
    if (address.prefixLength < 31) routes.push(broadcast(lastIp(prefix) as Ipv4));
  }
  return routes;
}

/** net/ipv6/addrconf.c, addrconf_prefix_route, ipv6_ifa_notify, addrconf_join_anycast; K-4.1. */
function routesOfIpv6(netns: Netns, link: Link, address: Address): Route[] {
  const device = link.ifname;
  if (address.tentative && !address.noDad) return [];
  const local: Route = kernelRoute(device, {
    destination: hostPrefix(address.ip),
    type: 'local',
    scope: 'global',
    source: null,
    metric: 0,
  });
  const routes = [local];
  // The loopback's own address has no prefix (init_loopback).
  if (ipBits(address.ip) === 1n) return routes;
  const any = prefixIp(prefixOf(address.ip, address.prefixLength));
  const forwards = linkSysctl(netns, 6, link.ifname, 'forwarding') !== '0';
  if (forwards && address.prefixLength < 127 && ipBits(any) !== 0n) {
    routes.push(
      kernelRoute(device, {
        destination: hostPrefix(any),
        type: 'anycast',
        scope: 'global',
        source: null,
        metric: 0,
      }),
    );
  }
  if (!link.up) return routes;
  // A peer has a route of its own, whatever becomes of the prefix.
  const onLink = [
    ...(address.noPrefixRoute ? [] : [prefixOf(address.ip, address.prefixLength)]),
    ...(address.peer === null ? [] : [hostPrefix(address.peer)]),
  ];
  for (const destination of onLink) {
    routes.push(
      kernelRoute(device, {
        destination,
        type: 'unicast',
        scope: 'global',
        source: null,
        metric: IP6_KERNEL_METRIC,
      }),
    );
  }
  return routes;
}

/** The routes that the kernel has because of one address of a link, in the order it adds them. */
export function routesOfAddress(netns: Netns, link: Link, address: Address): Route[] {
  return familyOf(address.ip) === 4
    ? routesOfIpv4(link, address)
    : routesOfIpv6(netns, link, address);
}

/** The multicast route that an IPv6 link has while it is up (addrconf_add_mroute). */
export function multicastRoute(ifname: Ifname): Route {
  return kernelRoute(ifname, {
    destination: 'ff00::/8' as Prefix,
    type: 'multicast',
    scope: 'global',
    source: null,
    metric: IP6_KERNEL_METRIC,
  });
}

/** Does a link do IPv6? Not when it has none, not when it is switched off (K-4.3, K-4.4). */
export function hasIpv6(netns: Netns, link: Link): boolean {
  return holdsIpv6(link) && linkSysctl(netns, 6, link.ifname, 'disable_ipv6') === '0';
}

/** IPv6 reads the scope off the address (net/ipv6/addrconf_core.c, __ipv6_addr_type). */
function scopeOfIpv6(ip: Ip): Scope {
  const bits = ipBits(ip);
  if (bits === 1n) return 'host';
  if (bits >> 118n === 0x3fan) return 'link';
  return bits >> 118n === 0x3fbn ? 'site' : 'global';
}

/**
 * An address as the kernel completes it. IPv4: secondary when an address of the link has the same prefix (K-3.3).
 * IPv6: with the scope that it has by itself (K-4.5).
 */
export function asStored(link: Link, address: Address): Address {
  if (familyOf(address.ip) === 6)
    return { ...address, broadcast: null, scope: scopeOfIpv6(address.ip) };
  const prefix = connectedPrefix(address);
  const secondary = link.addresses.some(
    (a) =>
      familyOf(a.ip) === 4 &&
      a.prefixLength === address.prefixLength &&
      connectedPrefix(a) === prefix,
  );
  return { ...address, secondary };
}

/** The address a veth or card makes of its MAC (RFC 4291, appendix A: modified EUI-64). */
export function linkLocalOf(macBytesOf: Uint8Array): Uint8Array {
  const [a = 0, b = 0, c = 0, d = 0, e = 0, f = 0] = macBytesOf;
  return Uint8Array.of(0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f);
}
