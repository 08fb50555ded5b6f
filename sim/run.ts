/**
 * One simulation while it runs: frames under way, packets that wait for a neighbour, hops so far. The
 * stages hand frames to each other through its queue, first in, first out, so that copies of a flooded
 * frame advance together and none starves the others. Mutable, and never seen outside of `probe`.
 */
import { type Netns, type NetnsName, getLink, getNetns } from '../model/host.ts';
import type { Ifname } from '../model/ifname.ts';
import type { Ip } from '../model/ip.ts';
import type { Link, LinkRef } from '../model/link.ts';
import type { Route } from '../model/route.ts';
import { chance } from './chance.ts';
import type { Connection, Tuple } from './conntrack.ts';
import {
  type Frame,
  type IpPacket,
  type OwnPacket,
  type Packet,
  type ProbeMessage,
  innermost,
  isNeighbourMessage,
} from './frame.ts';
import { waysOf } from './next-hop.ts';
import type { DropReason } from './reason.ts';
import type { Gathering } from './reassembly.ts';
import type { Hop, LookedUp, SenderError, Stage, Verdict } from './trace.ts';
import type { World } from './world.ts';

/** What a frame's destination MAC means to the link that received it (the kernel's skb->pkt_type). */
export type AddressedTo = 'us' | 'broadcast' | 'multicast' | 'other';

/** What happens next. */
export type Event =
  /** The netns sends a packet of its own; `device` is the link that a link-local destination is on. */
  | {
      readonly step: 'send';
      readonly netns: NetnsName;
      readonly own: OwnPacket;
      readonly device: Ifname | null;
    }
  /** The link sends it. */
  | { readonly step: 'transmit'; readonly at: LinkRef; readonly frame: Frame }
  /** It arrives at the link. */
  | { readonly step: 'receive'; readonly at: LinkRef; readonly frame: Frame }
  /** Its bridge goes on with a frame that came in by a port, and waited for the MAC address that it is for now. */
  | { readonly step: 'pass'; readonly at: LinkRef; readonly frame: Frame; readonly to: AddressedTo }
  /** It goes up to the protocols of the link's netns. */
  | { readonly step: 'up'; readonly at: LinkRef; readonly frame: Frame; readonly to: AddressedTo };

/** A packet that waits until its next hop's MAC address is known. */
export interface Waiting {
  readonly at: LinkRef;
  readonly nextHop: Ip;
  readonly packet: IpPacket;
  /** The link that it came in by; null: the netns sends it itself. */
  readonly iif: Ifname | null;
  /** Until when an answer is waited for. */
  readonly dueMs: number;
  /** Does a bridge send it on to one of its ports? In a frame that came in by another. */
  readonly bridged?: Bridged;
}

/** A frame that came in by the port of a bridge, and what its destination MAC meant to that. */
export interface Bridged {
  readonly port: LinkRef;
  readonly frame: Frame;
  readonly to: AddressedTo;
}

/** One copy of a packet and what became of it. */
export interface End {
  readonly packet: Packet;
  readonly verdict: Exclude<Verdict, { readonly kind: 'delivered' }>;
}

/** Where a packet takes one of several next hops. */
export interface Fork {
  readonly at: Place;
  readonly packet: IpPacket;
  readonly route: Route;
  /** How many hops were noted before, and when. */
  readonly hops: number;
  readonly nowMs: number;
}

/** Which netns waits for the answer to a probe, and what tells it. */
export interface Awaited {
  readonly sender: NetnsName;
  readonly from: Ip;
  readonly message: ProbeMessage;
}

/** A connection that somebody waits to be acknowledged, as seen by who does. */
export interface Accepted {
  readonly netns: NetnsName;
  readonly source: Ip;
  readonly destination: Ip;
  readonly sourcePort: number;
  readonly destinationPort: number;
}

export interface Run {
  world: World;
  /** When it began. */
  readonly startMs: number;
  /** Who waits for an answer, and what that has to look like; null: nobody does. */
  readonly awaited: Awaited | null;
  /** Is anybody told of the hops? */
  readonly isTraced: boolean;
  readonly hops: Hop[];
  readonly queue: Event[];
  readonly waiting: Waiting[];
  /** Fragments that wait for others, by where they do and what they are of. */
  readonly gatherings: Map<string, Gathering>;
  /** What the fragments of the next packet that is split are known by. */
  nextIdentification: number;
  readonly ends: End[];
  readonly accepted: Accepted[];
  /** Connections that began in this run, as they have been decided so far, by their very first tuples. */
  readonly begun: Map<Tuple, Connection>;
  /** In their order. */
  readonly forks: Fork[];
  delivered: boolean;
  /** Are neighbours just now asked whether they are still there? What is about that is in no trace. */
  isAside: boolean;
  /** The first error about the question that reached whoever asked. */
  error: SenderError | null;
  /** Was the sender told something that is not simulated? */
  isTold: 'unknown' | null;
  laterHops: number;
  /** How often something was drawn by chance. */
  draws: number;
}

