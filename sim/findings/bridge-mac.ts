/** Bridges whose MAC address changes with their ports (K-1.10): until neighbours ask again they send to the old one. */
import { getNetns, portsOf } from '../../model/host.ts';
import { within } from '../cause.ts';
import { type HostFinding, seen, seenAddress } from './finding.ts';
import { type Look, globalAddresses } from './look.ts';

/** Bridges with addresses that have the MAC of their lowest port, where that is a veth. */
export function changingBridgeMacs(look: Look): HostFinding[] {
  return look.links.flatMap((placed): HostFinding[] => {
    const { netns, ifname, link } = placed;
    if (link.kind !== 'bridge' || link.macChosen || link.mac === null) return [];
    const [address] = globalAddresses(placed);
    // That of a card stays with it, and veths come and go.
    const port = portsOf(getNetns(look.host, netns), ifname).find(
      ({ mac, kind }) => mac === link.mac && kind === 'veth',
    );
    if (!address || !port) return [];
    return [
      {
        severity: 'warning',
        kind: 'bridge-mac',
        netns,
        object: `link ${ifname}`,
        text: `has the MAC address of its port ${port.ifname}, and another one when that goes or a lower one comes`,
        evidence: [
          seenAddress(placed, link, address),
          seen(netns, `${port.ifname} has ${port.mac}, master ${ifname}`),
        ],
        mend: [within(netns, `ip link set ${ifname} address ${link.mac}`)],
      },
    ];
  });
}
