/** `cube-cni trace`: what becomes of a packet on this host, or on a saved one, and what is to blame where it does not arrive. */
import type { Command } from 'commander';
import type picocolors from 'picocolors';
import { makeLinuxBackend } from '../../backends/linux/linux.ts';
import { listNetns, nameOfNetns } from '../../backends/linux/netns-list.ts';
import type { Host } from '../../model/host.ts';
import { formatJourney, travel } from '../../sim/journey.ts';
import { makeWorld } from '../../sim/world.ts';
import { parseSnapshot } from '../format/snapshot-file.ts';
import { writeAll } from '../process/stdio.ts';
import { observeWhole } from '../process/whole-host.ts';
import { findOrigin, parseTarget } from '../trace/endpoints.ts';
import { readText } from './configuration.ts';

type Colors = ReturnType<typeof picocolors.createColors>;

interface TraceFlags {
  readonly json?: boolean;
  readonly snapshot?: string;
  readonly size?: string;
  readonly ttl?: string;
}

const EXAMPLES = `
FROM is a network namespace (a name under /run/netns, or a path), a container id, a link or an address.
TO is an address, or with a port ADDRESS:PORT/tcp or ADDRESS:PORT/udp, an IPv6 address in brackets.
Nothing is sent: the packet is simulated on the state that the kernel has now. Whoever it reaches answers.

Exit status: 0 the answer comes back, 1 it does not, 3 it hangs on something that is not understood, 2 bad arguments.

Examples:
  cube-cni trace pod-a 10.244.1.3
  cube-cni trace pod-a 10.96.0.1:80/tcp
  cube-cni snapshot --all >host.json
  cube-cni trace --snapshot host.json pod-a '[fd00::1]:53/udp'
`;

/** This host as it is, and the name in it of what was asked from. */
function readLive(from: string): { readonly host: Host; readonly origin: string } {
  const names = listNetns();
  const isPath = from.startsWith('/');
  const known = isPath ? nameOfNetns(from, names) : undefined;
  const backend = makeLinuxBackend({ tellsRelease: true });
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

/** Adds the command. It hands its exit status to `end`. */
export function addTraceCommand(
  program: Command,
  colors: Colors,
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
    .option('--snapshot <file>', 'on the host that was saved there; - reads standard input')
    .option('--size <bytes>', 'what the packet carries, beside its headers')
    .option('--ttl <hops>', 'by how many hosts it may be passed on')
    .addHelpText('after', EXAMPLES)
    .action((from: string, to: string, flags: TraceFlags) => {
      const target = parseTarget(to);
      const payloadBytes = wholeNumber(flags.size, 'a size', 65_507);
      const ttl = wholeNumber(flags.ttl, 'a TTL', 255);
      const { host, origin } =
        flags.snapshot === undefined
          ? readLive(from)
          : { host: parseSnapshot(readText(flags.snapshot), flags.snapshot), origin: from };
      const journey = travel(makeWorld(host), {
        ...findOrigin(host, origin),
        ...target,
        ...(payloadBytes === undefined ? {} : { payloadBytes }),
        ...(ttl === undefined ? {} : { ttl }),
      });
      if (flags.json === true) writeAll(1, `${JSON.stringify(journey, null, 2)}\n`);
      else writeAll(1, `${formatJourney(journey, colors).join('\n')}\n`);
      end(STATUS[journey.verdict.kind]);
    });
}
