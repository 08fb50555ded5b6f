/** A predicted journey beside what the kernel did with a real packet. */
import type { ProbeOutcome } from '../../backends/probe.ts';
import type { Host } from '../../model/host.ts';
import { type Beside, type Journey, type Marks, formatJourney } from '../../sim/journey.ts';
import { kernelReason } from '../../sim/reason.ts';
import { type Hop, type Verdict, formatPlace } from '../../sim/trace.ts';
import type { UnreadTable } from '../../sim/unread.ts';
import { type Crossing, crossingsOf } from './crossing.ts';
import type { KernelDrop, Sightings } from './sighting.ts';

/** What was seen of a probe. */
export interface Observation extends Sightings {
  readonly outcome: ProbeOutcome;
  /** Events that did not fit into the kernel's buffers: what is not seen may have been there. */
  readonly lostEvents: number;
  /** How long it was waited. */
  readonly waitedMs: number;
}

export interface Comparison {
  readonly prediction: Journey;
  readonly observed: Observation;
  /** For each hop there, then back, but not of what acknowledges the answer of TCP: seen as predicted, not seen, or null where the kernel has nothing to tell. */
  readonly hops: readonly (boolean | null)[];
  /** Was something not seen that may have been among the events that were lost? */
  readonly isBlurred: boolean;
  /** Is it predicted by a draw of rules that agrees with the kernel, since the first of what can come does not? */
  readonly isRedrawn: boolean;
  /** The first thing in which they differ; null where they agree. */
  readonly parting: string | null;
}

type Dropped = Verdict & { readonly kind: 'dropped' };

/** What the sender's kernel answers where it makes no packet at all. */
const REFUSALS: Partial<Record<Dropped['reason'], readonly string[]>> = {
  IP_OUTNOROUTES: ['ENETUNREACH', 'EHOSTUNREACH', 'EACCES', 'EINVAL'],
  PKT_TOO_BIG: ['EMSGSIZE'],
  NEIGH_FAILED: ['EHOSTUNREACH'],
};

/** Has the other end been reached, whether it has the port or not? A rule may refuse in its name, which the kernel tells. */
function isAnswered({ outcome, drops }: Observation): boolean {
  return (
    outcome.kind === 'answered' ||
    (outcome.kind === 'refused' &&
      outcome.errno === 'ECONNREFUSED' &&
      !drops.some(({ reason }) => reason === 'NETFILTER_DROP'))
  );
}

/** Did the kernel do that to the packet, as far as it says? Names have changed between kernels. */
function isThatDrop(verdict: Dropped, { netns, reason }: KernelDrop): boolean {
  if (netns !== verdict.netns) return false;
  if (reason === null || reason === 'NOT_SPECIFIED') return true;
  return reason === kernelReason(verdict.reason) || reason === verdict.reason;
}

function isThatRefusal({ reason, text }: Dropped, outcome: ProbeOutcome): boolean {
  if (outcome.kind !== 'refused') return false;
  return reason === 'SOCKET_REFUSED'
    ? text.startsWith(`${outcome.errno}:`)
    : REFUSALS[reason]?.includes(outcome.errno) === true;
}

/** Is it still waiting for its next hop? Whoever waits for less time than the kernel asks for does not see its end. */
function mayStillWait({ reason, netns, link }: Dropped, observed: Observation): boolean {
  return (
    reason === 'NEIGH_FAILED' &&
    observed.outcome.kind === 'silent' &&
    weighty(observed).length === 0 &&
    // What was seen there is the question, where that was dropped as one for a group.
    (observed.drops.some(isOfGroup) ||
      !observed.seen.some(
        (each) => each.netns === netns && each.link === link && each.direction === 'out',
      ))
  );
}

/** Had the answer no route? Then its kernel has made no packet of it, and tells of none. */
function isUnmade(journey: Journey, { reason }: Dropped, observed: Observation): boolean {
  return (
    reason === 'IP_OUTNOROUTES' &&
    journey.reachable.there === true &&
    observed.outcome.kind === 'silent' &&
    weighty(observed).length === 0
  );
}

