import { connectedPrefix } from '../../model/connected.ts';
/** Pods that have no default route, while others on their bridge have one by their node. */
import { getLink, getNetns } from '../../model/host.ts';
import type { Family, Ip } from '../../model/ip.ts';
import { prefixContains } from '../../model/prefix.ts';
import { OWN_PACKETS, lookup } from '../../model/route-lookup.ts';
import type { Route } from '../../model/route.ts';
import { within } from '../cause.ts';
import { type HostFinding, seen, seenAddress, seenRoute } from './finding.ts';
import { type Look, type PodLink, defaultRoutes, globalAddresses, hasAddress } from './look.ts';
import { OUTSIDE } from './questions.ts';

interface Sibling {
  readonly pod: PodLink;
  readonly route: Route;
  readonly gateway: Ip;
}

/** Another pod on the bridge whose gateway is the node, at an address in the pod's subnet. */
function findSibling({ host, pods }: Look, pod: PodLink, family: Family): Sibling | undefined {
  const prefixes = globalAddresses(pod, family).map(connectedPrefix);
  for (const other of pods) {
    if (other.segment !== pod.segment || other.netns === pod.netns) continue;
    for (const route of defaultRoutes(host, other, family)) {
      const { gateway } = route;
      if (gateway === null || !hasAddress(host, pod.node, gateway)) continue;
      if (prefixes.some((prefix) => prefixContains(prefix, gateway)))
        return { pod: other, route, gateway };
    }
  }
  return undefined;
}

function ofFamily(look: Look, pod: PodLink, family: Family): HostFinding[] {
  const { netns, ifname, link } = pod;
  const [own] = globalAddresses(pod, family);
  // By whatever link it gets out, it does.
  if (!own || !link.up || lookup(getNetns(look.host, netns), OUTSIDE[family], OWN_PACKETS))
    return [];
  const sibling = findSibling(look, pod, family);
  const master = getLink(look.host, pod.hostEnd).port?.master;
  if (!sibling || master === undefined) return [];
  const option = family === 6 ? ' -6' : '';
  return [
    {
      severity: 'warning',
      kind: 'default-route',
      netns,
      object: family === 6 ? 'IPv6 default route' : 'default route',
      text: `is missing, and others on bridge ${master} have one`,
      evidence: [
        seenAddress(pod, link, own),
        seen(netns, `ip${option} route show default: none`),
        seenRoute(sibling.pod.netns, sibling.route),
      ],
      mend: [within(netns, `ip${option} route add default via ${sibling.gateway} dev ${ifname}`)],
    },
  ];
}

/** Pods that have no way to the world outside, where others on their bridge have one by an address of their node. */
export function missingDefaultRoutes(look: Look): HostFinding[] {
  return look.pods.flatMap((pod) => [...ofFamily(look, pod, 4), ...ofFamily(look, pod, 6)]);
}
