/** Which links have carrier, and whose carrier changes with that of another. */
import { type Host, findLink, getNetns } from './host.ts';
import type { LinkRef } from './link.ts';
import { macvlansOver } from './upper.ts';

/** Has the link carrier, as far as that does not hang on whether it is up itself (netif_carrier_ok)? */
function couldPass(host: Host, ref: LinkRef): boolean {
  const link = findLink(host, ref);
  // Nobody looked.
  if (!link) return true;
  switch (link.kind) {
    case 'loopback':
    case 'ifb':
    case 'vxlan':
      return true;
    // Be what it is on up or not (K-1.18).
    case 'macvlan':
      return link.lower === null || couldPass(host, link.lower);
    case 'veth':
      return link.up && (link.peer === null || (findLink(host, link.peer)?.up ?? true));
    case 'bridge':
      return (
        !link.hadPorts ||
        (link.up &&
          Object.values(getNetns(host, ref.netns).links).some(
            ({ ifname, port }) =>
              port?.master === link.ifname && hasCarrier(host, { netns: ref.netns, ifname }),
          ))
      );
    case 'device':
      return link.carrier;
  }
}

/** Can frames pass (IFF_LOWER_UP)? K-1.6, K-1.7. */
export function hasCarrier(host: Host, ref: LinkRef): boolean {
  return findLink(host, ref)?.up === true && couldPass(host, ref);
}

/** The links whose carrier hangs on that of `ref`: its bridge, and the macvlans over it. */
function followersOf(host: Host, ref: LinkRef): LinkRef[] {
  const master = findLink(host, ref)?.port?.master;
  const macvlans = macvlansOver(host, ref);
  return master === undefined ? macvlans : [{ netns: ref.netns, ifname: master }, ...macvlans];
}

/** The links whose carrier can change with that of `ref`, those that others hang on first: itself, its veth peer, and all that follow. */
export function neighbourhood(host: Host, ref: LinkRef): LinkRef[] {
  const link = findLink(host, ref);
  const refs = link?.kind === 'veth' && link.peer ? [ref, link.peer] : [ref];
  // Followers have followers: a bridge the macvlans over it, a macvlan its bridge.
  for (let at = 0; at < refs.length; at += 1) refs.push(...followersOf(host, refs[at] as LinkRef));
  return refs;
}
