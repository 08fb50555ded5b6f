/** What rules can look at: a packet with where it is, and what the kernel knows beside it. */
import type { Netns } from '../model/host.ts';
import type { Ifname } from '../model/ifname.ts';
import { type Family, type Ip, familyOf } from '../model/ip.ts';
import { type Frame, type Packet, isMulticast } from './frame.ts';
import { localTypeOf } from './route.ts';

/** A packet where a rule looks at it. */
export interface Seen {
  readonly netns: Netns;
  readonly packet: Packet;
  /** Where its headers can be looked at: in chains of family bridge. */
  readonly frame: Frame | null;
  readonly iif: Ifname | null;
  readonly oif: Ifname | null;
  readonly mark: number;
  /** What is drawn by chance, or hangs on what was counted before: from 0 up to, and without, 1. */
  readonly draw: () => number;
}

/** What a rule says about the addresses of a connection; null: as it is. */
export type Translation =
  | { readonly kind: 'masquerade' }
  | { readonly kind: 'dnat' | 'snat'; readonly ip: Ip | null; readonly port: number | null }
  /** To an address of the link that the packet came in by. */
  | { readonly kind: 'redirect'; readonly port: number | null };

/** Is it a packet of a family? */
export function isOfFamily({ packet }: Seen, family: Family): boolean {
  return packet.kind === 'ip' && familyOf(packet.destination) === family;
}

/** RTN_* (include/uapi/linux/rtnetlink.h). */
const ADDRESS_TYPES = { unicast: 1, local: 2, broadcast: 3, anycast: 4, multicast: 5 } as const;

/** What an address is to the netns, as a number (RTN_*; net/ipv4/fib_frontend.c, inet_addr_type). */
export function addressType(netns: Netns, ip: Ip): number {
  if (isMulticast(ip)) return ADDRESS_TYPES.multicast;
  const type = localTypeOf(netns, ip);
  if (type === 'local' || type === 'broadcast' || type === 'anycast') return ADDRESS_TYPES[type];
  return familyOf(ip) === 4 && ip === '255.255.255.255'
    ? ADDRESS_TYPES.broadcast
    : ADDRESS_TYPES.unicast;
}

/** IP_CT_NEW and IP_CT_ESTABLISHED as bits (include/uapi/linux/netfilter/nf_conntrack_common.h, NF_CT_STATE_BIT). */
const STATES = { invalid: 1, established: 2, related: 4, new: 8 } as const;

/** The packet's state to its connection; `untracked` is another bit for nft than for iptables. */
export function connectionState({ packet }: Seen, untracked: number): number {
  const skb = packet.kind === 'ip' ? packet.skb : undefined;
  if (skb?.untracked) return untracked;
  if (!skb?.track) return STATES.invalid;
  if (skb.track.isRelated) return STATES.related;
  // What goes the way of the first packet begins the connection still, until that is answered.
  return skb.track.isAnswered ? STATES.established : STATES.new;
}

/** IPS_* bits that hang on what is simulated (nf_conntrack_common.h). */
const STATUS = { seenReply: 2, confirmed: 8, sourceNat: 16, destinationNat: 32 } as const;

/** The status bits of the packet's connection; undefined where it has none. */
export function connectionStatus({ packet }: Seen): number | undefined {
  const track = packet.kind === 'ip' ? packet.skb?.track : undefined;
  if (!track) return undefined;
  const { original, reply } = track.connection;
  const isSourceNat =
    reply.destination !== original.source || reply.destinationPort !== original.sourcePort;
  const isDestinationNat =
    reply.source !== original.destination || reply.sourcePort !== original.destinationPort;
  return (
    (track.isAnswered ? STATUS.seenReply : 0) |
    (track.isNew ? 0 : STATUS.confirmed) |
    (isSourceNat ? STATUS.sourceNat : 0) |
    (isDestinationNat ? STATUS.destinationNat : 0)
  );
}
