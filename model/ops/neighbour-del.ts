import { findLink, withLink } from '../host.ts';
import type { Ifname } from '../ifname.ts';
import type { Ip } from '../ip.ts';
import { type OpKind, done, refuse } from '../op.ts';

/** Removes a neighbour entry. */
export interface NeighbourDel {
  readonly ifname: Ifname;
  readonly ip: Ip;
}

export const neighbourDel: OpKind<'neighbour.del'> = {
  apply: (host, op) => {
    const link = findLink(host, op);
    if (!link) return refuse('ENODEV');
    if (!link.neighbours.some((n) => n.ip === op.ip)) return refuse('ENOENT');
    return done(
      withLink(host, op.netns, {
        ...link,
        neighbours: link.neighbours.filter((n) => n.ip !== op.ip),
      }),
    );
  },
  describe: ({ ifname, ip }) => [`ip neigh del ${ip} dev ${ifname}`],
  sign: () => '-',
  reads: () => [],
  writes: () => [],
  removes: ({ netns, ifname, ip }) => [`neighbour ${netns}/${ifname}/${ip}`],
};
