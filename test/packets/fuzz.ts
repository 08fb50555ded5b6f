/**
 * Random hosts with random rules, in the simulator and on the kernel, until the two part about who reaches whom, as whom, and
 * what senders are told: `npm run fuzz:packets -- --minutes 10 --seed 7`; `--keep` goes on after that, `--only 12` runs
 * one program of a seed again.
 */
import { parseArgs } from 'node:util';
import fc from 'fast-check';
import { type PacketProgram, comparePackets, packetPrograms } from './programs.ts';

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '1' },
    seed: { type: 'string', default: `${Date.now() % 100_000}` },
    keep: { type: 'boolean', default: false },
    only: { type: 'string' },
  },
});
const minutes = Number(values.minutes);
const seed = Number(values.seed);
const only = values.only === undefined ? undefined : Number(values.only);
if (!(minutes > 0) || !Number.isInteger(seed) || !Number.isInteger(only ?? 0)) {
  process.stderr.write('--minutes is a number above 0, --seed and --only are whole numbers\n');
  process.exit(2);
}

/** Hosts at once: each waits most of the time. */
const HOSTS = 32;
const PROGRESS_MS = 10_000;

function programAt(number: number): PacketProgram {
  const [program] = fc.sample(packetPrograms(), { seed: seed * 1_000_003 + number, numRuns: 1 });
  if (!program) throw new Error('no program');
  return program;
}

const verdicts: Record<string, number> = {};
const unknown = new Map<string, number>();
let [next, rulesets, questions, errors, parted] = [only ?? 0, 0, 0, 0, 0];
const start = performance.now();

function seconds(): number {
  return (performance.now() - start) / 1000;
}

function summary(): string {
  const rate = (rulesets / seconds()).toFixed(1);
  return `${rulesets} rulesets, ${questions} questions, ${errors} errors told, ${rate} rulesets/s`;
}

function isOver(): boolean {
  if (only !== undefined) return next > only;
  return seconds() > minutes * 60 || (parted > 0 && !values.keep);
}

function report(
  number: number,
  program: PacketProgram,
  at: number,
  texts: readonly string[],
): void {
  parted += 1;
  const rules = program.asked[at]?.rules;
  const words = [
    `\nprogram ${number}, ruleset ${at} parts on ${texts.length} questions:`,
    JSON.stringify(program.ops),
    rules && 'name' in rules ? Object.values(rules).join('\n') : JSON.stringify(rules),
    ...texts.slice(0, 3),
  ];
  process.stdout.write(`${words.join('\n')}\n`);
}

async function work(): Promise<void> {
  while (!isOver()) {
    const number = next;
    next += 1;
    const program = programAt(number);
    const comparisons = await comparePackets(program).catch((error: unknown) => {
      parted += 1;
      throw new Error(`program ${number}: ${String(error)}`);
    });
    for (const [at, comparison] of comparisons.entries()) {
      for (const [kind, times] of Object.entries(comparison.verdicts)) {
        verdicts[kind] = (verdicts[kind] ?? 0) + times;
        questions += times;
      }
      for (const text of comparison.unknown) unknown.set(text, (unknown.get(text) ?? 0) + 1);
      rulesets += 1;
      errors += comparison.errors;
      if (comparison.partings.length > 0) report(number, program, at, comparison.partings);
    }
  }
}

function table(rows: readonly (readonly [string, number])[]): string {
  return rows
    .toSorted(([, a], [, b]) => b - a)
    .map(([text, times]) => `${`${times}`.padStart(9)}  ${text}\n`)
    .join('');
}

process.stdout.write(`seed ${seed}\n`);
const progress = setInterval(() => process.stdout.write(`${summary()}\n`), PROGRESS_MS);
const workers = Array.from({ length: only === undefined ? HOSTS : 1 }, work);
const [failed] = (await Promise.allSettled(workers)).filter(({ status }) => status === 'rejected');
clearInterval(progress);
if (failed?.status === 'rejected') throw failed.reason;
process.stdout.write(`\n${summary()}, ${parted} parted\n`);
process.stdout.write(table(Object.entries(verdicts)));
if (unknown.size > 0)
  process.stdout.write(`\nnot known, in so many rulesets:\n${table([...unknown])}`);
process.exit(parted === 0 ? 0 : 1);
