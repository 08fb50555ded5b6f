/** What the programs of the conformance suite are, and what most of them begin with. */
import type { Errno } from '../../model/errno.ts';
import type { Host } from '../../model/host.ts';
import { parseIfname } from '../../model/ifname.ts';
import type { Link } from '../../model/link.ts';
import { parseMac } from '../../model/mac.ts';
import type { Op } from '../../model/op.ts';

/** Why the operation is refused, or what is to be seen when it is done. */
export type ProgramOutcome =
  | Errno
  | { readonly see: (host: Host) => unknown; readonly is: unknown };

/** Operations on the netns `one` and `two`: whoever runs them gives those their real names. */
export interface Program {
  readonly name: string;
  /** What comes before; all of it is done. */
  readonly given: readonly Op[];
  readonly op: Op;
  readonly outcome: ProgramOutcome;
  /** The outcome where bridges know no VLANs, when it is another. */
  readonly withoutVlans?: ProgramOutcome;
  /** The outcome on older kernels: that of Linux 6.1. */
  readonly onLinux61?: ProgramOutcome;
  /** Of no meaning where bridges know no VLANs. */
  readonly needsVlans?: true;
}

export const BR0 = parseIfname('br0');
export const V0 = parseIfname('v0');
export const ETH0 = parseIfname('eth0');
export const GONE = parseIfname('gone0');
export const LO = parseIfname('lo');

const MACS = ['02:00:00:00:00:01', '02:00:00:00:00:02', '02:00:00:00:00:03'].map(parseMac);
export const [BRIDGE_MAC, V0_MAC, ETH0_MAC] = MACS as [
  (typeof MACS)[0],
  (typeof MACS)[0],
  (typeof MACS)[0],
];
/** The two netns. */
export const NETNS: readonly Op[] = [
  { op: 'netns.add', netns: 'one' },
  { op: 'netns.add', netns: 'two' },
];

/** A bridge in `one`. */
export const bridge = (mtuBytes = 1450, mac = BRIDGE_MAC): Op => ({
  op: 'link.add',
  netns: 'one',
  link: { kind: 'bridge', ifname: BR0, mac, mtuBytes, up: true },
});

/** A veth from `one` to another netns. */
export const veth = (
  changes: { master?: typeof BR0; peerNetns?: string; mtuBytes?: number } = {},
): Op => ({
  op: 'link.add',
  netns: 'one',
  link: {
    kind: 'veth',
    ifname: V0,
    mac: V0_MAC,
    mtuBytes: changes.mtuBytes ?? 1400,
    up: true,
    master: changes.master ?? null,
    peer: {
      ifname: ETH0,
      netns: changes.peerNetns ?? 'two',
      mac: ETH0_MAC,
      mtuBytes: 1400,
      up: true,
    },
  },
});

/** A bridge in `one` with a port whose peer is `eth0` in `two`. */
export const PAIR: readonly Op[] = [...NETNS, bridge(), veth({ master: BR0 })];

/** A link in what was observed. */
export const linkOf =
  (netns: string, ifname: string) =>
  (host: Host): Link | undefined =>
    host.netns[netns]?.links[ifname];
