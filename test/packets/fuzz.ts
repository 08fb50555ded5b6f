/**
 * Random hosts with random rules, in the simulator and on the kernel, until the two part about who reaches whom, as whom, and
 * what senders are told: `npm run fuzz:packets -- --minutes 10 --seed 7`; `--keep` goes on after that, `--only 12` runs
 * one program of a seed again, `--workers N` says how many processes share the programs.
 */
import { availableParallelism } from 'node:os';
import { parseArgs } from 'node:util';
import { clearOldRuins } from '../differential/share.ts';
import { INTERRUPTED, hearProcesses } from '../processes.ts';
import { type News, type Share, runShare } from './share.ts';
import { addFindings, formatTally, makeTally, summaryOf } from './tally.ts';

/** Hosts at once, in all processes together: each waits most of the time. Of more than 30 the neighbours are more than a kernel remembers, of all netns together (net.ipv4.neigh.default.gc_thresh3). */
const HOSTS = 24;
const PROGRESS_MS = 10_000;

interface Choice {
  readonly seed: number;
  readonly minutes: number;
  readonly keep: boolean;
  readonly workers: number;
  /** The only program to be run. */
  readonly only: number | undefined;
}

function sharesOf({ seed, minutes, workers, only }: Choice): readonly Share[] {
  const end = Date.now() + minutes * 60_000;
  if (only !== undefined) return [{ seed, at: only, of: 1, to: only + 1, end, hosts: 1 }];
  const hosts = Math.ceil(HOSTS / workers);
  return Array.from({ length: workers }, (_, at) => ({
    seed,
    at,
    of: workers,
    to: null,
    end,
    hosts,
  }));
}

/** Runs the programs in several processes, tells what parts, and answers the status to end with. */
async function runAll(choice: Choice): Promise<number> {
  clearOldRuins();
  const tally = makeTally();
  const start = performance.now();
  const seconds = (): number => (performance.now() - start) / 1000;
  const hear = (_: number, line: string, stop: () => void): void => {
    const news = JSON.parse(line) as News;
    const words = 'failure' in news ? news.failure : news.parting;
    if ('findings' in news) addFindings(tally, news.findings);
    if (words === undefined) return;
    tally.parted += 1;
    process.stdout.write(`\n${words}\n`);
    if (!choice.keep) stop();
  };
  process.stdout.write(`seed ${choice.seed}\n`);
  const progress = setInterval(
    () => process.stdout.write(`${summaryOf(tally, seconds())}\n`),
    PROGRESS_MS,
  );
  const commands = sharesOf(choice).map((share) => [
    import.meta.path,
    '--share',
    JSON.stringify(share),
  ]);
  const { isInterrupted } = await hearProcesses(commands, hear).finally(() =>
    clearInterval(progress),
  );
  process.stdout.write(`\n${formatTally(tally, seconds())}`);
  if (isInterrupted) return INTERRUPTED;
  return tally.parted === 0 ? 0 : 1;
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      minutes: { type: 'string', default: '1' },
      seed: { type: 'string', default: `${Date.now() % 100_000}` },
      keep: { type: 'boolean', default: false },
      only: { type: 'string' },
      workers: { type: 'string', default: `${availableParallelism()}` },
      share: { type: 'string' },
    },
  });
  if (values.share !== undefined) {
    await runShare(JSON.parse(values.share) as Share);
    return 0;
  }
  const minutes = Number(values.minutes);
  const seed = Number(values.seed);
  const workers = Number(values.workers);
  const only = values.only === undefined ? undefined : Number(values.only);
  const isFine =
    minutes > 0 &&
    workers > 0 &&
    [seed, workers, only ?? 0].every((each) => Number.isInteger(each));
  if (!isFine) {
    process.stderr.write(
      '--minutes is a number above 0, --seed, --only and --workers are whole numbers\n',
    );
    return 2;
  }
  return runAll({ seed, minutes, keep: values.keep, workers, only });
}

process.exit(await main());
