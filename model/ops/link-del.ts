import { findLink } from '../host.ts';
import type { Ifname } from '../ifname.ts';
import { removeLink } from '../netdev.ts';
import { type OpKind, done, refuse } from '../op.ts';

/** Removes a link; of a veth both ends go (K-1.5). */
export interface LinkDel {
  readonly ifname: Ifname;
}

export const linkDel: OpKind<'link.del'> = {
  apply: (host, op) => {
    const link = findLink(host, op);
    if (!link) return refuse('ENODEV');
    return link.kind === 'loopback' ? refuse('EOPNOTSUPP') : done(removeLink(host, op));
  },
  describe: (op) => [`ip link del ${op.ifname}`],
  sign: () => '-',
  reads: () => [],
  writes: () => [],
  removes: (op) => [`link ${op.netns}/${op.ifname}`],
};
