/** Which links have carrier, and whose carrier changes with that of another. */
import { type Host, findLink, getNetns } from './host.ts';
import type { LinkRef } from './link.ts';

/** Can frames pass (IFF_LOWER_UP)? K-1.6, K-1.7. */
export function hasCarrier(host: Host, ref: LinkRef): boolean {
  const link = findLink(host, ref);
  if (!link?.up) return false;
  switch (link.kind) {
    case 'loopback':
    case 'ifb':
    case 'vxlan':
      return true;
    case 'veth':
      return link.peer === null || (findLink(host, link.peer)?.up ?? true);
    case 'bridge':
      return (
        !link.hadPorts ||
        Object.values(getNetns(host, ref.netns).links).some(
          ({ ifname, port }) =>
            port?.master === link.ifname && hasCarrier(host, { netns: ref.netns, ifname }),
        )
      );
    case 'device':
      return link.carrier;
  }
}

/** The links whose carrier can change with that of `ref`: itself, its veth peer, the bridges above them. */
export function neighbourhood(host: Host, ref: LinkRef): LinkRef[] {
  const link = findLink(host, ref);
  const refs = [ref];
  if (link?.kind === 'veth' && link.peer) refs.push(link.peer);
  const masters = refs.flatMap((each): LinkRef[] => {
    const master = findLink(host, each)?.port?.master;
    return master === undefined ? [] : [{ netns: each.netns, ifname: master }];
  });
  return [...refs, ...masters];
}
