/** What becomes of a probe where rules draw otherwise: chance decides, and a trace shows one of its ways. */
import { causeOf } from './blame/cause-of.ts';
import { type Cause, formatCause } from './cause.ts';
import { type ProbeRequest, outcomeOf, probe } from './probe.ts';
import { type Outcome, type Verdict, formatVerdict } from './trace.ts';
import type { World } from './world.ts';

/** Another end than that of the draw that is shown. */
export interface OtherEnd {
  readonly verdict: Verdict;
  /** What is to blame; null where it arrives, and where that is not known. */
  readonly cause: Cause | null;
  /** The seeds by which it comes to that. */
  readonly seeds: readonly number[];
}

/** What chance has to do with how a probe ends. */
export interface Chance {
  /** How often a rule has drawn. */
  readonly draws: number;
  /** How many other draws were tried. */
  readonly tried: number;
  /** How those end that do not end as the one that is shown. */
  readonly others: readonly OtherEnd[];
}

/** So many seeds, from 0: of as many endpoints one that is broken is missed in one trace of a hundred. */
const TRIED = 64;

/** How it ends, in words: ends with one cause are one. */
function endText({ verdict, cause }: Pick<OtherEnd, 'verdict' | 'cause'>): string {
  return cause ? formatCause(cause) : formatVerdict(verdict);
}

/** Who is to blame, for which the way of the packet is needed too. */
function findCause(world: World, request: ProbeRequest, verdict: Verdict): Cause | null {
  if (verdict.kind !== 'dropped') return null;
  const { hops } = probe(world, request);
  return causeOf({ world, request, hops }, verdict);
}

/** What other draws come to; null where nothing was drawn, or a seed decides. */
export function otherDraws(
  world: World,
  request: ProbeRequest,
  shown: Pick<Outcome, 'verdict' | 'draws'> & { readonly cause: Cause | null },
): Chance | null {
  const { draws } = shown;
  if (draws === 0 || world.seed !== null) return null;
  const ends = new Map<string, OtherEnd>();
  for (let seed = 0; seed < TRIED; seed += 1) {
    const drawn = { ...world, seed };
    const { verdict } = outcomeOf(drawn, request);
    const end = { verdict, cause: findCause(drawn, request, verdict) };
    const text = endText(end);
    if (text === endText(shown)) continue;
    ends.set(text, { ...end, seeds: [...(ends.get(text)?.seeds ?? []), seed] });
  }
  return { draws, tried: TRIED, others: [...ends.values()] };
}

/** Do other draws arrive where this one does not, or the other way round, or is that not known of them? */
export function decidesArrival(
  { verdict }: Pick<Outcome, 'verdict'>,
  chance: Chance | null,
): boolean {
  return chance?.others.some((other) => other.verdict.kind !== verdict.kind) === true;
}

function formatOther(end: OtherEnd, tried: number): string {
  return `${end.seeds.length} of ${tried} other draws: ${endText(end)}`;
}

/** In lines, the first of which says what was drawn. */
export function formatChance({ draws, tried, others }: Chance): readonly string[] {
  const times = draws === 1 ? 'a rule draws' : `rules draw ${draws} times`;
  const same = others.length === 0 ? `; ${tried} other draws end the same way` : '';
  return [
    `by chance: ${times}, shown is the first of what can come${same}`,
    ...others.map((other) => formatOther(other, tried)),
  ];
}
