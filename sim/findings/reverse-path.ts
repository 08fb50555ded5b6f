/** Strict reverse path filters where the way back leaves by another link, so that what comes in is dropped (K-7.4). */
import { hostPrefix } from '../../model/connected.ts';
import { getNetns } from '../../model/host.ts';
import type { Ip } from '../../model/ip.ts';
import { OWN_PACKETS, lookup } from '../../model/route-lookup.ts';
import { linkSysctl } from '../../model/sysctl.ts';
import { sysctl } from '../cause.ts';
import { leadsBy } from '../next-hop.ts';
import { strictest } from '../route.ts';
import { type HostFinding, seen, seenAddress, seenRoute } from './finding.ts';
import { type Look, type PodLink, globalAddresses } from './look.ts';
import type { PlacedLink } from './segment.ts';

/** The links by which a node hears a pod. */
function hearing(pod: PodLink): PlacedLink[] {
  const isBridged = pod.segment.ports.some(({ netns }) => netns === pod.node);
  return pod.segment.ends.filter(
    (end) =>
      end.netns === pod.node &&
      end.link.up &&
      // One without an address is nobody's gateway; a bare host end needs none.
      (!isBridged || globalAddresses(end, 4).length > 0),
  );
}

function filtered(look: Look, pod: PodLink, ip: Ip, at: PlacedLink): HostFinding | undefined {
  const node = getNetns(look.host, at.netns);
  if (strictest(node, at.ifname, 'rp_filter') !== 1) return undefined;
  const route = lookup(node, ip, OWN_PACKETS);
  if (route?.type !== 'unicast' || leadsBy(route, at.ifname)) return undefined;
  const all = Number(node.sysctls['net/ipv4/conf/all/rp_filter'] ?? '0');
  const own = Number(linkSysctl(node, 4, at.ifname, 'rp_filter'));
  const of = own >= all ? at.ifname : 'all';
  const [address] = pod.link.addresses.filter((each) => each.ip === ip);
  const text = `is 1, and the route back to ${ip} is by ${route.device}`;
  return {
    severity: 'error',
    kind: 'reverse-path',
    ...sysctl(at.netns, `net/ipv4/conf/${of}/rp_filter`, '2', text),
    affects: [hostPrefix(ip)],
    evidence: [
      ...(address ? [seenAddress(pod, pod.link, address)] : []),
      seen(at.netns, `it comes in by ${at.ifname}`),
      seenRoute(at.netns, route),
      seen(at.netns, `net.ipv4.conf.${of}.rp_filter = 1`),
    ],
  };
}

/** Pods whose packets the node's reverse path filter drops. */
export function reversePathDrops(look: Look): HostFinding[] {
  return look.pods.flatMap((pod) =>
    globalAddresses(pod, 4).flatMap(({ ip }) =>
      hearing(pod).flatMap((at) => filtered(look, pod, ip, at) ?? []),
    ),
  );
}
