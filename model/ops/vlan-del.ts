import { findLink, withLink } from '../host.ts';
import type { Ifname } from '../ifname.ts';
import { type OpKind, done, refuse } from '../op.ts';
import { formatVlan, withoutVlans } from '../vlan.ts';
import { changeVlans, vlanFault } from './vlan-add.ts';

/** Takes a bridge port out of VLANs, or with `self` the bridge itself; those it is no member of do not matter (K-6.6). */
export interface VlanDel {
  readonly ifname: Ifname;
  readonly self: boolean;
  readonly first: number;
  readonly last: number;
}

export const vlanDel: OpKind<'vlan.del'> = {
  apply: (host, { netns, ifname, self, first, last }) => {
    const link = findLink(host, { netns, ifname });
    const fault = vlanFault(link, self, first, last, () => '');
    if (fault || !link) return fault ?? refuse('ENODEV');
    return done(
      withLink(
        host,
        netns,
        changeVlans(link, self, (ranges) => withoutVlans(ranges, first, last)),
      ),
    );
  },
  describe: ({ ifname, self, first, last }) => [
    `bridge vlan del dev ${ifname} vid ${formatVlan({ first, last, pvid: false, untagged: false })}${self ? ' self' : ''}`,
  ],
  sign: () => '-',
  reads: ({ netns, ifname }) => [`link ${netns}/${ifname}`, `master ${netns}/${ifname}`],
  writes: ({ netns, ifname }) => [`attribute ${netns}/${ifname}`],
  removes: () => [],
};
