import { fdbOf, ownMacs, withFdb } from '../fdb.ts';
import { findLink, getNetns, withLink } from '../host.ts';
import type { Ifname } from '../ifname.ts';
import type { Mac } from '../mac.ts';
import { type OpKind, done, refuse } from '../op.ts';
import { bridgeOf } from './fdb-add.ts';

/** Takes an entry out of the forwarding database of a bridge, also one that the bridge made by itself (K-6.5). */
export interface FdbDel {
  readonly ifname: Ifname;
  readonly self: boolean;
  readonly mac: Mac;
}

export const fdbDel: OpKind<'fdb.del'> = {
  apply: (host, { netns, ifname, self, mac }) => {
    const link = findLink(host, { netns, ifname });
    const bridge = bridgeOf(host, netns, link, self, 'delete');
    if ('ok' in bridge) return bridge;
    const { entries, missing } = fdbOf(bridge);
    const port = self ? null : ifname;
    const rest = entries.filter((entry) => entry.mac !== mac || entry.port !== port);
    const own = ownMacs(getNetns(host, netns), bridge).has(mac);
    if (rest.length < entries.length)
      return done(
        withLink(
          host,
          netns,
          withFdb(bridge, { entries: rest, missing: own ? [...missing, mac] : missing }),
        ),
      );
    // Which of several with one MAC the entry is kept for, only the kernel knows: here each may take it away.
    const isTheirs = own && link?.mac === mac && !missing.includes(mac);
    const isElsewhere = entries.some((entry) => entry.mac === mac);
    return isTheirs && !isElsewhere
      ? done(withLink(host, netns, withFdb(bridge, { entries, missing: [...missing, mac] })))
      : refuse('ENOENT');
  },
  describe: ({ ifname, self, mac }) => [
    `bridge fdb del ${mac} dev ${ifname} ${self ? 'self' : 'master'}`,
  ],
  sign: () => '-',
  reads: () => [],
  writes: () => [],
  removes: ({ netns, ifname, mac }) => [`fdb ${netns}/${ifname}/${mac}`],
};
