/** Refusing a connection by a segment with RST, which a rule may do in the name of whom it was for (K-7.7). */
import type { NetnsName } from '../model/host.ts';
import { relatedTo } from './conntrack.ts';
import type { BridgedBy, Frame, IpPacket } from './frame.ts';
import { DEFAULT_TTL } from './icmp-error.ts';
import { routeOutput } from './route.ts';
import { type Run, netnsOf } from './run.ts';

/**
 * Where br_netfilter looks at what a bridge passes, it leaves at once by the port that the segment came in by, past all chains,
 * if there is a route back at all (nf_send_reset, nf_send_reset6, nf_bridge_info_exists).
 */
function sendByPort(run: Run, netns: NetnsName, own: IpPacket, by: BridgedBy): void {
  const { source, destination } = own;
  const { kind } = routeOutput(netnsOf(run, netns), source, destination, null);
  if (kind === 'drop') return;
  const frame: Frame = {
    kind: 'frame',
    source: by.destination,
    destination: by.source,
    packet: own,
  };
  run.queue.push({ step: 'transmit', at: by.port, frame });
}

/** Refuses a segment in the name of whom it is for (nf_reject_ipv4.c, nf_send_reset; nf_reject_ipv6.c, nf_send_reset6). Of anything else that is not asked for. */
export function sendReset(run: Run, netns: NetnsName, packet: IpPacket): void {
  const { source, destination, message, skb } = packet;
  if (message.kind !== 'tcp') return;
  const { sourcePort, destinationPort } = message;
  const own = {
    source: destination,
    destination: source,
    ttl: DEFAULT_TTL,
    dontFragment: true,
    message: { kind: 'reset', sourcePort: destinationPort, destinationPort: sourcePort },
    ...(skb?.track ? { skb: { mark: 0, track: relatedTo(skb.track) } } : {}),
  } as const;
  if (skb?.bridged) sendByPort(run, netns, { ...own, kind: 'ip' }, skb.bridged);
  else run.queue.push({ step: 'send', netns, own, device: null });
}
