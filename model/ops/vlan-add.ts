import { findLink, withLink } from '../host.ts';
import type { Ifname } from '../ifname.ts';
import type { Link } from '../link.ts';
import { type OpKind, type Outcome, done, refuse } from '../op.ts';
import { type VlanRange, VLAN_ID_MAX, VLAN_ID_MIN, formatVlan, withVlans } from '../vlan.ts';

/** Makes a bridge port a member of VLANs, or with `self` the bridge itself (K-6.6). Those it is a member of get new marks. */
export interface VlanAdd {
  readonly ifname: Ifname;
  readonly self: boolean;
  readonly vlan: VlanRange;
}

/** What both operations refuse before they look at VLANs (net/bridge/br_netlink.c, br_process_vlan_info); taking away gives no reason. */
export function vlanFault(
  link: Link | undefined,
  self: boolean,
  first: number,
  last: number,
  text: (reason: string) => string = (reason) => reason,
): Outcome | undefined {
  if (!link) return refuse('ENODEV');
  if (self ? link.kind !== 'bridge' : link.port === null) return refuse('EOPNOTSUPP');
  if (first < VLAN_ID_MIN || last > VLAN_ID_MAX)
    return refuse('EINVAL', text('bridge: Vlan id is invalid'));
  return first > last
    ? refuse('EINVAL', text('bridge: End vlan id is less than or equal to start vlan id'))
    : undefined;
}

/** The link with other VLANs; unchanged where the kernel has none. */
export function changeVlans(
  link: Link,
  self: boolean,
  change: (ranges: readonly VlanRange[]) => readonly VlanRange[],
): Link {
  if (self)
    return link.kind === 'bridge' && link.vlans
      ? { ...link, vlans: { ...link.vlans, own: change(link.vlans.own) } }
      : link;
  return link.port?.vlans
    ? { ...link, port: { ...link.port, vlans: change(link.port.vlans) } }
    : link;
}

function hasVlans(link: Link, self: boolean): boolean {
  return self ? link.kind === 'bridge' && link.vlans !== undefined : link.port?.vlans !== undefined;
}

export const vlanAdd: OpKind<'vlan.add'> = {
  apply: (host, { netns, ifname, self, vlan }) => {
    const link = findLink(host, { netns, ifname });
    const fault = vlanFault(link, self, vlan.first, vlan.last);
    if (fault || !link) return fault ?? refuse('ENODEV');
    if (vlan.pvid && vlan.first !== vlan.last)
      return refuse('EINVAL', "bridge: Pvid isn't allowed in a range");
    if (!hasVlans(link, self)) return refuse('EOPNOTSUPP');
    return done(
      withLink(
        host,
        netns,
        changeVlans(link, self, (ranges) => withVlans(ranges, vlan)),
      ),
    );
  },
  describe: ({ ifname, self, vlan }) => [
    `bridge vlan add dev ${ifname} vid ${formatVlan(vlan)}${self ? ' self' : ''}`,
  ],
  sign: () => '+',
  reads: ({ netns, ifname }) => [`link ${netns}/${ifname}`, `master ${netns}/${ifname}`],
  writes: ({ netns, ifname }) => [`attribute ${netns}/${ifname}`],
  removes: () => [],
};
