/** What ICMP errors senders are told of, in the simulator and by the kernel. */
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import type { NetnsName } from '../../model/host.ts';
import { familyOf, parseIp } from '../../model/ip.ts';
import type { Op } from '../../model/op.ts';
import type { ErrorKind } from '../../sim/frame.ts';
import { probe } from '../../sim/probe.ts';
import { type SenderError, formatTrace } from '../../sim/trace.ts';
import { type World, withHost } from '../../sim/world.ts';
import { ROUTED, ROUTED_DESTINATIONS, carriedOut } from '../sim/hosts.ts';
import { LISTEN_PORT, NO_RULESET, SERVICES, SERVICE_PORT } from '../sim/rulesets.ts';
import type { Datagram, Told } from './error-prober.ts';
import type { RoutedHost } from './routed-kernel.ts';

/** Type and code by what they say (include/uapi/linux/icmp.h, icmpv6.h). */
const NUMBERS: Readonly<Record<4 | 6, Readonly<Record<ErrorKind, string>>>> = {
  4: {
    'time exceeded': '11/0',
    'net unreachable': '3/0',
    'host unreachable': '3/1',
    'port unreachable': '3/3',
    'too big': '3/4',
    'admin prohibited': '3/13',
  },
  6: {
    'time exceeded': '3/0',
    'net unreachable': '1/0',
    'host unreachable': '1/3',
    'port unreachable': '1/4',
    'too big': '2/0',
    'admin prohibited': '1/1',
  },
};

/** An error of the simulator in numbers. */
export function formatError(error: SenderError | null): string {
  if (error === null) return 'nothing';
  const { from, error: kind, mtuBytes } = error;
  return `${NUMBERS[familyOf(from)][kind]} from ${from}, mtu ${mtuBytes ?? 0}`;
}

function formatTold(told: Told | null | undefined): string {
  return told ? `${told.type}/${told.code} from ${told.from}, mtu ${told.mtuBytes}` : 'nothing';
}

/** What a netns is told of its datagrams, of each in numbers. */
export function askForErrors(
  { places }: RoutedHost,
  netns: NetnsName,
  questions: readonly Datagram[],
  waitMs: number,
): Promise<readonly string[]> {
  const script = join(import.meta.dirname, 'error-prober.ts');
  const words = [process.execPath, script, JSON.stringify(questions), `${waitMs}`];
  const child = spawn('ip', ['netns', 'exec', places.real(netns), ...words]);
  let [out, err] = ['', ''];
  child.stdout.on('data', (data: Buffer) => {
    out += data.toString();
  });
  child.stderr.on('data', (data: Buffer) => {
    err += data.toString();
  });
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', () => {
      if (err !== '') reject(new Error(err));
      else resolve((JSON.parse(out) as (Told | null)[]).map(formatTold));
    });
  });
}

/** Who is known to be there: for the others a neighbour would be waited for. */
const THERE = ROUTED_DESTINATIONS.filter((destination) => !destination.endsWith('99'));

/** To everybody so that the first router, or a second, uses them up, and to services that may be anybody. */
const SHORT_LIVED: readonly Datagram[] = [
  ...THERE.flatMap((destination) =>
    [1, 2].map((ttl) => ({
      destination: parseIp(destination),
      port: LISTEN_PORT,
      ttl,
      payloadBytes: 5,
    })),
  ),
  ...SERVICES.map((destination) => ({ destination, port: SERVICE_PORT, ttl: 1, payloadBytes: 5 })),
];

const WAIT_MS = 200;

/** Of a route that there is not IPv4 tells five times at once, and then once a second (ip_error). */
function mayBeHeldBack(error: SenderError | null): boolean {
  return error?.error === 'net unreachable' && familyOf(error.from) === 4;
}

/** The host with a ruleset on both sides, and on which errors they part; how many there were. */
export async function compareErrors(
  kernel: RoutedHost,
  warm: World,
  ops: readonly Op[],
): Promise<{ readonly partings: readonly string[]; readonly told: number }> {
  const { ops: done, host } = carriedOut(ROUTED, ops);
  kernel.execute(NO_RULESET);
  for (const op of done) kernel.execute(op);
  const world = { ...withHost(warm, host), connections: {} };
  const partings: string[] = [];
  let told = 0;
  for (const netns of ['a', 'c', 'd']) {
    const answers = await askForErrors(kernel, netns, SHORT_LIVED, WAIT_MS);
    for (const [at, { destination, port, ttl, payloadBytes }] of SHORT_LIVED.entries()) {
      const to = { protocol: 'udp', port } as const;
      const trace = probe(world, { netns, destination, ttl, payloadBytes, to });
      if (trace.error === 'unknown' || mayBeHeldBack(trace.error)) continue;
      if (trace.error) told += 1;
      const answer = answers[at] ?? 'nothing';
      if (answer !== formatError(trace.error))
        partings.push(`${netns} > ${destination} ${port}: ${answer}\n${formatTrace(trace)}`);
    }
  }
  return { partings, told };
}
