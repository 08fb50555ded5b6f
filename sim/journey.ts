/** A probe there and back, of TCP with what acknowledges the answer: the answer to "can A reach B, and if not, why". */
import type { Ip } from '../model/ip.ts';
import { causeOf } from './blame/cause-of.ts';
import { type Untranslated, findUntranslated, formatUntranslated } from './blame/untranslated.ts';
import { type Cause, formatCause } from './cause.ts';
import { hiddenCopies } from './copies.ts';
import {
  type ProbeMessage,
  innermost,
  isAcknowledgement,
  isAnswer,
  isProbeMessage,
} from './frame.ts';
import { type Chance, decidesArrival, formatChance, otherDraws } from './other-draws.ts';
import { type ProbeRequest, probe } from './probe.ts';
import {
  type Hop,
  type SenderError,
  type Verdict,
  formatHops,
  formatPlace,
  formatSenderError,
  formatVerdict,
} from './trace.ts';
import { type UnreadTable, formatUnread, unreadIn } from './unread.ts';
import type { World } from './world.ts';

export interface Journey {
  /** Whether the probe arrives, and its answer; null: not known, also where tables that are not read may keep it from that. Of TCP what acknowledges the answer has to arrive too: without it nothing more does. */
  readonly reachable: { readonly there: boolean | null; readonly back: boolean | null };
  readonly verdict: Verdict;
  /** By which ICMP error the sender learns that its question does not arrive; null: by none. */
  readonly error: SenderError | 'unknown' | null;
  /** What is to blame; null where it arrives, and where that is not known. */
  readonly cause: Cause | null;
  /** The destination is a service's, which rules translate for other ports than this; null where it arrives, and where that is not seen. */
  readonly untranslated: Untranslated | null;
  readonly forward: readonly Hop[];
  readonly return: readonly Hop[];
  /** Of TCP: what acknowledges the answer, which opens the connection. */
  readonly acknowledgement: readonly Hop[];
  /** What packets passed as if it let them on unchanged: the verdict holds unless it does not. */
  readonly unread: readonly UnreadTable[];
  /** What was drawn by chance, or hung on what rules had counted; null: nothing was. */
  readonly chance: Chance | null;
}

function probeAt({ data }: Hop): ProbeMessage | undefined {
  const packet = innermost(data.kind === 'frame' ? data.packet : data);
  return packet.kind === 'ip' && isProbeMessage(packet.message) ? packet.message : undefined;
}

/** Is this the answer on its way? */
export function isOfAnswer(hop: Hop): boolean {
  const message = probeAt(hop);
  return message !== undefined && isAnswer(message);
}

function isOfAcknowledgement(hop: Hop): boolean {
  const message = probeAt(hop);
  return message !== undefined && isAcknowledgement(message);
}

/** Is it a fragment of the probe or of its answer, or of a tunnel's packet with it? */
export function isOfFragment({ data }: Hop): boolean {
  const packet = data.kind === 'frame' ? data.packet : data;
  return packet.kind === 'ip' && packet.fragment !== undefined;
}

/** All its hops, in their order. */
export function hopsOf({ forward, return: back, acknowledgement }: Journey): readonly Hop[] {
  return [...forward, ...back, ...acknowledgement];
}

/** Hops up to the first that is one of these, and from there on. */
function cut(hops: readonly Hop[], isNext: (hop: Hop) => boolean): readonly [Hop[], Hop[]] {
  const first = hops.findIndex(isNext);
  return first < 0 ? [[...hops], []] : [hops.slice(0, first), hops.slice(first)];
}

/** Sends a probe, and says whether it arrives, whether its answer does, and what is to blame if not. Throws as `probe` does. */
export function travel(world: World, request: ProbeRequest): Journey {
  const trace = probe(world, request);
  const { verdict, error } = trace;
  const [forward, later] = cut(trace.hops, isOfAnswer);
  const [back, acknowledgement] = cut(later, isOfAcknowledgement);
  const unread = unreadIn(trace.hops);
  const inquiry = { world, request, hops: trace.hops };
  const open = verdict.kind === 'unknown' ? null : false;
  const arrives = unreadIn([...forward, ...acknowledgement]).length === 0 ? true : null;
  const returns = unread.length === 0 ? true : null;
  const isAnswered = verdict.kind === 'delivered' || acknowledgement.length > 0;
  const isLostAfterwards = verdict.kind !== 'delivered' && acknowledgement.length > 0;
  const cause = verdict.kind === 'dropped' ? causeOf(inquiry, verdict) : null;
  const chance = otherDraws(world, request, { ...trace, cause });
  const there = back.length > 0 && !isLostAfterwards ? arrives : open;
  return {
    reachable: decidesArrival(trace, chance)
      ? { there: null, back: null }
      : { there, back: isAnswered ? returns : open },
    verdict,
    error,
    cause,
    untranslated:
      verdict.kind === 'delivered' ? null : findUntranslated({ ...inquiry, hops: forward }),
    forward,
    return: back,
    acknowledgement,
    unread,
    chance,
  };
}

/** How the parts of a journey are marked, in a terminal by colours. */
export interface Marks {
  readonly bold: (text: string) => string;
  readonly dim: (text: string) => string;
  readonly green: (text: string) => string;
  readonly red: (text: string) => string;
  readonly yellow: (text: string) => string;
}

