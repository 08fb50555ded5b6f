/** `cube-cni trace`: what becomes of a packet on this host, or on a saved one, and what is to blame where it does not arrive. */
import { writeFileSync } from 'node:fs';
import { type Command, CommanderError } from 'commander';
import { makeLinuxBackend } from '../../backends/linux/linux.ts';
import { listNetns, nameOfNetns } from '../../backends/linux/netns-list.ts';
import type { Host } from '../../model/host.ts';
import { familyOf } from '../../model/ip.ts';
import { capture } from '../../sim/capture.ts';
import { type Beside, type Journey, formatJourney, hopsOf, travel } from '../../sim/journey.ts';
import type { WholeHost } from '../../sim/legacy-table.ts';
import { formatPassedOver, journeyJson, passedOver } from '../../sim/passed-over.ts';
import { pcap } from '../../sim/pcap.ts';
import type { ProbeRequest } from '../../sim/probe.ts';
import { makeWorld } from '../../sim/world.ts';
import { findContainers } from '../process/containers.ts';
import { writeAll } from '../process/stdio.ts';
import { WHOLE, readWhole } from '../process/whole-host.ts';
import { type KnownContainers, findOrigin, parseTarget } from '../trace/endpoints.ts';
import type { Colors } from './colors.ts';

interface TraceFlags {
  readonly json?: boolean;
  readonly pcap?: string;
  readonly snapshot?: string;
  readonly size?: string;
  readonly ttl?: string;
  readonly df: boolean;
  readonly live?: boolean;
  readonly why?: boolean;
  readonly wait?: string;
}

const EXAMPLES = `
FROM is a network namespace (a name under /run/netns, or a path), a container (its id, or six digits or more of it), a
link or an address.
TO is an address, or with a port ADDRESS:PORT/tcp or ADDRESS:PORT/udp, an IPv6 address in brackets.
Nothing is sent: the packet is simulated on the state that the kernel has now. Whoever it reaches answers.
With --live one is sent too, and what the kernel's tracepoints tell of it is compared; that needs root.

Exit status: 0 the answer comes back, 1 it does not, 2 what was asked is not
understood or not possible, 3 that is not known: it leaves this host, or hangs on
chance, on a rule that is not understood or on a table that is not read, 4 with
--live the kernel did otherwise.

Examples:
  cube-cni trace pod-a 10.244.1.3
  cube-cni trace pod-a 10.96.0.1:80/tcp
  cube-cni trace --why pod-a 10.244.1.3
  cube-cni trace --live pod-a 10.244.1.3
  cube-cni snapshot --all >host.json
  cube-cni trace --snapshot host.json pod-a '[fd00::1]:53/udp'
  cube-cni trace pod-a 10.244.1.3 --pcap trace.pcapng && wireshark trace.pcapng
`;

interface Live {
  readonly whole: WholeHost;
  /** The name in it of what was asked from. */
  readonly origin: string;
  readonly known: KnownContainers;
}

/** This host as it is, with the netns that was asked from, which may have no name: a path's, or a container's. */
function readLive(from: string): Live {
  const names = [...listNetns()];
  const named = (path: string): string => {
    const name = nameOfNetns(path, names) ?? path;
    if (!names.includes(name)) names.push(name);
    return name;
  };
  const isPath = from.startsWith('/');
  const { containers, lookedIn } =
    isPath || names.includes(from) ? { containers: [], lookedIn: [] } : findContainers(from);
  const known = containers.map(({ id, folder, netnsPath }) => ({
    id,
    folder,
    netns: netnsPath === undefined ? undefined : named(netnsPath),
  }));
  const origin = isPath ? named(from) : from;
  const backend = makeLinuxBackend(WHOLE);
  try {
    return { whole: readWhole(backend, names), origin, known: { containers: known, lookedIn } };
  } finally {
    backend.close();
  }
}

function wholeNumber(text: string | undefined, what: string, most: number): number | undefined {
  if (text === undefined) return undefined;
  const number = Number(text);
  if (!/^\d+$/.test(text) || number > most)
    throw new Error(`${what} is a whole number up to ${most}, not "${text}"`);
  return number;
}

