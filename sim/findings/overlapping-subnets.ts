import type { Address } from '../../model/address.ts';
/** Subnets of two links that have addresses in common: what is in both is looked for on one of them alone. */
import { connectedPrefix } from '../../model/connected.ts';
import { getNetns } from '../../model/host.ts';
import { ADDRESS_BITS, familyOf } from '../../model/ip.ts';
import {
  type Prefix,
  formatPrefixedIp,
  prefixLengthOf,
  prefixesOverlap,
} from '../../model/prefix.ts';
import { within } from '../cause.ts';
import { type HostFinding, seenAddress } from './finding.ts';
import { type Look, globalAddresses } from './look.ts';
import type { PlacedLink, Segment } from './segment.ts';

interface Subnet extends PlacedLink {
  readonly address: Address;
  readonly prefix: Prefix;
  readonly table: number;
  readonly segment: Segment;
}

/** The subnets of a netns to which it has routes without a gateway. A single address within another's subnet is how pods are routed to. */
function subnetsOf(look: Look): Map<string, Subnet[]> {
  const found = new Map<string, Subnet[]>();
  for (const segment of look.segments)
    for (const end of segment.ends)
      for (const address of globalAddresses(end)) {
        const prefix = connectedPrefix(address);
        const route = getNetns(look.host, end.netns).routes.find(
          ({ destination, device, gateway, type }) =>
            destination === prefix &&
            device === end.ifname &&
            gateway === null &&
            type === 'unicast',
        );
        if (!route || prefixLengthOf(prefix) === ADDRESS_BITS[familyOf(prefix)]) continue;
        const subnet = { ...end, address, prefix, table: route.table, segment };
        found.set(end.netns, [...(found.get(end.netns) ?? []), subnet]);
      }
  return found;
}

/** Two links to the network outside, which may be in it both, are a matter of that network. */
function areApart(a: Subnet, b: Subnet): boolean {
  return a.segment !== b.segment && !(a.segment.isOpen && b.segment.isOpen);
}

function overlap(first: Subnet, second: Subnet): HostFinding {
  const { netns, ifname, address, prefix } = second;
  const family = familyOf(prefix) === 6 ? '-6 ' : '';
  return {
    severity: 'warning',
    kind: 'overlapping-subnets',
    netns,
    object: `subnet ${prefix} of link ${ifname}`,
    text: `has addresses in common with ${first.prefix} of link ${first.ifname}`,
    evidence: [
      seenAddress(first, first.link, first.address),
      seenAddress(second, second.link, address),
    ],
    mend: [within(netns, `ip ${family}address del ${formatPrefixedIp(address)} dev ${ifname}`)],
  };
}

/** Subnets of a netns that overlap, on links of several segments and in one table. */
export function overlappingSubnets(look: Look): HostFinding[] {
  return [...subnetsOf(look).values()].flatMap((subnets) =>
    subnets.flatMap((second, index) =>
      subnets
        .slice(0, index)
        .filter(
          (first) =>
            first.table === second.table &&
            areApart(first, second) &&
            prefixesOverlap(first.prefix, second.prefix),
        )
        .slice(0, 1)
        .map((first) => overlap(first, second)),
    ),
  );
}