/** Who leaves echoes unanswered drops nothing. */
function isIgnored({ reason }: Dropped, observed: Observation): boolean {
  return (
    reason === 'ECHO_IGNORED' &&
    observed.outcome.kind === 'silent' &&
    weighty(observed).length === 0
  );
}

function formatDrop({ netns, link, reason, location }: KernelDrop): string {
  return `dropped in ${formatPlace({ netns, link })}: ${reason ?? 'no reason given'}, by ${location}`;
}

/** Ends of copies for others, and of an answer that a second socket does not want, say nothing about the probe. */
const OF_NO_WEIGHT: ReadonlySet<string | null> = new Set(['OTHERHOST', 'NO_SOCKET']);

/** Is it a packet for a group, which no probe is? A question of neighbour discovery is as long as some SYN, and is taken for it. */
function isOfGroup({ location }: KernelDrop): boolean {
  return /^ip6_mc_input\b/.test(location);
}

function weighty({ drops }: Observation): readonly KernelDrop[] {
  return drops.filter((drop) => !OF_NO_WEIGHT.has(drop.reason) && !isOfGroup(drop));
}

/** What the kernel did with it, in words. */
function formatEnding(observed: Observation): string {
  const { outcome, drops, waitedMs } = observed;
  if (outcome.kind === 'answered') return 'the answer came';
  if (isAnswered(observed)) return 'the answer came: nobody there has the port';
  const [first] = [...weighty(observed), ...drops];
  if (first) return formatDrop(first);
  if (outcome.kind === 'silent') return `no answer within ${waitedMs} ms, and no drop`;
  return outcome.during === 'send'
    ? `refused the sender: ${outcome.errno}`
    : `told the sender ${outcome.errno}`;
}

/** Whoever has a UDP port need not answer. */
function isSilentReceiver(observed: Observation, isUdp: boolean): boolean {
  return isUdp && observed.outcome.kind === 'silent' && weighty(observed).length === 0;
}

function partingOfEnds(journey: Journey, observed: Observation, isUdp: boolean): string | null {
  const { verdict } = journey;
  const answered = isAnswered(observed);
  switch (verdict.kind) {
    case 'unknown':
      return null;
    case 'delivered':
      return answered || isSilentReceiver(observed, isUdp)
        ? null
        : 'an answer was predicted, and none came';
    case 'dropped': {
      // Of what acknowledges an answer nothing is looked at.
      if (journey.acknowledgement.length > 0)
        return answered ? null : 'an answer was predicted, and none came';
      if (answered) return `${verdict.reason} was predicted, and the answer came`;
      // It was to be of the answer, and there was none.
      if (journey.reachable.there === true && isSilentReceiver(observed, isUdp)) return null;
      const isThat =
        observed.drops.some((each) => isThatDrop(verdict, each)) ||
        isThatRefusal(verdict, observed.outcome) ||
        mayStillWait(verdict, observed) ||
        isIgnored(verdict, observed) ||
        isUnmade(journey, verdict, observed);
      return isThat ? null : `${verdict.reason} in ${formatPlace(verdict)} was predicted`;
    }
  }
}

function isUnseen(crossing: Crossing & { readonly isSeen: boolean }): boolean {
  return crossing.isNeeded && !crossing.isSeen;
}

/** Which crossings were seen: each sighting stands for one. */
function mark(
  crossings: readonly (readonly Crossing[])[],
  { seen }: Sightings,
): readonly (readonly (Crossing & { readonly isSeen: boolean })[])[] {
  const left = [...seen];
  return crossings.map((ofHop) =>
    ofHop.map((crossing) => {
      const { netns, link, direction } = crossing;
      const index = left.findIndex(
        (each) => each.netns === netns && each.link === link && each.direction === direction,
      );
      if (index >= 0) left.splice(index, 1);
      return { ...crossing, isSeen: index >= 0 };
    }),
  );
}

function comparedHops({ forward, return: back }: Journey): readonly Hop[] {
  return [...forward, ...back];
}

