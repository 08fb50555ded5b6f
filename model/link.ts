import type { Address } from './address.ts';
import type { BridgeFdb } from './fdb.ts';
import type { NetnsName } from './host.ts';
import type { Ifname } from './ifname.ts';
import type { Ip } from './ip.ts';
import type { Mac } from './mac.ts';
import type { MacvlanMode } from './macvlan.ts';
import type { TrafficControl } from './traffic-control.ts';
import type { BridgeVlans, VlanRange } from './vlan.ts';
import type { Remote, VxlanTunnel } from './vxlan.ts';

/** A link, wherever it is: the name is unique in its netns. */
export interface LinkRef {
  readonly netns: NetnsName;
  readonly ifname: Ifname;
}

/** What a link is as a port of a bridge. */
export interface BridgePort {
  readonly master: Ifname;
  /** May a frame leave by the port it came in by? */
  readonly hairpin: boolean;
  /** An isolated port exchanges no frames with other isolated ports. */
  readonly isolated: boolean;
  readonly learning: boolean;
  readonly flood: boolean;
  /** Absent where the bridge's VLANs are. */
  readonly vlans?: readonly VlanRange[];
}

/** A neighbour entry that somebody set for good; those that the kernel learns are not configuration. */
export interface Neighbour {
  readonly ip: Ip;
  readonly mac: Mac;
}

interface LinkCommon {
  readonly ifname: Ifname;
  /** More names of it, in the order in which they were added; absent: none. */
  readonly altnames?: readonly string[];
  /** The MAC address in effect; null for a link without one. */
  readonly mac: Mac | null;
  /** The MTU in effect. */
  readonly mtuBytes: number;
  /** Administratively up (IFF_UP). */
  readonly up: boolean;
  readonly promiscuous: boolean;
  /** It takes every multicast frame (IFF_ALLMULTI), as somebody asked for. */
  readonly allMulticast?: true;
  /** How many packets a queue before it holds; absent: as many as most links are made with, `TX_QUEUE_LENGTH`. */
  readonly txQueueLength?: number;
  /** A number that links share which are to go together; absent: 0, which is none. */
  readonly group?: number;
  /** Text for people, '' when there is none. Ours begins with `OWNER_MARK`. */
  readonly alias: string;
  readonly port: BridgePort | null;
  /** The macvlans and vxlans that are made over it, wherever they are; absent: none, or nobody looked. */
  readonly uppers?: readonly LinkRef[];
  /**
   * In the order in which the kernel keeps them and takes the first that fits: IPv4 the oldest primary first,
   * secondaries last; IPv6 the latest first. Those that reach farther come first (IPv6) or last (IPv4).
   */
  readonly addresses: readonly Address[];
  readonly neighbours: readonly Neighbour[];
  /** Absent: nothing that somebody asked for, or nobody looked. */
  readonly trafficControl?: TrafficControl;
}

export interface LoopbackLink extends LinkCommon {
  readonly kind: 'loopback';
}

export interface VethLink extends LinkCommon {
  readonly kind: 'veth';
  /** The other end; null when it is in a netns that nobody looked at. */
  readonly peer: LinkRef | null;
}

/** What a bridge remembers that its configuration does not show (K-1.7, K-1.10, K-1.11). */
export interface BridgeHistory {
  /** A link was once its port, or its MAC was chosen: without a port the bridge now has no carrier. */
  readonly hadPorts: boolean;
  /** Its MAC was chosen: it no longer follows the ports. */
  readonly macChosen: boolean;
  /** Its MTU was chosen: it no longer follows the ports. */
  readonly mtuChosen: boolean;
}

export interface BridgeLink extends LinkCommon, BridgeHistory {
  readonly kind: 'bridge';
  /** Absent where nobody looked, and on a kernel whose bridges know no VLANs. */
  readonly vlans?: BridgeVlans;
  /** Absent: nothing that does not follow from its ports, or nobody looked. */
  readonly fdb?: BridgeFdb;
}

/** A link whose packets come in again where they were redirected from, when its qdisc has let them go (drivers/net/ifb.c). */
export interface IfbLink extends LinkCommon {
  readonly kind: 'ifb';
}

/** A link that carries its frames in UDP packets. */
export interface VxlanLink extends LinkCommon, VxlanTunnel {
  readonly kind: 'vxlan';
  /** The netns that it was made in, whose its packets and `lower` are; null when nobody looked at it. */
  readonly underlay: NetnsName | null;
  /** Where it was told to send; absent: nowhere, or nobody looked. */
  readonly remotes?: readonly Remote[];
}

/** A link with a MAC of its own on another, which hands it the frames for that. */
export interface MacvlanLink extends LinkCommon {
  readonly kind: 'macvlan';
  readonly mode: MacvlanMode;
  /** The link that it is on, never itself a macvlan; null when that is in a netns that nobody looked at. */
  readonly lower: LinkRef | null;
}

/** Any other link: a network card, or a virtual link of a kind that is only looked at. */
export interface DeviceLink extends LinkCommon {
  readonly kind: 'device';
  /** The kernel's name of the kind (`tun`), '' for hardware. */
  readonly deviceKind: string;
  readonly carrier: boolean;
}

export type Link =
  | LoopbackLink
  | VethLink
  | BridgeLink
  | IfbLink
  | VxlanLink
  | MacvlanLink
  | DeviceLink;

/** Links, nft tables and elements that are ours say so with this word. */
export const OWNER_MARK = 'cube-cni';

export function isOurs(link: Link): boolean {
  return link.alias === OWNER_MARK || link.alias.startsWith(`${OWNER_MARK} `);
}

/** include/linux/netdevice.h, DEFAULT_TX_QUEUE_LEN. */
export const TX_QUEUE_LENGTH = 1000;

/** drivers/net/ifb.c, TX_Q_LIMIT. */
export const IFB_TX_QUEUE_LENGTH = 32;

/** ETH_MIN_MTU and ETH_MAX_MTU, the limits of veth and bridge; an ifb has none (K-1.12). */
export const MTU_MIN_BYTES = 68;
export const MTU_MAX_BYTES = 65535;

/** The least MTU of IPv6 (include/uapi/linux/in6.h, IPV6_MIN_MTU). */
export const IP6_MIN_MTU_BYTES = 1280;

/** Has a link settings of IPv6? Not below the protocol's least MTU; the loopback always has (K-4.4). */
export function holdsIpv6(link: Pick<Link, 'kind' | 'mtuBytes'>): boolean {
  return link.kind === 'loopback' || link.mtuBytes >= IP6_MIN_MTU_BYTES;
}
