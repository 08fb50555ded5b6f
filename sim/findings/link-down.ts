/** Links that are down, or have no carrier, and on which somebody relies. */
import { hasCarrier } from '../../model/carrier.ts';
import { getNetns, portsOf } from '../../model/host.ts';
import { linkDown } from '../cause.ts';
import { type HostFinding, seen, seenAddress } from './finding.ts';
import { type Look, globalAddresses } from './look.ts';
import { type PlacedLink } from './segment.ts';

/** Evidence that a pod hangs on it, as the far end of its link or as its bridge. */
function reliance({ host, pods }: Look, { netns, ifname, link }: PlacedLink): string[] {
  const pod = pods.find(({ hostEnd }) => hostEnd.netns === netns && hostEnd.ifname === ifname);
  if (pod && pod.link.up) {
    const [address] = globalAddresses(pod);
    return address ? [seenAddress(pod, pod.link, address)] : [];
  }
  if (link.kind !== 'bridge') return [];
  return portsOf(getNetns(host, netns), ifname)
    .filter(({ up }) => up)
    .slice(0, 1)
    .map((port) => seen(netns, `${port.ifname} has master ${ifname}`));
}

function ofDown(look: Look, placed: PlacedLink): HostFinding | undefined {
  const relied = reliance(look, placed);
  const own = globalAddresses(placed).map((address) => seenAddress(placed, placed.link, address));
  if (relied.length === 0 && own.length === 0) return undefined;
  return {
    // A pod's own link may be down because it is to be (`disableContainerInterface`).
    severity: relied.length > 0 ? 'error' : 'warning',
    kind: 'link-down',
    ...linkDown(placed),
    evidence: [...relied, ...own].slice(0, 2),
  };
}

function withoutCarrier(look: Look, placed: PlacedLink): HostFinding | undefined {
  const { netns, ifname, link } = placed;
  const [address] = globalAddresses(placed);
  // A bridge has none before its first port, and a veth where its far end is down, which is said there.
  if (link.kind !== 'device' || !address || hasCarrier(look.host, placed)) return undefined;
  return {
    severity: 'warning',
    kind: 'link-down',
    netns,
    object: `link ${ifname}`,
    text: 'has no carrier',
    evidence: [seenAddress(placed, link, address)],
    mend: [],
  };
}

/** Links that are down with addresses, or with pods that hang on them; cards with addresses that have no carrier. */
export function downLinks(look: Look): HostFinding[] {
  return look.links.flatMap((placed) => {
    const { link } = placed;
    // A dummy only holds addresses, which it does just as well when it is down (as kube-proxy's kube-ipvs0 is).
    const isDummy = link.kind === 'device' && link.deviceKind === 'dummy';
    if (link.kind === 'loopback' || isDummy) return [];
    return (link.up ? withoutCarrier(look, placed) : ofDown(look, placed)) ?? [];
  });
}
