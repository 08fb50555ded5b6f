import { fdbOf } from '../model/fdb.ts';
import type { Host, Netns } from '../model/host.ts';
import type { BridgeLink, Link } from '../model/link.ts';
import { PROTOCOL_KERNEL, type Route } from '../model/route.ts';

function byText(list: readonly unknown[]): string[] {
  return list.map((item) => JSON.stringify(item)).toSorted();
}

function plainFdb(bridge: Pick<BridgeLink, 'fdb'>): unknown {
  const { entries, missing } = fdbOf(bridge);
  return [byText(entries), byText(missing)];
}

/** A link without what its configuration does not show: the marks of a bridge's past. */
function plainLink(link: Link): unknown {
  const { addresses, neighbours, altnames = [], uppers = [], ...rest } = link;
  const shown =
    rest.kind === 'bridge'
      ? { ...rest, fdb: plainFdb(rest), hadPorts: null, macChosen: null, mtuChosen: null }
      : rest.kind === 'vxlan'
        ? { ...rest, remotes: byText(rest.remotes ?? []) }
        : rest;
  return {
    ...shown,
    altnames: byText(altnames),
    uppers: byText(uppers),
    addresses: byText(addresses),
    neighbours: byText(neighbours),
  };
}

/**
 * Does a route tell of the past? The multicast route of an IPv6 link stays from its first carrier, or its first
 * address, until it goes down (K-4.1): whether it is there cannot be told from anything else.
 */
function isPast(route: Route): boolean {
  return route.type === 'multicast' && route.protocol === PROTOCOL_KERNEL;
}

function plainNetns(netns: Netns): unknown {
  const links = Object.fromEntries(
    Object.entries(netns.links)
      .toSorted(([a], [b]) => (a < b ? -1 : 1))
      .map(([name, link]) => [name, plainLink(link)]),
  );
  const { hadIpv6Rules: _past, ...rest } = netns;
  return { ...rest, links, routes: byText(netns.routes.filter((route) => !isPast(route))) };
}

/** A host in a form that compares equal when nothing that anybody could see differs: order of addresses and routes aside. */
export function plainState(host: Host): unknown {
  return Object.fromEntries(
    Object.entries(host.netns).map(([name, netns]) => [name, plainNetns(netns)]),
  );
}
