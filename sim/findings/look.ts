/** A host with what most questions about it need first: its segments, and who is a pod of whom. */
import type { Address } from '../../model/address.ts';
import { type Host, type NetnsName, findLink, findNetns, getNetns } from '../../model/host.ts';
import { type Family, familyOf } from '../../model/ip.ts';
import type { LinkRef } from '../../model/link.ts';
import { DEFAULT_PREFIX } from '../../model/prefix.ts';
import type { Route } from '../../model/route.ts';
import { isUsable } from '../source.ts';
import { type PlacedLink, type Segment, allLinks, segmentsOf } from './segment.ts';

/** A link by which a netns hangs on another one, its node: a veth of which the far end is there. */
export interface PodLink extends PlacedLink {
  readonly node: NetnsName;
  readonly hostEnd: LinkRef;
  readonly segment: Segment;
}

export interface Look {
  readonly host: Host;
  readonly links: readonly PlacedLink[];
  readonly segments: readonly Segment[];
  readonly pods: readonly PodLink[];
}

/** Addresses that are meant for others: not those of a link or of the loopback alone. */
export function globalAddresses({ link }: PlacedLink, family?: Family): Address[] {
  return link.addresses.filter(
    (address) =>
      address.scope === 'global' &&
      isUsable(address) &&
      (family === undefined || familyOf(address.ip) === family),
  );
}

/** The default routes of a link that go by a gateway. */
export function defaultRoutes(host: Host, { netns, ifname }: LinkRef, family?: Family): Route[] {
  return getNetns(host, netns).routes.filter(
    ({ type, device, gateway, destination }) =>
      type === 'unicast' &&
      device === ifname &&
      gateway !== null &&
      destination === DEFAULT_PREFIX[familyOf(destination)] &&
      (family === undefined || familyOf(destination) === family),
  );
}

/** Has a netns an address, on a link that is up? */
export function hasAddress(host: Host, netns: NetnsName, ip: string): boolean {
  return Object.values(findNetns(host, netns)?.links ?? {}).some(
    ({ up, addresses }) => up && addresses.some((address) => address.ip === ip),
  );
}

/** Is it the pod's end of its veth? The host's end is a port, or has no address, or nobody's way out leads through it. */
function podLinkOf(host: Host, segment: Segment, placed: PlacedLink): PodLink | undefined {
  const { link } = placed;
  if (link.kind !== 'veth' || link.peer === null || link.peer.netns === placed.netns) return;
  const far = findLink(host, link.peer);
  if (!far || globalAddresses(placed).length === 0) return;
  const isBare = far.port === null && far.addresses.every(({ scope }) => scope !== 'global');
  if (far.port === null && !isBare && defaultRoutes(host, placed).length === 0) return;
  return { ...placed, node: link.peer.netns, hostEnd: link.peer, segment };
}

/** Looks at a host. */
export function lookAt(host: Host): Look {
  const segments = segmentsOf(host);
  const pods = segments.flatMap((segment) =>
    segment.ends.flatMap((placed) => podLinkOf(host, segment, placed) ?? []),
  );
  return { host, links: allLinks(host), segments, pods };
}

/** The look without the pods that hang on these links, and without their segments: what becomes of those is said with that of the links. */
export function without(look: Look, guilty: readonly LinkRef[]): Look {
  const isGuilty = ({ netns, ifname }: LinkRef): boolean =>
    guilty.some((each) => each.netns === netns && each.ifname === ifname);
  const isCut = ({ ends, ports }: Segment): boolean => ends.some(isGuilty) || ports.some(isGuilty);
  const bridgeOf = ({ hostEnd }: PodLink): LinkRef => ({
    netns: hostEnd.netns,
    ifname: findLink(look.host, hostEnd)?.port?.master ?? hostEnd.ifname,
  });
  return {
    ...look,
    segments: look.segments.filter((segment) => !isCut(segment)),
    pods: look.pods.filter((pod) => !isGuilty(pod.hostEnd) && !isGuilty(bridgeOf(pod))),
  };
}
