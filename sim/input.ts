/** The way up: what a netns does with a frame for one of its links (net/ipv4/ip_input.c, ip_forward.c, net/ipv6/ip6_input.c). */
import { hasIpv6 } from '../model/connected.ts';
import { type Ip, familyOf } from '../model/ip.ts';
import type { LinkRef } from '../model/link.ts';
import { localType } from '../model/route-lookup.ts';
import type { Route } from '../model/route.ts';
import { receiveArp } from './arp.ts';
import { type Frame, type IpPacket, isMulticast } from './frame.ts';
import { receiveNd } from './nd.ts';
import { noteNetfilter } from './netfilter.ts';
import { sendByRoute, sendOwn } from './output.ts';
import { formatRoute, routeInput } from './route.ts';
import {
  type AddressedTo,
  type Grounds,
  type Run,
  drop,
  leave,
  linkAt,
  netnsOf,
  note,
} from './run.ts';

/** What the kernel gives packets of its own (net.ipv4.ip_default_ttl, net.ipv6.conf.*.hop_limit). */
export const DEFAULT_TTL = 64;

/** The address that a reply comes from: the one that was asked, unless that is anycast (icmp_reply, icmpv6_echo_reply). */
function replySource(run: Run, netns: string, asked: Ip): Ip | null {
  return localType(netnsOf(run, netns), asked) === 'anycast' ? null : asked;
}

/** The packet is for this netns, because of this route in its local table; loopback packets keep the one they were sent with. */
function deliver(run: Run, at: LinkRef, packet: IpPacket, route: Route | null): void {
  noteNetfilter(run, at, packet, 'input');
  const { destination, message } = packet;
  const grounds: Grounds =
    route === null ? {} : { rule: 'K-5.1', lookedUp: { kind: 'route', destination, found: route } };
  const own = route === null ? 'back from loopback' : formatRoute(route);
  if (message.kind === 'echo request') {
    note(run, at, 'deliver', packet, `${own}: replies`, grounds);
    const source = replySource(run, at.netns, destination);
    const reply = { ...message, kind: 'echo reply' } as const;
    sendOwn(
      run,
      at.netns,
      {
        source,
        destination: packet.source,
        ttl: DEFAULT_TTL,
        dontFragment: false,
        message: reply,
      },
      at.ifname,
    );
  } else if (at.netns === run.sender) {
    note(run, at, 'deliver', packet, `${own}: the sender has its reply`, grounds);
    run.delivered = true;
  } else {
    drop(run, at, 'deliver', packet, 'NO_SOCKET', `nobody in ${at.netns} waits for this reply`);
  }
}

function forward(run: Run, at: LinkRef, packet: IpPacket, route: Route): void {
  const lookedUp = { kind: 'route', destination: packet.destination, found: route } as const;
  if (packet.ttl <= 1) {
    drop(
      run,
      at,
      'forward',
      packet,
      'IP_INHDR',
      `the TTL is used up; answers time exceeded, which is not followed`,
      { rule: 'K-7.7', lookedUp },
    );
    return;
  }
  const passed = { ...packet, ttl: packet.ttl - 1 };
  note(run, at, 'forward', passed, `${formatRoute(route)}, ttl ${passed.ttl}`, {
    rule: 'K-7.6',
    lookedUp,
  });
  noteNetfilter(run, at, passed, 'forward');
  if (route.device !== null) sendByRoute(run, at.netns, route.device, route, passed);
}

function receiveIp(run: Run, at: LinkRef, frame: Frame, packet: IpPacket, to: AddressedTo): void {
  const netns = netnsOf(run, at.netns);
  const link = linkAt(run, at);
  if (familyOf(packet.destination) === 6 && !hasIpv6(netns, link)) {
    drop(run, at, 'receive', frame, 'IPV6DISABLED', `IPv6 is off on ${at.ifname}`, {
      rule: 'K-4.3',
    });
    return;
  }
  const { message } = packet;
  if (message.kind === 'solicitation' || message.kind === 'advertisement') {
    receiveNd(run, at, frame, packet, message);
    return;
  }
  if (isMulticast(packet.destination)) {
    leave(run, at, 'receive', packet, 'IP multicast is not modelled yet');
    return;
  }
  noteNetfilter(run, at, packet, 'prerouting');
  // What comes back through loopback keeps the route it was sent with.
  if (link.kind === 'loopback') {
    deliver(run, at, packet, null);
    return;
  }
  const answer = routeInput(netns, at.ifname, packet.source, packet.destination);
  if (answer.kind === 'drop') {
    const lookedUp = { kind: 'route', destination: packet.destination, found: null } as const;
    drop(run, at, 'route', packet, answer.reason, answer.text, { rule: answer.rule, lookedUp });
  } else if (answer.kind === 'broadcast') {
    drop(
      run,
      at,
      'deliver',
      packet,
      'INVALID_PROTO',
      `${packet.destination} is a broadcast address here`,
    );
  } else if (answer.kind === 'local') {
    deliver(run, at, packet, answer.route);
  } else if (to === 'us') {
    forward(run, at, packet, answer.route);
  } else {
    drop(
      run,
      at,
      'forward',
      packet,
      'UNICAST_IN_L2_MULTICAST',
      'only frames for this link are forwarded',
    );
  }
}

/** A frame reaches the protocols of a netns. */
export function receiveUp(run: Run, at: LinkRef, frame: Frame, to: AddressedTo): void {
  const { packet } = frame;
  if (to === 'other') {
    const mac = linkAt(run, at).mac ?? 'without a MAC address';
    const what =
      frame.tag === undefined
        ? `the frame is for ${frame.destination}, ${at.ifname} is ${mac}`
        : `the frame has the tag of VLAN ${frame.tag}, for which ${at.netns} has no link`;
    drop(run, at, 'receive', frame, 'OTHERHOST', what);
  } else if (packet.kind === 'arp') {
    receiveArp(run, at, frame, packet);
  } else {
    receiveIp(run, at, frame, packet, to);
  }
}
