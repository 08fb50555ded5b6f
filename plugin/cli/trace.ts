/** `cube-cni trace`: what becomes of a packet on this host, or on a saved one, and what is to blame where it does not arrive. */
import { writeFileSync } from 'node:fs';
import { type Command, CommanderError } from 'commander';
import type picocolors from 'picocolors';
import { makeLinuxBackend } from '../../backends/linux/linux.ts';
import { listNetns, nameOfNetns } from '../../backends/linux/netns-list.ts';
import type { Host } from '../../model/host.ts';
import { familyOf } from '../../model/ip.ts';
import { capture } from '../../sim/capture.ts';
import { type Journey, formatJourney, travel } from '../../sim/journey.ts';
import { pcap } from '../../sim/pcap.ts';
import type { ProbeRequest } from '../../sim/probe.ts';
import { type World, makeWorld } from '../../sim/world.ts';
import { parseSnapshot } from '../format/snapshot-file.ts';
import { writeAll } from '../process/stdio.ts';
import { WHOLE, observeWhole } from '../process/whole-host.ts';
import { findOrigin, parseTarget } from '../trace/endpoints.ts';
import { readText } from './configuration.ts';

type Colors = ReturnType<typeof picocolors.createColors>;

interface TraceFlags {
  readonly json?: boolean;
  readonly pcap?: string;
  readonly snapshot?: string;
  readonly size?: string;
  readonly ttl?: string;
}

const EXAMPLES = `
FROM is a network namespace (a name under /run/netns, or a path), a container id, a link or an address.
TO is an address, or with a port ADDRESS:PORT/tcp or ADDRESS:PORT/udp, an IPv6 address in brackets.
Nothing is sent: the packet is simulated on the state that the kernel has now. Whoever it reaches answers.

Exit status: 0 the answer comes back, 1 it does not, 2 what was asked is not
understood, 3 it hangs on a rule that is not.

Examples:
  cube-cni trace pod-a 10.244.1.3
  cube-cni trace pod-a 10.96.0.1:80/tcp
  cube-cni snapshot --all >host.json
  cube-cni trace --snapshot host.json pod-a '[fd00::1]:53/udp'
  cube-cni trace pod-a 10.244.1.3 --pcap trace.pcapng && wireshark trace.pcapng
`;

/** This host as it is, and the name in it of what was asked from. */
function readLive(from: string): { readonly host: Host; readonly origin: string } {
  const names = listNetns();
  const isPath = from.startsWith('/');
  const known = isPath ? nameOfNetns(from, names) : undefined;
  const backend = makeLinuxBackend(WHOLE);
  try {
    const all = isPath && known === undefined ? [...names, from] : names;
    return { host: observeWhole(backend, all), origin: known ?? from };
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

interface Question {
  readonly world: World;
  readonly request: ProbeRequest;
}

/** What is asked of which host. Throws where a word means nothing, or several things. */
function questionOf(from: string, to: string, flags: TraceFlags): Question {
  const target = parseTarget(to);
  const payloadBytes = wholeNumber(flags.size, 'a size', 65_507);
  const ttl = wholeNumber(flags.ttl, 'a TTL', 255);
  if (ttl === 0) throw new Error('a TTL is 1 to 255, not 0');
  const { host, origin } =
    flags.snapshot === undefined
      ? readLive(from)
      : { host: parseSnapshot(readText(flags.snapshot), flags.snapshot), origin: from };
  const found = findOrigin(host, origin);
  const { source } = found;
  if (source !== undefined && familyOf(source) !== familyOf(target.destination))
    throw new Error(`${source} cannot ask ${target.destination}: they are of different families`);
  return {
    world: makeWorld(host),
    request: {
      ...found,
      ...target,
      ...(payloadBytes === undefined ? {} : { payloadBytes }),
      ...(ttl === undefined ? {} : { ttl }),
    },
  };
}

/** When the first frame is on its link: nothing was sent, so no time is true, and 1970 shows it. */
const CAPTURE_START_MICROSECONDS = 0;

/** Writes every frame of a journey, there and back. Throws an error that names the file where it cannot be written. */
function writeCapture(file: string, journey: Journey): void {
  const hops = [...journey.forward, ...journey.return];
  try {
    writeFileSync(file, pcap(capture(hops, CAPTURE_START_MICROSECONDS)));
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new Error(`cannot write the capture file ${file}: ${reason}`, { cause: error });
  }
}

/** Sends what is asked, and writes its frames where that is asked too. Throws where a word means nothing, and where they cannot be written. */
function answer(from: string, to: string, flags: TraceFlags): Journey {
  const { world, request } = questionOf(from, to, flags);
  const journey = travel(world, request);
  if (flags.pcap !== undefined) writeCapture(flags.pcap, journey);
  return journey;
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
    .argument('<from>', 'a network namespace, container id, link or address')
    .argument('<to>', 'an address, or ADDRESS:PORT/tcp or /udp')
    .option('--json', 'print it for machines')
    .option('--pcap <file>', 'also write every frame there and back to a pcapng file')
    .option('--snapshot <file>', 'on the host that was saved there; - reads standard input')
    .option('--size <bytes>', 'what the packet carries, beside its headers')
    .option('--ttl <hops>', 'by how many hosts it may be passed on')
    .addHelpText('after', EXAMPLES)
    .exitOverride(({ exitCode, code, message }) => {
      throw new CommanderError(exitCode === 0 ? 0 : NOT_UNDERSTOOD, code, message);
    })
    .action((from: string, to: string, flags: TraceFlags) => {
      let journey: Journey;
      try {
        journey = answer(from, to, flags);
      } catch (error) {
        const message = error instanceof Error ? error.message : String(error);
        writeAll(2, `${err.red('error:')} ${message}\n`);
        end(NOT_UNDERSTOOD);
        return;
      }
      if (flags.json === true) writeAll(1, `${JSON.stringify(journey, null, 2)}\n`);
      else writeAll(1, `${formatJourney(journey, out).join('\n')}\n`);
      end(STATUS[journey.verdict.kind]);
    });
}
