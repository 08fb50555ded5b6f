/** Links that carry frames in UDP packets of another netns, their underlay (drivers/net/vxlan/vxlan_core.c). */
import type { Host, NetnsName } from './host.ts';
import type { Ifname } from './ifname.ts';
import { type Ip, familyOf } from './ip.ts';
import { type Link, type LinkRef, MTU_MIN_BYTES, type VxlanLink } from './link.ts';
import type { Mac } from './mac.ts';

/** Where frames for a MAC are sent; for all zeros, those for every MAC that is not known. */
export interface Remote {
  readonly mac: Mac;
  readonly ip: Ip;
}

/** What a vxlan is made with, and keeps. */
export interface VxlanTunnel {
  /** The number of the network, 24 bits. */
  readonly vni: number;
  readonly udpPort: number;
  /** The source of its packets; null: whichever the route has. */
  readonly local: Ip | null;
  /** The link of its underlay by which packets leave; null: as routes have it. */
  readonly lower: Ifname | null;
  /** Does it note which remote a MAC is at? */
  readonly learning: boolean;
}

/** The family that its packets have: that of its source address. */
export function tunnelFamily({ local }: Pick<VxlanTunnel, 'local'>): 4 | 6 {
  return local === null ? 4 : familyOf(local);
}

/** VXLAN_HEADROOM and VXLAN6_HEADROOM: what Ethernet, IP, UDP and VXLAN put before a frame, less the frame's own header. */
const HEADROOM_BYTES = { 4: 50, 6: 70 } as const;

/** The largest MTU that a vxlan over a link can be given (K-9.2). */
export function largestMtu(
  tunnel: Pick<VxlanTunnel, 'local'>,
  lower: Pick<Link, 'mtuBytes'>,
): number {
  return lower.mtuBytes - HEADROOM_BYTES[tunnelFamily(tunnel)];
}

/** The MTU of a new vxlan: that asked for, as far as the link below has room for it (vxlan_config_apply). */
export function fittingMtu(
  tunnel: Pick<VxlanTunnel, 'local'>,
  lower: Pick<Link, 'mtuBytes'> | undefined,
  mtuBytes: number,
): number {
  return lower ? Math.min(mtuBytes, Math.max(largestMtu(tunnel, lower), MTU_MIN_BYTES)) : mtuBytes;
}

/** The vxlans, wherever they are, whose packets are of the netns `underlay`. */
export function tunnelsIn(
  host: Host,
  underlay: NetnsName,
): (LinkRef & { readonly link: VxlanLink })[] {
  return Object.entries(host.netns).flatMap(([netns, { links }]) =>
    Object.values(links).flatMap((link) =>
      link.kind === 'vxlan' && link.underlay === underlay
        ? [{ netns, ifname: link.ifname, link }]
        : [],
    ),
  );
}
