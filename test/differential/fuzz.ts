/**
 * Runs random programs on the model and on the kernel until they part, and makes the program minimal that parts them:
 * `npm run fuzz -- --minutes 10 --seed 7`; `--keep` goes on after that, `--workers N` says how many processes share the
 * programs, `--only NUMBER` runs one of them. `--exhaustive` runs all programs of up to three operations (`--length N`) in
 * tiny worlds instead (worlds.ts).
 *
 * SIGINT and SIGTERM end it with status 130, once it has told what it has come to.
 *
 * `--record NAME --fact TEXT FILE` writes a minimal program (one operation a line), once both sides agree, to the corpus.
 */
import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { parseArgs } from 'node:util';
import type { Op } from '../../model/op.ts';
import { INTERRUPTED } from '../processes.ts';
import { writeEntry } from './corpus.ts';
import { type ProgramRun, kernelProfile, runOnBoth } from './program-run.ts';
import {
  type Share,
  type Stream,
  clearOldRuins,
  programAt,
  programsOf,
  runShare,
  runShares,
} from './share.ts';
import { shrinkProgram } from './shrink.ts';
import { type Tally, formatTally } from './tally.ts';
import { WORLDS, countPrograms } from './worlds.ts';

/** Of so many programs that part the minimal form is looked for, which takes a while each. */
const MINIMAL_MAX = 10;

function nameOf(stream: Stream): string {
  return 'seed' in stream ? `seed ${stream.seed}` : `all of length ${stream.length}`;
}

/** `seen`: by what it parted when it did first, should it do so no more. */
function report(stream: Stream, number: number, run: ProgramRun, seen: readonly string[]): void {
  const parted = run.divergence;
  const signature = parted?.signatures[0] ?? '';
  process.stdout.write(`\nprogram ${number} of ${nameOf(stream)} parts:\n`);
  const { ops, prologue } = programAt(stream, number, kernelProfile());
  const start = ops.slice(0, prologue);
  const cut = parted?.at === undefined ? ops : ops.slice(0, parted.at + 1);
  const fails = (candidate: readonly Op[]): boolean =>
    runOnBoth([...start, ...candidate], 'backend and commands').divergence?.signatures.includes(
      signature,
    ) ?? false;
  const minimal = [...start, ...shrinkProgram(cut.slice(prologue), fails)];
  const { divergence, answers } = runOnBoth(minimal, 'backend and commands');
  process.stdout.write(`${minimal.map((op) => JSON.stringify(op)).join('\n')}\n`);
  process.stdout.write(`answers: ${answers.map((a) => a ?? 'done').join(' ')}\n`);
  const lines = divergence?.lines ?? [
    'it does not part any more, so it depends on time; it parted by:',
    ...(parted?.lines ?? seen),
  ];
  process.stdout.write(`${lines.join('\n')}\n`);
}

/** Keeps what the kernel answers to the program in a file. */
function record(name: string, fact: string, file: string): number {
  const lines = readFileSync(file, 'utf8').split('\n');
  const ops = lines.filter((line) => line !== '').map((line) => JSON.parse(line) as Op);
  const { answers, observed, divergence } = runOnBoth(ops, 'backend and commands');
  if (divergence || !observed) {
    process.stdout.write(`${divergence?.lines.join('\n') ?? 'nothing was read'}\n`);
    return 1;
  }
  writeEntry(name, { fact, ops, answers: answers.map((answer) => answer ?? null), host: observed });
  return 0;
}

/** Where nobody watches, a line so often. */
const LINE_EVERY_MS = 30_000;

function progress(start: number, total: number | undefined): (tally: Tally) => void {
  let told = start;
  return ({ programs, ops }) => {
    const now = performance.now();
    const rate = (programs / ((now - start) / 1000)).toFixed(0);
    const of = total === undefined ? '' : ` of ${total}`;
    const text = `${programs}${of} programs, ${ops} operations, ${rate}/s`;
    if (process.stdout.isTTY) {
      process.stdout.write(`\r${text} `);
    } else if (now - told > LINE_EVERY_MS) {
      told = now;
      process.stdout.write(`${text}\n`);
    }
  };
}

