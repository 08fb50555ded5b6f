import { findLink, withLink } from '../host.ts';
import type { Ifname } from '../ifname.ts';
import type { Link } from '../link.ts';
import { type OpKind, done, refuse } from '../op.ts';
import type { TrafficControl } from '../traffic-control.ts';

/** Takes a qdisc from a link, with the filters that hang on it; what the kernel gives every link by itself comes back (K-8.7). */
export interface QdiscDel {
  readonly ifname: Ifname;
  readonly at: 'root' | 'ingress';
}

/** A link with other traffic control; with none of it, as links are made. */
function withTrafficControl(link: Link, trafficControl: TrafficControl): Link {
  const { trafficControl: _before, ...rest } = link;
  return Object.keys(trafficControl).length === 0 ? rest : { ...rest, trafficControl };
}

export const qdiscDel: OpKind<'qdisc.del'> = {
  apply: (host, { netns, ifname, at }) => {
    const link = findLink(host, { netns, ifname });
    if (!link) return refuse('ENODEV');
    const { [at]: found, ...rest } = link.trafficControl ?? {};
    // net/sched/sch_api.c, __tc_get_qdisc: a root qdisc there always is, but not always one that was put there.
    if (!found)
      return refuse(
        'ENOENT',
        at === 'root'
          ? 'Cannot delete qdisc with handle of zero'
          : 'Cannot find specified qdisc on specified device',
      );
    return done(withLink(host, netns, withTrafficControl(link, rest)));
  },
  describe: ({ ifname, at }) => [`tc qdisc del dev ${ifname} ${at === 'root' ? 'root' : 'clsact'}`],
  sign: () => '-',
  reads: () => [],
  writes: () => [],
  removes: ({ netns, ifname, at }) =>
    at === 'root'
      ? [`qdisc ${netns}/${ifname} root`]
      : [`qdisc ${netns}/${ifname} ingress`, `filter ${netns}/${ifname}`],
};
