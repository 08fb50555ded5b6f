/** `npm start`: two pods are given a network by two CNI calls, use it, and lose it without a trace. */
import { existsSync } from 'node:fs';
import { isatty } from 'node:tty';
import { Command, Option } from 'commander';
import picocolors from 'picocolors';
import { makeMemoryStage } from './memory-stage.ts';
import type { Stage } from './stage.ts';
import { tell, type Terminal } from './story.ts';

/** The executable that `npm run build` makes. */
const EXECUTABLE = new URL('../../dist/cube-cni', import.meta.url).pathname;

/** Why the kernel of this machine cannot be used, or undefined. */
function kernelProblem(): string | undefined {
  if (process.platform !== 'linux') return `this is ${process.platform}, not Linux`;
  if (process.getuid?.() !== 0) return 'this is not run as root';
  return existsSync(EXECUTABLE) ? undefined : 'dist/cube-cni is missing: run npm run build';
}

async function linuxStage(): Promise<Stage> {
  // Only here: elsewhere there is no kernel to call.
  const { makeLinuxStage } = await import('./linux-stage.ts');
  return makeLinuxStage(EXECUTABLE);
}

/** The stage that was asked for, or the best that there is, with a word about why it is no better. */
async function chooseStage(
  wanted: string | undefined,
): Promise<{ readonly stage: Stage; readonly note: string }> {
  if (wanted === 'memory') return { stage: makeMemoryStage(), note: '' };
  const problem = kernelProblem();
  if (problem === undefined) {
    try {
      return { stage: await linuxStage(), note: '' };
    } catch (error) {
      if (wanted === 'linux') throw error;
      return {
        stage: makeMemoryStage(),
        note: `not the kernel of this machine: ${error instanceof Error ? error.message : String(error)}`,
      };
    }
  }
  if (wanted === 'linux') throw new Error(`the kernel cannot be used: ${problem}`);
  return { stage: makeMemoryStage(), note: `not the kernel of this machine: ${problem}` };
}

const { backend } = new Command('npm start --')
  .description(
    'Two pods are given a network, use it, and lose it. Every change is shown before it happens.',
  )
  .addOption(
    new Option(
      '--backend <kind>',
      'the kernel of this machine (needs Linux and root) or one in memory',
    ).choices(['linux', 'memory']),
  )
  .parse()
  .opts<{ backend?: string }>();

const terminal: Terminal = {
  write: (text) => void process.stdout.write(text),
  colors: picocolors.createColors(isatty(1) && (process.env['NO_COLOR'] ?? '') === ''),
};

try {
  const { stage, note } = await chooseStage(backend);
  terminal.write(`Cube CNI on ${stage.title}${note === '' ? '' : ` (${note})`}\n`);
  const stop = (): void => {
    stage.close();
    process.exit(130);
  };
  process.on('SIGINT', stop);
  process.on('SIGTERM', stop);
  try {
    const failures = await tell(stage, terminal);
    terminal.write(
      failures === 0
        ? '\nEverything came out as it must.\n'
        : `\n${failures} ${failures === 1 ? 'thing' : 'things'} did not come out as it must.\n`,
    );
    process.exitCode = failures === 0 ? 0 : 1;
  } finally {
    stage.close();
  }
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 1;
}
