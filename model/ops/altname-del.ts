import { ALTNAME_MAX_BYTES, findByAnyName, withAltnames } from '../altname.ts';
import { findLink, withLink } from '../host.ts';
import type { Ifname } from '../ifname.ts';
import { type OpKind, done, refuse } from '../op.ts';

/** Takes one of its other names from a link. */
export interface AltnameDel {
  readonly ifname: Ifname;
  readonly altname: string;
}

export const altnameDel: OpKind<'altname.del'> = {
  apply: (host, op) => {
    const link = findLink(host, op);
    if (!link) return refuse('ENODEV');
    if (op.altname.length > ALTNAME_MAX_BYTES)
      return refuse('ERANGE', 'Attribute failed policy validation');
    const altnames = link.altnames ?? [];
    if (!altnames.includes(op.altname)) {
      // Somebody's name, but not another one of this link (netdev_name_node_alt_destroy).
      const named = findByAnyName(host, { netns: op.netns, ifname: op.altname as Ifname });
      return refuse(named ? 'EINVAL' : 'ENOENT');
    }
    const rest = altnames.filter((name) => name !== op.altname);
    return done(withLink(host, op.netns, withAltnames(link, rest)));
  },
  describe: (op) => [`ip link property del dev ${op.ifname} altname ${op.altname}`],
  sign: () => '-',
  reads: () => [],
  writes: () => [],
  removes: (op) => [`altname ${op.netns}/${op.altname}`],
};
