/** Where neighbours are: packets that wait for a MAC address until it is learned, or nobody answers (net/core/neighbour.c, K-7.3 and K-7.10). */
import type { Ip } from '../model/ip.ts';
import type { LinkRef } from '../model/link.ts';
import { type Mac, ZERO_MAC } from '../model/mac.ts';
import { type Packet, innermost } from './frame.ts';
import { sendIcmpError } from './icmp-error.ts';
import {
  type Heard,
  type NeighbourEntry,
  type NeighbourTiming,
  afterHearing,
  afterUse,
  failedEntry,
} from './neighbour-state.ts';
import { neighbourTiming } from './neighbour-timing.ts';
import {
  type End,
  type Run,
  type Waiting,
  drop,
  leave,
  leaveHost,
  linkAt,
  netnsOf,
} from './run.ts';
import { formatPlace } from './trace.ts';
import { findNeighbourEntry, findPermanentNeighbour, withNeighbour } from './world.ts';

function isFor({ at, nextHop }: Waiting, link: LinkRef, ip: Ip): boolean {
  return nextHop === ip && at.netns === link.netns && at.ifname === link.ifname;
}

/** The first packet that waits for the neighbour, if one does: a question is on its way. */
export function waitingFor(run: Run, at: LinkRef, ip: Ip): Waiting | undefined {
  return run.waiting.find((waiting) => isFor(waiting, at, ip));
}

/** Has the link an entry for the neighbour, be it one that waits for an answer, or got none? Only those are updated by what others say. */
export function isNeighbour(run: Run, at: LinkRef, ip: Ip): boolean {
  return (
    waitingFor(run, at, ip) !== undefined || findNeighbourEntry(run.world, at, ip) !== undefined
  );
}

/** How long things about a neighbour last, here and now. */
export function timingOf(run: Run, at: LinkRef, ip: Ip): NeighbourTiming {
  const { nowMs, seed } = run.world;
  return neighbourTiming(netnsOf(run, at.netns), at, ip, nowMs, seed);
}

/** The MAC address by which a packet goes to a neighbour; undefined where it is not known. That it was needed is noted. */
export function useNeighbour(run: Run, at: LinkRef, ip: Ip): Mac | undefined {
  const permanent = findPermanentNeighbour(run.world.host, at, ip);
  if (permanent !== undefined) return permanent;
  const entry = findNeighbourEntry(run.world, at, ip);
  if (!entry || entry.mac === null) return undefined;
  const used = afterUse(entry, run.world.nowMs, timingOf(run, at, ip));
  run.world = withNeighbour(run.world, at, ip, used);
  return entry.mac;
}

/** Sends a packet in a frame to this MAC address. */
export function sendTo(run: Run, at: LinkRef, packet: Packet, mac: Mac): void {
  const source = linkAt(run, at).mac ?? ZERO_MAC;
  const frame = { kind: 'frame', source, destination: mac, packet } as const;
  run.queue.push({ step: 'transmit', at, frame });
}

function sendWaiting(run: Run, { at, packet, bridged }: Waiting, mac: Mac): void {
  if (!bridged) {
    sendTo(run, at, packet, mac);
    return;
  }
  const frame = { ...bridged.frame, packet, destination: mac };
  run.queue.push({ step: 'pass', at: bridged.port, frame, to: bridged.to });
}

/** Takes in what was heard of where a neighbour is, and sends what waited for it. Answers what happened, in words. */
export function learnNeighbour(run: Run, at: LinkRef, ip: Ip, heard: Heard): string {
  if (findPermanentNeighbour(run.world.host, at, ip) !== undefined)
    return `${ip} is set for good, nothing is learned`;
  const known = findNeighbourEntry(run.world, at, ip);
  const entry = afterHearing(known, heard, run.world.nowMs, timingOf(run, at, ip));
  run.world = withNeighbour(run.world, at, ip, entry);
  const ready = run.waiting.filter((waiting) => isFor(waiting, at, ip));
  for (const waiting of ready) {
    run.waiting.splice(run.waiting.indexOf(waiting), 1);
    const mac = useNeighbour(run, at, ip);
    if (mac !== undefined) sendWaiting(run, waiting, mac);
  }
  const learned = learnedText(ip, known, entry, heard);
  return ready.length === 0 ? learned : `${learned}, and sends what waited`;
}

