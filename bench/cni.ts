/**
 * Cube CNI against the reference plugins, call by call in one run.
 *
 * Every call is whole processes, as a container runtime starts them. The sides take turns, and who
 * goes first alternates, so that whatever else the machine does falls on both. Each side has a
 * host netns and a state folder of its own with some pods on it already: the first ADD on a node
 * also makes the bridge and the last DEL may remove it, and neither is the daily work.
 */
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { Command, InvalidArgumentError, Option } from 'commander';
import { type Bench, WARM_UP_ROUNDS } from './bench.ts';
import { describeMachine } from './machine.ts';
import { formatMeasurements, formatPhases, judge, type Measurement } from './measurement.ts';
import { deleteNetns } from './netns.ts';
import type { Plugin } from './network.ts';
import { Interruption, catchSignals, endProgress, letSignalsThrough, step } from './progress.ts';
import { SCENARIOS } from './scenarios.ts';
import { splitPhases } from './scenarios/phases.ts';
import { paintOf } from './table.ts';

interface Options {
  readonly rounds: number;
  readonly only?: string;
  readonly phases?: true;
  readonly json?: string;
  readonly ours: string;
  readonly oursType: Plugin['type'];
  readonly cniPath: string;
}

async function measure(bench: Bench, options: Options): Promise<void> {
  const machine = describeMachine(bench);
  // Seen on two cores at load 3: the reference against itself came out as 1.28; at rest 0.99 to 1.01.
  if (machine.loadBefore > machine.cores / 2) {
    process.stderr.write(`The machine is busy (load ${machine.loadBefore}): expect wrong ratios\n`);
  }
  const measurements: Measurement[] = [];
  const skipped: Record<string, string> = {};
  for (const [name, { run, missing }] of Object.entries(SCENARIOS)) {
    const isWanted = options.phases === undefined && (options.only ?? name) === name;
    if (!isWanted) continue;
    const reason = missing?.();
    if (reason === undefined) measurements.push(...(await run(bench)));
    else skipped[name] = reason;
  }
  const phases = options.phases === undefined ? [] : await splitPhases(bench);
  endProgress();

  if (options.json !== undefined) {
    const judged = measurements.map((measurement) => ({ ...measurement, ...judge(measurement) }));
    const { rounds } = bench;
    const counts = { rounds, warmUpRounds: WARM_UP_ROUNDS };
    const report = { machine, ...counts, measurements: judged, skipped, phases };
    const text = `${JSON.stringify(report, null, 2)}\n`;
    if (options.json === '-') process.stdout.write(text);
    else writeFileSync(options.json, text);
  }
  if (options.json === '-') return;

  const paint = paintOf(process.env['NO_COLOR']);
  const { bold, dim } = paint;
  const facts = Object.entries(machine).map(([name, value]) => `${name}: ${value}`);
  if (measurements.length > 0) process.stdout.write(formatMeasurements(measurements, paint));
  if (phases.length > 0) process.stdout.write(formatPhases(phases, paint));
  for (const [name, reason] of Object.entries(skipped)) {
    process.stdout.write(`${bold(name)} was skipped: it ${reason}\n`);
  }
  process.stdout.write(`\n${dim([`rounds: ${bench.rounds}`, ...facts].join('\n'))}\n`);
}

async function main(options: Options): Promise<void> {
  const ours = resolve(options.ours);
  const reference = join(options.cniPath, 'bridge');
  if (process.getuid?.() !== 0) throw new Error('The bench makes network namespaces: run as root');
  if (!existsSync(ours)) throw new Error(`${ours} does not exist: build it first`);
  if (!existsSync(reference)) {
    throw new Error(`${reference} does not exist: install containernetworking-plugins`);
  }
  catchSignals();
  const { cniPath } = options;
  const bench: Bench = {
    ours: { label: 'ours', executable: ours, type: options.oursType, cniPath },
    reference: { label: 'reference', executable: reference, type: 'bridge', cniPath },
    rounds: options.rounds,
    prefix: `cube-bench-${process.pid}-`,
    folder: mkdtempSync(join(tmpdir(), 'cube-bench-')),
    step,
  };
  try {
    await measure(bench, options);
  } catch (error) {
    // Ctrl-C also ends the plugin that is running, and its failure is not the news then.
    await letSignalsThrough();
    throw error;
  } finally {
    endProgress();
    rmSync(bench.folder, { recursive: true });
    deleteNetns(bench.prefix);
  }
}

/** What failed; then, when tidying up after it failed too, how. */
function describeError(error: unknown): string {
  if (error instanceof SuppressedError) {
    return `${describeError(error.suppressed)}\n${describeError(error.error)}`;
  }
  return error instanceof Error ? error.message : String(error);
}

function listScenarios(): string {
  const names = Object.keys(SCENARIOS);
  const width = Math.max(...names.map((name) => name.length));
  return Object.entries(SCENARIOS)
    .map(([name, { about }]) => `  ${name.padEnd(width)}  ${about}`)
    .join('\n');
}

function parseRounds(text: string): number {
  if (!/^[1-9]\d{0,4}$/.test(text)) throw new InvalidArgumentError('A number from 1 to 99999.');
  return Number(text);
}

const command = new Command('bench')
  .description(
    'Measures Cube CNI against the reference plugins, by themselves and in containerd, as root.',
  )
  .option('--rounds <n>', 'rounds that count, after the warm-up', parseRounds, 50)
  .addOption(new Option('--only <name>', 'one scenario').choices(Object.keys(SCENARIOS)))
  .option('--phases', 'instead of the scenarios: where the time of our ADD goes')
  .option('--json <file>', 'write samples and facts as JSON; - for stdout, without the table')
  .option('--ours <file>', 'our executable', resolve(import.meta.dir, '../dist/cube-cni'))
  .addOption(
    new Option('--ours-type <type>', 'whose configuration our executable is given')
      .choices(['cube-cni', 'bridge'])
      .default('cube-cni'),
  )
  .option('--cni-path <folder>', 'where the reference plugins are', '/usr/lib/cni')
  .addHelpText('after', `\nScenarios:\n${listScenarios()}`)
  .parse();

try {
  await main(command.opts<Options>());
} catch (error) {
  process.stderr.write(`${describeError(error)}\n`);
  process.exitCode = error instanceof Interruption ? 130 : 1;
}
