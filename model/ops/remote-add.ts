import { findLink, withLink } from '../host.ts';
import type { Ifname } from '../ifname.ts';
import { familyOf } from '../ip.ts';
import type { Link } from '../link.ts';
import { ZERO_MAC, isUnicastMac } from '../mac.ts';
import { type OpKind, type Outcome, done, refuse } from '../op.ts';
import { type Remote, tunnelFamily } from '../vxlan.ts';

/** Says where a vxlan sends the frames for a MAC. */
export interface RemoteAdd {
  readonly ifname: Ifname;
  readonly remote: Remote;
  /** To where else: the frames for all, or for a group, then go to several (K-9.3). */
  readonly append: boolean;
}

/** What both operations refuse of a link; other kinds would take the message for something else, so ours do not send it. */
export function remoteFault(link: Link | undefined, verb: 'add' | 'delete'): Outcome | undefined {
  if (!link) return refuse('ENODEV');
  if (link.kind === 'loopback')
    return refuse('EINVAL', `FDB ${verb} only supported for Ethernet devices`);
  if (link.kind !== 'vxlan') return refuse('EOPNOTSUPP');
  return undefined;
}

export const remoteAdd: OpKind<'remote.add'> = {
  apply: (host, { netns, ifname, remote, append }) => {
    const link = findLink(host, { netns, ifname });
    const fault = remoteFault(link, 'add');
    if (fault || link?.kind !== 'vxlan') return fault ?? refuse('EOPNOTSUPP');
    if (familyOf(remote.ip) !== tunnelFamily(link)) return refuse('EAFNOSUPPORT');
    const remotes = link.remotes ?? [];
    const known = remotes.filter(({ mac }) => mac === remote.mac);
    const isForMany = remote.mac === ZERO_MAC || !isUnicastMac(remote.mac);
    if (known.length > 0 && !append) return refuse('EEXIST');
    // Of one MAC there is one place; a second one is taken without a word.
    if (known.length > 0 && (!isForMany || known.some(({ ip }) => ip === remote.ip)))
      return done(host);
    return done(withLink(host, netns, { ...link, remotes: [...remotes, remote] }));
  },
  describe: ({ ifname, remote, append }) => [
    `bridge fdb ${append ? 'append' : 'add'} ${remote.mac} dev ${ifname} dst ${remote.ip} self permanent`,
  ],
  sign: () => '+',
  reads: ({ netns, ifname }) => [`link ${netns}/${ifname}`],
  writes: ({ netns, ifname, remote }) => [`remote ${netns}/${ifname}/${remote.mac}/${remote.ip}`],
  removes: () => [],
};
