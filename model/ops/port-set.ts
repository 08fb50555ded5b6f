import { findLink, withLink } from '../host.ts';
import type { Ifname } from '../ifname.ts';
import type { BridgePort } from '../link.ts';
import { type OpKind, done, refuse } from '../op.ts';

/** The attributes of a bridge port that can be switched. */
export type PortFlag = Exclude<keyof BridgePort, 'master' | 'vlans'>;

/** Switches one attribute of a bridge port. */
export interface PortSet {
  readonly ifname: Ifname;
  readonly flag: PortFlag;
  readonly on: boolean;
}

export const portSet: OpKind<'port.set'> = {
  apply: (host, op) => {
    const link = findLink(host, op);
    if (!link) return refuse('ENODEV');
    if (link.port === null) return refuse('EOPNOTSUPP');
    return done(withLink(host, op.netns, { ...link, port: { ...link.port, [op.flag]: op.on } }));
  },
  describe: (op) => [`bridge link set dev ${op.ifname} ${op.flag} ${op.on ? 'on' : 'off'}`],
  sign: () => '~',
  reads: ({ netns, ifname }) => [`link ${netns}/${ifname}`, `master ${netns}/${ifname}`],
  writes: ({ netns, ifname }) => [`attribute ${netns}/${ifname}`],
  removes: () => [],
};