/** One program, made minimal when it parts. */
function runOne(stream: Stream, number: number): number {
  const { ops } = programAt(stream, number, kernelProfile());
  const run = runOnBoth(ops, 'backend and commands');
  const { divergence } = run;
  const name = `program ${number} of ${nameOf(stream)}`;
  if (divergence?.known !== undefined)
    process.stdout.write(`${name} parts as is known: ${divergence.known}\n`);
  else if (divergence) report(stream, number, run, divergence.lines);
  else process.stdout.write(`${name}: both sides agree\n`);
  return divergence && divergence.known === undefined ? 1 : 0;
}

/** What a process is started with for a share. */
function commandOf(share: Share): string[] {
  return [import.meta.path, '--share', JSON.stringify(share)];
}

/** How many programs a stream has, and how many they stand for; undefined for one without an end. */
function sizeOf(stream: Stream): { readonly run: number; readonly all: number } | undefined {
  if ('seed' in stream) return undefined;
  const run = [...programsOf(stream, kernelProfile())].length;
  const all = WORLDS.reduce((sum, world) => sum + countPrograms(world, stream.length), 0);
  return { run, all };
}

/** Programs in several processes until they part, or until the end. */
async function runMany(options: {
  readonly stream: Stream;
  readonly minutes: number;
  readonly workers: number;
  readonly mode: Share['mode'];
}): Promise<number> {
  const { stream, minutes, workers, mode } = options;
  const start = performance.now();
  clearOldRuins();
  const size = sizeOf(stream);
  const meaning = size ? `: ${size.run} programs that stand for ${size.all}` : '';
  process.stdout.write(`${nameOf(stream)}${meaning}, ${workers} processes\n`);
  const end = size ? null : Date.now() + minutes * 60_000;
  const shares = Array.from({ length: workers }, (_, at): Share => ({
    stream,
    at,
    of: workers,
    end,
    mode,
  }));
  const { tally, parted, isInterrupted } = await runShares(
    shares,
    commandOf,
    progress(start, size?.run),
  );
  const seconds = (performance.now() - start) / 1000;
  if (isInterrupted) {
    // Whoever ends it does not wait for minimal forms.
    for (const { number, lines } of parted)
      process.stdout.write(`\nprogram ${number} parts:\n${lines.join('\n')}\n`);
    process.stdout.write(`\n${formatTally(tally, seconds)}\n`);
    return INTERRUPTED;
  }
  for (const { number, lines } of parted.slice(0, mode === 'until they part' ? 1 : MINIMAL_MAX)) {
    const { ops } = programAt(stream, number, kernelProfile());
    report(stream, number, runOnBoth(ops, 'backend and commands'), lines);
  }
  if (parted.length > MINIMAL_MAX)
    process.stdout.write(
      `parted too: ${parted
        .slice(MINIMAL_MAX)
        .map((each) => each.number)
        .join(' ')}\n`,
    );
  process.stdout.write(`\n${formatTally(tally, seconds)}\n`);
  return parted.length === 0 ? 0 : 1;
}

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({
    options: {
      minutes: { type: 'string', default: '1' },
      seed: { type: 'string' },
      only: { type: 'string' },
      exhaustive: { type: 'boolean', default: false },
      length: { type: 'string', default: '3' },
      keep: { type: 'boolean', default: false },
      // Each waits for the kernel most of its time; more hold each other up.
      workers: { type: 'string', default: String(availableParallelism() + 1) },
      share: { type: 'string' },
      record: { type: 'string' },
      fact: { type: 'string', default: '' },
    },
    allowPositionals: true,
  });
  if (values.share !== undefined) {
    await runShare(JSON.parse(values.share) as Share);
    return 0;
  }
  if (values.record !== undefined) return record(values.record, values.fact, positionals[0] ?? '');
  const seed = values.seed === undefined ? Date.now() % 1_000_000_007 : Number(values.seed);
  const stream = values.exhaustive ? { length: Number(values.length) } : { seed };
  if (values.only !== undefined) return runOne(stream, Number(values.only));
  return runMany({
    stream,
    minutes: Number(values.minutes),
    workers: Number(values.workers),
    mode: values.keep ? 'whatever parts' : 'until they part',
  });
}

process.exitCode = await main();
