/**
 * Runs random programs on the model and on the kernel until they part, and makes the program minimal that parts them:
 * `npm run fuzz -- --minutes 10 --seed 7`; `--keep` goes on after that, `--workers N` says how many processes share the
 * programs, `--only NUMBER` runs one program of the seed, and
 * `--record NAME --fact TEXT FILE` writes a minimal program (one operation a line), once both sides agree, to the corpus.
 */
import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { parseArgs } from 'node:util';
import type { Op } from '../../model/op.ts';
import { writeEntry } from './corpus.ts';
import { type ProgramRun, kernelProfile, runOnBoth } from './program-run.ts';
import { PROLOGUE, randomProgram } from './program.ts';
import { type Share, clearRuins, runShare, runShares } from './share.ts';
import { shrinkProgram } from './shrink.ts';
import { type Tally, formatTally } from './tally.ts';

/** Of so many programs that part the minimal form is looked for, which takes a while each. */
const MINIMAL_MAX = 10;

function report(seed: number, number: number, run: ProgramRun): void {
  const parted = run.divergence;
  const signature = parted?.signatures[0] ?? '';
  process.stdout.write(`\nprogram ${number} of seed ${seed} parts:\n`);
  const ops = randomProgram(seed, number, kernelProfile());
  const prologue = ops.slice(0, PROLOGUE);
  const cut = parted?.at === undefined ? ops : ops.slice(0, parted.at + 1);
  const fails = (candidate: readonly Op[]): boolean =>
    runOnBoth([...prologue, ...candidate], 'backend and commands').divergence?.signatures.includes(
      signature,
    ) ?? false;
  const minimal = [...prologue, ...shrinkProgram(cut.slice(PROLOGUE), fails)];
  const { divergence, answers } = runOnBoth(minimal, 'backend and commands');
  process.stdout.write(`${minimal.map((op) => JSON.stringify(op)).join('\n')}\n`);
  process.stdout.write(`answers: ${answers.map((a) => a ?? 'done').join(' ')}\n`);
  const lines = divergence?.lines ?? [
    'it does not part any more, so it depends on time; it parted by:',
    ...(parted?.lines ?? []),
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

function progress(start: number): (tally: Tally) => void {
  return (tally) => {
    if (!process.stdout.isTTY) return;
    const rate = (tally.programs / ((performance.now() - start) / 1000)).toFixed(0);
    process.stdout.write(`\r${tally.programs} programs, ${tally.ops} operations, ${rate}/s `);
  };
}

/** One program of a seed, made minimal when it parts. */
function runOne(seed: number, number: number): number {
  const ops = randomProgram(seed, number, kernelProfile());
  const run = runOnBoth(ops, 'backend and commands');
  const { divergence } = run;
  if (divergence?.known !== undefined)
    process.stdout.write(
      `program ${number} of seed ${seed} parts as is known: ${divergence.known}\n`,
    );
  else if (divergence) report(seed, number, run);
  else process.stdout.write(`program ${number} of seed ${seed}: both sides agree\n`);
  return divergence && divergence.known === undefined ? 1 : 0;
}

/** What a process is started with for a share. */
function commandOf(share: Share): string[] {
  return [import.meta.path, '--share', JSON.stringify(share)];
}

/** Random programs in several processes until they part, or for as long as was said. */
async function runMany(options: {
  readonly seed: number;
  readonly minutes: number;
  readonly workers: number;
  readonly mode: Share['mode'];
}): Promise<number> {
  const { seed, minutes, workers, mode } = options;
  const end = Date.now() + minutes * 60_000;
  const start = performance.now();
  clearRuins();
  process.stdout.write(`seed ${seed}, ${workers} processes\n`);
  const shares = Array.from({ length: workers }, (_, at): Share => ({
    seed,
    at,
    of: workers,
    end,
    mode,
  }));
  const { tally, parted } = await runShares(shares, commandOf, progress(start));
  const seconds = (performance.now() - start) / 1000;
  for (const { number } of parted.slice(0, mode === 'until they part' ? 1 : MINIMAL_MAX)) {
    const again = runOnBoth(randomProgram(seed, number, kernelProfile()), 'backend and commands');
    report(seed, number, again);
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
      keep: { type: 'boolean', default: false },
      workers: { type: 'string', default: String(availableParallelism()) },
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
  if (values.only !== undefined) return runOne(seed, Number(values.only));
  return runMany({
    seed,
    minutes: Number(values.minutes),
    workers: Number(values.workers),
    mode: values.keep ? 'whatever parts' : 'until they part',
  });
}

process.exitCode = await main();
