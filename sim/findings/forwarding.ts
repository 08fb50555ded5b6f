/** Nodes that do not pass on what their pods send them for others. */
import { type NetnsName, findLink, findNetns, getNetns } from '../../model/host.ts';
import type { Family } from '../../model/ip.ts';
import { prefixIp } from '../../model/prefix.ts';
import { routeFamily } from '../../model/route.ts';
import { linkSysctlKey } from '../../model/sysctl.ts';
import { sysctl } from '../cause.ts';
import { isLinkLocal } from '../frame.ts';
import { type HostFinding, seen, seenRoute, shortened } from './finding.ts';
import { type Look, type PodLink, defaultRoutes, hasAddress } from './look.ts';

const SWITCHES = [
  [4, 'net/ipv4/ip_forward'],
  [6, linkSysctlKey(6, 'all', 'forwarding')],
] as const;

/** Is it a pod, and not a node with pods of its own that has a router? Nodes that are ports of a bridge are pods of that. */
function isPod({ host, pods }: Look, { netns, hostEnd }: PodLink): boolean {
  return findLink(host, hostEnd)?.port !== null || !pods.some(({ node }) => node === netns);
}

/** Has the node a route by another link than the one that a pod hangs on? */
function leadsOn({ host }: Look, { node, hostEnd }: PodLink, family: Family): boolean {
  const near = findLink(host, hostEnd)?.port?.master ?? hostEnd.ifname;
  const { links, routes } = getNetns(host, node);
  return routes.some(
    (route) =>
      route.type === 'unicast' &&
      routeFamily(route) === family &&
      route.device !== null &&
      route.device !== near &&
      links[route.device]?.kind !== 'loopback' &&
      !isLinkLocal(prefixIp(route.destination)),
  );
}

/** The default routes of a node's pods that lead to it, where it could pass on what comes by them. */
function routesTo(look: Look, node: NetnsName, family: Family): string[] {
  return look.pods
    .filter((pod) => pod.node === node && isPod(look, pod) && leadsOn(look, pod, family))
    .flatMap((pod) =>
      defaultRoutes(look.host, pod, family)
        .filter(({ gateway }) => gateway !== null && hasAddress(look.host, node, gateway))
        .map((route) => seenRoute(pod.netns, route)),
    );
}

/** Forwarding that is off where pods have the node for their gateway, and it has a way on for them. */
export function missingForwarding(look: Look): HostFinding[] {
  const nodes = [...new Set(look.pods.map(({ node }) => node))];
  return nodes.flatMap((node) =>
    SWITCHES.flatMap(([family, key]): HostFinding[] => {
      if (findNetns(look.host, node)?.sysctls[key] !== '0') return [];
      const routes = routesTo(look, node, family);
      if (routes.length === 0) return [];
      const text = 'is 0, and pods have this netns for their gateway';
      return [
        {
          severity: 'error',
          kind: 'forwarding',
          ...sysctl(node, key, '1', text),
          evidence: [seen(node, `${key.replaceAll('/', '.')} = 0`), ...shortened(routes)],
        },
      ];
    }),
  );
}
