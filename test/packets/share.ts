/** A part of the packet fuzz in a process of its own, which alone can change its netns; several hosts at once, since each waits most of the time. */
import fc from 'fast-check';
import { noteSignals, tell } from '../processes.ts';
import { type PacketProgram, comparePackets, packetPrograms } from './programs.ts';
import type { Findings } from './tally.ts';

/** Which programs of a seed a process runs: every `of`th, from `at` on, before `to`, until the clock says so. */
export interface Share {
  readonly seed: number;
  readonly at: number;
  readonly of: number;
  /** null: there is no end. */
  readonly to: number | null;
  /** In milliseconds since 1970. */
  readonly end: number;
  /** So many at once. */
  readonly hosts: number;
}

/** What a process tells of a ruleset, or of a program that could not be run to its end. */
export type News =
  | { readonly findings: Findings; readonly parting: string | undefined }
  | { readonly failure: string };

const PARTINGS_TOLD = 3;

function programAt(seed: number, number: number): PacketProgram {
  const [program] = fc.sample(packetPrograms(), { seed: seed * 1_000_003 + number, numRuns: 1 });
  if (!program) throw new Error('no program');
  return program;
}

function describe(
  number: number,
  program: PacketProgram,
  at: number,
  partings: readonly string[],
): string {
  const rules = program.asked[at]?.rules;
  return [
    `program ${number}, ruleset ${at} parts on ${partings.length} questions:`,
    JSON.stringify(program.ops),
    rules && 'name' in rules ? Object.values(rules).join('\n') : JSON.stringify(rules),
    ...partings.slice(0, PARTINGS_TOLD),
  ].join('\n');
}

/** Runs one share and tells of each ruleset on standard output; a signal ends it early, without anything left behind. */
export async function runShare({ seed, at, of, to, end, hosts }: Share): Promise<void> {
  const interrupted = noteSignals();
  const last = to ?? Infinity;
  let next = at;
  const isOver = (): boolean => interrupted.aborted || Date.now() >= end;
  const run = async (number: number): Promise<void> => {
    const program = programAt(seed, number);
    try {
      for await (const compared of comparePackets(program, interrupted)) {
        const { at: ruleset, comparison } = compared;
        const { partings, verdicts, errors, unknown } = comparison;
        const parted = partings.length > 0;
        tell({
          findings: { verdicts, errors, unknown },
          parting: parted ? describe(number, program, ruleset, partings) : undefined,
        } satisfies News);
        if (isOver()) break;
      }
    } catch (error) {
      // It was to end, and says so by all that it is in.
      if (interrupted.aborted) return;
      tell({ failure: `program ${number}: ${String(error)}` } satisfies News);
    }
  };
  const work = async (): Promise<void> => {
    while (!isOver() && next < last) {
      const number = next;
      next += of;
      await run(number);
    }
  };
  await Promise.all(Array.from({ length: hosts }, work));
}
