/** IPv6 that is switched off where pods go by it. */
import { hostPrefix } from '../../model/connected.ts';
import { getNetns } from '../../model/host.ts';
import { type Ip, familyOf } from '../../model/ip.ts';
import { linkSysctlKey } from '../../model/sysctl.ts';
import { sysctl } from '../cause.ts';
import { type HostFinding, seen, seenRoute, shortened } from './finding.ts';
import { type Look, defaultRoutes, globalAddresses } from './look.ts';
import type { PlacedLink, Segment } from './segment.ts';

function keyOf(ifname: PlacedLink['ifname']): string {
  return linkSysctlKey(6, ifname, 'disable_ipv6');
}

function finding(
  { netns, ifname }: PlacedLink,
  text: string,
  evidence: readonly string[],
  affected: readonly Ip[],
): HostFinding {
  const key = keyOf(ifname);
  return {
    severity: 'error',
    kind: 'ipv6-disabled',
    ...sysctl(netns, key, '0', text),
    evidence: [seen(netns, `${key.replaceAll('/', '.')} = 1`), ...shortened(evidence)],
    affects: [...new Set(affected)].map(hostPrefix),
  };
}

/** Who has an IPv6 default route that leads to others of the segment. */
function goingBy(look: Look, { ends }: Segment, { netns }: PlacedLink) {
  return ends
    .filter((end) => end.netns !== netns)
    .flatMap((end) => defaultRoutes(look.host, end, 6).map((route) => ({ end, route })));
}

function ofEnd(look: Look, segment: Segment, end: PlacedLink): HostFinding | undefined {
  const { netns, ifname, link } = end;
  if (getNetns(look.host, netns).sysctls[keyOf(ifname)] !== '1' || !link.up) return undefined;
  const own = link.addresses.map(({ ip }) => ip).filter((ip) => familyOf(ip) === 6);
  if (own.length > 0) {
    const lines = own.map((ip) => seen(netns, `${ip} dev ${ifname}`));
    return finding(end, `is 1, and link ${ifname} has IPv6 addresses`, lines, own);
  }
  const isNode = look.pods.some(({ node }) => node === netns);
  // A bridge that is nobody's gateway passes frames of IPv6 on all the same.
  if (!isNode || (link.kind === 'bridge' && globalAddresses(end, 4).length === 0)) return undefined;
  const ways = goingBy(look, segment, end);
  if (ways.length === 0) return undefined;
  return finding(
    end,
    `is 1, and pods have their IPv6 gateway behind ${ifname}`,
    ways.map((way) => seenRoute(way.end.netns, way.route)),
    ways.flatMap(({ route }) => route.gateway ?? []),
  );
}

/** Links without IPv6 that pods have their IPv6 default route to, or that have IPv6 addresses. */
export function disabledIpv6(look: Look): HostFinding[] {
  return look.segments.flatMap((segment) =>
    segment.ends.flatMap((end) => ofEnd(look, segment, end) ?? []),
  );
}
