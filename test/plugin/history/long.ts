/**
 * Lets random histories happen until one does not hold: `npm run histories -- --minutes 10 --seed 7`; with
 * `--pods 300 --steps 3000` there are hundreds of pods at once, and thousands over time. `--only NUMBER` repeats one history
 * of the seed, and `--keep` goes on after one that does not hold.
 */
import { parseArgs } from 'node:util';
import fc from 'fast-check';
import { formatHistory, histories } from '../../arbitraries/history.ts';
import { live } from './life.ts';
import type { Tally } from './tally.ts';

function main(): number {
  const { values } = parseArgs({
    options: {
      minutes: { type: 'string', default: '1' },
      seed: { type: 'string' },
      only: { type: 'string' },
      pods: { type: 'string', default: '5' },
      steps: { type: 'string', default: '30' },
      keep: { type: 'boolean', default: false },
    },
  });
  const seed = values.seed === undefined ? Date.now() % 1_000_000_007 : Number(values.seed);
  const pods = Number(values.pods);
  const arbitrary = histories(Number(values.steps), pods);
  const end = performance.now() + Number(values.minutes) * 60_000;
  const tally: Tally = new Map();
  const first = values.only === undefined ? 0 : Number(values.only);
  let failures = 0;
  process.stdout.write(`seed ${seed}\n`);
  for (let number = first; performance.now() < end; number += 1) {
    const [history] = fc.sample(arbitrary, { seed: seed + number, numRuns: 1 });
    if (!history) break;
    try {
      live(history, pods, tally);
    } catch (error) {
      failures += 1;
      const reason = error instanceof Error ? error.message : String(error);
      process.stdout.write(
        `\nhistory ${number} of seed ${seed} does not hold:${formatHistory(history)}\n${reason}\n`,
      );
      if (!values.keep) return 1;
    }
    if (process.stdout.isTTY)
      process.stdout.write(`\r${number - first + 1} histories, ${tally.get('ADD') ?? 0} ADDs `);
    if (values.only !== undefined) break;
  }
  for (const [what, times] of [...tally].toSorted(([a], [b]) => (a < b ? -1 : 1)))
    process.stdout.write(`${String(times).padStart(8)} ${what}\n`);
  return failures === 0 ? 0 : 1;
}

process.exitCode = main();
