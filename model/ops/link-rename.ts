import { findByAnyName } from '../altname.ts';
import { findLink } from '../host.ts';
import type { Ifname } from '../ifname.ts';
import { renamesWhileUp } from '../kernel-profile.ts';
import { type OpKind, done, refuse } from '../op.ts';
import { renameLink } from '../relocate.ts';

/** Gives a link another name, on most kernels also while it is up (K-1.3). */
export interface LinkRename {
  readonly ifname: Ifname;
  readonly name: Ifname;
}

export const linkRename: OpKind<'link.rename'> = {
  apply: (host, op) => {
    const link = findLink(host, op);
    if (!link) return refuse('ENODEV');
    if (link.up && !renamesWhileUp(host.kernel)) return refuse('EBUSY');
    if (op.name === op.ifname) return done(host);
    if (findByAnyName(host, { netns: op.netns, ifname: op.name })) return refuse('EEXIST');
    return done(renameLink(host, op, op.name));
  },
  describe: (op) => [`ip link set ${op.ifname} name ${op.name}`],
  sign: () => '~',
  reads: (op) => [`netns ${op.netns}`],
  writes: (op) => [`link ${op.netns}/${op.name}`],
  removes: (op) => [`link ${op.netns}/${op.ifname}`],
};
