/** A probe there and back: the answer to "can A reach B, and if not, why". */
import { type Cause, causeOf, formatCause } from './cause.ts';
import { innermost, isAnswer, isProbeMessage } from './frame.ts';
import { type ProbeRequest, probe } from './probe.ts';
import {
  type Hop,
  type SenderError,
  type Trace,
  type Verdict,
  formatHops,
  formatSenderError,
  formatVerdict,
} from './trace.ts';
import { type UnreadTable, formatUnread, unreadIn } from './unread.ts';
import type { World } from './world.ts';

export interface Journey {
  /** Whether the probe arrives, and its answer; null: not known, also where tables that are not read may keep it from that. */
  readonly reachable: { readonly there: boolean | null; readonly back: boolean | null };
  readonly verdict: Verdict;
  /** By which ICMP error the sender learns that its question does not arrive; null: by none. */
  readonly error: SenderError | 'unknown' | null;
  /** What is to blame; null where it arrives, and where that is not known. */
  readonly cause: Cause | null;
  readonly forward: readonly Hop[];
  readonly return: readonly Hop[];
  /** What packets passed as if it let them on unchanged: the verdict holds unless it does not. */
  readonly unread: readonly UnreadTable[];
}

/** Is this the answer on its way? */
export function isOfAnswer({ data }: Hop): boolean {
  const packet = innermost(data.kind === 'frame' ? data.packet : data);
  return packet.kind === 'ip' && isProbeMessage(packet.message) && isAnswer(packet.message);
}

/** Is it a fragment of the probe or of its answer, or of a tunnel's packet with it? */
export function isOfFragment({ data }: Hop): boolean {
  const packet = data.kind === 'frame' ? data.packet : data;
  return packet.kind === 'ip' && packet.fragment !== undefined;
}

/** The way back begins with the first hop of the answer. */
function split({ hops }: Trace): readonly [Hop[], Hop[]] {
  const first = hops.findIndex(isOfAnswer);
  return first < 0 ? [[...hops], []] : [hops.slice(0, first), hops.slice(first)];
}

/** Sends a probe, and says whether it arrives, whether its answer does, and what is to blame if not. Throws as `probe` does. */
export function travel(world: World, request: ProbeRequest): Journey {
  const trace = probe(world, request);
  const { verdict, error } = trace;
  const [forward, back] = split(trace);
  const unread = unreadIn(trace.hops);
  const open = verdict.kind === 'unknown' ? null : false;
  const arrives = unreadIn(forward).length === 0 ? true : null;
  const returns = unread.length === 0 ? true : null;
  return {
    reachable: {
      there: back.length > 0 ? arrives : open,
      back: verdict.kind === 'delivered' ? returns : open,
    },
    verdict,
    error,
    cause: verdict.kind === 'dropped' ? causeOf(world.host, verdict) : null,
    forward,
    return: back,
    unread,
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
function condition({ unread, verdict }: Journey): string {
  if (unread.length === 0) return '';
  const what = verdict.kind === 'dropped' ? 'changes it' : 'drops or changes it';
  return unread.length === 1
    ? `, unless a table that is not read ${what}`
    : `, unless one of ${unread.length} tables that are not read ${what}`;
}

function headline(journey: Journey, marks: Marks): string {
  const { verdict, unread } = journey;
  const unless = condition(journey);
  if (verdict.kind === 'delivered') {
    const mark = unread.length === 0 ? marks.green('✓') : marks.yellow('?');
    return `${mark} it arrives, and the answer too${unless}`;
  }
  const arrives = journey.return.length > 0;
  if (verdict.kind === 'unknown') {
    const what = arrives ? 'it arrives; whether the answer does' : 'whether it arrives';
    return `${marks.yellow('?')} ${what} is not known: ${formatVerdict(verdict)}`;
  }
  return `${marks.red('✗')} ${arrives ? 'it arrives, and the answer does not come back' : 'it does not arrive'}${unless}`;
}

/**
 * A journey in lines: the hops there and back, how it ended, and what is to blame with what would mend it. `gutter`
 * gives the two columns before each hop, by its number from 0 over both ways.
 */
export function formatJourney(
  journey: Journey,
  marks: Marks = PLAIN,
  gutter: (hop: number) => string = () => '  ',
): string[] {
  const { forward, cause, error, unread } = journey;
  return [
    marks.bold('there'),
    ...formatHops(forward).map((line, index) => `${gutter(index)}${line}`),
    ...(journey.return.length > 0 ? [marks.bold('back')] : []),
    ...formatHops(journey.return).map((line, index) => `${gutter(forward.length + index)}${line}`),
    headline(journey, marks),
    ...(error !== null && error !== 'unknown' ? [`  ${formatSenderError(error)}`] : []),
    ...(cause ? [`  ${formatCause(cause)}`] : []),
    ...(cause?.mend ?? []).map((line) => marks.dim(`    ${line}`)),
    ...unread.flatMap((table) => [`  ${formatUnread(table)}`, marks.dim(`    ${table.show}`)]),
  ];
}
