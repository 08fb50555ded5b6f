/** The same questions to the simulator and to the kernel. */
import { execFileSync } from 'node:child_process';
import { makeLinuxBackend } from '../../backends/linux/linux.ts';
import { FOREIGN } from '../../backends/linux/nftables-foreign.ts';
import { type Host, type NetnsName, getNetns } from '../../model/host.ts';
import { parseIp } from '../../model/ip.ts';
import type { Ruleset } from '../../model/nftables.ts';
import type { Op } from '../../model/op.ts';
import type { IpPacket } from '../../sim/frame.ts';
import { type ProbeRequest, probe } from '../../sim/probe.ts';
import { ruleText } from '../../sim/rule-text.ts';
import { type Trace, formatTrace } from '../../sim/trace.ts';
import { type World, makeWorld, withHost } from '../../sim/world.ts';
import { ROUTED, ROUTED_DESTINATIONS, ROUTED_SENDERS, carriedOut } from '../sim/hosts.ts';
import { LISTEN_PORT, NO_RULESET, SERVICES, SERVICE_PORT } from '../sim/rulesets.ts';
import type { ForeignRuleset } from './foreign.ts';
import type { Question, Reached } from './prober.ts';
import type { RoutedHost, RoutedKernel } from './routed-kernel.ts';

/** A question of a netns. */
export interface Asked extends Question {
  readonly netns: NetnsName;
}

/** Everything that every netns can ask. */
export const QUESTIONS: readonly Asked[] = ROUTED_SENDERS.flatMap((netns) => [
  ...ROUTED_DESTINATIONS.flatMap((destination): Asked[] => [
    { netns, protocol: 'icmp', destination, port: 0 },
    { netns, protocol: 'udp', destination, port: LISTEN_PORT },
    { netns, protocol: 'tcp', destination, port: LISTEN_PORT },
  ]),
  ...SERVICES.flatMap((destination): Asked[] => [
    { netns, protocol: 'udp', destination, port: SERVICE_PORT },
    { netns, protocol: 'tcp', destination, port: SERVICE_PORT },
  ]),
]);

function requestOf({ netns, protocol, destination, port }: Asked): ProbeRequest {
  const to = protocol === 'icmp' ? {} : { to: { protocol, port } };
  return { netns, destination: parseIp(destination), ...to };
}

/** The question as it came to whoever answered. */
function arrived({ hops }: Trace): IpPacket | undefined {
  const hop = hops.find(
    ({ stage, decision }) => stage === 'deliver' && decision.endsWith('replies'),
  );
  return hop?.data.kind === 'ip' ? hop.data : undefined;
}

/** Is there somebody on the kernel for whom it reaches in the simulator, where all answer on every port? */
function isHeard(trace: Trace): boolean {
  const message = arrived(trace)?.message;
  return (
    message !== undefined &&
    (!('destinationPort' in message) || message.destinationPort === LISTEN_PORT)
  );
}

/** A world in which everybody has asked everybody once, as in the kernel before its first ruleset. */
export function warmWorld(): World {
  return QUESTIONS.reduce(
    (world, asked) => probe(world, requestOf(asked)).world,
    makeWorld(ROUTED),
  );
}

/** Lets everybody on the kernel ask everybody once. */
export async function warmUp(kernel: RoutedKernel): Promise<void> {
  await askKernel(kernel, QUESTIONS);
}

async function askKernel(
  kernel: RoutedKernel,
  questions: readonly Asked[],
): Promise<readonly (Reached | undefined)[]> {
  const lists = Object.fromEntries(
    ROUTED_SENDERS.map((name) => [name, questions.filter(({ netns }) => netns === name)]),
  );
  const answers = await kernel.ask(lists);
  return questions.map((asked) => {
    const at = lists[asked.netns]?.indexOf(asked) ?? -1;
    return answers[asked.netns]?.[at];
  });
}

/** What a comparison found. */
export interface Comparison {
  /** On what they part, each with the trace. */
  readonly partings: readonly string[];
  /** Verdicts of the simulator by their kind, and drops by their reason. */
  readonly verdicts: Readonly<Record<string, number>>;
  /** Why the simulator does not know. */
  readonly unknown: readonly string[];
}

/** A busy machine may be too late with an answer: what parts is asked again, so often. */
const ASKED_AGAIN = 3;

function isSame({ protocol }: Asked, { verdict, ...trace }: Trace, answer: Reached): boolean {
  // It says what it does not know.
  if (verdict.kind === 'unknown') return true;
  const reaches = verdict.kind === 'delivered' && isHeard({ verdict, ...trace });
  if (reaches !== (answer !== null)) return false;
  return !reaches || protocol === 'icmp' || answer === arrived({ verdict, ...trace })?.source;
}

