/** Default routes by a gateway that nobody is. */
import { hostPrefix } from '../../model/connected.ts';
import { getNetns } from '../../model/host.ts';
import type { Ip } from '../../model/ip.ts';
import { prefixContains } from '../../model/prefix.ts';
import type { Route } from '../../model/route.ts';
import { within } from '../cause.ts';
import { isLinkLocal } from '../frame.ts';
import { formatRoute, isSwitchedOn } from '../route.ts';
import { type HostFinding, seen, seenRoute, shortened } from './finding.ts';
import { type Look, defaultRoutes } from './look.ts';
import type { PlacedLink, Segment } from './segment.ts';

interface Way extends PlacedLink {
  readonly route: Route;
  readonly gateway: Ip;
}

function waysOut({ host }: Look, { ends }: Segment): Way[] {
  return ends.flatMap((end) =>
    defaultRoutes(host, end).flatMap((route) =>
      route.gateway === null || !end.link.up ? [] : [{ ...end, route, gateway: route.gateway }],
    ),
  );
}

/** Does anybody in the segment answer for the address, or might answer for any? */
function answers({ host }: Look, { ends }: Segment, gateway: Ip): boolean {
  return ends.some(
    ({ netns, ifname, link }) =>
      link.addresses.some(({ ip }) => ip === gateway) ||
      isSwitchedOn(getNetns(host, netns), ifname, 'proxy_arp'),
  );
}

/** One finding for all whose gateway is gone: it is one and the same. */
function nobodys(look: Look, segment: Segment): HostFinding[] {
  if (segment.isOpen) return [];
  const ways = waysOut(look, segment).filter(({ gateway }) => !answers(look, segment, gateway));
  return [...new Set(ways.map(({ gateway }) => gateway))].flatMap((gateway): HostFinding[] => {
    const same = ways.filter((way) => way.gateway === gateway);
    const [first] = same;
    if (!first) return [];
    return [
      {
        severity: 'error',
        kind: 'gateway',
        netns: first.netns,
        object: `route ${formatRoute(first.route)}`,
        text: `leads to ${gateway}, which is nobody's address`,
        affects: [hostPrefix(gateway)],
        evidence: shortened(same.map(({ netns, route }) => seenRoute(netns, route))),
        mend: [],
      },
    ];
  });
}

/** Is a gateway on the link, by a route that needs none? */
function isOnLink(look: Look, { netns, ifname, route, gateway }: Way): boolean {
  return (
    route.onlink ||
    isLinkLocal(gateway) ||
    getNetns(look.host, netns).routes.some(
      (each) =>
        each.device === ifname &&
        each.gateway === null &&
        each.type === 'unicast' &&
        prefixContains(each.destination, gateway),
    )
  );
}

function beyond(look: Look, segment: Segment): HostFinding[] {
  return waysOut(look, segment)
    .filter((way) => !isOnLink(look, way))
    .map((way) => ({
      severity: 'warning',
      kind: 'gateway',
      netns: way.netns,
      object: `route ${formatRoute(way.route)}`,
      text: `leads to ${way.gateway}, which no route has on link ${way.ifname}`,
      evidence: [
        seenRoute(way.netns, way.route),
        ...way.link.addresses
          .slice(0, 2)
          .map(({ ip, prefixLength }) =>
            seen(way.netns, `${ip}/${prefixLength} dev ${way.ifname}`),
          ),
      ],
      mend: [within(way.netns, `ip route add ${way.gateway} dev ${way.ifname}`)],
    }));
}

/** Default routes to an address that nobody in their segment has, as far as all of it is to be seen, or that is not on their link. */
export function lostGateways(look: Look): HostFinding[] {
  return look.segments.flatMap((segment) => [...nobodys(look, segment), ...beyond(look, segment)]);
}