const STATUS = { delivered: 0, dropped: 1, unknown: 3 } as const;

/** Of what was asked something is wrong: no answer about a packet, so that scripts can tell. */
const NOT_UNDERSTOOD = 2;
/** What was predicted is not what the kernel did. */
const PARTED = 4;

const MOST_WAIT_SECONDS = 60;

interface Question {
  readonly whole: WholeHost;
  readonly request: ProbeRequest;
  readonly waitMs?: number;
}

function waitMsOf({ wait }: TraceFlags): number | undefined {
  if (wait === undefined) return undefined;
  const seconds = Number(wait);
  if (!/^\d+(\.\d+)?$/.test(wait) || seconds > MOST_WAIT_SECONDS || seconds === 0)
    throw new Error(`a wait is seconds, more than 0 and up to ${MOST_WAIT_SECONDS}, not "${wait}"`);
  return Math.round(seconds * 1000);
}

/** Throws where flags exclude each other, or a live probe is not possible. */
function checkLive(to: string, { live, snapshot, size, wait }: TraceFlags): void {
  if (live !== true) {
    if (wait !== undefined) throw new Error('--wait is for --live: without it nothing is sent');
    return;
  }
  if (snapshot !== undefined)
    throw new Error(
      '--live asks the kernel of this machine, and --snapshot a saved host: give one',
    );
  if (size !== undefined && parseTarget(to).to?.protocol === 'tcp')
    throw new Error('with --live the SYN of a TCP connection carries nothing: leave --size out');
  if (process.getuid?.() !== 0)
    throw new Error('--live needs root: it sends from a network namespace and reads tracepoints');
}

/** A saved host. Throws where it is none. */
async function readSaved(file: string): Promise<WholeHost> {
  const { parseSnapshot } = await import('../format/snapshot-file.ts');
  const { readText } = await import('./configuration.ts');
  return parseSnapshot(readText(file), file);
}

/** What is asked of which host. Throws where a word means nothing, or several things. */
async function questionOf(from: string, to: string, flags: TraceFlags): Promise<Question> {
  const target = parseTarget(to);
  checkLive(to, flags);
  const waitMs = waitMsOf(flags);
  const payloadBytes = wholeNumber(flags.size, 'a size', 65_507);
  const ttl = wholeNumber(flags.ttl, 'a TTL', 255);
  if (ttl === 0) throw new Error('a TTL is 1 to 255, not 0');
  const { whole, origin, known } =
    flags.snapshot === undefined
      ? readLive(from)
      : { whole: await readSaved(flags.snapshot), origin: from, known: undefined };
  const found = findOrigin(whole.host, origin, known);
  const { source } = found;
  if (source !== undefined && familyOf(source) !== familyOf(target.destination))
    throw new Error(`${source} cannot ask ${target.destination}: they are of different families`);
  return {
    whole,
    ...(waitMs === undefined ? {} : { waitMs }),
    request: {
      ...found,
      ...target,
      ...(payloadBytes === undefined ? {} : { payloadBytes }),
      ...(ttl === undefined ? {} : { ttl }),
      ...(flags.df ? {} : { dontFragment: false }),
    },
  };
}

/** When the first frame is on its link: nothing was sent, so no time is true, and 1970 shows it. */
const CAPTURE_START_MICROSECONDS = 0;

/** Writes every frame of a journey. Throws an error that names the file where it cannot be written. */
function writeCapture(file: string, journey: Journey): void {
  try {
    writeFileSync(file, pcap(capture(hopsOf(journey), CAPTURE_START_MICROSECONDS)));
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new Error(`cannot write the capture file ${file}: ${reason}`, { cause: error });
  }
}

/** What is done on a saved host, whose parts may not fit together: then it throws an error that says so. */
async function onSaved<T>(file: string, act: () => T): Promise<T> {
  const { fromSnapshot } = await import('../format/snapshot-file.ts');
  return fromSnapshot(file, act);
}

/** What the lookup of a hop passed over, a line each. */
function belowOf(host: Host, out: Colors): Beside['below'] {
  return (hop) => passedOver(host, hop).map((over) => out.dim(`not ${formatPassedOver(over)}`));
}

