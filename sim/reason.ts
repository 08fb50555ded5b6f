/**
 * Why a packet ends. The names are those of the kernel (include/net/dropreason-core.h without
 * SKB_DROP_REASON_) where it has one; where it gives none, the name is ours and the kernel reports
 * NOT_SPECIFIED, or never makes a packet at all.
 */
const REASONS = {
  OTHERHOST: 'the frame is for another MAC address',
  IP_INHDR: 'its IP header does not let it go on: the TTL is used up, or ::1 came from outside',
  NETFILTER_DROP: 'a rule or the policy of a chain drops it',
  IP_RPFILTER: 'the reverse path filter wants it from another link',
  IP_OUTNOROUTES: 'the sender has no route',
  IP_INNOROUTES: 'a router has no route',
  IP_INADDRERRORS: 'it is for somebody else, and this netns does not forward',
  IP_LOCAL_SOURCE: 'it comes from outside with an address of this netns as its source',
  IP_INVALID_SOURCE: 'no packet may have this source',
  IP_INVALID_DEST: 'no packet may have this destination',
  IP_LOCALNET: 'a loopback address outside of a loopback link',
  IPV6DISABLED: 'the link does no IPv6',
  UNICAST_IN_L2_MULTICAST: 'a router takes no broadcast frames',
  INVALID_PROTO: 'an echo request to a broadcast address',
  NEIGH_FAILED: 'nobody answered for the next hop',
  FRAG_REASM_TIMEOUT: 'some of its fragments do not arrive',
  PKT_TOO_BIG: 'it is larger than the MTU allows',
  FRAME_TOO_BIG: 'it is larger than the receiving link grants',
  QDISC_DROP:
    'the link that it leaves by is down, has no carrier, or lets no frame as long through',
  TC_INGRESS: 'it is redirected to a link that is down or gone',
  MAC_INVALID_SOURCE: 'no frame may have this source MAC address',
  BRIDGE_INGRESS_STP_STATE: 'the bridge port does not forward',
  NO_TX_TARGET: 'the bridge has no port to send it to',
  VXLAN_NO_REMOTE:
    'a vxlan was not told where the MAC address is, nor where to send what it does not know',
  VXLAN_VNI_NOT_FOUND: 'no vxlan here has the network on this port',
  VXLAN_ENTRY_EXISTS: 'a vxlan was told that the MAC address is elsewhere',
  LOCAL_MAC: 'it comes from the MAC address of the vxlan that it arrives at',
  NO_SOCKET: 'nobody here waits for this answer',
  IFB_OWN: 'an ifb sends only what was redirected to it',
  BRIDGE_ISOLATED: 'both bridge ports are isolated',
  BRIDGE_VLAN: 'a bridge port is not a member of its VLAN',
  BRIDGE_SAME_PORT: 'it would leave by the port it came in by, which is no hairpin',
  BRIDGE_PORT_DOWN: 'the bridge port of that MAC address does not forward',
  SOCKET_REFUSED: 'the kernel refuses to send it',
  LOOP: 'the same frame comes by again and again',
  STEP_LIMIT: 'the simulation took too many steps',
} as const;

export type DropReason = keyof typeof REASONS;

/** Those that the kernel has no name for. */
const OUR_OWN: ReadonlySet<DropReason> = new Set([
  'FRAME_TOO_BIG',
  'IFB_OWN',
  'BRIDGE_ISOLATED',
  'BRIDGE_VLAN',
  'BRIDGE_SAME_PORT',
  'BRIDGE_PORT_DOWN',
  'SOCKET_REFUSED',
  'LOOP',
  'STEP_LIMIT',
]);

/** What a reason means, for people. */
export function explainReason(reason: DropReason): string {
  return REASONS[reason];
}

/**
 * What the kernel's `skb:kfree_skb` tracepoint prints for such a drop; for IPv6 it does not name NEIGH_FAILED either. Linux 6.18
 * has one name for a bridge and a vxlan that find no target.
 */
export function kernelReason(reason: DropReason): string {
  if (reason === 'VXLAN_NO_REMOTE') return 'NO_TX_TARGET';
  return OUR_OWN.has(reason) ? 'NOT_SPECIFIED' : reason;
}
