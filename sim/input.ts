/** The way up: what a netns does with a frame for one of its links (net/ipv4/ip_input.c, ip_forward.c, net/ipv6/ip6_input.c). */
import { hasIpv6 } from '../model/connected.ts';
import { type Ip, familyOf } from '../model/ip.ts';
import type { LinkRef } from '../model/link.ts';
import { localType } from '../model/route-lookup.ts';
import type { Route } from '../model/route.ts';
import { receiveArp } from './arp.ts';
import {
  type Frame,
  type IcmpError,
  type IpPacket,
  answerTo,
  isAnswer,
  isLaterFragment,
  isMulticast,
  isNeighbourMessage,
} from './frame.ts';
import { DEFAULT_TTL, sendIcmpError } from './icmp-error.ts';
import { receiveNd } from './nd.ts';
import { passHook } from './netfilter.ts';
import { isRefusedBySize, sendByRoute, sendOwn } from './output.ts';
import { forgetSizes, gather } from './reassembly.ts';
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
import { receiveVxlan } from './vxlan.ts';

/** The address that a reply comes from: the one that was asked, unless that is anycast (icmp_reply, icmpv6_echo_reply). */
function replySource(run: Run, netns: string, asked: Ip): Ip | null {
  return localType(netnsOf(run, netns), asked) === 'anycast' ? null : asked;
}

/** Is it the answer that the sender waits for? A socket knows from whom; who asks by ICMP knows its id only. */
function isAwaited(run: Run, { netns }: LinkRef, { source, message }: IpPacket): boolean {
  if (netns !== run.awaited?.sender) return false;
  const { from, message: asked } = run.awaited;
  if ('id' in message) return 'id' in asked && message.id === asked.id;
  return (
    'sourcePort' in message &&
    (message.kind === asked.kind || (message.kind === 'reset' && asked.kind === 'tcp')) &&
    source === from &&
    message.sourcePort === asked.destinationPort &&
    message.destinationPort === asked.sourcePort
  );
}

/** Is the error about the question? Of what is quoted a socket looks at what it looks at in an answer (icmp_socket_deliver). */
function isAboutQuestion(run: Run, { netns }: LinkRef, { quoted }: IcmpError): boolean {
  if (netns !== run.awaited?.sender) return false;
  const { from, message: asked } = run.awaited;
  const { message } = quoted;
  if (message.kind !== asked.kind || isLaterFragment(quoted)) return false;
  if ('id' in message) return 'id' in asked && message.id === asked.id;
  return (
    'sourcePort' in message &&
    'sourcePort' in asked &&
    quoted.destination === from &&
    message.sourcePort === asked.sourcePort &&
    message.destinationPort === asked.destinationPort
  );
}

/** An error arrives: whoever asked is told, and nobody else whom it would stop. Of fragments that IPv4 did not join its kernel tells nobody (icmp_unreach). */
function receiveError(run: Run, at: LinkRef, packet: IpPacket, message: IcmpError): void {
  const isMute = message.error === 'reassembly time exceeded' && familyOf(packet.destination) === 4;
  const isTold = !isMute && isAboutQuestion(run, at, message);
  const nobody = isMute
    ? 'nobody is told of fragments that do not arrive'
    : 'it is about nothing that is waited for here';
  const text = isTold ? 'the sender is told' : nobody;
  note(run, at, 'deliver', packet, text, { rule: 'K-7.7' });
  const { error, mtuBytes } = message;
  if (isTold) run.error ??= { from: packet.source, error, mtuBytes };
}

/** A packet for this netns after the chains of input: those of IPv4 see it whole, those of IPv6 the fragments that it came in (ip_local_deliver, ip6_protocol_deliver_rcu). */
function passInput(run: Run, at: LinkRef, arrived: IpPacket): IpPacket | undefined {
  const passing = { hook: 'input', iif: at.ifname, oif: null } as const;
  if (arrived.fragment === undefined) return passHook(run, at, arrived, passing);
  const joinsFirst = familyOf(arrived.destination) === 4;
  const ready = joinsFirst ? gather(run, at, arrived, 'deliver') : arrived;
  const passed = ready && passHook(run, at, ready, passing);
  return passed && gather(run, at, passed, 'deliver');
}

/** A connection is refused: whoever asked for it knows. */
function receiveReset(run: Run, at: LinkRef, packet: IpPacket): void {
  const isTold = isAwaited(run, at, packet);
  const text = isTold ? 'the sender is told' : 'nobody here waits for it';
  note(run, at, 'deliver', packet, text, { rule: 'K-7.7' });
  if (isTold) run.error ??= { from: packet.source, error: 'connection refused', mtuBytes: null };
}

