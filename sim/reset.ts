/** Refusing a connection by a segment with RST, which a rule may do in the name of whom it was for (K-7.7). */
import type { NetnsName } from '../model/host.ts';
import { relatedTo } from './conntrack.ts';
import type { BridgedIn, IpPacket, Reset, Segment } from './frame.ts';
import { DEFAULT_TTL } from './icmp-error.ts';
import type { Run } from './run.ts';

function resetOf({ sourcePort, destinationPort }: Segment): Reset {
  return { kind: 'reset', sourcePort: destinationPort, destinationPort: sourcePort };
}

/** Of a segment that a bridge had pass the chains of IP it goes back by the port that this came in by, past all chains: its addresses stay as the chains saw them. */
function sendBridged(
  run: Run,
  netns: NetnsName,
  packet: IpPacket & { readonly message: Segment },
  { port, source, destination }: BridgedIn,
): void {
  const refusal: IpPacket = {
    kind: 'ip',
    source: packet.destination,
    destination: packet.source,
    ttl: DEFAULT_TTL,
    dontFragment: true,
    message: resetOf(packet.message),
  };
  const frame = {
    kind: 'frame',
    source: destination,
    destination: source,
    packet: refusal,
  } as const;
  run.queue.push({ step: 'transmit', at: { netns, ifname: port }, frame });
}

/** Refuses a segment in the name of whom it is for (nf_reject_ipv4.c, nf_send_reset; nf_reject_ipv6.c, nf_send_reset6). Of anything else that is not asked for. */
export function sendReset(run: Run, netns: NetnsName, packet: IpPacket): void {
  const { source, destination, message, skb } = packet;
  if (message.kind !== 'tcp') return;
  if (skb?.bridged) {
    sendBridged(run, netns, { ...packet, message }, skb.bridged);
    return;
  }
  run.queue.push({
    step: 'send',
    netns,
    own: {
      source: destination,
      destination: source,
      ttl: DEFAULT_TTL,
      dontFragment: true,
      message: resetOf(message),
      ...(skb?.track ? { skb: { mark: 0, track: relatedTo(skb.track) } } : {}),
    },
    device: null,
  });
}
