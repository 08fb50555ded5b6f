import { findNetns } from '../host.ts';
import type { Ifname } from '../ifname.ts';
import { removeLink } from '../netdev.ts';
import { type OpKind, done, refuse } from '../op.ts';

/**
 * Removes all links of a group, in one message: the kernel waits once until nobody uses any of them any more, not once for
 * each (K-1.17; net/core/rtnetlink.c, rtnl_group_dellink).
 */
export interface GroupDel {
  /** Not 0, the group of links that are in none. */
  readonly group: number;
  /** The links that are known to be in it. */
  readonly ifnames: readonly Ifname[];
}

export const groupDel: OpKind<'group.del'> = {
  apply: (host, { netns, group }) => {
    const found = Object.values(findNetns(host, netns)?.links ?? {}).filter(
      (link) => link.group === group,
    );
    if (group === 0) return refuse('EPERM');
    if (found.length === 0) return refuse('ENODEV');
    // One that cannot go keeps all.
    if (found.some((link) => link.kind === 'loopback')) return refuse('EOPNOTSUPP');
    return done(
      found.reduce((state, { ifname }) => {
        const ref = { netns, ifname };
        // The other end of a veth goes with it.
        // All go at once: whoever is left has the carrier that it had before the first.
        return findNetns(state, netns)?.links[ifname] ? removeLink(state, ref, host) : state;
      }, host),
    );
  },
  describe: ({ group }) => [`ip link del group ${group}`],
  sign: () => '-',
  reads: () => [],
  writes: () => [],
  removes: ({ netns, ifnames }) => ifnames.map((ifname) => `link ${netns}/${ifname}`),
};