function say({ netns, protocol, destination, port }: Asked, trace: Trace, answer: Reached): string {
  const kernel = answer === null ? 'does not' : answer === '' ? 'does' : `does, as ${answer}`;
  return `${netns} reaches ${destination} ${port}/${protocol}: the kernel ${kernel}\n${formatTrace(trace)}`;
}

/** The host with a ruleset on both sides, and on which of the questions they part. */
export async function compareRuleset(
  kernel: RoutedKernel,
  warm: World,
  ops: readonly Op[],
  questions: readonly Asked[],
): Promise<Comparison> {
  const { ops: done, host } = carriedOut(ROUTED, ops);
  kernel.execute(NO_RULESET);
  for (const op of done) kernel.execute(op);
  return compareHost(kernel, warm, host, questions);
}

/** Does something while rules of others are in netns node. */
export async function withForeign<T>(
  kernel: RoutedHost,
  { nft, iptables, ip6tables }: ForeignRuleset,
  act: (netns: string) => T | Promise<T>,
): Promise<T> {
  kernel.execute(NO_RULESET);
  // As on the host that was built: a case before may have had bridged packets pass the chains.
  for (const name of ['iptables', 'ip6tables']) {
    const key = `net/bridge/bridge-nf-call-${name}`;
    kernel.execute({ op: 'sysctl.set', netns: 'node', key, value: '0' });
  }
  const netns = kernel.places.real('node');
  const run = (input: string, ...command: readonly string[]): void => {
    execFileSync('ip', ['netns', 'exec', netns, ...command], { input, stdio: 'pipe' });
  };
  run('flush ruleset', 'nft', '-f', '-');
  try {
    if (nft !== undefined) run(nft, 'nft', '-f', '-');
    if (iptables !== undefined) run(iptables, 'iptables-nft-restore');
    if (ip6tables !== undefined) run(ip6tables, 'ip6tables-nft-restore');
    return await act(netns);
  } finally {
    run('flush ruleset', 'nft', '-f', '-');
  }
}

/** The same of rules that others have written, as they are read from the kernel. */
export async function compareForeign(
  kernel: RoutedKernel,
  warm: World,
  ruleset: ForeignRuleset,
): Promise<Comparison> {
  return withForeign(kernel, ruleset, (netns) => {
    const questions = [...QUESTIONS, ...(ruleset.questions ?? [])];
    return compareHost(kernel, warm, withHostRuleset(readRuleset(netns)), questions);
  });
}

/** The rules of others in words, as they are read from the kernel, by their chains. */
export async function foreignTexts(
  kernel: RoutedKernel,
  ruleset: ForeignRuleset,
): Promise<readonly string[]> {
  const tables = await withForeign(kernel, ruleset, readRuleset);
  return Object.values(tables).flatMap(({ family, name, chains }) =>
    Object.values(chains).flatMap((chain) =>
      chain.rules.map((rule) => `${family} ${name} ${chain.name}: ${ruleText(rule)}`),
    ),
  );
}

/** The ruleset of a netns on the kernel, with what others have in it. */
export function readRuleset(netns: string): Ruleset {
  const backend = makeLinuxBackend({ foreign: FOREIGN });
  const scope = { links: [], routes: 'none', sysctls: [], nftables: 'all' } as const;
  const host = backend.observe({ [netns]: scope });
  backend.close();
  return host.netns[netns]?.nftables ?? {};
}

/** The routed host with that in netns node. */
export function withHostRuleset(nftables: Ruleset): Host {
  const node = getNetns(ROUTED, 'node');
  return { ...ROUTED, netns: { ...ROUTED.netns, node: { ...node, nftables } } };
}

async function compareHost(
  kernel: RoutedKernel,
  warm: World,
  host: Host,
  questions: readonly Asked[],
): Promise<Comparison> {
  const world = { ...withHost(warm, host), connections: {} };
  const verdicts: Record<string, number> = {};
  const unknown = new Set<string>();
  let parted = questions.map((asked) => {
    const trace = probe(world, requestOf(asked));
    const { verdict } = trace;
    if (verdict.kind === 'unknown') unknown.add(verdict.text);
    const kind = verdict.kind === 'dropped' ? verdict.reason : verdict.kind;
    verdicts[kind] = (verdicts[kind] ?? 0) + 1;
    return { asked, trace, answer: null as Reached };
  });
  for (let round = 0; round <= ASKED_AGAIN && parted.length > 0; round += 1) {
    const answers = await askKernel(
      kernel,
      parted.map(({ asked }) => asked),
    );
    parted = parted
      .map((each, index) => ({ ...each, answer: answers[index] ?? null }))
      .filter(({ asked, trace, answer }) => !isSame(asked, trace, answer));
  }
  const partings = parted.map(({ asked, trace, answer }) => say(asked, trace, answer));
  return { partings, verdicts, unknown: [...unknown] };
}
