/** Vxlans that know a neighbour's MAC address and not which host it is at, so that nothing gets to it. */
import { ZERO_MAC } from '../../model/mac.ts';
import { within } from '../cause.ts';
import { type HostFinding, seen } from './finding.ts';
import type { Look } from './look.ts';

/** Neighbours that somebody set on a vxlan for a MAC address without a remote, where nothing is sent to all either. */
export function missingRemotes({ links }: Look): HostFinding[] {
  return links.flatMap(({ netns, ifname, link }) => {
    if (link.kind !== 'vxlan') return [];
    const remotes = link.remotes ?? [];
    if (remotes.some(({ mac }) => mac === ZERO_MAC)) return [];
    return link.neighbours
      .filter(({ mac }) => !remotes.some((remote) => remote.mac === mac))
      .map(({ ip, mac }) => ({
        // One that learns may hear from there first.
        severity: link.learning ? 'warning' : 'error',
        kind: 'vxlan-remote',
        netns,
        object: `link ${ifname}`,
        text: `was not told which host ${ip} is at`,
        evidence: [
          seen(netns, `${ip} dev ${ifname} lladdr ${mac} PERMANENT`),
          seen(netns, `no FDB entry for ${mac} dev ${ifname}`),
        ],
        mend: [within(netns, `bridge fdb append ${mac} dev ${ifname} dst REMOTE`)],
      }));
  });
}
