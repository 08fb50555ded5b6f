/** How long a netns keeps a connection of which no packet comes (net/netfilter/nf_conntrack_proto_*.c; K-8.2). */
import type { Netns } from '../model/host.ts';
import { familyOf } from '../model/ip.ts';
import type { Tuple } from './conntrack.ts';
import { numberOf } from './sysctls.ts';

/** Where a connection is: its first packet has come; over TCP its first answer; what acknowledges that, or over UDP packets for more than two seconds. */
export type Phase = 'asked' | 'answered' | 'open';

/** Seconds where nobody set anything, by the name of the setting behind `net/netfilter/nf_conntrack_`. */
const DEFAULTS = {
  icmp_timeout: 30,
  icmpv6_timeout: 30,
  udp_timeout: 30,
  udp_timeout_stream: 120,
  tcp_timeout_syn_sent: 120,
  tcp_timeout_syn_recv: 60,
  tcp_timeout_established: 432_000,
} as const;

function nameOf({ protocol, source }: Tuple, phase: Phase): keyof typeof DEFAULTS {
  if (protocol === 'icmp') return familyOf(source) === 4 ? 'icmp_timeout' : 'icmpv6_timeout';
  if (protocol === 'udp') return phase === 'open' ? 'udp_timeout_stream' : 'udp_timeout';
  if (phase === 'open') return 'tcp_timeout_established';
  return phase === 'asked' ? 'tcp_timeout_syn_sent' : 'tcp_timeout_syn_recv';
}

/** In milliseconds, from the last packet. */
export function timeoutMs({ sysctls }: Netns, tuple: Tuple, phase: Phase): number {
  const name = nameOf(tuple, phase);
  return (numberOf(sysctls[`net/netfilter/nf_conntrack_${name}`]) ?? DEFAULTS[name]) * 1000;
}
