/** Who could be the gateway of a netns that has no route. */
import { connectedPrefix } from '../../model/connected.ts';
import { type Host, type NetnsName, findLink, findNetns } from '../../model/host.ts';
import { type Family, type Ip, familyOf } from '../../model/ip.ts';
import type { LinkRef } from '../../model/link.ts';
import { prefixContains, prefixLengthOf } from '../../model/prefix.ts';
import { routeFamily } from '../../model/route.ts';
import { forwards } from '../route.ts';

/** The link of IP at the far end of a veth: the bridge, where that is a port. */
function farLink(host: Host, at: LinkRef): LinkRef | undefined {
  const link = findLink(host, at);
  if (link?.kind !== 'veth' || !link.peer) return undefined;
  const master = findLink(host, link.peer)?.port?.master;
  return master === undefined ? link.peer : { netns: link.peer.netns, ifname: master };
}

/** The addresses by which the far end of a link would be a gateway: those in its subnets, where that end forwards. */
function gatewaysBy(host: Host, at: LinkRef, family: Family): Ip[] {
  const ref = farLink(host, at);
  const [link, far] = [findLink(host, at), ref && findLink(host, ref)];
  const state = ref && findNetns(host, ref.netns);
  if (!link?.up || !far?.up || !state || !forwards(state, family, far.ifname)) return [];
  const prefixes = link.addresses
    .filter(({ ip, scope }) => scope === 'global' && familyOf(ip) === family)
    .map(connectedPrefix);
  return far.addresses
    .filter(({ scope }) => scope === 'global')
    .map(({ ip }) => ip)
    .filter((ip) => prefixes.some((prefix) => prefixContains(prefix, ip)));
}

/** The one address by which a packet could leave a netns for elsewhere; undefined where there is none, or there are several. */
export function findGateway(host: Host, netns: NetnsName, destination: Ip): Ip | undefined {
  const links = Object.values(findNetns(host, netns)?.links ?? {});
  const found = links.flatMap(({ ifname }) =>
    gatewaysBy(host, { netns, ifname }, familyOf(destination)),
  );
  return found.length === 1 ? found[0] : undefined;
}

/** Has a netns a route for whatever no other is for? */
export function hasDefaultRoute(host: Host, netns: NetnsName, family: Family): boolean {
  return (findNetns(host, netns)?.routes ?? []).some(
    (route) =>
      route.type === 'unicast' &&
      routeFamily(route) === family &&
      prefixLengthOf(route.destination) === 0,
  );
}
