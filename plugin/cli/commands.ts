/** All commands of the command line: the same calls with flags instead of an environment, saved plans, snapshots. */
import { type Command, CommanderError, Option } from 'commander';
import { makeLinuxBackend } from '../../backends/linux/linux.ts';
import { listNetns } from '../../backends/linux/netns-list.ts';
import { HOST_NETNS } from '../../model/host.ts';
import type { Paint } from '../../model/plan-text.ts';
import { formatChange } from '../../sim/reach-ports-text.ts';
import { VERSION } from '../about.ts';
import type { PlanFormat } from '../call-options.ts';
import { add, planAdd } from '../call/add.ts';
import { applySaved } from '../call/apply.ts';
import { planRepair } from '../call/check.ts';
import { del, planDel } from '../call/del.ts';
import { parseConfig } from '../cni/config.ts';
import { CNI_ERROR, CniError } from '../cni/error.ts';
import { CONFIG_KEYS, suspectKeys } from '../cni/keys.ts';
import { type Places, parsePlaces } from '../cni/places.ts';
import type { Request } from '../cni/request.ts';
import { formatResult } from '../cni/result.ts';
import { CURRENT_VERSION, SUPPORTED_VERSIONS } from '../cni/version.ts';
import { parsePlanFile } from '../format/plan-file.ts';
import { formatSnapshot } from '../format/snapshot-file.ts';
import { makeLog } from '../log/log.ts';
import { asCniError } from '../process/cni-call.ts';
import { FOR_PLANS, linuxContext, lookingContext } from '../process/context.ts';
import { delUnrecorded, prepared } from '../process/network-call.ts';
import { type Planned, printPlan } from '../process/plan-output.ts';
import { writeAll } from '../process/stdio.ts';
import { WHOLE, readWhole } from '../process/whole-host.ts';
import { addCheckCommand } from './check.ts';
import type { Colors } from './colors.ts';
import {
  CNI_PATH,
  type CallFlags,
  pluginConfiguration,
  readText,
  requestOf,
} from './configuration.ts';
import { addImportCommand } from './import.ts';
import { addIpamCommands } from './ipam.ts';
import type { Opened } from './opened.ts';
import { USUAL_PAIRS, parsePairs, withReach } from './reach.ts';
import { addTraceCommand } from './trace.ts';

interface PlanFlags extends CallFlags {
  readonly format: PlanFormat;
  readonly detailedExitcode?: boolean;
  readonly reach?: number;
}

/** Adds the flags that say which attachment is meant. */
function withCallFlags(command: Command, needsNetns: 'netns needed' | 'netns optional'): Command {
  command
    .requiredOption('-c, --config <file>', 'network configuration or list; - reads standard input')
    .requiredOption('-i, --container-id <id>', 'the container that the attachment belongs to')
    .option('-I, --ifname <name>', "the link's name in the pod", 'eth0')
    .option('--cni-path <folders>', 'where other plugins are, for addresses of theirs', CNI_PATH);
  const netns = new Option('-n, --netns <name|path>', 'the network namespace of the pod');
  if (needsNetns === 'netns needed') netns.makeOptionMandatory();
  return command.addOption(netns);
}

function withPlanFlags(command: Command): Command {
  return command
    .addOption(
      new Option('-f, --format <form>', 'how to print it')
        .choices(['text', 'json', 'sh'])
        .default('text'),
    )
    .option('--detailed-exitcode', 'exit with status 2 when something would change')
    .addOption(
      new Option(
        '-r, --reach [pairs]',
        'show also which addresses and published ports would reach each other then, or no longer, of so many pairs',
      )
        .preset(`${USUAL_PAIRS}`)
        .argParser(parsePairs),
    );
}

function painter(colors: Colors): Paint {
  const paint = { '+': colors.green, '-': colors.red, '~': colors.yellow, note: colors.dim };
  return (sign, line) => paint[sign](line);
}

