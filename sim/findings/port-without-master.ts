/** Host ends of pods that are ports of no bridge, while the others in their subnet are. */
import { connectedPrefix } from '../../model/connected.ts';
import { getLink } from '../../model/host.ts';
import { prefixContains } from '../../model/prefix.ts';
import { isTakenIn } from '../blame/lost-port.ts';
import { within } from '../cause.ts';
import { type HostFinding, seen, seenAddress } from './finding.ts';
import { type Look, type PodLink, globalAddresses } from './look.ts';

/** The bridge of another pod in whose subnet this one is. */
function findSibling(look: Look, pod: PodLink): PodLink | undefined {
  const prefixes = globalAddresses(pod).map(connectedPrefix);
  return look.pods.find(
    (other) =>
      other.node === pod.node &&
      other.segment !== pod.segment &&
      getLink(look.host, other.hostEnd).port !== null &&
      globalAddresses(other).some(({ ip }) =>
        prefixes.some((prefix) => prefixContains(prefix, ip)),
      ),
  );
}

/** Host ends of which nothing takes the frames, where that of another pod in the subnet is a port. */
export function portsWithoutMaster(look: Look): HostFinding[] {
  return look.pods.flatMap((pod): HostFinding[] => {
    if (isTakenIn(look.host, pod.hostEnd)) return [];
    const sibling = findSibling(look, pod);
    const master = sibling && getLink(look.host, sibling.hostEnd).port?.master;
    if (!sibling || master === undefined) return [];
    const { netns, ifname } = pod.hostEnd;
    const [own] = globalAddresses(pod);
    const [others] = globalAddresses(sibling);
    return [
      {
        severity: 'error',
        kind: 'port-without-master',
        netns,
        object: `link ${ifname}`,
        text: `is no port of bridge ${master}, where the others of its subnet are`,
        evidence: [
          ...(own ? [seenAddress(pod, pod.link, own)] : []),
          seen(netns, `${ifname} has no master, no address and no route`),
          ...(others ? [seenAddress(sibling, sibling.link, others)] : []),
          seen(netns, `${sibling.hostEnd.ifname} has master ${master}`),
        ],
        mend: [within(netns, `ip link set ${ifname} master ${master}`)],
      },
    ];
  });
}
