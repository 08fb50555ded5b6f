/**
 * Several processes on one stream of programs. Nearly all of a program's time the kernel waits (for its readers, for its work
 * queues), so that there is room for others; but each process has to itself the one thread that can change its netns.
 */
import { readdirSync } from 'node:fs';
import type { NetnsName } from '../../model/host.ts';
import type { KernelProfile } from '../../model/kernel-profile.ts';
import type { Op } from '../../model/op.ts';
import { hearProcesses, noteSignals, tell } from '../processes.ts';
import { OWN_PREFIX, pidOf } from './place.ts';
import { clearNetns, clearRuins, kernelProfile, runOnBoth } from './program-run.ts';
import { PROLOGUE, randomProgram } from './program.ts';
import { type Tally, addRun, makeTally, sumOf } from './tally.ts';
import { WORLDS, standingPrograms } from './worlds.ts';

/** A stream of programs: those of a seed, which has no end, or those that stand for all of a length in the tiny worlds. */
export type Stream = { readonly seed: number } | { readonly length: number };

/** Which programs of a stream a process runs: every `of`th, from `at` on, until the stream ends or the clock says so. */
export interface Share {
  readonly stream: Stream;
  readonly at: number;
  readonly of: number;
  /** In milliseconds since 1970; null: no clock. */
  readonly end: number | null;
  readonly mode: 'until they part' | 'whatever parts';
}

/** A program, and how many operations at its beginning only make the place for it. */
export interface Placed {
  readonly ops: readonly Op[];
  readonly prologue: number;
}

/** The programs of a stream, in order. */
export function* programsOf(stream: Stream, kernel: KernelProfile): Generator<Placed> {
  if ('seed' in stream) {
    for (let number = 0; ; number += 1)
      yield { ops: randomProgram(stream.seed, number, kernel), prologue: PROLOGUE };
  }
  for (const world of WORLDS) {
    for (const ops of standingPrograms(world, stream.length, kernel))
      yield { ops, prologue: world.base.length };
  }
}

/** One program of a stream. */
export function programAt(stream: Stream, number: number, kernel: KernelProfile): Placed {
  if ('seed' in stream)
    return { ops: randomProgram(stream.seed, number, kernel), prologue: PROLOGUE };
  let at = 0;
  for (const program of programsOf(stream, kernel)) {
    if (at === number) return program;
    at += 1;
  }
  throw new Error(`there are ${at} programs, none has the number ${number}`);
}

/** What a process tells: its tally so far, and the program that parted by then. */
interface News {
  readonly tally: Tally;
  readonly parted?: Parted;
}

/** A program by its number, and the first lines of how it parts. */
export interface Parted {
  readonly number: number;
  readonly lines: readonly string[];
}

/** Every so many programs are read by iproute2 and nft as well. */
const COMMANDS_EVERY = 5;
/** The kernel takes so many netns away in hardly more time than two. */
const NETNS_AT_ONCE = 16;
const NEWS_EVERY_MS = 250;
const LINES_TOLD = 8;

/** Programs by number, in rising order. Those of a seed are made one by one; the others by going through all. */
function pickFrom(
  stream: Stream,
  kernel: KernelProfile,
): { readonly next: (number: number) => readonly Op[] | undefined } {
  if ('seed' in stream) return { next: (number) => randomProgram(stream.seed, number, kernel) };
  const all = programsOf(stream, kernel);
  let at = -1;
  return {
    next: (number) => {
      for (;;) {
        const { done, value } = all.next();
        at += 1;
        if (done) return undefined;
        if (at === number) return value.ops;
      }
    },
  };
}

/** Runs one share and tells of it on standard output, a line of JSON each; ends early, but between programs, by a signal. */
export async function runShare({ stream, at, of, end, mode }: Share): Promise<void> {
  const stop = noteSignals();
  const tally = makeTally();
  const leftovers = new Set<NetnsName>();
  const clear = (): void => {
    clearNetns(leftovers);
    leftovers.clear();
  };
  const own = pickFrom(stream, kernelProfile());
  let told = 0;
  const isOver = (): boolean => stop.aborted || (end !== null && Date.now() >= end);
  try {
    for (let number = at; !isOver(); number += of) {
      const ops = own.next(number);
      if (!ops) break;
      const readers = number % COMMANDS_EVERY === 0 ? 'backend and commands' : 'backend';
      const run = runOnBoth(ops, readers, leftovers);
      addRun(tally, ops, run);
      if (leftovers.size >= NETNS_AT_ONCE) clear();
      if (run.divergence && run.divergence.known === undefined) {
        tell({
          tally,
          parted: { number, lines: run.divergence.lines.slice(0, LINES_TOLD) },
        } satisfies News);
        if (mode === 'until they part') break;
      }
      if (performance.now() - told > NEWS_EVERY_MS) {
        told = performance.now();
        tell({ tally } satisfies News);
      }
      // Signals are heard of between programs.
      await Bun.sleep(0);
    }
  } finally {
    clear();
  }
  tell({ tally } satisfies News);
}

/** What several shares have come to. */
export interface Shared {
  readonly tally: Tally;
  readonly parted: readonly Parted[];
  /** Has a signal ended them? */
  readonly isInterrupted: boolean;
}

/** Runs shares of a seed in processes of their own, which `command` starts. */
export async function runShares(
  shares: readonly Share[],
  command: (share: Share) => readonly string[],
  progress: (tally: Tally) => void,
): Promise<Shared> {
  const tallies = shares.map(makeTally);
  const parted: Parted[] = [];
  const hear = (at: number, line: string, stop: () => void): void => {
    const news = JSON.parse(line) as News;
    tallies[at] = news.tally;
    if (news.parted) parted.push(news.parted);
    if (news.parted && shares[at]?.mode === 'until they part') stop();
    progress(sumOf(tallies));
  };
  const { isInterrupted } = await hearProcesses(shares.map(command), hear);
  const inOrder = parted.toSorted((a, b) => a.number - b.number);
  return { tally: sumOf(tallies), parted: inOrder, isInterrupted };
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

/** Takes away what runs have left that were killed. */
export function clearOldRuins(): void {
  let names: string[];
  try {
    names = readdirSync('/run/netns');
  } catch {
    return;
  }
  clearRuins(names.filter((name) => name.startsWith(OWN_PREFIX) && !isAlive(pidOf(name))));
}