const plain = (text: string): string => text;
const PLAIN: Marks = { bold: plain, dim: plain, green: plain, red: plain, yellow: plain };

/** On what an end hangs beside what is known. */
function condition({ unread, verdict, chance }: Journey): string {
  const byDraw = decidesArrival({ verdict }, chance) ? ', by this draw' : '';
  if (unread.length === 0) return byDraw;
  const what = verdict.kind === 'dropped' ? 'changes it' : 'drops or changes it';
  return unread.length === 1
    ? `${byDraw}, unless a table that is not read ${what}`
    : `${byDraw}, unless one of ${unread.length} tables that are not read ${what}`;
}

function headline(journey: Journey, marks: Marks): string {
  const { verdict } = journey;
  const unless = condition(journey);
  if (verdict.kind === 'delivered') {
    const mark = unless === '' ? marks.green('✓') : marks.yellow('?');
    return `${mark} it arrives, and the answer too${unless}`;
  }
  if (verdict.kind === 'unknown' && verdict.leaves)
    return `${marks.yellow('?')} ${leaving(journey, verdict.leaves)}, by ${formatPlace(verdict)}; what becomes of it there is not known`;
  const { open, lost } = endsOf(journey);
  return verdict.kind === 'unknown'
    ? `${marks.yellow('?')} ${open} is not known: ${formatVerdict(verdict)}`
    : `${decidesArrival(journey, journey.chance) ? marks.yellow('?') : marks.red('✗')} ${lost}${unless}`;
}

function leaving(
  journey: Journey,
  { source, destination }: { readonly source: Ip; readonly destination: Ip },
): string {
  const what = journey.return.length > 0 ? 'it arrives, and the answer' : 'it';
  return `${what} leaves this host from ${source} to ${destination}`;
}

/** What is not known at its end, and what is lost. */
function endsOf(journey: Journey): { readonly open: string; readonly lost: string } {
  if (journey.acknowledgement.length > 0)
    return {
      open: 'it arrives, and the answer too; whether anything after that does',
      lost: 'it arrives, and the answer too, and nothing after that arrives',
    };
  return journey.return.length > 0
    ? {
        open: 'it arrives; whether the answer does',
        lost: 'it arrives, and the answer does not come back',
      }
    : { open: 'whether it arrives', lost: 'it does not arrive' };
}

/** What acknowledges an answer, where it does not just go as what was answered did. */
function formatAcknowledgement(journey: Journey, marks: Marks): string[] {
  const { acknowledgement, verdict, unread } = journey;
  if (acknowledgement.length === 0) return [];
  if (verdict.kind === 'delivered' && unread.length === 0)
    return [marks.dim(`and there again: its acknowledgement, over ${acknowledgement.length} hops`)];
  return [marks.bold('there again'), ...formatHops(acknowledgement).map((line) => `  ${line}`)];
}

/** What stands beside the hops of a journey. */
export interface Beside {
  /** The two columns before each hop there and back, by its number from 0 over both ways. */
  readonly gutter: (hop: number) => string;
  /** Lines below a hop. */
  readonly below: (hop: Hop) => readonly string[];
}

const NOTHING: Beside = { gutter: () => '  ', below: () => [] };

function formatWay(hops: readonly Hop[], first: number, { gutter, below }: Beside): string[] {
  const hidden = hiddenCopies(hops);
  const shown = hops.flatMap((hop, index) => (hidden.hops.has(index) ? [] : [{ hop, index }]));
  const lines = formatHops(shown.map(({ hop }) => hop));
  const texts = shown.map(({ hop, index }, place) => ({
    index,
    lines: [
      `${gutter(first + index)}${lines[place]}`,
      ...below(hop).map((line) => `      ${line}`),
    ],
  }));
  const counted = [...hidden.counts].map(([index, count]) => ({
    index,
    lines: [`  ... and ${count} others like these, which are not for whom they come to`],
  }));
  return [...texts, ...counted].toSorted((a, b) => a.index - b.index).flatMap((each) => each.lines);
}

/** A journey in lines: the hops there and back, how it ended, and what is to blame with what would mend it. */
export function formatJourney(
  journey: Journey,
  marks: Marks = PLAIN,
  beside: Partial<Beside> = {},
): string[] {
  const { forward, cause, error, unread } = journey;
  const all = { ...NOTHING, ...beside };
  return [
    marks.bold('there'),
    ...formatWay(forward, 0, all),
    ...(journey.return.length > 0 ? [marks.bold('back')] : []),
    ...formatWay(journey.return, forward.length, all),
    ...formatAcknowledgement(journey, marks),
    headline(journey, marks),
    ...(error !== null && error !== 'unknown' ? [`  ${formatSenderError(error)}`] : []),
    ...(cause ? [`  ${formatCause(cause)}`] : []),
    ...(cause?.mend ?? []).map((line) => marks.dim(`    ${line}`)),
    ...(journey.untranslated ? [`  ${formatUntranslated(journey.untranslated)}`] : []),
    ...(journey.chance ? formatChance(journey.chance) : []).map((line) => `  ${line}`),
    ...unread.flatMap((table) => [`  ${formatUnread(table)}`, marks.dim(`    ${table.show}`)]),
  ];
}
