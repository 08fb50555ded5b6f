import { findByAnyName } from '../altname.ts';
import { findLink } from '../host.ts';
import type { Ifname } from '../ifname.ts';
import { type OpKind, done, refuse } from '../op.ts';
import { renameLink } from '../relocate.ts';

/** Gives a link another name, also while it is up (K-1.3). */
export interface LinkRename {
  readonly ifname: Ifname;
  readonly name: Ifname;
}

export const linkRename: OpKind<'link.rename'> = {
  apply: (host, op) => {
    if (!findLink(host, op)) return refuse('ENODEV');
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