/** Where the answer of a datagram goes that nobody sent, nothing can be seen. */
function looked(journey: Journey, observed: Observation, isUdp: boolean): readonly Hop[] {
  const isWithoutAnswer = isUdp && !isAnswered(observed);
  const isOwnAnswer = isUdp && observed.outcome.kind === 'answered';
  return isWithoutAnswer || isOwnAnswer ? journey.forward : comparedHops(journey);
}

/** Compares them. Packets of ARP and ND are left out: whom the kernel knows already it does not ask. */
export function compare(
  host: Host,
  journey: Journey,
  observed: Observation,
  protocol: 'icmp' | 'udp' | 'tcp',
): Comparison {
  const isUdp = protocol === 'udp';
  const marked = mark(crossingsOf(host, looked(journey, observed, isUdp)), observed);
  const missing = marked.flat().find(isUnseen);
  const isBlurred = missing !== undefined && observed.lostEvents > 0;
  const unseen = isBlurred ? undefined : missing;
  const ends = partingOfEnds(journey, observed, isUdp);
  const parting = unseen
    ? `${formatPlace(unseen)} ${unseen.direction === 'out' ? 'sent' : 'received'} nothing of it`
    : ends;
  const { verdict } = journey;
  const hops = comparedHops(journey).map((hop, index) => {
    const ofHop = marked[index] ?? [];
    if (ofHop.length > 0) return ofHop.some(({ isSeen }) => isSeen) && !ofHop.some(isUnseen);
    const isVerdict =
      verdict.kind === 'dropped' && hop.decision.startsWith(`dropped, ${verdict.reason}`);
    return isVerdict ? ends === null : null;
  });
  return { prediction: journey, observed, hops, isBlurred, isRedrawn: false, parting };
}

/** For machines. */
export function comparisonJson(comparison: Comparison): object {
  const { prediction, observed, hops, parting, isRedrawn } = comparison;
  const { seen, drops, outcome, lostEvents } = observed;
  const agrees = parting === null;
  return { prediction, hops, seen, drops, outcome, lostEvents, isRedrawn, agrees, parting };
}

function gutter(isSeen: boolean | null | undefined, marks: Marks): string {
  if (isSeen === true) return `${marks.green('✓')} `;
  return isSeen === false ? `${marks.red('✗')} ` : '  ';
}

/** The tables that are not read and may have done otherwise than was predicted: where a packet was dropped for no other reason, those there. */
function suspects({ prediction, observed, parting }: Comparison): readonly UnreadTable[] {
  if (parting === null) return [];
  const [drop] = weighty(observed);
  if (!drop) return prediction.unread;
  const isUnexplained = [null, 'NOT_SPECIFIED', 'NETFILTER_DROP'].includes(drop.reason);
  return prediction.unread.filter(({ netns }) => isUnexplained && netns === drop.netns);
}

function formatParting({ prediction, observed, parting }: Comparison, marks: Marks): string[] {
  const ending = formatEnding(observed);
  if (parting !== null)
    return [`${marks.red('✗')} prediction and kernel part: ${parting}`, `  the kernel: ${ending}`];
  return prediction.verdict.kind === 'unknown'
    ? [`${marks.yellow('?')} they agree as far as the prediction goes; the kernel: ${ending}`]
    : [`${marks.green('✓')} prediction and kernel agree: ${ending}`];
}

/** The prediction with a mark before each hop of which the kernel tells, and whether they agree. */
export function formatComparison(
  comparison: Comparison,
  marks: Marks,
  below: Beside['below'] = () => [],
): string[] {
  const { prediction, observed, hops, isBlurred } = comparison;
  const lost = `? ${observed.lostEvents} events were lost: what is not seen may have been there`;
  const redrawn = 'what rules draw by chance is shown as the kernel has drawn it';
  return [
    ...formatJourney(prediction, marks, { gutter: (index) => gutter(hops[index], marks), below }),
    ...(comparison.isRedrawn ? [`  ${redrawn}`] : []),
    ...(isBlurred ? [marks.yellow(lost)] : []),
    ...formatParting(comparison, marks),
    ...suspects(comparison).map(
      ({ netns, object }) => `  it may be of ${object} in netns ${netns}, which is not read`,
    ),
  ];
}
