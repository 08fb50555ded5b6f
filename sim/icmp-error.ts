/** ICMP errors: whoever cannot take a packet further tells whom that came from (net/ipv4/icmp.c, icmp_send; net/ipv6/icmp.c, icmp6_send; K-7.7). */
import { familyOf } from '../model/ip.ts';
import type { LinkRef } from '../model/link.ts';
import { relatedTo } from './conntrack.ts';
import {
  type ErrorKind,
  type IpPacket,
  isLaterFragment,
  isLinkLocal,
  isMulticast,
  isUnspecified,
} from './frame.ts';
import { localTypeOf } from './route.ts';
import { type Run, netnsOf } from './run.ts';

/** What the kernel gives packets of its own (net.ipv4.ip_default_ttl, net.ipv6.conf.*.hop_limit). */
export const DEFAULT_TTL = 64;

/** Of these nobody is told: who sent them is not one host, they are errors or about neighbours, or of IPv4 a fragment that tells of no port. */
function isUntold(packet: IpPacket): boolean {
  const { source, destination, message } = packet;
  const isHost = !isUnspecified(source) && !isMulticast(source) && !isMulticast(destination);
  const isMute = isLaterFragment(packet) && familyOf(destination) === 4;
  return !isHost || isMute || message.kind === 'error';
}

/**
 * Has the netns tell a packet's sender what became of it. `at` is the link that the packet came in by, `mtuBytes` what would
 * not be too big. The source is who was asked, where that is the netns, and else the one that the route back chooses; so it is for IPv4 of what a
 * bridge was to pass on, whomever it is for. Limits on how many are sent are not followed.
 */
export function sendIcmpError(
  run: Run,
  at: LinkRef,
  packet: IpPacket,
  error: ErrorKind,
  mtuBytes: number | null = null,
  isPassedOn = false,
): void {
  if (isUntold(packet)) return;
  const { skb, ...quoted } = packet;
  const destination = packet.source;
  // IPv4 asks what route the packet has, which is none yet, and IPv6 whose the address is.
  const isUnrouted = isPassedOn && familyOf(destination) === 4;
  const isOwn = !isUnrouted && localTypeOf(netnsOf(run, at.netns), packet.destination) === 'local';
  run.queue.push({
    step: 'send',
    netns: at.netns,
    own: {
      source: isOwn ? packet.destination : null,
      destination,
      ttl: DEFAULT_TTL,
      dontFragment: false,
      message: { kind: 'error', error, mtuBytes, quoted },
      ...(skb?.track ? { skb: { mark: 0, track: relatedTo(skb.track) } } : {}),
    },
    device: familyOf(destination) === 6 && isLinkLocal(destination) ? at.ifname : null,
  });
}
