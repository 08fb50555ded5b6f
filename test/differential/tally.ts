/** Counts what a run of many programs has seen. */
import type { Op } from '../../model/op.ts';
import { LINK_LOCAL_PINS, PINS } from '../arbitraries/sysctl-op.ts';
import type { ProgramRun } from './program-run.ts';

/** Counts by kind of operation, and what the kernel answered. */
export interface Tally {
  programs: number;
  /** Those that were drawn. */
  ops: number;
  /** Those that only make a netns ready. */
  settings: number;
  readonly kinds: Map<string, { done: number; refused: number }>;
  readonly errnos: Map<string, number>;
  /** Refusals that both sides give in other words. */
  readonly texts: Map<string, number>;
}

export function makeTally(): Tally {
  return {
    programs: 0,
    ops: 0,
    settings: 0,
    kinds: new Map(),
    errnos: new Map(),
    texts: new Map(),
  };
}

function count(counts: Map<string, number>, key: string): void {
  counts.set(key, (counts.get(key) ?? 0) + 1);
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
    const kind = tally.kinds.get(op) ?? { done: 0, refused: 0 };
    tally.kinds.set(op, kind);
    if (answer === undefined) {
      kind.done += 1;
    } else {
      kind.refused += 1;
      count(tally.errnos, `${op} ${answer}`);
    }
  }
  for (const text of run.texts) count(tally.texts, text);
}

function rows(counts: ReadonlyMap<string, number>): string[] {
  return [...counts]
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .map(([key, n]) => `  ${String(n).padStart(7)}  ${key}`);
}

/** The summary at the end of a run. */
export function formatTally(tally: Tally, seconds: number): string {
  const kinds = [...tally.kinds].toSorted(([a], [b]) => (a < b ? -1 : 1));
  const errnos = new Set([...tally.errnos.keys()].map((key) => key.split(' ')[1]));
  return [
    `${tally.programs} programs, ${tally.ops} operations and ${tally.settings} settings of netns, ` +
      `${(tally.programs / seconds).toFixed(1)} programs/s, ${errnos.size} distinct errnos`,
    ...kinds.map(
      ([kind, { done, refused }]) =>
        `  ${kind.padEnd(16)} ${String(done).padStart(7)} done, ${String(refused).padStart(6)} refused, ` +
        `${((100 * done) / (done + refused)).toFixed(0).padStart(3)} % done`,
    ),
    'refusals:',
    ...rows(tally.errnos),
    ...(tally.texts.size > 0 ? ['refusals in other words:', ...rows(tally.texts)] : []),
  ].join('\n');
}
