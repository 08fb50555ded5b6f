/** Echoes of any size by one socket, which asks as `cube-cni trace --live` does, and the fragments that arrive of them. */
import { type LiveProbe, openProbe } from '../../backends/linux/probe.ts';
import { isFault } from '../../backends/linux/socket.ts';
import type { NetnsName } from '../../model/host.ts';
import type { Ip } from '../../model/ip.ts';
import { isOfAnswer } from '../../sim/journey.ts';
import { type ProbeRequest, probe } from '../../sim/probe.ts';
import { type Trace, formatTrace } from '../../sim/trace.ts';
import type { World } from '../../sim/world.ts';
import type { RoutedHost } from './routed-kernel.ts';

/** What is asked. */
export interface SizedEcho {
  readonly netns: NetnsName;
  readonly destination: Ip;
  readonly payloadBytes: number;
  readonly dontFragment: boolean;
}

/** How it ends: with an answer, with the word that it is too big, or in silence. */
type Ending = 'answer' | 'too big' | 'nothing';

/** In the simulator; undefined where that is not known. */
function endingOf({ verdict, error, hops }: Trace): Ending | undefined {
  if (verdict.kind === 'unknown') return undefined;
  if (verdict.kind === 'delivered') return 'answer';
  if (error === 'unknown') return undefined;
  const [first] = hops;
  const isRefused =
    verdict.reason === 'PKT_TOO_BIG' && verdict.netns === first?.netns && !hops.some(isOfAnswer);
  return isRefused || error?.error === 'too big' ? 'too big' : 'nothing';
}

const FIRST_ID = 20_000;

let nextId = FIRST_ID;

function open({ places }: RoutedHost, request: ProbeRequest): LiveProbe {
  nextId = nextId === 30_000 ? FIRST_ID : nextId + 1;
  const { netns, payloadBytes = 0 } = request;
  const packet = { ...request, netns: places.real(netns), payloadBytes, sourcePort: nextId };
  const opened = openProbe(packet);
  if (isFault(opened)) throw new Error(`${netns}: ${opened.errno}`);
  return opened;
}

/** What a sender hears: that it was answered, an errno, or nothing. */
export async function hearOf(
  host: RoutedHost,
  request: ProbeRequest,
  waitMs: number,
): Promise<string> {
  const live = open(host, request);
  try {
    const end = performance.now() + waitMs;
    let outcome = live.send();
    for (; !outcome && performance.now() < end; outcome = live.poll()) await Bun.sleep(1);
    return outcome?.kind === 'refused' ? outcome.errno : (outcome?.kind ?? 'silent');
  } finally {
    live.close();
  }
}

/** How long an answer may take, the second time on a busy machine. */
const WAITS_MS = [150, 600];

/** Longer than a tick of any kernel, for which it still knows what it was told about a path. */
const PAUSE_MS = 30;

async function askEcho(host: RoutedHost, asked: SizedEcho, waitMs: number): Promise<Ending> {
  await Bun.sleep(PAUSE_MS);
  const heard = await hearOf(host, asked, waitMs);
  if (heard === 'answered') return 'answer';
  return heard === 'EMSGSIZE' ? 'too big' : 'nothing';
}

export interface EchoComparison {
  /** On what they part, each with the trace. */
  readonly partings: readonly string[];
  /** Of how many the simulator does not know the end. */
  readonly unknown: number;
  readonly answered: number;
}

/** On which echoes, asked one after the other, the kernel and a world of the simulator part. */
export async function compareEchoes(
  host: RoutedHost,
  world: World,
  echoes: readonly SizedEcho[],
): Promise<EchoComparison> {
  const partings: string[] = [];
  let [unknown, answered] = [0, 0];
  for (const asked of echoes) {
    const trace = probe(world, asked);
    const predicted = endingOf(trace);
    if (predicted === undefined) unknown += 1;
    if (predicted === 'answer') answered += 1;
    let ending: Ending | undefined;
    for (const waitMs of WAITS_MS)
      if (ending !== predicted) ending = await askEcho(host, asked, waitMs);
    if (predicted !== undefined && ending !== predicted)
      partings.push(`${JSON.stringify(asked)}: the kernel has ${ending}\n${formatTrace(trace)}`);
  }
  return { partings, unknown, answered };
}

/** How long tcpdump takes to begin, and to say what it has seen. */
const LISTEN_MS = 150;

/** `1480@0+` for each fragment of an echo that comes in by a link on the kernel, in their order. */
export async function fragmentsSeen(
  host: RoutedHost,
  asked: SizedEcho,
  at: { readonly netns: NetnsName; readonly link: string },
): Promise<readonly string[]> {
  const listen = ['tcpdump', '-nn', '-v', '--immediate-mode', '-l', '-Q', 'in', '-i', at.link];
  const words = ['ip', 'netns', 'exec', host.places.real(at.netns), ...listen];
  const listener = Bun.spawn([...words, 'dst', 'host', asked.destination], {
    stdout: 'pipe',
    stderr: 'pipe',
  });
  // It says once that it listens.
  await listener.stderr.getReader().read();
  await Bun.sleep(LISTEN_MS);
  await hearOf(host, asked, LISTEN_MS);
  await Bun.sleep(LISTEN_MS);
  listener.kill();
  const text = await new Response(listener.stdout).text();
  const of4 = text.matchAll(/offset (\d+), flags \[(\+?)\w*\], proto \w+ \(\d+\), length (\d+)/g);
  const of6 = [...text.matchAll(/frag \((?:0x[\da-f]+:)?(\d+)\|(\d+)\)/g)];
  return [
    ...[...of4].map(([, at4, more, length]) => `${Number(length) - 20}@${at4}${more}`),
    // Which is the last the text does not say.
    ...of6.map(([, at6, bytes], i) => `${bytes}@${at6}${i < of6.length - 1 ? '+' : ''}`),
  ];
}

/** The same in the simulator: what a link sends of an echo. */
export function fragmentsPredicted(
  world: World,
  asked: SizedEcho,
  by: { readonly netns: NetnsName; readonly link: string },
): readonly string[] {
  return probe(world, asked).hops.flatMap(({ netns, link, stage, data }) => {
    if (stage !== 'transmit' || netns !== by.netns || link !== by.link) return [];
    const packet = data.kind === 'frame' ? data.packet : data;
    if (packet.kind !== 'ip' || !packet.fragment || packet.message.kind !== 'echo request')
      return [];
    const { dataBytes, offsetBytes, hasMore } = packet.fragment;
    return [`${dataBytes}@${offsetBytes}${hasMore ? '+' : ''}`];
  });
}
