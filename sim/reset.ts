/** Refusing a connection by a segment with RST, which a rule may do in the name of whom it was for (K-7.7). */
import type { NetnsName } from '../model/host.ts';
import { relatedTo } from './conntrack.ts';
import type { IpPacket } from './frame.ts';
import { DEFAULT_TTL } from './icmp-error.ts';
import type { Run } from './run.ts';

/** Refuses a segment in the name of whom it is for (nf_reject_ipv4.c, nf_send_reset; nf_reject_ipv6.c, nf_send_reset6). Of anything else that is not asked for. */
export function sendReset(run: Run, netns: NetnsName, packet: IpPacket): void {
  const { source, destination, message, skb } = packet;
  if (message.kind !== 'tcp') return;
  const { sourcePort, destinationPort } = message;
  run.queue.push({
    step: 'send',
    netns,
    own: {
      source: destination,
      destination: source,
      ttl: DEFAULT_TTL,
      dontFragment: true,
      message: { kind: 'reset', sourcePort: destinationPort, destinationPort: sourcePort },
      ...(skb?.track ? { skb: { mark: 0, track: relatedTo(skb.track) } } : {}),
    },
    device: null,
  });
}
