/**
 * The kernel's events about one probe, put in their places. An event has the name of a link and no netns, so
 * packets are followed: the first is at a link of the sender, a veth leads to its other end, and within a
 * netns a packet stays the same skb from link to link.
 */
import type { ProbeOutcome } from '../../backends/probe.ts';
import { type Host, type NetnsName, findLink } from '../../model/host.ts';
import type { Ifname } from '../../model/ifname.ts';
import type { LinkRef } from '../../model/link.ts';
import type { ProbeRequest } from '../../sim/probe.ts';
import type { DropEvent, KernelEvent, LinkEvent } from './kernel-event.ts';
import { LINK_HEADER_BYTES, answerBytes, isWithin, requestBytes } from './probe-size.ts';

/** The probe or its answer, where a link sent or received it. */
export interface Sighting {
  readonly netns: NetnsName;
  readonly link: Ifname;
  readonly direction: 'out' | 'in';
  /** Since the first event. */
  readonly afterUs: number;
}

/** Where the kernel dropped the probe, its answer, or a copy. */
export interface KernelDrop {
  readonly netns: NetnsName;
  /** Where it was seen last; null before any link. */
  readonly link: Ifname | null;
  readonly reason: string | null;
  readonly location: string;
  readonly afterUs: number;
}

export interface Sightings {
  readonly seen: readonly Sighting[];
  readonly drops: readonly KernelDrop[];
}

interface Followed {
  readonly at: LinkRef;
  readonly kind: LinkEvent['kind'];
  /** Of the IP packet, with what a tunnel adds. */
  readonly bytes: number;
  readonly seconds: number;
}

/** Where it is that a packet waits for its neighbour, of which nothing else tells (net/core/neighbour.c, neigh_invalidate). */
const GIVES_UP_ON_NEIGHBOUR = /^(?:neigh_invalidate|arp_error_report|ndisc_error_report)\b/;

/** How soon a question is answered by the CPU that receives it, which does nothing else in between. */
const ANSWER_SECONDS = 100e-6;

/** How long a packet may be where it was seen last before it is dropped there, if it does not wait for a neighbour. */
const STAY_SECONDS = 2e-3;

/** What the sender knows of its own probe. */
export interface Sender {
  readonly request: ProbeRequest;
  /** Of the process that sends it. */
  readonly pid: number;
  readonly heard: ProbeOutcome;
}

/** Packets while they are followed. Mutable, and never seen outside of `followProbe`. */
interface Pursuit {
  readonly host: Host;
  readonly sender: Sender;
  readonly firstSeconds: number;
  /** The last packet of anybody for whose next hop nobody answered: the sender's own, where it has just heard that. */
  readonly unanswered: DropEvent | undefined;
  /** By skb, the one of the last event last. */
  readonly followed: Map<string, Followed>;
  readonly seen: Sighting[];
  readonly drops: KernelDrop[];
  /** Where it was received last. */
  received: (Pick<LinkEvent, 'cpu' | 'seconds'> & { readonly netns: NetnsName }) | undefined;
}

function afterUs({ firstSeconds }: Pursuit, { seconds }: KernelEvent): number {
  return Math.round((seconds - firstSeconds) * 1e6);
}

function linkIn({ host }: Pursuit, netns: NetnsName, name: string): LinkRef | undefined {
  const ref = { netns, ifname: name as Ifname };
  return findLink(host, ref) ? ref : undefined;
}

function hasTunnel({ host }: Pursuit, netns: NetnsName): boolean {
  return Object.values(host.netns[netns]?.links ?? {}).some(({ kind }) => kind === 'vxlan');
}

/** Where a packet is now that was somewhere before; undefined where that cannot be: others have its memory by now. */
function nextPlace(
  pursuit: Pursuit,
  before: Followed,
  event: LinkEvent,
  bytes: number,
): LinkRef | undefined {
  const { at } = before;
  const last = findLink(pursuit.host, at);
  if (bytes !== before.bytes && !hasTunnel(pursuit, at.netns)) return undefined;
  if (event.kind === 'receive' && before.kind === 'transmit' && last?.kind === 'veth')
    return last.peer?.ifname === event.ifname ? last.peer : undefined;
  return linkIn(pursuit, at.netns, event.ifname);
}

