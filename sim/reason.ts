/**
 * Why a packet ends. The names are those of the kernel (include/net/dropreason-core.h without
 * SKB_DROP_REASON_) where it has one; where it gives none, the name is ours and the kernel reports
 * NOT_SPECIFIED, or never makes a packet at all.
 */
const REASONS = {
  OTHERHOST: ['link', 'does not take the frame in'],
  IP_INHDR: ['packet', 'does not go on'],
  NETFILTER_DROP: ['netfilter', 'drops the packet'],
  IP_RPFILTER: ['reverse path filter', 'wants the packet from another link'],
  IP_OUTNOROUTES: ['routes', 'lead nowhere'],
  IP_INNOROUTES: ['routes', 'lead nowhere'],
  IP_INADDRERRORS: ['packet', 'is not passed on'],
  IP_LOCAL_SOURCE: ['packet', 'is not taken in from outside'],
  IP_INVALID_SOURCE: ['packet', 'may not come from there'],
  IP_INVALID_DEST: ['packet', 'may not go there'],
  IP_LOCALNET: ['packet', 'is not taken in from outside'],
  IPV6DISABLED: ['link', 'does not take the packet in'],
  UNICAST_IN_L2_MULTICAST: ['packet', 'is not passed on'],
  INVALID_PROTO: ['packet', 'is answered by nobody'],
  ECHO_IGNORED: ['netns', 'answers no echo request'],
  NEIGH_FAILED: ['link', 'does not find the next hop'],
  FRAG_REASM_TIMEOUT: ['packet', 'is not put together'],
  PKT_TOO_BIG: ['packet', 'is too long'],
  FRAME_TOO_BIG: ['frame', 'is too long'],
  QDISC_DROP: ['link', 'does not send it'],
  TC_INGRESS: ['link', 'loses what comes in'],
  MAC_INVALID_SOURCE: ['frame', 'is not taken in'],
  BRIDGE_INGRESS_STP_STATE: ['link', 'does not take the frame in'],
  NO_TX_TARGET: ['link', 'has nowhere to send the frame'],
  VXLAN_NO_REMOTE: ['link', 'has nowhere to send the frame'],
  VXLAN_VNI_NOT_FOUND: ['link', 'hands the packet to no vxlan'],
  VXLAN_ENTRY_EXISTS: ['link', 'does not take the frame in'],
  LOCAL_MAC: ['link', 'does not take the frame in'],
  NO_SOCKET: ['packet', 'is what nobody waits for'],
  IFB_OWN: ['link', 'does not send the frame'],
  BRIDGE_ISOLATED: ['link', 'does not pass the frame on'],
  BRIDGE_VLAN: ['link', 'does not pass the frame on'],
  BRIDGE_SAME_PORT: ['link', 'does not pass the frame on'],
  BRIDGE_PORT_DOWN: ['link', 'does not pass the frame on'],
  SOCKET_REFUSED: ['socket', 'refuses to send the packet'],
  LOOP: ['frame', 'goes in a circle'],
  STEP_LIMIT: ['simulation', 'was given up'],
} as const;

export type DropReason = keyof typeof REASONS;

/** Those that the kernel has no name for. */
const OUR_OWN: ReadonlySet<DropReason> = new Set([
  'ECHO_IGNORED',
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

/** What a reason means, for people: what it is about, and what becomes of that. */
export function explainReason(reason: DropReason): (typeof REASONS)[DropReason] {
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
