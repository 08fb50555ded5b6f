import { type Host, findLink, getNetns, withNetns } from '../../model/host.ts';
import type { Ifname } from '../../model/ifname.ts';
import type { Link } from '../../model/link.ts';
import { applyOp } from '../../model/ops.ts';
import { PROTOCOL_KERNEL } from '../../model/route.ts';
import { lowerOf } from '../../model/upper.ts';

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

/** What a link that is made over another was made with, beside its end. */
function madeOver(link: Link) {
  if (link.kind === 'macvlan')
    return { kind: 'macvlan', mode: link.mode, lower: link.lower?.ifname as Ifname } as const;
  if (link.kind !== 'vxlan') throw new Error(`${link.ifname} is over no link`);
  const { vni, udpPort, local, lower, learning } = link;
  return { kind: 'vxlan', vni, udpPort, local, lower, learning } as const;
}

/**
 * Could each link over another be made now as it is? What a vxlan is over may have become smaller since, or lost IPv6 (K-9.2);
 * what a macvlan is over may have its MAC now (K-1.19).
 */
function couldHaveUppers(host: Host, netns: string): boolean {
  return Object.values(getNetns(host, netns).links).every((link) => {
    if (!lowerOf(link)) return true;
    const { ifname, mtuBytes } = link;
    const without = applyOp(host, { op: 'link.del', netns, ifname });
    if (!without.ok || link.mac === null) return false;
    const again = applyOp(without.host, {
      op: 'link.add',
      netns,
      link: { ...madeOver(link), ifname, mac: link.mac, mtuBytes, up: link.up },
    });
    return again.ok && findLink(again.host, { netns, ifname })?.mtuBytes === mtuBytes;
  });
}

/** Can a plan lead to the host from anywhere? */
export function isReachable(host: Host): boolean {
  return Object.keys(host.netns).every(
    (name) => couldHaveRoutes(host, name) && couldHaveUppers(host, name),
  );
}
