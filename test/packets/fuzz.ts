/**
 * Random rulesets on the routed host, in the simulator and on the kernel, until the two part about who reaches whom as whom:
 * `npm run fuzz:packets -- --minutes 10 --seed 7`; `--keep` goes on after that.
 */
import { parseArgs } from 'node:util';
import fc from 'fast-check';
import { rulesets } from '../sim/rulesets.ts';
import { compareRuleset, warmUp, warmWorld } from './compare.ts';
import { QUESTIONS } from './questions.ts';
import { buildRouted } from './routed-kernel.ts';

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '1' },
    seed: { type: 'string', default: `${Date.now() % 100_000}` },
    keep: { type: 'boolean', default: false },
  },
});
const minutes = Number(values.minutes);
const seed = Number(values.seed);
if (!(minutes > 0) || !Number.isInteger(seed)) {
  process.stderr.write('--minutes is a number above 0, --seed a whole number\n');
  process.exit(2);
}

const PROGRESS_MS = 10_000;

/** One value of an arbitrary, the same for the same number. */
function sample<T>(arbitrary: fc.Arbitrary<T>, number: number): T {
  const [value] = fc.sample(arbitrary, { seed: seed * 1_000_003 + number, numRuns: 1 });
  return value as T;
}

const verdicts: Record<string, number> = {};
let [count, questions, parted, said] = [0, 0, 0, performance.now()];
const start = performance.now();
const kernel = buildRouted();

function summary(): string {
  const seconds = (performance.now() - start) / 1000;
  return `${count} rulesets, ${questions} questions, ${(count / seconds).toFixed(1)} rulesets/s`;
}

try {
  process.stdout.write(`seed ${seed}\n`);
  await warmUp(kernel);
  const warm = warmWorld();
  while (performance.now() - start < minutes * 60_000 && (parted === 0 || values.keep)) {
    const ops = sample(rulesets(), count);
    const asked = sample(
      fc.shuffledSubarray([...QUESTIONS], { minLength: 30, maxLength: 50 }),
      count,
    );
    const comparison = await compareRuleset(kernel, warm, ops, asked);
    for (const [kind, times] of Object.entries(comparison.verdicts))
      verdicts[kind] = (verdicts[kind] ?? 0) + times;
    if (comparison.partings.length > 0) {
      parted += 1;
      process.stdout.write(`\nruleset ${count} parts:\n${JSON.stringify(ops)}\n`);
      process.stdout.write(`${comparison.partings.slice(0, 3).join('\n')}\n`);
    }
    count += 1;
    questions += asked.length;
    if (performance.now() - said > PROGRESS_MS) {
      said = performance.now();
      process.stdout.write(`${summary()}\n`);
    }
  }
} finally {
  kernel.tearDown();
}
const rows = Object.entries(verdicts).toSorted(([, a], [, b]) => b - a);
process.stdout.write(`\n${summary()}, ${parted} parted\n`);
for (const [kind, times] of rows)
  process.stdout.write(`${`${times}`.padStart(9)}  ${kind === 'unknown' ? 'not known' : kind}\n`);
process.exit(parted === 0 ? 0 : 1);
