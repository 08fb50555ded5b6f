/** Operations on routes. */
import { connectedPrefix } from '../../model/connected.ts';
import type { Host, NetnsName } from '../../model/host.ts';
import { findNetns } from '../../model/host.ts';
import type { Ifname } from '../../model/ifname.ts';
import { type Family, type Ip, familyOf, parseIp } from '../../model/ip.ts';
import type { Op } from '../../model/op.ts';
import { parsePrefix, prefixContains } from '../../model/prefix.ts';
import { type Route, TABLE_LOCAL, makeRoute, routeFamily } from '../../model/route.ts';
import { addressAdd } from './address-op.ts';
import type { Draw } from './draw.ts';
import { GATEWAYS, linksOf, someLink } from './names.ts';

const DESTINATIONS = [
  '0.0.0.0/0',
  '10.1.0.0/16',
  '10.0.0.0/24',
  '10.0.0.77/32',
  '10.0.0.254/32',
  '10.77.0.0/16',
  '::/0',
  'fd05::/64',
  'fd00::fe/128',
  'fd77::/16',
].map(parsePrefix);
/** A prefix of addresses: with one of them the kernel would take this route for its own away and leave its own (K-4.5). */
const OWN_DESTINATIONS = ['fd00::/64'].map(parsePrefix);

const ODD_GATEWAYS = ['10.0.0.255', '224.0.0.1', 'ff02::1', 'fe80::1', '::1'].map(parseIp);

/** A device with an address, and what of the pool lies in its prefix. */
interface Subnet {
  readonly device: Ifname;
  readonly isUp: boolean;
  readonly family: Family;
  readonly gateways: readonly Ip[];
}

function subnetsOf(host: Host, netns: NetnsName): Subnet[] {
  const own = ownAddresses(host, netns);
  return linksOf(host, netns).flatMap((link) =>
    link.addresses.map((address) => ({
      device: link.ifname,
      isUp: link.up,
      family: familyOf(address.ip),
      gateways: GATEWAYS.filter(
        (g) => prefixContains(connectedPrefix(address), g) && !own.includes(g),
      ),
    })),
  );
}

function ownAddresses(host: Host, netns: NetnsName): Ip[] {
  return linksOf(host, netns).flatMap((link) => link.addresses.map((a) => a.ip));
}

/** What most routes need: a device that is up and has an address, with gateways in its prefix where there are any. */
function someSubnet(host: Host, netns: NetnsName, draw: Draw): Subnet | undefined {
  if (draw.oneIn(5)) return undefined;
  const subnets = subnetsOf(host, netns);
  const usable = subnets.filter((each) => each.isUp);
  const best = usable.filter((each) => each.gateways.length > 0);
  const pool = draw.oneIn(4)
    ? subnets
    : ([best, usable, subnets].find((each) => each.length > 0) ?? []);
  return pool.length > 0 ? draw.of(pool) : undefined;
}

/** What comes before a route: a link with an address goes up, one that is up gets an address. Undefined where routes can be. */
function groundwork(host: Host, netns: NetnsName, draw: Draw): Op | undefined {
  const subnets = subnetsOf(host, netns);
  if (subnets.some((each) => each.isUp) || draw.oneIn(4)) return undefined;
  const [down] = subnets;
  if (down) return { op: 'link.set', netns, ifname: down.device, set: { up: true } };
  return addressAdd(netns, host, draw);
}

/** A route, mostly in the main table. */
export function routeAdd(netns: NetnsName, host: Host, draw: Draw): Op {
  const first = groundwork(host, netns, draw);
  if (first) return first;
  const subnet = someSubnet(host, netns, draw);
  const all = draw.oddIn(8) ? OWN_DESTINATIONS : DESTINATIONS;
  const fitting = all.filter((d) => subnet === undefined || familyOf(d) === subnet.family);
  const destination = draw.of(fitting.length > 0 ? fitting : DESTINATIONS);
  const family = familyOf(destination);
  const own = ownAddresses(host, netns).filter((ip) => familyOf(ip) === family);
  const near = subnet?.gateways ?? [];
  const pools: readonly (readonly Ip[])[] = [
    near,
    near,
    near,
    GATEWAYS,
    draw.oneIn(3) ? ODD_GATEWAYS : own,
  ];
  const pool = draw.of(pools).filter((ip) => familyOf(ip) === family);
  const gateways = pool.length > 0 ? pool : GATEWAYS.filter((ip) => familyOf(ip) === family);
  // Where no gateway is near, most routes do without.
  const isDirect = draw.oneIn(3) || (near.length === 0 && subnet !== undefined && !draw.oneIn(4));
  const route = makeRoute({
    destination,
    device: subnet?.device ?? someLink(host, netns, draw),
    gateway: isDirect ? null : draw.of(gateways),
    ...(draw.oneIn(3) ? { metric: 100 } : {}),
    ...(draw.oneIn(4) ? { source: draw.of(own.length > 0 ? own : gateways) } : {}),
    protocol: draw.of([3, 201]),
    onlink: draw.oneIn(6),
    ...(draw.oneIn(6) ? { table: draw.of([100, 1000]) } : {}),
    ...(draw.oneIn(8) ? { mtuBytes: draw.of([1400, 9000]) } : {}),
    ...(draw.oneIn(8) ? { advmssBytes: 1360 } : {}),
    ...(draw.oneIn(8) ? { scope: draw.of(['global', 'link', 'host', 'site'] as const) } : {}),
  });
  // Without a gateway there is nothing to be taken on trust. Without an IPv4 address the answer depends on whether
  // there ever was one, which the model does not know: then the netns keeps its table local, else every gateway is
  // refused (typeOfIpv4).
  const isTable = (findNetns(host, netns)?.routes ?? []).some(
    (r) => r.table === TABLE_LOCAL && routeFamily(r) === 4,
  );
  const trusts = route.gateway !== null && (family === 6 || isTable || draw.oddIn(6));
  return { op: 'route.add', netns, route: trusts ? route : { ...route, onlink: false } };
}

/** The route but for one thing. */
function nearMiss(route: Route, netns: NetnsName, host: Host, draw: Draw): Route {
  const changes: readonly (() => Partial<Route>)[] = [
    () => ({ metric: 0 }),
    () => ({ metric: 77 }),
    () => ({ gateway: null }),
    () => ({
      gateway: draw.of(GATEWAYS.filter((g) => familyOf(g) === familyOf(route.destination))),
    }),
    () => ({ device: someLink(host, netns, draw) }),
    () => ({ protocol: 4 }),
    () => ({ source: null }),
  ];
  return { ...route, ...draw.of(changes)() };
}

/** A route goes: one that is there, one that nearly is, also one of the kernel's own. */
export function routeDel(netns: NetnsName, host: Host, draw: Draw): Op {
  const all = (findNetns(host, netns)?.routes ?? []).filter((r) => r.table !== TABLE_LOCAL);
  const made = all.filter((r) => r.protocol !== 2);
  const held = draw.oddIn(made.length > 0 ? 6 : 1) ? all : made;
  if (held.length === 0 && !draw.oneIn(4)) return routeAdd(netns, host, draw);
  if (held.length === 0) {
    const missing = makeRoute({
      destination: draw.of(DESTINATIONS),
      device: someLink(host, netns, draw),
      metric: 77,
    });
    return { op: 'route.del', netns, route: missing };
  }
  const route = draw.of(held);
  return {
    op: 'route.del',
    netns,
    route: draw.oneIn(4) ? nearMiss(route, netns, host, draw) : route,
  };
}
