/**
 * Several processes on one stream of programs. Nearly all of a program's time the kernel waits (for its readers, for its work
 * queues), so that there is room for others; but each process has to itself the one thread that can change its netns.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { readdirSync, writeSync } from 'node:fs';
import { createInterface } from 'node:readline';
import type { NetnsName } from '../../model/host.ts';
import { OWN_PREFIX, pidOf } from './place.ts';
import { clearNetns, kernelProfile, runOnBoth } from './program-run.ts';
import { randomProgram } from './program.ts';
import { type Tally, addRun, makeTally, sumOf } from './tally.ts';

/** Which programs of a seed a process runs: every `of`th, from `at` on, until the clock says so. */
export interface Share {
  readonly seed: number;
  readonly at: number;
  readonly of: number;
  /** In milliseconds since 1970. */
  readonly end: number;
  readonly mode: 'until they part' | 'whatever parts';
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

function tell(news: News): void {
  writeSync(1, `${JSON.stringify(news)}\n`);
}

/** Runs one share and tells of it on standard output, a line of JSON each; ends early, but between programs, by SIGTERM. */
export async function runShare({ seed, at, of, end, mode }: Share): Promise<void> {
  const stop = new AbortController();
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => stop.abort());
  const tally = makeTally();
  const leftovers = new Set<NetnsName>();
  const clear = (): void => {
    clearNetns(leftovers);
    leftovers.clear();
  };
  const kernel = kernelProfile();
  let told = 0;
  try {
    for (let number = at; Date.now() < end && !stop.signal.aborted; number += of) {
      const ops = randomProgram(seed, number, kernel);
      const readers = number % COMMANDS_EVERY === 0 ? 'backend and commands' : 'backend';
      const run = runOnBoth(ops, readers, leftovers);
      addRun(tally, ops, run);
      if (leftovers.size >= NETNS_AT_ONCE) clear();
      if (run.divergence && run.divergence.known === undefined) {
        tell({ tally, parted: { number, lines: run.divergence.lines.slice(0, LINES_TOLD) } });
        if (mode === 'until they part') break;
      }
      if (performance.now() - told > NEWS_EVERY_MS) {
        told = performance.now();
        tell({ tally });
      }
      // Signals are heard of between programs.
      await Bun.sleep(0);
    }
  } finally {
    clear();
  }
  tell({ tally });
}

/** What several shares have come to. */
export interface Shared {
  readonly tally: Tally;
  readonly parted: readonly Parted[];
}

/** Hears what a process tells until it ends; rejects when it ends otherwise than it should. */
async function listen(child: ChildProcess, hear: (news: News) => void): Promise<void> {
  const ended = new Promise<number | null>((resolve) => {
    child.on('close', resolve);
  });
  if (child.stdout) {
    for await (const line of createInterface({ input: child.stdout }))
      hear(JSON.parse(line) as News);
  }
  const status = await ended;
  if (status !== 0) throw new Error(`a process of the fuzz ended with status ${status}`);
}

/** Runs shares of a seed in processes of their own, which `command` starts. */
export async function runShares(
  shares: readonly Share[],
  command: (share: Share) => readonly string[],
  progress: (tally: Tally) => void,
): Promise<Shared> {
  const tallies = shares.map(makeTally);
  const parted: Parted[] = [];
  const children = shares.map((share) =>
    spawn(process.execPath, command(share), { stdio: ['ignore', 'pipe', 'inherit'] }),
  );
  const stop = (): void => {
    for (const child of children) child.kill('SIGTERM');
  };
  // Ctrl-C reaches them too; they finish their program, and we what they have counted.
  process.on('SIGINT', stop);
  process.on('SIGTERM', stop);
  const hear =
    (at: number, mode: Share['mode']) =>
    (news: News): void => {
      tallies[at] = news.tally;
      if (news.parted) parted.push(news.parted);
      if (news.parted && mode === 'until they part') stop();
      progress(sumOf(tallies));
    };
  try {
    await Promise.all(
      children.map((child, at) => listen(child, hear(at, (shares[at] as Share).mode))),
    );
  } finally {
    stop();
    process.off('SIGINT', stop);
    process.off('SIGTERM', stop);
  }
  return { tally: sumOf(tallies), parted: parted.toSorted((a, b) => a.number - b.number) };
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
export function clearRuins(): void {
  let names: string[];
  try {
    names = readdirSync('/run/netns');
  } catch {
    return;
  }
  clearNetns(names.filter((name) => name.startsWith(OWN_PREFIX) && !isAlive(pidOf(name))));
}
