/** The command line, for people. What a command needs is loaded when it is the one that was asked for. */
import { Command, CommanderError } from 'commander';
import { VERSION } from '../about.ts';
import { writeAll } from '../process/stdio.ts';
import { type Colors, colorsFor, isTerminal } from './colors.ts';

/** What the terminal says about colours. */
export interface TerminalSettings {
  readonly noColor: string | undefined;
  readonly term: string | undefined;
  /** The whole environment, for delegates. */
  readonly variables: Readonly<Record<string, string | undefined>>;
}

const SUMMARY =
  'The pod network whose every change can be seen before it happens. With CNI_COMMAND set, it is a CNI plugin.';

const EXAMPLES = `
Examples:
  cube-cni plan add --config net.conflist --netns pod-a --container-id a
  cube-cni plan add --config net.conflist --netns pod-a --container-id a --reach
  cube-cni plan add --config net.conflist --netns pod-a --container-id a --format json >plan.json
  cube-cni apply plan.json --config net.conflist
  cube-cni check --config net.conflist --netns pod-a --container-id a
  cube-cni check
  cube-cni snapshot pod-a >host.json
  cube-cni trace pod-a 10.96.0.1:80/tcp
`;

/** The program without its commands. */
function makeProgram(outHasColors: boolean, errHasColors: boolean): Command {
  const program = new Command('cube-cni')
    .description(SUMMARY)
    .addHelpText('after', EXAMPLES)
    .showHelpAfterError('(--help shows what there is)')
    .exitOverride()
    .configureOutput({
      writeOut: (text) => writeAll(1, text),
      writeErr: (text) => writeAll(2, text),
      getOutHasColors: () => outHasColors,
      getErrHasColors: () => errHasColors,
    });
  return program.option('-V, --version', 'print the version').on('option:version', () => {
    writeAll(1, `cube-cni ${VERSION}\n`);
    throw new CommanderError(0, 'commander.version', VERSION);
  });
}

/** A trace, by the program with that command alone: the others, which it never needs, take longer to load than it does. */
async function runTrace(
  program: Command,
  args: readonly string[],
  colors: { readonly out: Colors; readonly err: Colors },
): Promise<number> {
  const { addTraceCommand } = await import('./trace.ts');
  let status = 0;
  addTraceCommand(program, colors, (ended) => {
    status = ended;
  });
  try {
    await program.parseAsync(args, { from: 'user' });
    return status;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode;
    throw error;
  }
}

/** Runs the command line and returns the exit status. */
export async function commandLine(
  args: readonly string[],
  { noColor, term, variables }: TerminalSettings,
): Promise<number> {
  const mayColor = (noColor ?? '') === '' && term !== 'dumb';
  const outHasColors = mayColor && (await isTerminal(1));
  const errHasColors = mayColor && (await isTerminal(2));
  const program = makeProgram(outHasColors, errHasColors);
  const colors = { out: await colorsFor(outHasColors), err: await colorsFor(errHasColors) };
  if (args[0] === 'trace') return runTrace(program, args, colors);
  const { runCommand } = await import('./commands.ts');
  return runCommand(program, args, colors, variables);
}