function learnedText(
  ip: Ip,
  known: NeighbourEntry | undefined,
  { mac }: NeighbourEntry,
  heard: Heard,
): string {
  if (mac !== heard.mac) return `${ip} was at ${mac} a moment ago: stays there`;
  return known?.mac === mac ? `${ip} is still at ${mac}` : `learns that ${ip} is at ${mac}`;
}

function asksFor(outer: Packet, ip: Ip): boolean {
  const packet = innermost(outer);
  if (packet.kind === 'arp') return packet.operation === 'request' && packet.targetIp === ip;
  return packet.message.kind === 'solicitation' && packet.message.target === ip;
}

function answersFor(outer: Packet, ip: Ip): boolean {
  const packet = innermost(outer);
  if (packet.kind === 'arp') return packet.operation === 'reply' && packet.senderIp === ip;
  return packet.message.kind === 'advertisement' && packet.message.target === ip;
}

/** What has become of the question where a neighbour is, and of its answer. */
function endsOfQuestion(run: Run, { nextHop }: Waiting): readonly End[] {
  return run.ends.filter((end) => asksFor(end.packet, nextHop) || answersFor(end.packet, nextHop));
}

/** Ends what waits for an answer that is given where this host cannot be followed, which takes no time. Answers whether there was any. */
export function leaveBeyond(run: Run): boolean {
  const beyond = run.waiting.flatMap((waiting) => {
    const last = endsOfQuestion(run, waiting).find(({ verdict }) => verdict.kind === 'unknown');
    return last?.verdict.kind === 'unknown' ? [{ waiting, verdict: last.verdict }] : [];
  });
  for (const { waiting, verdict } of beyond) {
    run.waiting.splice(run.waiting.indexOf(waiting), 1);
    const { at, nextHop, packet } = waiting;
    const { leaves, netns, link, text } = verdict;
    if (leaves && link !== null)
      leaveHost(run, { netns, ifname: link }, 'neighbour', packet, `, if ${nextHop} is there`);
    else leave(run, at, 'neighbour', packet, `whether ${nextHop} answers is decided where ${text}`);
  }
  return beyond.length > 0;
}

/** A packet that waits is given up; what was lost on the way of the question and its answer says why. */
function giveUpOne(run: Run, waiting: Waiting): void {
  const { at, nextHop, packet, iif } = waiting;
  const dropped = endsOfQuestion(run, waiting).filter(({ verdict }) => verdict.kind === 'dropped');
  // Copies for others tell something only of an answer: it has gone to them alone.
  const told =
    dropped.find(({ verdict }) => verdict.kind === 'dropped' && verdict.reason !== 'OTHERHOST') ??
    dropped.find((end) => answersFor(end.packet, nextHop));
  const lost = told?.verdict;
  const why =
    lost?.kind === 'dropped' ? ` (in ${formatPlace(lost)}: ${lost.reason}, ${lost.text})` : '';
  const because = lost?.kind === 'dropped' ? { because: lost } : {};
  drop(run, at, 'neighbour', packet, 'NEIGH_FAILED', `nobody answers for ${nextHop}${why}`, {
    rule: 'K-7.3',
    lookedUp: { kind: 'neighbour', ip: nextHop, found: null },
    ...because,
  });
  // Who sends itself is told by its own kernel, without a packet to another netns.
  if (iif !== null)
    sendIcmpError(run, { netns: at.netns, ifname: iif }, packet, 'host unreachable');
}

/**
 * Gives up what has waited long enough by now: the neighbour was asked for as often as its link is set to, three times
 * in as many seconds. Only the first question is followed: nothing changes that would have another answered.
 */
export function giveUp(run: Run): void {
  const { nowMs } = run.world;
  const due = run.waiting.filter(({ dueMs }) => dueMs <= nowMs);
  // Who waits later may be why who waits longer had no answer: its question is in a packet of a vxlan.
  for (const waiting of due.toReversed()) {
    run.waiting.splice(run.waiting.indexOf(waiting), 1);
    const { at, nextHop } = waiting;
    if (findPermanentNeighbour(run.world.host, at, nextHop) === undefined)
      run.world = withNeighbour(run.world, at, nextHop, failedEntry(nowMs));
    giveUpOne(run, waiting);
  }
}