/** Adds the commands, runs the one that the arguments name and returns the exit status. `variables` are the whole environment, for delegates. */
export async function runCommand(
  program: Command,
  args: readonly string[],
  { out, err }: { readonly out: Colors; readonly err: Colors },
  variables: Readonly<Record<string, string | undefined>>,
): Promise<number> {
  const log = makeLog({ pid: process.pid, by: 'command line' });
  let status = 0;
  let places: Places | undefined;

  const reading = (request: Request) =>
    lookingContext(parsePlaces(request.config).dataDir, log.log);
  const changing = async (request: Request, { cniPath }: Pick<CallFlags, 'cniPath'>) => {
    places = parsePlaces(request.config);
    const context = await linuxContext(places.dataDir, log.log);
    return prepared(context, request, { variables, cniPath, mayBeOwnNetns: false });
  };
  const warnOf = ({ config }: Request): void => {
    for (const text of suspectKeys(config, CONFIG_KEYS))
      writeAll(2, `${err.yellow('warning:')} ${text}\n`);
  };
  const printChanges = (
    verb: 'ADD' | 'DEL' | 'CHECK',
    planned: ReturnType<typeof planDel>,
    flags: PlanFlags,
  ): void => {
    if (flags.reach !== undefined && flags.format === 'sh')
      throw new CniError(
        CNI_ERROR.invalidEnvironment,
        '--reach is for the formats text and json: a script has no place for it',
      );
    const shown: Planned | undefined =
      planned && flags.reach !== undefined ? withReach(planned, flags.reach) : planned;
    printPlan(verb, shown, flags.format, painter(out));
    if (shown?.reach && flags.format === 'text')
      writeAll(1, formatChange(shown.reach, painter(out)));
    if (flags.detailedExitcode === true && (planned?.plan.ops.length ?? 0) > 0) status = 2;
  };

  const plan = program
    .command('plan')
    .description('show what a call would change, without changing or reserving anything');
  withPlanFlags(
    withCallFlags(plan.command('add').description('what ADD would do'), 'netns needed'),
  ).action(async (flags: PlanFlags) => {
    const request = requestOf('ADD', flags);
    warnOf(request);
    printChanges(
      'ADD',
      planAdd(await reading(request), request, parseConfig(request.config)),
      flags,
    );
  });
  withPlanFlags(
    withCallFlags(plan.command('del').description('what DEL would do'), 'netns optional'),
  ).action(async (flags: PlanFlags) => {
    const request = requestOf('DEL', flags);
    printChanges('DEL', planDel(await reading(request), request.key), flags);
  });
  withPlanFlags(
    withCallFlags(
      plan.command('check').description('what would repair the attachment'),
      'netns needed',
    ),
  ).action(async (flags: PlanFlags) => {
    const request = requestOf('CHECK', flags);
    printChanges('CHECK', planRepair(await reading(request), request.key), flags);
  });

  withCallFlags(
    program
      .command('add')
      .description('attach a network namespace to the network, and print the result'),
    'netns needed',
  ).action(async (flags: CallFlags) => {
    const request = requestOf('ADD', flags);
    warnOf(request);
    const added = add(await changing(request, flags), request, parseConfig(request.config));
    writeAll(1, `${formatResult(added.result, request.cniVersion)}\n`);
    added.finish();
  });
  withCallFlags(
    program.command('del').description('remove an attachment, by its record'),
    'netns optional',
  ).action(async (flags: CallFlags) => {
    const request = requestOf('DEL', flags);
    const context = await changing(request, flags);
    if (!del(context, request.key)) await delUnrecorded(context, request);
  });
  program
    .command('apply')
    .description(
      'carry out a plan saved with --format json; refused when what it was computed from has changed',
    )
    .argument('<file>', 'the saved plan; - reads standard input')
    .option(
      '-c, --config <file>',
      'the network configuration that the plan was made with: says where state and log are',
    )
    .action(async (file: string, flags: { readonly config?: string }) => {
      const saved = parsePlanFile(readText(file));
      const config: unknown =
        flags.config === undefined
          ? {}
          : JSON.parse(pluginConfiguration(readText(flags.config), flags.config));
      places = parsePlaces(config as Record<string, unknown>);
      const result = applySaved(await linuxContext(places.dataDir, log.log, FOR_PLANS), saved);
      if (result) writeAll(1, `${formatResult(result, CURRENT_VERSION)}\n`);
    });

  program
    .command('snapshot')
    .description('print the network state of this host, and of other network namespaces, as JSON')
    .argument('[netns...]', 'names under /run/netns, or paths')
    .option('--all', 'every network namespace that has a name')
    .action((names: readonly string[], flags: { readonly all?: boolean }) => {
      const backend = makeLinuxBackend(WHOLE);
      const others = flags.all === true ? listNetns() : [HOST_NETNS];
      const whole = readWhole(backend, [...new Set([...others, ...names])]);
      const missing = names.filter((name) => !Object.hasOwn(whole.host.netns, name));
      if (missing.length > 0)
        throw new CniError(
          CNI_ERROR.invalidEnvironment,
          `no such network namespace: ${missing.join(', ')}`,
        );
      writeAll(1, formatSnapshot(whole));
    });

  const opened: Opened = {
    open: (request, flags, purpose) =>
      purpose === 'change' ? changing(request, flags) : reading(request),
  };
  addIpamCommands(program, opened);
  addImportCommand(program, opened);
  const end = (ended: number): void => {
    status = ended;
  };
  addCheckCommand(program, { out, err, opened, log: log.log }, end);
  addTraceCommand(program, { out, err }, end);

  program
    .command('version')
    .description('print the version, and the versions of the CNI specification')
    .action(() => writeAll(1, `cube-cni ${VERSION}\nCNI ${SUPPORTED_VERSIONS.join(', ')}\n`));
  try {
    await program.parseAsync(args, { from: 'user' });
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode;
    const known: CniError = asCniError(error);
    log.log('error', known.message, { code: known.code });
    writeAll(2, `${err.red('error:')} ${known.message}\n`);
    if (known.details !== '') writeAll(2, known.details.replaceAll(/^/gm, '  ') + '\n');
    status = 1;
  }
  if (places) await log.flush(places);
  return status;
}
