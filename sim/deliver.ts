/** What becomes of a packet that is for its netns: whoever is asked answers, and whoever asked hears of it (net/ipv4/icmp.c, udp.c, tcp_ipv4.c). */
import { type Ip, familyOf } from '../model/ip.ts';
import type { LinkRef } from '../model/link.ts';
import type { Route } from '../model/route.ts';
import {
  type IcmpError,
  type IpPacket,
  type ProbeMessage,
  type Segment,
  acknowledge,
  answerTo,
  isAcknowledgement,
  isAnswer,
  isLaterFragment,
  isNeighbourMessage,
} from './frame.ts';
import { DEFAULT_TTL } from './icmp-error.ts';
import { passHook } from './netfilter.ts';
import { sendOwn } from './output.ts';
import { gather } from './reassembly.ts';
import { formatRoute, localTypeOf } from './route.ts';
import { type Accepted, type Grounds, type Run, drop, netnsOf, note } from './run.ts';
import { ECHO_IGNORE_ALL } from './sysctls.ts';
import { receiveVxlan } from './vxlan.ts';

/** The address that a reply comes from: the one that was asked, unless that is anycast (icmp_reply, icmpv6_echo_reply). */
function replySource(run: Run, netns: string, asked: Ip): Ip | null {
  return localTypeOf(netnsOf(run, netns), asked) === 'anycast' ? null : asked;
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

/** Does a netns leave echo requests unanswered (icmp_echo, icmpv6_rcv; K-7.11)? */
function ignoresEchoes(run: Run, { netns }: LinkRef, asked: Ip): boolean {
  const { sysctls } = netnsOf(run, netns);
  return (sysctls[ECHO_IGNORE_ALL[familyOf(asked)]] ?? '0') !== '0';
}

/** The packet is for this netns, because of this route in its local table; loopback packets keep the one they were sent with. */
export function deliver(run: Run, at: LinkRef, arrived: IpPacket, route: Route | null): void {
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
  if (isAcknowledgement(message)) receiveAcknowledgement(run, at, packet, own, grounds);
  else if (isAnswer(message)) receiveAnswer(run, at, packet, own, grounds);
  else if (message.kind === 'echo request' && ignoresEchoes(run, at, destination)) {
    const text = `${ECHO_IGNORE_ALL[familyOf(destination)].replaceAll('/', '.')} is on: no answer`;
    drop(run, at, 'deliver', packet, 'ECHO_IGNORED', text, { ...grounds, rule: 'K-7.11' });
  } else {
    note(run, at, 'deliver', packet, `${own}: replies`, grounds);
    if (message.kind === 'tcp') run.accepted.push(acceptedBy(at, packet, message));
    sendBack(run, at, packet, replySource(run, at.netns, destination), answerTo(message));
  }
}

/** Sends something to whom a packet came from. */
function sendBack(
  run: Run,
  at: LinkRef,
  { source }: IpPacket,
  from: Ip | null,
  message: ProbeMessage,
): void {
  const own = { source: from, destination: source, ttl: DEFAULT_TTL, dontFragment: false, message };
  sendOwn(run, at.netns, own, at.ifname);
}

function receiveAnswer(
  run: Run,
  at: LinkRef,
  packet: IpPacket,
  own: string,
  grounds: Grounds,
): void {
  const { message } = packet;
  if (!isAwaited(run, at, packet)) {
    const why =
      at.netns === run.awaited?.sender
        ? `it comes from ${packet.source}, and ${run.awaited.from} was asked`
        : `nobody in ${at.netns} waits for this reply`;
    drop(run, at, 'deliver', packet, 'NO_SOCKET', why);
    return;
  }
  note(run, at, 'deliver', packet, `${own}: the sender has its reply`, grounds);
  if (message.kind !== 'tcp') run.delivered = true;
  else sendBack(run, at, packet, packet.destination, acknowledge(message));
}

function acceptedBy(
  { netns }: LinkRef,
  { source, destination }: IpPacket,
  { sourcePort, destinationPort }: Segment,
): Accepted {
  return { netns, source, destination, sourcePort, destinationPort };
}

function isAccepted(run: Run, wanted: Accepted): boolean {
  return run.accepted.some(
    (each) =>
      each.netns === wanted.netns &&
      each.source === wanted.source &&
      each.destination === wanted.destination &&
      each.sourcePort === wanted.sourcePort &&
      each.destinationPort === wanted.destinationPort,
  );
}

/** Who has answered to the opening of a connection hears that the answer has come. */
function receiveAcknowledgement(
  run: Run,
  at: LinkRef,
  packet: IpPacket,
  own: string,
  grounds: Grounds,
): void {
  const { message } = packet;
  if (message.kind !== 'tcp') return;
  if (isAccepted(run, acceptedBy(at, packet, message))) {
    note(run, at, 'deliver', packet, `${own}: the connection is open`, grounds);
    run.delivered = true;
    return;
  }
  const text = `nobody in ${at.netns} has answered to such a connection`;
  drop(run, at, 'deliver', packet, 'NO_SOCKET', text);
}
