import { ALTNAME_MAX_BYTES, findByAnyName, withAltnames } from '../altname.ts';
import { findLink, withLink } from '../host.ts';
import type { Ifname } from '../ifname.ts';
import { type OpKind, done, refuse } from '../op.ts';

/** Gives a link one more name, by which it can be addressed as by its own (K-1.2). */
export interface AltnameAdd {
  readonly ifname: Ifname;
  readonly altname: string;
}

export const altnameAdd: OpKind<'altname.add'> = {
  apply: (host, op) => {
    const link = findLink(host, op);
    if (!link) return refuse('ENODEV');
    if (op.altname.length > ALTNAME_MAX_BYTES)
      return refuse('ERANGE', 'Attribute failed policy validation');
    if (findByAnyName(host, { netns: op.netns, ifname: op.altname as Ifname }))
      return refuse('EEXIST');
    const altnames = [...(link.altnames ?? []), op.altname];
    return done(withLink(host, op.netns, withAltnames(link, altnames)));
  },
  describe: (op) => [`ip link property add dev ${op.ifname} altname ${op.altname}`],
  sign: () => '+',
  reads: (op) => [`link ${op.netns}/${op.ifname}`],
  writes: (op) => [`altname ${op.netns}/${op.altname}`],
  removes: () => [],
};
