/** `cube-cni check`: one attachment against its record, or everything of this host, or of a saved one, against what cannot be meant. */
import { type Command, CommanderError } from 'commander';
import { makeLinuxBackend } from '../../backends/linux/linux.ts';
import { listNetns } from '../../backends/linux/netns-list.ts';
import type { Host } from '../../model/host.ts';
import { findingsOf } from '../../sim/findings/all.ts';
import {
  type HostFinding,
  bySeverity,
  extentOf,
  formatFindings,
} from '../../sim/findings/finding.ts';
import { formatKey } from '../attachment.ts';
import { findings } from '../call/check.ts';
import type { Log } from '../call/context.ts';
import { networkdFindings, parseNetworkd } from '../check/networkd.ts';
import { recordFindings } from '../check/records.ts';
import { parsePlaces } from '../cni/places.ts';
import { fromSnapshot, parseSnapshot } from '../format/snapshot-file.ts';
import { readingContext } from '../process/context.ts';
import { readNetworkd } from '../process/networkd-files.ts';
import { writeAll } from '../process/stdio.ts';
import { WHOLE, readWhole } from '../process/whole-host.ts';
import type { Colors } from './colors.ts';
import {
  CNI_PATH,
  type CallFlags,
  pluginConfiguration,
  readText,
  requestOf,
} from './configuration.ts';
import type { Opened } from './opened.ts';

interface CheckFlags extends Omit<CallFlags, 'config' | 'containerId'> {
  readonly config?: string;
  readonly containerId?: string;
  readonly snapshot?: string;
  readonly json?: boolean;
}

/** What the command gets from the command line. */
interface Surroundings {
  readonly out: Colors;
  readonly err: Colors;
  readonly opened: Opened;
  readonly log: Log;
}

const EXAMPLES = `
With a container, its attachment is compared with what ADD left. Without one, every network namespace of this host that has a
name is looked at, or the host of a snapshot, and packets between its pods are simulated. Nothing is sent, and nothing is changed.

Exit status: of an attachment 0 where it is as ADD left it, else 1. Of a host 0 where there is no error (there may be warnings and
notes), 1 where there is one, 2 where what was asked is not understood.

Examples:
  cube-cni check
  cube-cni check --json
  cube-cni check --config net.conflist
  cube-cni snapshot --all >host.json
  cube-cni check --snapshot host.json
  cube-cni check --config net.conflist --netns pod-a --container-id a
`;

/** Of what was asked something is wrong: no answer about the host, so that scripts can tell. */
const NOT_UNDERSTOOD = 2;

/** The folder of the state file that a configuration names, or the usual one. */
function dataDirOf(config: string | undefined): string {
  if (config === undefined) return parsePlaces({}).dataDir;
  const text = pluginConfiguration(readText(config), config);
  return parsePlaces(JSON.parse(text) as Record<string, unknown>).dataDir;
}

interface Checked {
  readonly host: Host;
  readonly found: readonly HostFinding[];
}

/** This host, with what only its files tell. */
function checkLive(config: string | undefined, log: Log): Checked {
  const dataDir = dataDirOf(config);
  const backend = makeLinuxBackend(WHOLE);
  try {
    const { host, legacyTables } = readWhole(backend, listNetns());
    const { state, isAlive } = readingContext(dataDir, log);
    const networkd = readNetworkd();
    const found = [
      ...findingsOf(host, legacyTables),
      ...recordFindings(host, state.list(), isAlive),
      ...(networkd ? networkdFindings(host, parseNetworkd(networkd)) : []),
    ];
    return { host, found: bySeverity(found) };
  } finally {
    backend.close();
  }
}

function checkSaved(file: string): Checked {
  const { host, legacyTables } = parseSnapshot(readText(file), file);
  return { host, found: fromSnapshot(file, () => findingsOf(host, legacyTables)) };
}

function checkHost({ snapshot, config, json }: CheckFlags, { out, log }: Surroundings): number {
  if (snapshot !== undefined && config !== undefined)
    throw new Error('a snapshot has no records: give --snapshot or --config, not both');
  const { host, found } = snapshot === undefined ? checkLive(config, log) : checkSaved(snapshot);
  const extent = extentOf(host);
  const text =
    json === true
      ? JSON.stringify({ ...extent, findings: found }, null, 2)
      : formatFindings(found, extent, out).join('\n');
  writeAll(1, `${text}\n`);
  return found.some(({ severity }) => severity === 'error') ? 1 : 0;
}

async function checkAttachment(flags: CallFlags, { out, opened }: Surroundings): Promise<number> {
  const request = requestOf('CHECK', flags);
  const found = findings(await opened.open(request, flags, 'look'), request.key);
  for (const { netns, text, repair } of found) {
    writeAll(1, `${out.red('✗')} netns ${netns}: ${text}\n`);
    for (const line of repair) writeAll(1, out.dim(`    ${line}`) + '\n');
  }
  if (found.length > 0) return 1;
  writeAll(1, `${out.green('✓')} attachment ${formatKey(request.key)} is as ADD left it\n`);
  return 0;
}

/** The flags of a call about one attachment; undefined where none is meant. Throws where some are missing, or are of the other kind. */
function callFlags(flags: CheckFlags): CallFlags | undefined {
  const { config, containerId, netns, snapshot, json } = flags;
  if (containerId === undefined && netns === undefined) return undefined;
  const missing = [
    ...(config === undefined ? ['--config'] : []),
    ...(containerId === undefined ? ['--container-id'] : []),
    ...(netns === undefined ? ['--netns'] : []),
  ];
  if (config === undefined || containerId === undefined || missing.length > 0)
    throw new Error(
      `an attachment is named by --config, --container-id and --netns; missing: ${missing.join(', ')}`,
    );
  if (snapshot !== undefined || json === true)
    throw new Error(
      '--snapshot and --json are for a whole host: leave out --container-id and --netns',
    );
  return { ...flags, config, containerId };
}

/** Adds the command. It hands its exit status to `end`. */
export function addCheckCommand(
  program: Command,
  surroundings: Surroundings,
  end: (status: number) => void,
): void {
  const { err } = surroundings;
  const understood = <T>(work: () => T): { readonly value: T } | undefined => {
    try {
      return { value: work() };
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      writeAll(2, `${err.red('error:')} ${message}\n`);
      end(NOT_UNDERSTOOD);
      return undefined;
    }
  };
  program
    .command('check')
    .description(
      'compare an attachment with the kernel; without one, look for what is wrong on the whole host',
    )
    .option('-c, --config <file>', 'network configuration or list; - reads standard input')
    .option('-i, --container-id <id>', 'the container that the attachment belongs to')
    .option('-I, --ifname <name>', "the link's name in the pod", 'eth0')
    .option('-n, --netns <name|path>', 'the network namespace of the pod')
    .option('--cni-path <folders>', 'where other plugins are, for addresses of theirs', CNI_PATH)
    .option('--snapshot <file>', 'the host that was saved there; - reads standard input')
    .option('--json', 'print the findings for machines')
    .addHelpText('after', EXAMPLES)
    .exitOverride(({ exitCode, code, message }) => {
      throw new CommanderError(exitCode === 0 ? 0 : NOT_UNDERSTOOD, code, message);
    })
    .action(async (flags: CheckFlags) => {
      const call = understood(() => callFlags(flags));
      if (call?.value) end(await checkAttachment(call.value, surroundings));
      else if (call) {
        const status = understood(() => checkHost(flags, surroundings));
        if (status) end(status.value);
      }
    });
}
