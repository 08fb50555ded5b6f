import { type Host, findLink, getNetns, withNetns } from '../../model/host.ts';
import { applyOp } from '../../model/ops.ts';
import { PROTOCOL_KERNEL } from '../../model/route.ts';

/**
 * Could each route be added now, if it were not there? History can leave routes for which that is not
 * so: made by hand before the kernel made its own, or through a gateway whose prefix has gone since
 * (K-3.5). A plan does not go through that history again: it ends with the kernel's refusal.
 */
function couldHaveRoutes(host: Host, name: string): boolean {
  const netns = getNetns(host, name);
  return netns.routes
    .filter((route) => route.protocol !== PROTOCOL_KERNEL)
    .every((route) => {
      const without = withNetns(host, name, {
        ...netns,
        routes: netns.routes.filter((r) => r !== route),
      });
      return applyOp(without, { op: 'route.add', netns: name, route }).ok;
    });
}

/** Could each vxlan be made now as large as it is? What it is over may have become smaller since, or lost IPv6 (K-9.2). */
function couldHaveTunnels(host: Host, netns: string): boolean {
  return Object.values(getNetns(host, netns).links).every((link) => {
    if (link.kind !== 'vxlan') return true;
    const without = applyOp(host, { op: 'link.del', netns, ifname: link.ifname });
    if (!without.ok || link.mac === null) return false;
    const { ifname, mac, mtuBytes, vni, udpPort, local, lower, learning } = link;
    const tunnel = { kind: 'vxlan', vni, udpPort, local, lower, learning } as const;
    const again = applyOp(without.host, {
      op: 'link.add',
      netns,
      link: { ...tunnel, ifname, mac, mtuBytes, up: false },
    });
    return again.ok && findLink(again.host, { netns, ifname })?.mtuBytes === mtuBytes;
  });
}

/** Can a plan lead to the host from anywhere? */
export function isReachable(host: Host): boolean {
  return Object.keys(host.netns).every(
    (name) => couldHaveRoutes(host, name) && couldHaveTunnels(host, name),
  );
}
