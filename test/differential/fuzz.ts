/**
 * Runs random programs on the model and on the kernel until they part, and makes the program minimal that parts them:
 * `npm run fuzz -- --minutes 10 --seed 7`; `--keep` goes on after that, `--only NUMBER` runs one program of the seed, and
 * `--record NAME --fact TEXT FILE` writes a minimal program (one operation a line), once both sides agree, to the corpus.
 */
import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import type { Op } from '../../model/op.ts';
import { writeEntry } from './corpus.ts';
import { type ProgramRun, kernelProfile, runOnBoth } from './program-run.ts';
import { PROLOGUE, randomProgram } from './program.ts';
import { shrinkProgram } from './shrink.ts';
import { type Tally, addRun, formatTally, makeTally } from './tally.ts';

/** Every so many programs are read by iproute2 and nft as well. */
const COMMANDS_EVERY = 5;

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
  const lines = divergence?.lines ?? ['(it does not part any more: it depends on time)'];
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

function progress(tally: Tally, seconds: number): void {
  if (!process.stdout.isTTY) return;
  const rate = (tally.programs / seconds).toFixed(0);
  process.stdout.write(`\r${tally.programs} programs, ${tally.ops} operations, ${rate}/s `);
}

function main(): number {
  const { values, positionals } = parseArgs({
    options: {
      minutes: { type: 'string', default: '1' },
      seed: { type: 'string' },
      only: { type: 'string' },
      keep: { type: 'boolean', default: false },
      record: { type: 'string' },
      fact: { type: 'string', default: '' },
    },
    allowPositionals: true,
  });
  if (values.record !== undefined) return record(values.record, values.fact, positionals[0] ?? '');
  const seed = values.seed === undefined ? Date.now() % 1_000_000_007 : Number(values.seed);
  const end = performance.now() + Number(values.minutes) * 60_000;
  const start = performance.now();
  process.stdout.write(`seed ${seed}\n`);
  const tally = makeTally();
  let parted = 0;
  const first = values.only === undefined ? 0 : Number(values.only);
  for (let number = first; performance.now() < end; number += 1) {
    const ops = randomProgram(seed, number, kernelProfile());
    const everything = number % COMMANDS_EVERY === 0 || values.only !== undefined;
    const run = runOnBoth(ops, everything ? 'backend and commands' : 'backend');
    addRun(tally, ops, run);
    progress(tally, (performance.now() - start) / 1000);
    if (run.divergence) {
      parted += 1;
      report(seed, number, run);
      if (!values.keep) break;
    }
    if (values.only !== undefined) break;
  }
  process.stdout.write(`\n${formatTally(tally, (performance.now() - start) / 1000)}\n`);
  return parted === 0 ? 0 : 1;
}

process.exitCode = main();
