import { findLink, withLink } from '../host.ts';
import type { Ifname } from '../ifname.ts';
import { type OpKind, done, refuse } from '../op.ts';
import type { Remote } from '../vxlan.ts';
import { remoteFault } from './remote-add.ts';

/** Takes away one of the places where a vxlan sends the frames for a MAC. */
export interface RemoteDel {
  readonly ifname: Ifname;
  readonly remote: Remote;
}

export const remoteDel: OpKind<'remote.del'> = {
  apply: (host, { netns, ifname, remote }) => {
    const link = findLink(host, { netns, ifname });
    const fault = remoteFault(link, 'delete');
    if (fault || link?.kind !== 'vxlan') return fault ?? refuse('EOPNOTSUPP');
    const { remotes = [], ...rest } = link;
    if (!remotes.some(({ mac }) => mac === remote.mac)) return refuse('ENOENT');
    // A known MAC with another place is no error, and nothing happens (K-9.3).
    const left = remotes.filter(({ mac, ip }) => mac !== remote.mac || ip !== remote.ip);
    return done(withLink(host, netns, left.length === 0 ? rest : { ...rest, remotes: left }));
  },
  describe: ({ ifname, remote }) => [
    `bridge fdb del ${remote.mac} dev ${ifname} dst ${remote.ip} self`,
  ],
  sign: () => '-',
  reads: () => [],
  writes: () => [],
  removes: ({ netns, ifname, remote }) => [`remote ${netns}/${ifname}/${remote.mac}/${remote.ip}`],
};