/** Where a packet is that was not seen before: the probe itself, then a copy of it or an answer. */
function firstPlace(pursuit: Pursuit, event: LinkEvent, bytes: number): LinkRef | undefined {
  const { followed, seen } = pursuit;
  const { request } = pursuit.sender;
  if (event.kind === 'receive') return undefined;
  if (seen.length === 0 && followed.size === 0)
    return isWithin(requestBytes(request), bytes)
      ? linkIn(pursuit, request.netns, event.ifname)
      : undefined;
  const isAnswer = isWithin(answerBytes(request), bytes);
  return [...followed.values()]
    .filter((each) => isAnswer || each.bytes === bytes)
    .toReversed()
    .map((each) => linkIn(pursuit, each.at.netns, event.ifname))
    .find((at) => at !== undefined);
}

function pass(pursuit: Pursuit, event: LinkEvent): void {
  const { followed, seen } = pursuit;
  const before = followed.get(event.skb);
  const bytes = event.kind === 'receive' ? event.bytes : event.bytes - LINK_HEADER_BYTES;
  const at =
    (before && nextPlace(pursuit, before, event, bytes)) ?? firstPlace(pursuit, event, bytes);
  // Deleted first, so that it comes last.
  followed.delete(event.skb);
  if (!at) return;
  followed.set(event.skb, { at, kind: event.kind, bytes, seconds: event.seconds });
  if (event.kind === 'queue') return;
  const direction = event.kind === 'transmit' ? 'out' : 'in';
  if (direction === 'in') pursuit.received = { ...event, netns: at.netns };
  seen.push({ netns: at.netns, link: at.ifname, direction, afterUs: afterUs(pursuit, event) });
}

/** The netns of a packet that ends before any link has it; undefined where it is anybody's. */
function originOf(pursuit: Pursuit, event: DropEvent): NetnsName | undefined {
  const { sender, seen, followed, received } = pursuit;
  if (seen.length === 0 && followed.size === 0) {
    const isOwn = event.pid === sender.pid && event.isOfProcess;
    return isOwn || event === pursuit.unanswered ? sender.request.netns : undefined;
  }
  const isAnswer =
    sender.heard.kind !== 'answered' &&
    received?.cpu === event.cpu &&
    event.seconds - received.seconds < ANSWER_SECONDS;
  return isAnswer ? received?.netns : undefined;
}

/** The packet that ends, if it is one of those that are followed; others may have its memory by now. */
function endingOf({ followed }: Pursuit, event: DropEvent): Followed | undefined {
  const before = followed.get(event.skb);
  const isInTime =
    GIVES_UP_ON_NEIGHBOUR.test(event.location) ||
    (before && event.seconds - before.seconds < STAY_SECONDS);
  return isInTime ? before : undefined;
}

function drop(pursuit: Pursuit, event: DropEvent): void {
  const { skb, reason, location } = event;
  const before = endingOf(pursuit, event);
  pursuit.followed.delete(skb);
  const netns = before?.at.netns ?? originOf(pursuit, event);
  if (netns === undefined) return;
  const link = before?.at.ifname ?? null;
  pursuit.drops.push({ netns, link, reason, location, afterUs: afterUs(pursuit, event) });
}

/** Where the probe and its answer were seen and dropped, by the events since it was sent. */
export function followProbe(host: Host, sender: Sender, events: readonly KernelEvent[]): Sightings {
  const unanswered = events.findLast(
    (event) => event.kind === 'drop' && GIVES_UP_ON_NEIGHBOUR.test(event.location),
  );
  const { heard } = sender;
  // Told at once what the kernel gave up on: its own packet was the last.
  const wasGivenUp = heard.kind === 'refused' && heard.errno === 'EHOSTUNREACH';
  const pursuit: Pursuit = {
    host,
    sender,
    firstSeconds: events[0]?.seconds ?? 0,
    unanswered: wasGivenUp && unanswered?.kind === 'drop' ? unanswered : undefined,
    followed: new Map(),
    seen: [],
    drops: [],
    received: undefined,
  };
  for (const event of events) {
    if (event.kind === 'drop') drop(pursuit, event);
    else pass(pursuit, event);
  }
  return { seen: pursuit.seen, drops: pursuit.drops };
}
