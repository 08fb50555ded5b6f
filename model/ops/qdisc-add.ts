import { findLink, withLink } from '../host.ts';
import type { Ifname } from '../ifname.ts';
import type { Link } from '../link.ts';
import { type OpKind, done, refuse } from '../op.ts';
import {
  type TokenBucket,
  type TrafficControl,
  asKept,
  burstTicks,
  formatBucket,
} from '../traffic-control.ts';

/** The qdisc that is made: a limit for what leaves, or the place for filters of what comes in. */
export type NewQdisc = ({ readonly kind: 'tbf' } & TokenBucket) | { readonly kind: 'clsact' };

/** Puts a qdisc on a link: at its root, or where packets come in (K-8.7). */
export interface QdiscAdd {
  readonly ifname: Ifname;
  readonly qdisc: NewQdisc;
}

/** net/sched/sch_api.c, tc_modify_qdisc: what a link has by itself does not count. */
const THERE_ALREADY = 'Exclusivity flag on, cannot modify';

/** With its first qdisc, a link that has no queue of its own but was told to hold nothing holds something (qdisc_create). */
function queued(link: Link, trafficControl: TrafficControl): Link {
  const { txQueueLength, ...rest } = link;
  return txQueueLength === 0 && link.kind !== 'ifb'
    ? { ...rest, trafficControl }
    : { ...link, trafficControl };
}

export const qdiscAdd: OpKind<'qdisc.add'> = {
  apply: (host, { netns, ifname, qdisc }) => {
    const link = findLink(host, { netns, ifname });
    if (!link) return refuse('ENODEV');
    const { trafficControl = {} } = link;
    if (qdisc.kind === 'clsact') {
      if (trafficControl.ingress) return refuse('EEXIST', THERE_ALREADY);
      const ingress = { kind: 'clsact' } as const;
      return done(withLink(host, netns, queued(link, { ...trafficControl, ingress })));
    }
    if (trafficControl.root)
      return refuse(
        'EEXIST',
        trafficControl.root.kind === 'tbf' ? THERE_ALREADY : 'NLM_F_REPLACE needed to override',
      );
    // net/sched/sch_tbf.c, tbf_change: a burst of no bytes.
    if (burstTicks(qdisc) === 0) return refuse('EINVAL');
    const root = { ...qdisc, ...asKept(qdisc) };
    return done(withLink(host, netns, queued(link, { ...trafficControl, root })));
  },
  describe: ({ ifname, qdisc }) =>
    qdisc.kind === 'clsact'
      ? [`tc qdisc add dev ${ifname} clsact`]
      : [`tc qdisc add dev ${ifname} root handle 1: tbf ${formatBucket(qdisc)}`],
  sign: () => '+',
  reads: ({ netns, ifname }) => [`link ${netns}/${ifname}`],
  writes: ({ netns, ifname, qdisc }) => [
    `qdisc ${netns}/${ifname} ${qdisc.kind === 'tbf' ? 'root' : 'ingress'}`,
  ],
  removes: () => [],
};
