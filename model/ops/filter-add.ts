import { findLink, withLink } from '../host.ts';
import type { Ifname } from '../ifname.ts';
import { type OpKind, done, refuse } from '../op.ts';

/** Sends all that comes in by a link through another first, by a filter on its qdisc `clsact` (K-8.7). */
export interface FilterAdd {
  readonly ifname: Ifname;
  readonly redirect: Ifname;
}

/** Why filters cannot be changed where there is no such qdisc (net/sched/cls_api.c, __tcf_qdisc_find). */
export const NO_QDISC = "Parent Qdisc doesn't exists";

export const filterAdd: OpKind<'filter.add'> = {
  apply: (host, { netns, ifname, redirect }) => {
    const link = findLink(host, { netns, ifname });
    if (!link || !findLink(host, { netns, ifname: redirect })) return refuse('ENODEV');
    const { trafficControl } = link;
    if (!trafficControl?.ingress) return refuse('EINVAL', NO_QDISC);
    if (trafficControl.ingress.redirect !== undefined)
      return refuse('EEXIST', 'Filter already exists');
    const ingress = { ...trafficControl.ingress, redirect };
    return done(withLink(host, netns, { ...link, trafficControl: { ...trafficControl, ingress } }));
  },
  describe: ({ ifname, redirect }) => [
    `tc filter add dev ${ifname} ingress pref 1 protocol all handle 800::1 u32 match u32 0 0 action mirred egress redirect dev ${redirect}`,
  ],
  sign: () => '+',
  reads: ({ netns, ifname, redirect }) => [
    `link ${netns}/${ifname}`,
    `qdisc ${netns}/${ifname} ingress`,
    `link ${netns}/${redirect}`,
  ],
  writes: ({ netns, ifname }) => [`filter ${netns}/${ifname}`],
  removes: () => [],
};