/** The packet is for this netns, because of this route in its local table; loopback packets keep the one they were sent with. */
function deliver(run: Run, at: LinkRef, arrived: IpPacket, route: Route | null): void {
  const packet = passInput(run, at, arrived);
  if (!packet || isNeighbourMessage(packet.message)) return;
  if (packet.message.kind === 'vxlan') {
    receiveVxlan(run, at, packet, packet.message);
    return;
  }
  if (packet.message.kind === 'error') {
    receiveError(run, at, packet, packet.message);
    return;
  }
  if (packet.message.kind === 'reset') {
    receiveReset(run, at, packet);
    return;
  }
  const { destination, message } = packet;
  const grounds: Grounds =
    route === null ? {} : { rule: 'K-5.1', lookedUp: { kind: 'route', destination, found: route } };
  const own = route === null ? 'back from loopback' : formatRoute(route);
  if (!isAnswer(message)) {
    note(run, at, 'deliver', packet, `${own}: replies`, grounds);
    const source = replySource(run, at.netns, destination);
    sendOwn(
      run,
      at.netns,
      {
        source,
        destination: packet.source,
        ttl: DEFAULT_TTL,
        dontFragment: false,
        message: answerTo(message),
      },
      at.ifname,
    );
  } else if (isAwaited(run, at, packet)) {
    note(run, at, 'deliver', packet, `${own}: the sender has its reply`, grounds);
    run.delivered = true;
  } else {
    const why =
      at.netns === run.awaited?.sender
        ? `it comes from ${packet.source}, and ${run.awaited.from} was asked`
        : `nobody in ${at.netns} waits for this reply`;
    drop(run, at, 'deliver', packet, 'NO_SOCKET', why);
  }
}

function forward(run: Run, at: LinkRef, packet: IpPacket, route: Route): void {
  const lookedUp = { kind: 'route', destination: packet.destination, found: route } as const;
  if (packet.ttl <= 1) {
    drop(run, at, 'forward', packet, 'IP_INHDR', `the TTL is used up`, { rule: 'K-7.7', lookedUp });
    sendIcmpError(run, at, packet, 'time exceeded');
    return;
  }
  const [iif, oif] = [at.ifname, route.device];
  if (oif !== null && isRefusedBySize(run, { netns: at.netns, ifname: oif }, packet, route, iif))
    return;
  const aged = { ...packet, ttl: packet.ttl - 1 };
  note(run, at, 'forward', aged, `${formatRoute(route)}, ttl ${aged.ttl}`, {
    rule: 'K-7.6',
    lookedUp,
  });
  const passed = passHook(run, at, aged, { hook: 'forward', iif, oif });
  if (passed && oif !== null)
    sendByRoute(run, { netns: at.netns, ifname: oif }, route, passed, iif);
}

function receiveIp(run: Run, at: LinkRef, frame: Frame, came: IpPacket, to: AddressedTo): void {
  const netns = netnsOf(run, at.netns);
  const link = linkAt(run, at);
  if (familyOf(came.destination) === 6 && !hasIpv6(netns, link)) {
    drop(run, at, 'receive', frame, 'IPV6DISABLED', `IPv6 is off on ${at.ifname}`, {
      rule: 'K-4.3',
    });
    return;
  }
  const { message } = came;
  if (isNeighbourMessage(message)) {
    receiveNd(run, at, frame, came, message);
    return;
  }
  if (isMulticast(came.destination)) {
    leave(run, at, 'receive', came, 'IP multicast is not modelled yet');
    return;
  }
  const packet = came.skb?.prerouted
    ? forgetSizes(came)
    : passHook(run, at, came, { hook: 'prerouting', iif: at.ifname, oif: null });
  if (!packet) return;
  // What comes back through loopback keeps the route it was sent with.
  if (link.kind === 'loopback') {
    deliver(run, at, packet, null);
    return;
  }
  const { source, destination, skb } = packet;
  const answer = routeInput(netns, at.ifname, source, destination, skb?.mark);
  if (answer.kind === 'drop') {
    const lookedUp = { kind: 'route', destination: packet.destination, found: null } as const;
    drop(run, at, 'route', packet, answer.reason, answer.text, { rule: answer.rule, lookedUp });
    if (answer.error !== undefined && to === 'us') sendIcmpError(run, at, packet, answer.error);
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
