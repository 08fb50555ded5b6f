import { findLink, withLink } from '../host.ts';
import type { Ifname } from '../ifname.ts';
import { type OpKind, done, refuse } from '../op.ts';
import { NO_QDISC } from './filter-add.ts';

/** Takes away what `filter.add` adds (K-8.7). */
export interface FilterDel {
  readonly ifname: Ifname;
}

export const filterDel: OpKind<'filter.del'> = {
  apply: (host, { netns, ifname }) => {
    const link = findLink(host, { netns, ifname });
    if (!link) return refuse('ENODEV');
    const { trafficControl } = link;
    if (!trafficControl?.ingress) return refuse('EINVAL', NO_QDISC);
    const { redirect, ...ingress } = trafficControl.ingress;
    if (redirect === undefined) return refuse('ENOENT', 'Cannot find specified filter chain');
    return done(withLink(host, netns, { ...link, trafficControl: { ...trafficControl, ingress } }));
  },
  describe: ({ ifname }) => [
    `tc filter del dev ${ifname} ingress pref 1 protocol all handle 800::1 u32`,
  ],
  sign: () => '-',
  reads: () => [],
  writes: () => [],
  removes: ({ netns, ifname }) => [`filter ${netns}/${ifname}`],
};
