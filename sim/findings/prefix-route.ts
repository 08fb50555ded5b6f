import type { Address } from '../../model/address.ts';
import { connectedPrefix } from '../../model/connected.ts';
import { getNetns } from '../../model/host.ts';
/** Addresses without the route to their prefix, which the kernel made with them (K-3.1, K-4.1). */
import { familyOf } from '../../model/ip.ts';
import { ADDRESS_BITS } from '../../model/ip.ts';
import { type Prefix, formatPrefixedIp, prefixContains } from '../../model/prefix.ts';
import { within } from '../cause.ts';
import { type HostFinding, seenAddress } from './finding.ts';
import { type Look, globalAddresses } from './look.ts';

/** Had the kernel a route to make? */
function hadRoute({ ip, prefixLength, secondary, noPrefixRoute, peer }: Address): boolean {
  return (
    !secondary && !noPrefixRoute && (prefixLength < ADDRESS_BITS[familyOf(ip)] || peer !== null)
  );
}

/** Are pods of the netns in the subnet? */
function isPodSubnet({ pods }: Look, netns: string, prefix: Prefix): boolean {
  return pods.some(
    (pod) =>
      pod.node === netns && globalAddresses(pod).some(({ ip }) => prefixContains(prefix, ip)),
  );
}

/** Addresses of links that are up, and to whose prefix their netns has no route, by whichever link. */
export function missingPrefixRoutes(look: Look): HostFinding[] {
  return look.links.flatMap((placed) => {
    const { netns, ifname, link } = placed;
    if (!link.up || link.kind === 'loopback' || link.port !== null) return [];
    const known = new Set(
      getNetns(look.host, netns)
        .routes.filter(({ type }) => type !== 'local')
        .map(({ destination }) => destination),
    );
    return globalAddresses(placed)
      .filter((address) => hadRoute(address) && !known.has(connectedPrefix(address)))
      .map((address): HostFinding => {
        const prefix = connectedPrefix(address);
        const family = familyOf(address.ip) === 6 ? ' -6' : '';
        const source = familyOf(address.ip) === 4 ? ` src ${address.ip}` : '';
        return {
          // A netns alone in its subnet may do without.
          severity: isPodSubnet(look, netns, prefix) ? 'error' : 'warning',
          kind: 'prefix-route',
          netns,
          object: `route to ${prefix}`,
          text: `is missing, though link ${ifname} has ${formatPrefixedIp(address)}`,
          evidence: [seenAddress(placed, link, address)],
          affects: [prefix],
          mend: [
            within(netns, `ip${family} route add ${prefix} dev ${ifname} proto kernel${source}`),
          ],
        };
      });
  });
}
