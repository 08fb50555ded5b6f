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
  readonly cpu: number;
  readonly seconds: number;
}

/** Where it is that a packet waits for its neighbour, of which nothing else tells (net/core/neighbour.c, neigh_invalidate). */
const GIVES_UP_ON_NEIGHBOUR = /^(?:neigh_invalidate|arp_error_report|ndisc_error_report)\b/;

/** How soon a question is answered, or a packet copied, by the CPU that has it, which does nothing else in between. */
const ANSWER_SECONDS = 100e-6;

/** What can end an answer before any link has it; others are of packets that arrive. */
const OF_SENDING =
  /^(?:NETFILTER_DROP|IP_OUTNOROUTES|NEIGH_|NOT_SPECIFIED|PKT_TOO_BIG|BPF_CGROUP_EGRESS)/;

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
  /** All of them, from the probe's own first on. */
  readonly events: readonly KernelEvent[];
  readonly firstSeconds: number;
  /** The last packet of anybody for whose next hop nobody answered: the sender's own, where it has just heard that. */
  readonly unanswered: DropEvent | undefined;
  /** By skb, the one of the last event last. */
  readonly followed: Map<string, Followed>;
  readonly seen: Sighting[];
  readonly drops: KernelDrop[];
  /** Has the question been answered by the CPU that received it? Then no later packet is an answer. */
  wasAnsweredAtOnce: boolean;
  /** Where it was received last. */
  received:
    | (Pick<LinkEvent, 'cpu' | 'seconds' | 'skb'> & { readonly netns: NetnsName })
    | undefined;
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

function isSoonAfter(
  event: KernelEvent,
  before: { readonly cpu: number; readonly seconds: number },
): boolean {
  const seconds = event.seconds - before.seconds;
  return event.cpu === before.cpu && seconds >= 0 && seconds < ANSWER_SECONDS;
}

function isAnswer({ sender }: Pursuit, bytes: number): boolean {
  return isWithin(answerBytes(sender.request), bytes);
}

/** Is there an answer at once, where the question was received last? */
function isAnsweredAtOnce(pursuit: Pursuit): boolean {
  const { received, events } = pursuit;
  return (
    received !== undefined &&
    events.some(
      (event) =>
        (event.kind === 'queue' || event.kind === 'transmit') &&
        isSoonAfter(event, received) &&
        isAnswer(pursuit, event.bytes - LINK_HEADER_BYTES) &&
        linkIn(pursuit, received.netns, event.ifname) !== undefined,
    )
  );
}

/** Where a packet is that was not seen before: the probe itself, then a copy of it or an answer, which come at once, but where a neighbour has to be asked for, or a process answers. */
function firstPlace(pursuit: Pursuit, event: LinkEvent, bytes: number): LinkRef | undefined {
  const { followed, seen } = pursuit;
  const { request } = pursuit.sender;
  if (event.kind === 'receive') return undefined;
  if (seen.length === 0 && followed.size === 0)
    return isWithin(requestBytes(request), bytes)
      ? linkIn(pursuit, request.netns, event.ifname)
      : undefined;
  const mayAnswer = isAnswer(pursuit, bytes);
  const origins = [...followed.values()].filter((each) => mayAnswer || each.bytes === bytes);
  const near = origins.filter((each) => isSoonAfter(event, each));
  pursuit.wasAnsweredAtOnce ||= isAnsweredAtOnce(pursuit);
  const from = near.length > 0 || !mayAnswer || pursuit.wasAnsweredAtOnce ? near : origins;
  return from
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
  const { kind, cpu, seconds } = event;
  followed.set(event.skb, { at, kind, bytes, cpu, seconds });
  if (event.kind === 'queue') return;
  const direction = event.kind === 'transmit' ? 'out' : 'in';
  if (direction === 'in') pursuit.received = { ...event, netns: at.netns };
  seen.push({ netns: at.netns, link: at.ifname, direction, afterUs: afterUs(pursuit, event) });
}

/** Is what was received last sent on after this event? Then that is of something that a router says itself, as of a shorter way. */
function goesOn({ received, events }: Pursuit, event: DropEvent): boolean {
  return events.some(
    (later) =>
      later.kind === 'queue' &&
      later.skb === received?.skb &&
      later.seconds >= event.seconds &&
      later.seconds - received.seconds < STAY_SECONDS,
  );
}

/** The netns of a packet that ends before any link has it; undefined where it is anybody's. */
function originOf(pursuit: Pursuit, event: DropEvent): NetnsName | undefined {
  const { sender, seen, followed, received } = pursuit;
  if (seen.length === 0 && followed.size === 0) {
    const isOwn = event.pid === sender.pid && event.isOfProcess;
    return isOwn || event === pursuit.unanswered ? sender.request.netns : undefined;
  }
  const isOfAnswer =
    sender.heard.kind !== 'answered' &&
    received !== undefined &&
    isSoonAfter(event, received) &&
    !goesOn(pursuit, event) &&
    (event.reason === null || OF_SENDING.test(event.reason));
  return isOfAnswer ? received.netns : undefined;
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

/**
 * The event by which the sender's process gives its probe to a link, by its number. Where that waits for a neighbour's answer it
 * is given in an interrupt, mostly one that takes the same process's time; -1 where there is none.
 */
function sentAt(host: Host, { request, pid }: Sender, events: readonly KernelEvent[]): number {
  const mayBe = (event: KernelEvent): boolean =>
    event.kind === 'queue' &&
    event.pid === pid &&
    isWithin(requestBytes(request), event.bytes - LINK_HEADER_BYTES) &&
    findLink(host, { netns: request.netns, ifname: event.ifname as Ifname }) !== undefined;
  const asked = events.findIndex((event) => event.isOfProcess && mayBe(event));
  return asked < 0 ? events.findIndex(mayBe) : asked;
}

/** Where the probe and its answer were seen and dropped, by the events since it was sent. */
export function followProbe(host: Host, sender: Sender, all: readonly KernelEvent[]): Sightings {
  const first = sentAt(host, sender, all);
  const events = all.slice(Math.max(0, first));
  const unanswered = events.findLast(
    (event) => event.kind === 'drop' && GIVES_UP_ON_NEIGHBOUR.test(event.location),
  );
  const { heard } = sender;
  // Told at once what the kernel gave up on: its own packet was the last.
  const wasGivenUp = heard.kind === 'refused' && heard.errno === 'EHOSTUNREACH';
  const pursuit: Pursuit = {
    host,
    sender,
    events,
    firstSeconds: events[0]?.seconds ?? 0,
    unanswered: wasGivenUp && unanswered?.kind === 'drop' ? unanswered : undefined,
    followed: new Map(),
    seen: [],
    drops: [],
    wasAnsweredAtOnce: false,
    received: undefined,
  };
  // Then it was never sent: links tell of others only.
  const isUnsent = first < 0 && pursuit.unanswered !== undefined;
  for (const event of isUnsent ? events.filter(({ kind }) => kind === 'drop') : events) {
    if (event.kind === 'drop') drop(pursuit, event);
    else pass(pursuit, event);
  }
  return { seen: pursuit.seen, drops: pursuit.drops };
}
