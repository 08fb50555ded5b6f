/** Addresses that two links have: whoever asks by ARP or ND takes the one that answers first, or the last. */
import type { Address } from '../../model/address.ts';
import { hostPrefix } from '../../model/connected.ts';
import type { Ip } from '../../model/ip.ts';
import { formatPrefixedIp } from '../../model/prefix.ts';
import { within } from '../cause.ts';
import { type HostFinding, seenAddress } from './finding.ts';
import { type Look, globalAddresses, hasAddress } from './look.ts';
import type { PlacedLink } from './segment.ts';

interface Owner {
  readonly at: PlacedLink;
  readonly address: Address;
}

function ownersOf(links: readonly PlacedLink[]): Map<Ip, Owner[]> {
  const owners = new Map<Ip, Owner[]>();
  for (const at of links) {
    if (!at.link.up || at.link.kind === 'loopback') continue;
    for (const address of globalAddresses(at)) {
      const others = owners.get(address.ip);
      if (others) others.push({ at, address });
      else owners.set(address.ip, [{ at, address }]);
    }
  }
  return owners;
}

function duplicate([first, ...others]: readonly Owner[], where: string): HostFinding[] {
  if (!first) return [];
  const { at, address } = first;
  return others.map((other) => {
    const { netns, ifname } = other.at;
    const prefixed = formatPrefixedIp(other.address);
    const family = prefixed.includes(':') ? '-6 ' : '';
    return {
      severity: 'error',
      kind: 'duplicate-address',
      netns,
      object: `address ${prefixed} of link ${ifname}`,
      text: `is also that of link ${at.ifname} in netns ${at.netns}, ${where}`,
      evidence: [
        seenAddress(at, at.link, address),
        seenAddress(other.at, other.at.link, other.address),
      ],
      affects: [hostPrefix(address.ip)],
      mend: [within(netns, `ip ${family}address del ${prefixed} dev ${ifname}`)],
    };
  });
}

/** Two links of one segment with one address. */
function inSegments({ segments }: Look): HostFinding[] {
  return segments.flatMap(({ ends }) =>
    [...ownersOf(ends).values()].flatMap((owners) => duplicate(owners, 'in the same segment')),
  );
}

/** Pods of one node in several segments: it routes to one of them alone, and does not mind where it routes to none. */
function ofNodes({ host, pods }: Look): HostFinding[] {
  const routed = pods.filter(({ netns, ifname, node }) =>
    (host.netns[netns]?.routes ?? []).some(
      ({ device, gateway }) =>
        device === ifname && gateway !== null && hasAddress(host, node, gateway),
    ),
  );
  const nodes = [...new Set(routed.map(({ node }) => node))];
  return nodes.flatMap((node) => {
    const ofNode = routed.filter((pod) => pod.node === node);
    return [...ownersOf(ofNode).values()].flatMap((owners) => {
      const segments = new Set(
        ofNode.filter((pod) => owners.some(({ at }) => at === pod)).map(({ segment }) => segment),
      );
      return segments.size < 2 || segments.size < owners.length
        ? []
        : duplicate(owners, `and netns ${node} routes to one of them`);
    });
  });
}

/** Addresses that are on two links of a segment, or on two pods that one node routes to. */
export function duplicateAddresses(look: Look): HostFinding[] {
  return [...inSegments(look), ...ofNodes(look)];
}
