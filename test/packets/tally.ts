/** Counts what a run of many rulesets has found. */

/** What one ruleset came to, but for what parts. */
export interface Findings {
  /** Verdicts of the simulator by their kind, and drops by their reason: how often each. */
  readonly verdicts: Readonly<Record<string, number>>;
  /** Of how many ICMP errors senders were told. */
  readonly errors: number;
  /** Why the simulator does not know. */
  readonly unknown: readonly string[];
}

/** What all came to so far. */
export interface Tally {
  rulesets: number;
  questions: number;
  errors: number;
  /** Rulesets, or programs that could not be run. */
  parted: number;
  readonly verdicts: Map<string, number>;
  /** In how many rulesets. */
  readonly unknown: Map<string, number>;
}

export function makeTally(): Tally {
  return {
    rulesets: 0,
    questions: 0,
    errors: 0,
    parted: 0,
    verdicts: new Map(),
    unknown: new Map(),
  };
}

function count(counts: Map<string, number>, key: string, by = 1): void {
  counts.set(key, (counts.get(key) ?? 0) + by);
}

/** Adds those of one ruleset. */
export function addFindings(tally: Tally, { verdicts, errors, unknown }: Findings): void {
  tally.rulesets += 1;
  tally.errors += errors;
  for (const [kind, times] of Object.entries(verdicts)) {
    count(tally.verdicts, kind, times);
    tally.questions += times;
  }
  for (const text of unknown) count(tally.unknown, text);
}

/** In one line. */
export function summaryOf(tally: Tally, seconds: number): string {
  const { rulesets, questions, errors } = tally;
  const rate = (rulesets / seconds).toFixed(1);
  return `${rulesets} rulesets, ${questions} questions, ${errors} errors told, ${rate} rulesets/s`;
}

function table(rows: ReadonlyMap<string, number>): string {
  return [...rows]
    .toSorted(([, a], [, b]) => b - a)
    .map(([text, times]) => `${`${times}`.padStart(9)}  ${text}\n`)
    .join('');
}

/** At the end of a run. */
export function formatTally(tally: Tally, seconds: number): string {
  const { parted, verdicts, unknown } = tally;
  const known = `${summaryOf(tally, seconds)}, ${parted} parted\n${table(verdicts)}`;
  return unknown.size === 0
    ? known
    : `${known}\nnot known, in so many rulesets:\n${table(unknown)}`;
}
