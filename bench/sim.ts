/**
 * The model by itself, in one process: how long a plan takes, how many operations it carries out, how long hosts and
 * clusters take to come about and how much memory; beside it, the same operations on the kernel.
 */
import { writeFileSync } from 'node:fs';
import { Command, InvalidArgumentError, Option } from 'commander';
import { describeComputer } from './machine.ts';
import { Interruption, catchSignals, endProgress, step } from './progress.ts';
import { measureBuilding, measureCluster } from './sim/build.ts';
import { type Figure, formatFigures, judgeFigure } from './sim/figure.ts';
import { measureKernel, missingForKernel } from './sim/kernel.ts';
import { measureOperations } from './sim/operations.ts';
import { measurePackets } from './sim/packets.ts';
import { measurePlans } from './sim/plan.ts';
import { LONG_ROUNDS, type Sizes, type Step, USUAL_SIZES, WARM_UP_ROUNDS } from './sim/sizes.ts';
import { paintOf } from './table.ts';

interface Part {
  readonly about: string;
  readonly run: (sizes: Sizes, step: Step) => Promise<Figure[]>;
  /** What the machine lacks for it; undefined when it can be run. */
  readonly missing?: () => string | undefined;
}

const PARTS: Readonly<Record<string, Part>> = {
  plan: { about: 'the plan of one ADD beside 10, 100 and 1000 pods', run: measurePlans },
  operations: { about: 'operations a second, beside as many', run: measureOperations },
  host: { about: 'a host of 1000 pods, by the operations of their ADDs', run: measureBuilding },
  cluster: { about: '1000 hosts of 30 pods each', run: measureCluster },
  packets: { about: 'an echo beside as many pods, and its hops', run: measurePackets },
  kernel: {
    about: '100 pods on the kernel by the same operations; needs Linux and root',
    run: measureKernel,
    missing: missingForKernel,
  },
};

interface Options {
  readonly rounds: number;
  readonly only?: string;
  readonly json?: string | true;
}

async function measure({ rounds, only, json }: Options): Promise<void> {
  const machine = describeComputer();
  const sizes: Sizes = { ...USUAL_SIZES, rounds };
  const figures: Figure[] = [];
  const skipped: Record<string, string> = {};
  for (const [name, { run, missing }] of Object.entries(PARTS)) {
    if ((only ?? name) !== name) continue;
    const reason = missing?.();
    if (reason === undefined) figures.push(...(await run(sizes, step)));
    else skipped[name] = reason;
  }
  endProgress();

  const counts = { warmUpRounds: WARM_UP_ROUNDS, longRounds: Math.min(rounds, LONG_ROUNDS) };
  if (json !== undefined) {
    const judged = figures.map((figure) => ({ ...figure, ...judgeFigure(figure) }));
    const report = { machine, sizes, ...counts, figures: judged, skipped };
    const text = `${JSON.stringify(report, null, 2)}\n`;
    if (json === true || json === '-') {
      process.stdout.write(text);
      return;
    }
    writeFileSync(json, text);
  }
  const paint = paintOf(process.env['NO_COLOR']);
  if (figures.length > 0) process.stdout.write(formatFigures(figures, paint));
  for (const [name, reason] of Object.entries(skipped)) {
    process.stdout.write(`${paint.bold(name)} was skipped: it ${reason}\n`);
  }
  const facts = Object.entries({ rounds, ...counts, ...machine });
  const lines = facts.map(([name, value]) => `${name}: ${value}`);
  process.stdout.write(`\n${paint.dim(lines.join('\n'))}\n`);
}

function parseRounds(text: string): number {
  if (!/^[1-9]\d{0,4}$/.test(text)) throw new InvalidArgumentError('A number from 1 to 99999.');
  return Number(text);
}

function listParts(): string {
  const width = Math.max(...Object.keys(PARTS).map((name) => name.length));
  return Object.entries(PARTS)
    .map(([name, { about }]) => `  ${name.padEnd(width)}  ${about}`)
    .join('\n');
}

const command = new Command('bench:sim')
  .description('Measures the model: plans, operations, hosts and clusters; beside it, the kernel.')
  .option(
    '--rounds <n>',
    `rounds that count, after the warm-up; ${LONG_ROUNDS} at most of what takes seconds`,
    parseRounds,
    USUAL_SIZES.rounds,
  )
  .addOption(new Option('--only <name>', 'one part').choices(Object.keys(PARTS)))
  .option(
    '--json [file]',
    'write samples and facts as JSON; without a file on stdout, without the table',
  )
  .addHelpText('after', `\nParts:\n${listParts()}`)
  .parse();

catchSignals();
try {
  await measure(command.opts<Options>());
} catch (error) {
  endProgress();
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = error instanceof Interruption ? 130 : 1;
}
