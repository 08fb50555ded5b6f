/** Packets that wait for a neighbour's MAC address: until it is learned, or nobody answers (net/core/neighbour.c, K-7.3). */
import type { Ip } from '../model/ip.ts';
import type { LinkRef } from '../model/link.ts';
import { type Mac, ZERO_MAC } from '../model/mac.ts';
import { type Packet, innermost } from './frame.ts';
import { sendIcmpError } from './icmp-error.ts';
import { type Run, type Waiting, drop, leave, linkAt } from './run.ts';
import { formatPlace } from './trace.ts';
import { findNeighbour, findPermanentNeighbour, withNeighbour } from './world.ts';

function isFor({ at, nextHop }: Waiting, link: LinkRef, ip: Ip): boolean {
  return nextHop === ip && at.netns === link.netns && at.ifname === link.ifname;
}

/** Is a question about the neighbour on its way? */
export function isAsked(run: Run, at: LinkRef, ip: Ip): boolean {
  return run.waiting.some((waiting) => isFor(waiting, at, ip));
}

/** Has the link an entry for the neighbour, be it one that waits for an answer? Only those are updated by what others say. */
export function isNeighbour(run: Run, at: LinkRef, ip: Ip): boolean {
  return isAsked(run, at, ip) || findNeighbour(run.world, at, ip) !== undefined;
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

/** Takes in where a neighbour is, and sends what waited for it. Answers what happened, in words. */
export function learnNeighbour(run: Run, at: LinkRef, ip: Ip, mac: Mac): string {
  if (findPermanentNeighbour(run.world.host, at, ip) !== undefined)
    return `${ip} is set for good, nothing is learned`;
  const known = findNeighbour(run.world, at, ip);
  run.world = withNeighbour(run.world, at, ip, mac);
  const ready = run.waiting.filter((waiting) => isFor(waiting, at, ip));
  for (const waiting of ready) {
    run.waiting.splice(run.waiting.indexOf(waiting), 1);
    sendWaiting(run, waiting, mac);
  }
  const learned = known === mac ? `${ip} is still at ${mac}` : `learns that ${ip} is at ${mac}`;
  return ready.length === 0 ? learned : `${learned}, and sends what waited`;
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

/** Nothing is under way any more: whoever still waits will not be answered, after three probes in the kernel. */
export function giveUp(run: Run): void {
  // Who waits later may be why who waits longer had no answer: its question is in a packet of a vxlan.
  for (const { at, nextHop, packet, iif } of run.waiting.splice(0).toReversed()) {
    const ends = run.ends.filter(
      (end) => asksFor(end.packet, nextHop) || answersFor(end.packet, nextHop),
    );
    const beyond = ends.find((end) => end.verdict.kind === 'unknown');
    if (beyond) {
      leave(
        run,
        at,
        'neighbour',
        packet,
        `whether ${nextHop} answers is decided where ${beyond.verdict.text}`,
      );
      continue;
    }
    const lost = ends
      .map((end) => end.verdict)
      .find((verdict) => verdict.kind === 'dropped' && verdict.reason !== 'OTHERHOST');
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
}