interface Answer {
  readonly status: number;
  readonly lines: readonly string[];
  readonly json: object;
}

/** Sends what is asked in the simulator, and writes its frames where that is asked too. Throws where they cannot be written. */
async function answer(
  { whole, request }: Question,
  { pcap: file, snapshot, why }: TraceFlags,
  out: Colors,
): Promise<Answer> {
  const go = (): Journey => travel(makeWorld(whole.host, whole.legacyTables), request);
  const journey = snapshot === undefined ? go() : await onSaved(snapshot, go);
  if (file !== undefined) writeCapture(file, journey);
  const { reachable, verdict } = journey;
  // It hangs on what is not read, or on what is drawn.
  const isOpen =
    reachable.back === null && (verdict.kind === 'delivered' || reachable.there === null);
  const status = STATUS[isOpen ? 'unknown' : verdict.kind];
  const below = why === true ? belowOf(whole.host, out) : undefined;
  const lines = formatJourney(journey, out, below ? { below } : {});
  return { status, lines, json: journeyJson(whole.host, journey) };
}

/** The same, and on the kernel too; the frames are those that are predicted. */
async function answerLive(
  { whole, request, waitMs }: Question,
  { pcap: file, why }: TraceFlags,
  out: Colors,
): Promise<Answer> {
  const { traceLive } = await import('../process/live-trace.ts');
  const { comparisonJson, formatComparison } = await import('../trace/comparison.ts');
  const comparison = await traceLive(whole, request, waitMs);
  const { prediction, observed, parting } = comparison;
  // What was predicted does not know, and the kernel has told.
  const isTold = prediction.verdict.kind === 'unknown' && observed.outcome.kind === 'answered';
  const predicted = isTold ? STATUS.delivered : STATUS[prediction.verdict.kind];
  if (file !== undefined) writeCapture(file, prediction);
  return {
    status: parting === null ? predicted : PARTED,
    lines: formatComparison(comparison, out, why === true ? belowOf(whole.host, out) : undefined),
    json: { ...comparisonJson(comparison), prediction: journeyJson(whole.host, prediction) },
  };
}

/** Adds the command. It hands its exit status to `end`. */
export function addTraceCommand(
  program: Command,
  { out, err }: { readonly out: Colors; readonly err: Colors },
  end: (status: number) => void,
): void {
  program
    .command('trace')
    .description(
      'show what becomes of a packet and of its answer, hop by hop, and what is to blame if they do not arrive',
    )
    .argument('<from>', 'a network namespace, container, link or address')
    .argument('<to>', 'an address, or ADDRESS:PORT/tcp or /udp')
    .option('--json', 'print it for machines')
    .option('--pcap <file>', 'also write every frame there and back to a pcapng file')
    .option('--snapshot <file>', 'on the host that was saved there; - reads standard input')
    .option('--size <bytes>', 'what the packet carries, beside its headers')
    .option('--ttl <hops>', 'by how many hosts it may be passed on')
    .option('--no-df', 'without DF: it may be fragmented (as by ping -M dont)')
    .option('--why', 'below each route, show the others that were passed over, and why')
    .option('--live', 'send a real probe as well, and compare what the kernel does with it')
    .option('--wait <seconds>', 'how long --live waits for the answer (default: 1)')
    .addHelpText('after', EXAMPLES)
    .exitOverride(({ exitCode, code, message }) => {
      throw new CommanderError(exitCode === 0 ? 0 : NOT_UNDERSTOOD, code, message);
    })
    .action(async (from: string, to: string, flags: TraceFlags) => {
      try {
        const question = await questionOf(from, to, flags);
        const { status, lines, json } = await (flags.live === true
          ? answerLive(question, flags, out)
          : answer(question, flags, out));
        writeAll(1, `${flags.json === true ? JSON.stringify(json, null, 2) : lines.join('\n')}\n`);
        end(status);
      } catch (error) {
        const message = error instanceof Error ? error.message : String(error);
        writeAll(2, `${err.red('error:')} ${message}\n`);
        end(error instanceof Error && 'status' in error ? Number(error.status) : NOT_UNDERSTOOD);
      }
    });
}
