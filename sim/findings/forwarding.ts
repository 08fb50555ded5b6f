/** Nodes that do not pass on what their pods send them for others. */
import { type NetnsName, findNetns } from '../../model/host.ts';
import type { Family } from '../../model/ip.ts';
import { linkSysctlKey } from '../../model/sysctl.ts';
import { sysctl } from '../cause.ts';
import { type HostFinding, seen, seenRoute, shortened } from './finding.ts';
import { type Look, defaultRoutes, hasAddress } from './look.ts';

const SWITCHES = [
  [4, 'net/ipv4/ip_forward'],
  [6, linkSysctlKey(6, 'all', 'forwarding')],
] as const;

/** The default routes of a node's pods that lead to it. */
function routesTo(look: Look, node: NetnsName, family: Family): string[] {
  return look.pods
    .filter((pod) => pod.node === node)
    .flatMap((pod) =>
      defaultRoutes(look.host, pod, family)
        .filter(({ gateway }) => gateway !== null && hasAddress(look.host, node, gateway))
        .map((route) => seenRoute(pod.netns, route)),
    );
}

/** Forwarding that is off where pods have the node for their gateway. */
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