export function startRun(world: World, awaited: Awaited | null, isTraced: boolean): Run {
  return {
    world,
    startMs: world.nowMs,
    awaited,
    isTraced,
    hops: [],
    queue: [],
    waiting: [],
    gatherings: new Map(),
    nextIdentification: 1,
    ends: [],
    accepted: [],
    begun: new Map(),
    forks: [],
    delivered: false,
    isAside: false,
    error: null,
    isTold: null,
    laterHops: 0,
    draws: 0,
  };
}

export function netnsOf(run: Run, name: NetnsName): Netns {
  return getNetns(run.world.host, name);
}

export function linkAt(run: Run, at: LinkRef): Link {
  return getLink(run.world.host, at);
}

/** Draws a number from 0 up to, and without, 1: by the world's seed, and 0, which is the first of what can be, without one. */
export function draw(run: Run): number {
  run.draws += 1;
  const { seed } = run.world;
  return seed === null ? 0 : chance(seed, 'draw', run.draws);
}

/** Where something is noted: a link, or a netns as a whole. */
export interface Place {
  readonly netns: NetnsName;
  readonly ifname?: Ifname;
}

/** What a hop has beyond its decision. */
export interface Grounds {
  readonly rule?: string;
  readonly lookedUp?: LookedUp;
  readonly dropped?: DropReason;
}

/** What a drop has beyond that. */
export interface DropGrounds extends Grounds {
  readonly about?: LinkRef;
  readonly because?: Verdict & { readonly kind: 'dropped' };
}

function packetIn(data: Frame | Packet): Packet {
  return data.kind === 'frame' ? data.packet : data;
}

function isAboutNeighbours(outer: Packet): boolean {
  const packet = innermost(outer);
  return packet.kind === 'arp' || isNeighbourMessage(packet.message);
}

/** Adds a hop to the trace, where there is one. */
export function note(
  run: Run,
  at: Place,
  stage: Stage,
  data: Frame | Packet,
  decision: string,
  grounds: Grounds = {},
): void {
  if (!run.isTraced) return;
  if (run.isAside && isAboutNeighbours(packetIn(data))) return;
  if (run.delivered) {
    run.laterHops += 1;
    return;
  }
  run.hops.push({
    netns: at.netns,
    link: at.ifname ?? null,
    stage,
    rule: grounds.rule ?? null,
    decision,
    lookedUp: grounds.lookedUp ?? null,
    ...(grounds.dropped ? { dropped: grounds.dropped } : {}),
    ...(run.world.nowMs > run.startMs ? { afterMs: run.world.nowMs - run.startMs } : {}),
    data,
  });
}

/** This copy ends here. `text` says why in this very case. */
export function drop(
  run: Run,
  at: Place,
  stage: Stage,
  data: Frame | Packet,
  reason: DropReason,
  text: string,
  { about, because, ...grounds }: DropGrounds = {},
): void {
  note(run, at, stage, data, `dropped, ${reason}: ${text}`, { ...grounds, dropped: reason });
  const verdict = {
    kind: 'dropped',
    reason,
    netns: at.netns,
    link: at.ifname ?? null,
    text,
    ...(about ? { about } : {}),
    ...(grounds.lookedUp ? { lookedUp: grounds.lookedUp } : {}),
    ...(because ? { because } : {}),
  } as const;
  run.ends.push({ packet: packetIn(data), verdict });
}

/** A packet is about to take a route, by one of its next hops where it has several. */
export function noteFork(run: Run, at: Place, packet: IpPacket, route: Route): void {
  if (!run.delivered && waysOf(route) > 1)
    run.forks.push({ at, packet, route, hops: run.hops.length, nowMs: run.world.nowMs });
}

/** This copy goes where the model cannot follow. */
export function leave(run: Run, at: Place, stage: Stage, data: Frame | Packet, text: string): void {
  note(run, at, stage, data, `not followed: ${text}`);
  const verdict = { kind: 'unknown', netns: at.netns, link: at.ifname ?? null, text } as const;
  run.ends.push({ packet: packetIn(data), verdict });
}

/** This copy leaves the host by a link; `condition`: if that is so, in words. */
export function leaveHost(
  run: Run,
  at: LinkRef,
  stage: Stage,
  data: Frame | Packet,
  condition = '',
): void {
  const text = `it leaves this host by ${at.ifname}${condition}`;
  note(run, at, stage, data, `not followed: ${text}`);
  const packet = packetIn(data);
  const place = { netns: at.netns, link: at.ifname };
  const { source, destination } =
    packet.kind === 'ip' ? packet : { source: packet.senderIp, destination: packet.targetIp };
  const verdict = { kind: 'unknown', ...place, text, leaves: { source, destination } } as const;
  run.ends.push({ packet, verdict });
}
