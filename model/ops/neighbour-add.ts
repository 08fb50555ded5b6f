import { hasIpv6 } from '../connected.ts';
import { findLink, getNetns, withLink } from '../host.ts';
import type { Ifname } from '../ifname.ts';
import { familyOf } from '../ip.ts';
import type { Neighbour } from '../link.ts';
import { type OpKind, done, refuse } from '../op.ts';

/** Sets a permanent neighbour entry. */
export interface NeighbourAdd {
  readonly ifname: Ifname;
  readonly neighbour: Neighbour;
}

export const neighbourAdd: OpKind<'neighbour.add'> = {
  apply: (host, op) => {
    const link = findLink(host, op);
    if (!link) return refuse('ENODEV');
    // net/ipv6/ndisc.c, ndisc_allow_add.
    if (familyOf(op.neighbour.ip) === 6 && !hasIpv6(getNetns(host, op.netns), link))
      return refuse('EINVAL', 'IPv6 is disabled on this device');
    if (link.neighbours.some((n) => n.ip === op.neighbour.ip)) return refuse('EEXIST');
    return done(
      withLink(host, op.netns, { ...link, neighbours: [...link.neighbours, op.neighbour] }),
    );
  },
  describe: ({ ifname, neighbour }) => [
    `ip neigh add ${neighbour.ip} lladdr ${neighbour.mac} dev ${ifname} nud permanent`,
  ],
  sign: () => '+',
  reads: ({ netns, ifname }) => [`link ${netns}/${ifname}`, `up ${netns}/${ifname}`],
  writes: ({ netns, ifname, neighbour }) => [`neighbour ${netns}/${ifname}/${neighbour.ip}`],
  removes: () => [],
};
