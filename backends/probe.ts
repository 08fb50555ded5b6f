/** One real packet, as a backend sends it, and what its sender hears. */
import type { Errno } from '../model/errno.ts';
import type { NetnsName } from '../model/host.ts';
import type { Ip } from '../model/ip.ts';

/** What is sent, and from where: an ICMP echo, a UDP datagram or the SYN of a TCP connection. */
export interface ProbePacket {
  readonly netns: NetnsName;
  readonly destination: Ip;
  /** The address to send from; without one the kernel chooses. */
  readonly source?: Ip;
  /** Absent: an echo. */
  readonly to?: { readonly protocol: 'udp' | 'tcp'; readonly port: number };
  /** The id of an echo, or the sender's port: where others have that, the next one that is free. */
  readonly sourcePort: number;
  /** The kernel's own when not said. */
  readonly ttl?: number;
  /** What follows the header of ICMP or UDP. A SYN carries nothing. */
  readonly payloadBytes: number;
  /** May nobody split it? True when not said. */
  readonly dontFragment?: boolean;
}

/** What the sender's socket heard. */
export type ProbeOutcome =
  /** An echo reply, a datagram, or that the other end accepts the connection. */
  | { readonly kind: 'answered' }
  /**
   * An errno: at once of the sender's own kernel, later of an ICMP error or a RST. ECONNREFUSED is the word of
   * whoever has no such port.
   */
  | { readonly kind: 'refused'; readonly errno: Errno; readonly during: 'send' | 'wait' }
  /** Nothing came in time. */
  | { readonly kind: 'silent' };
