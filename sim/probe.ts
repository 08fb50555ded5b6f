/** One packet and its answer through a world: an echo request, a UDP datagram or the SYN of a TCP connection, which is answered and acknowledged. */
import type { NetnsName } from '../model/host.ts';
import { getNetns } from '../model/host.ts';
import { type Ip, familyOf } from '../model/ip.ts';
import { localType } from '../model/route-lookup.ts';
import {
  type IpPacket,
  type OwnPacket,
  type Packet,
  type ProbeMessage,
  innermost,
  isAcknowledgement,
  isAnswer,
  isLinkLocal,
  isMulticast,
  isProbeMessage,
} from './frame.ts';
import { DEFAULT_TTL } from './icmp-error.ts';
import { waysOf, turned } from './next-hop.ts';
import { sendOwn } from './output.ts';
import { type End, type Fork, type Run, drop, leave, startRun } from './run.ts';
import { settle } from './settle.ts';
import { UNSPECIFIED } from './source.ts';
import { type Outcome, type Trace, type Verdict, formatVerdict } from './trace.ts';
import type { World } from './world.ts';

export interface ProbeRequest {
  /** The sender's. */
  readonly netns: NetnsName;
  readonly destination: Ip;
  /** An address of the sender; without one the kernel chooses (K-5.5). */
  readonly source?: Ip;
  /** 1 to 255; 64 when not said. */
  readonly ttl?: number;
  /** What follows the header of ICMP, UDP or TCP; when not said 56 of ICMP, as ping sends, and else nothing. */
  readonly payloadBytes?: number;
  /** Absent: an echo. Whoever is reached answers, as if somebody listened on every port. */
  readonly to?: { readonly protocol: 'udp' | 'tcp'; readonly port: number };
  /** The sender's port, or the id of an echo: 40000 when not said. */
  readonly sourcePort?: number;
  /** Does the sender's socket know whom it asks, as those of UDP and TCP, and the one of `--live`? True when not said; false is ping, whose route is looked up without a source. */
  readonly isConnected?: boolean;
  /** May nobody split it (`ping -M do`)? True when not said; false is `ping -M dont`, with which a router of IPv6 splits nothing either. */
  readonly dontFragment?: boolean;
}

function phaseOf(message: ProbeMessage): number {
  if (isAcknowledgement(message)) return 0;
  return isAnswer(message) ? 10 : 20;
}

/** What says most about a lost probe comes first: the loss of what acknowledges a reply, a reply's loss, a loss for a reason, and only then a copy for nobody. */
function rank({ packet, verdict }: End): number {
  const message = probeIn(packet);
  const phase = message ? phaseOf(message) : 20;
  if (verdict.kind === 'unknown') return phase + 1;
  if (verdict.reason === 'LOOP' || verdict.reason === 'STEP_LIMIT') return phase + 2;
  return verdict.reason === 'OTHERHOST' || verdict.reason === 'NO_SOCKET' ? phase + 3 : phase;
}

/** The question or the answer that a packet carries; undefined for all others. */
function probeIn(packet: Packet): ProbeMessage | undefined {
  const inner = innermost(packet);
  return inner.kind === 'ip' && isProbeMessage(inner.message) ? inner.message : undefined;
}

/** The verdict over all copies of the request and the reply. */
function conclude(run: Run): Verdict {
  if (run.delivered) return { kind: 'delivered' };
  const [decisive] = run.ends
    .filter((end) => probeIn(end.packet) !== undefined)
    .toSorted((a, b) => rank(a) - rank(b));
  if (!decisive) throw new Error('a probe came to no end');
  return unansweredFor(run, decisive.verdict) ?? decisive.verdict;
}

/** Nobody answers for a next hop: was it asked for where it is not known whether that answers? */
function unansweredFor(run: Run, verdict: Verdict): Verdict | undefined {
  if (verdict.kind !== 'dropped' || verdict.reason !== 'NEIGH_FAILED') return undefined;
  return run.ends.find(
    (end) => end.verdict.kind === 'unknown' && innermost(end.packet).kind === 'arp',
  )?.verdict;
}

/** Of what the sender is told; who has its answer hears of nothing else. */
function errorOf(run: Run, verdict: Verdict): Outcome['error'] {
  if (verdict.kind === 'delivered') return null;
  if (run.error ?? run.isTold) return run.error ?? run.isTold;
  const isLost = run.ends.some(
    (end) =>
      end.verdict.kind === 'unknown' &&
      end.packet.kind === 'ip' &&
      (end.packet.message.kind === 'error' || end.packet.message.kind === 'reset'),
  );
  return isLost || verdict.kind === 'unknown' ? 'unknown' : null;
}

