/** Counts what a run of many programs has seen. Plain JSON, so that several processes can add up theirs. */
import type { Op } from '../../model/op.ts';
import { LINK_LOCAL_PINS, PINS } from '../arbitraries/sysctl-op.ts';
import type { ProgramRun } from './program-run.ts';
import { OUT_OF_REACH, reachableRules } from './rules.ts';

type Counts = Record<string, number>;

/** How often each thing was seen. */
export interface Tally {
  programs: number;
  /** Those that were drawn. */
  ops: number;
  /** Those that only make a netns ready. */
  settings: number;
  /** By kind of operation. */
  readonly done: Counts;
  readonly refused: Counts;
  /** By kind of operation and errno. */
  readonly errnos: Counts;
  /** Refusals that both sides give in other words. */
  readonly texts: Counts;
  /** Rules of docs/kernel-rules.md that were at work, in the words of `reachableRules`. */
  readonly rules: Counts;
  /** Programs that parted in a known way (divergences.ts), by its id. */
  readonly known: Counts;
}

export function makeTally(): Tally {
  return {
    programs: 0,
    ops: 0,
    settings: 0,
    done: {},
    refused: {},
    errnos: {},
    texts: {},
    rules: {},
    known: {},
  };
}

function count(counts: Counts, key: string, by = 1): void {
  counts[key] = (counts[key] ?? 0) + by;
}

const PINNED: ReadonlySet<string> = new Set([...PINS, ...LINK_LOCAL_PINS].map(([key]) => key));

/** Which operations say the settings of a netns that was just made. */
function settingsOf(ops: readonly Op[]): ReadonlySet<number> {
  const settings = new Set<number>();
  for (const [i, op] of ops.entries()) {
    const isFirst = ops[i - 1]?.op === 'netns.add' || settings.has(i - 1);
    if (op.op === 'sysctl.set' && PINNED.has(op.key) && isFirst) settings.add(i);
  }
  return settings;
}

/** Adds the answers of one program. */
export function addRun(tally: Tally, ops: readonly Op[], run: ProgramRun): void {
  tally.programs += 1;
  const settings = settingsOf(ops);
  for (const [i, answer] of run.answers.entries()) {
    const { op } = ops[i] as Op;
    if (settings.has(i)) {
      tally.settings += 1;
      continue;
    }
    tally.ops += 1;
    count(answer === undefined ? tally.done : tally.refused, op);
    if (answer !== undefined) count(tally.errnos, `${op} ${answer}`);
    for (const rule of run.rules[i] ?? []) count(tally.rules, rule);
  }
  for (const text of run.texts) count(tally.texts, text);
  if (run.divergence?.known !== undefined) count(tally.known, run.divergence.known);
}

/** What several have counted. */
export function sumOf(tallies: Iterable<Tally>): Tally {
  const sum = makeTally();
  for (const tally of tallies) {
    sum.programs += tally.programs;
    sum.ops += tally.ops;
    sum.settings += tally.settings;
    for (const part of ['done', 'refused', 'errnos', 'texts', 'rules', 'known'] as const) {
      for (const [key, n] of Object.entries(tally[part])) count(sum[part], key, n);
    }
  }
  return sum;
}

function rows(counts: Readonly<Counts>): string[] {
  return Object.entries(counts)
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .map(([key, n]) => `  ${String(n).padStart(7)}  ${key}`);
}

function kindRow(kind: string, done: number, refused: number): string {
  const share = ((100 * done) / (done + refused)).toFixed(0);
  return (
    `  ${kind.padEnd(16)} ${String(done).padStart(7)} done, ` +
    `${String(refused).padStart(6)} refused, ${share.padStart(3)} % done`
  );
}

function ruleRows(hits: Readonly<Counts>): string[] {
  const reachable = reachableRules();
  const missed = reachable.filter((rule) => !Object.hasOwn(hits, rule)).toSorted(byNumber);
  const hit = Object.entries(hits).toSorted(([a], [b]) => byNumber(a, b));
  return [
    `rules at work, ${hit.length} of ${reachable.length} by themselves or with an errno:`,
    ...hit.map(([rule, n]) => `  ${String(n).padStart(7)}  ${rule}`),
    `not seen at work: ${missed.join(', ') || 'none'}`,
    `out of reach: ${Object.entries(OUT_OF_REACH)
      .map(([rule, reason]) => `${rule} (${reason})`)
      .join(', ')}`,
  ];
}

/** `K-1.9` before `K-1.12`. */
function byNumber(a: string, b: string): number {
  return a.localeCompare(b, 'en', { numeric: true });
}

/** The summary at the end of a run. */
export function formatTally(tally: Tally, seconds: number): string {
  const { programs, ops, settings, done, refused } = tally;
  const kinds = [...new Set([...Object.keys(done), ...Object.keys(refused)])].toSorted();
  const errnos = new Set(Object.keys(tally.errnos).map((key) => key.split(' ')[1]));
  return [
    `${programs} programs, ${ops} operations and ${settings} settings of netns, ` +
      `${(programs / seconds).toFixed(1)} programs/s, ${errnos.size} distinct errnos`,
    ...kinds.map((kind) => kindRow(kind, done[kind] ?? 0, refused[kind] ?? 0)),
    `refusals, ${Object.keys(tally.errnos).length} pairs:`,
    ...rows(tally.errnos),
    ...(Object.keys(tally.texts).length > 0
      ? ['refusals in other words:', ...rows(tally.texts)]
      : []),
    ...(Object.keys(tally.known).length > 0
      ? ['parted as is known (docs/divergences.md):', ...rows(tally.known)]
      : []),
    ...ruleRows(tally.rules),
  ].join('\n');
}
