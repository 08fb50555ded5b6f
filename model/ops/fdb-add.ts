import { type FdbEntry, allEntries, fdbOf, withFdb } from '../fdb.ts';
import { type Host, findLink, getNetns, withLink } from '../host.ts';
import type { Ifname } from '../ifname.ts';
import type { BridgeLink, Link } from '../link.ts';
import { type Mac, ZERO_MAC } from '../mac.ts';
import { type OpKind, type Outcome, done, refuse } from '../op.ts';

/** Makes an entry in the forwarding database of a bridge: for one of its ports, or with `self` for the bridge itself. */
export interface FdbAdd {
  readonly ifname: Ifname;
  readonly self: boolean;
  readonly mac: Mac;
  readonly state: FdbEntry['state'];
}

/** The bridge that an entry of a link is in; why there is none. */
export function bridgeOf(
  host: Host,
  netns: string,
  link: Link | undefined,
  self: boolean,
  verb: 'add' | 'delete',
): BridgeLink | Outcome {
  if (!link) return refuse('ENODEV');
  if (link.kind === 'loopback')
    return refuse('EINVAL', `FDB ${verb} only supported for Ethernet devices`);
  if (self) return link.kind === 'bridge' ? link : refuse('EOPNOTSUPP');
  const master = link.port && findLink(host, { netns, ifname: link.port.master });
  return master?.kind === 'bridge' ? master : refuse('EOPNOTSUPP');
}

export const fdbAdd: OpKind<'fdb.add'> = {
  apply: (host, { netns, ifname, self, mac, state }) => {
    const bridge = bridgeOf(host, netns, findLink(host, { netns, ifname }), self, 'add');
    if ('ok' in bridge) return bridge;
    if (mac === ZERO_MAC)
      return refuse('EINVAL', 'bridge: RTM_NEWNEIGH with invalid ether address');
    // The bridge's own are for this host (fdb_add_entry).
    if (self && state === 'static') return refuse('EINVAL');
    if (allEntries(getNetns(host, netns), bridge).some((entry) => entry.mac === mac))
      return refuse('EEXIST');
    const { entries, missing } = fdbOf(bridge);
    const entry: FdbEntry = { mac, port: self ? null : ifname, state };
    return done(withLink(host, netns, withFdb(bridge, { entries: [...entries, entry], missing })));
  },
  describe: ({ ifname, self, mac, state }) => [
    `bridge fdb add ${mac} dev ${ifname} ${self ? 'self' : 'master'} ${state === 'local' ? 'permanent' : state}`,
  ],
  sign: () => '+',
  reads: ({ netns, ifname }) => [
    `link ${netns}/${ifname}`,
    `master ${netns}/${ifname}`,
    `attribute ${netns}/${ifname}`,
  ],
  writes: ({ netns, ifname, mac }) => [`fdb ${netns}/${ifname}/${mac}`],
  removes: () => [],
};