/** What the socket refuses before there is a packet, or the model does not know. */
function startFault(run: Run, request: ProbeRequest, packet: IpPacket): boolean {
  const { destination, netns: name, source } = request;
  const netns = getNetns(run.world.host, name);
  const refuse = (text: string): void =>
    drop(run, { netns: name }, 'send', packet, 'SOCKET_REFUSED', text);
  if (isMulticast(destination)) {
    leave(run, { netns: name }, 'send', packet, 'IP multicast is not modelled yet');
    return true;
  }
  if (isLinkLocal(destination) && localType(netns, destination) !== 'local') {
    refuse(`EINVAL: ${destination} is on which link?`);
    return true;
  }
  if (source !== undefined && localType(netns, source) !== 'local') {
    refuse(`EADDRNOTAVAIL: ${source} is no address of ${name}`);
    return true;
  }
  return false;
}

function portFault(port: number): boolean {
  return !Number.isInteger(port) || port < 1 || port > 65_535;
}

function messageOf({ to, sourcePort = 40_000, payloadBytes }: ProbeRequest): ProbeMessage {
  if (portFault(sourcePort)) throw new Error(`a port is 1 to 65535, not ${sourcePort}`);
  if (!to) return { kind: 'echo request', id: sourcePort, payloadBytes: payloadBytes ?? 56 };
  if (portFault(to.port)) throw new Error(`a port is 1 to 65535, not ${to.port}`);
  const ports = { sourcePort, destinationPort: to.port };
  const bytes = { payloadBytes: payloadBytes ?? 0 };
  return to.protocol === 'udp'
    ? { kind: 'udp', ...ports, ...bytes, isAnswer: false }
    : { kind: 'tcp', ...ports, ...bytes, flags: 'syn' };
}

/** Lets a probe happen to its end. Answers the run after it, and how it ended. */
function carryOut(world: World, request: ProbeRequest, isTraced: boolean): [Run, Outcome] {
  const { destination, source = null, ttl = DEFAULT_TTL, dontFragment = true } = request;
  const message = messageOf(request);
  const family = familyOf(destination);
  if (source !== null && familyOf(source) !== family)
    throw new Error(`cannot send from ${source} to ${destination}`);
  if (!Number.isInteger(ttl) || ttl < 1 || ttl > 255)
    throw new Error(`a TTL is 1 to 255, not ${ttl}`);
  const run = startRun(world, { sender: request.netns, from: destination, message }, isTraced);
  const own: OwnPacket = {
    source,
    destination,
    ttl,
    dontFragment,
    message,
  };
  const packet: IpPacket = { ...own, kind: 'ip', source: source ?? UNSPECIFIED[family] };
  if (!startFault(run, request, packet)) {
    sendOwn(run, request.netns, own, null, request.isConnected !== false);
    settle(run);
  }
  const verdict = conclude(run);
  const { world: after, draws } = run;
  return [run, { verdict, error: errorOf(run, verdict), draws, world: after }];
}

/** How a probe ends, with the hops that lead to it; where it hangs on which of several next hops is taken, those up to where that is decided. */
function decide(world: World, request: ProbeRequest, isTraced: boolean): Trace {
  const [run, outcome] = carryOut(world, request, isTraced);
  const { hops, laterHops, forks } = run;
  const most = Math.max(0, ...forks.map(({ route }) => route.nextHops?.length ?? 0));
  for (let by = 1; by < most; by += 1) {
    const [, other] = carryOut({ ...world, host: turned(world.host, by) }, request, false);
    const [fork] = forks;
    if (fork && other.verdict.kind !== outcome.verdict.kind)
      return forked(run, fork, [outcome.verdict, other.verdict]);
  }
  return { hops, laterHops, ...outcome };
}

/** By one of a route's next hops a packet ends in one way, by another in another. */
function forked(
  run: Run,
  { at, packet, route, hops, nowMs }: Fork,
  ends: readonly Verdict[],
): Trace {
  const [one, other] = ends.map(formatVerdict);
  const text = `which of the ${waysOf(route)} next hops of ${route.destination} it takes is not known: by one it is ${one}, by another ${other}`;
  const world = { ...run.world, nowMs };
  const cut = { ...run, world, hops: run.hops.slice(0, hops), delivered: false, ends: [] };
  leave(cut, at, 'route', packet, text);
  const verdict = { kind: 'unknown', netns: at.netns, link: at.ifname ?? null, text } as const;
  const { draws } = run;
  return { hops: cut.hops, laterHops: 0, verdict, error: 'unknown', draws, world: run.world };
}

/**
 * Sends one packet and follows it and its answer, with the ARP or ND that they need, until everything
 * has come to an end: by default an ICMP or ICMPv6 echo request. Equal
 * arguments give equal traces. Throws for a netns that the host does not have, for a source of the
 * other family, for a TTL that does not fit into a byte and for a port that is none.
 */
export function probe(world: World, request: ProbeRequest): Trace {
  return decide(world, request, true);
}

/** What `probe` answers and throws but for the hops, of which no account is kept: for who asks much, and wants to know the end. */
export function outcomeOf(world: World, request: ProbeRequest): Outcome {
  const { verdict, error, draws, world: after } = decide(world, request, false);
  return { verdict, error, draws, world: after };
}
