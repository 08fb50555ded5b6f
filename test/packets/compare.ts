/** The same questions to the simulator and to the kernel. */
import { makeLinuxBackend } from '../../backends/linux/linux.ts';
import { FOREIGN } from '../../backends/linux/nftables-foreign.ts';
import { type Host, type Netns, type NetnsName, getNetns } from '../../model/host.ts';
import { familyOf } from '../../model/ip.ts';
import type { Op } from '../../model/op.ts';
import { localType } from '../../model/route-lookup.ts';
import { type IpPacket, isAcknowledgement } from '../../sim/frame.ts';
import { outcomeOf, probe } from '../../sim/probe.ts';
import { ruleText } from '../../sim/rule-text/rule.ts';
import { type SenderError, type Trace, formatTrace } from '../../sim/trace.ts';
import { type World, makeWorld, withHost } from '../../sim/world.ts';
import { ROUTED, carriedOut } from '../sim/hosts.ts';
import { LISTEN_PORT, NO_RULESET } from '../sim/rulesets.ts';
import { formatError, formatTold } from './errors.ts';
import type { ForeignRuleset } from './foreign.ts';
import { pathPartings } from './path.ts';
import { WARMING, formatQuestion, requestOf } from './questions.ts';
import { type RoutedHost, type RoutedKernel, pinned } from './routed-kernel.ts';
import { type Told, inNetns } from './sockets.ts';
import { type Answer, NO_ANSWER, type Question } from './stations.ts';
import { together as amongOthers } from './turns.ts';

/** The question as it came to whoever answered. */
function arrived({ hops }: Trace): IpPacket | undefined {
  const hop = hops.find(
    ({ stage, decision }) => stage === 'deliver' && decision.endsWith('replies'),
  );
  return hop?.data.kind === 'ip' ? hop.data : undefined;
}

/** Is there somebody on the kernel for whom it reaches in the simulator, where all answer on every port? */
function isHeard(arrival: IpPacket | undefined): boolean {
  const message = arrival?.message;
  return (
    message !== undefined &&
    (!('destinationPort' in message) || message.destinationPort === LISTEN_PORT)
  );
}

/** Longer than a neighbour is asked for that nobody is, three times every 20 ms. */
const WARM_MS = 150;

/** A world in which everybody has asked everybody once, as on the kernel before its first ruleset. */
export function warmWorld(host: Host = ROUTED, questions = WARMING): World {
  const cold = makeWorld(pinned(host));
  return questions.reduce((world, asked) => outcomeOf(world, requestOf(asked)).world, cold);
}

/** Lets everybody on the kernel ask everybody once. */
export async function warmUp(kernel: RoutedKernel, questions = WARMING): Promise<void> {
  await kernel.ask(questions, WARM_MS);
}

/** What a comparison found. */
export interface Comparison {
  /** On what they part, each with the trace. */
  readonly partings: readonly string[];
  /** Verdicts of the simulator by their kind, and drops by their reason. */
  readonly verdicts: Readonly<Record<string, number>>;
  /** Of how many ICMP errors senders were told. */
  readonly errors: number;
  /** Why the simulator does not know. */
  readonly unknown: readonly string[];
  /** What the links of the host have learned by then. */
  readonly warm: World;
}

/** How long an answer may take: a busy machine may be too late with one, what parts is asked again. */
const WAITS_MS = [150, 400, 400, 800];
/** For a question after which another would be answered otherwise, so that it is not asked again: for an answer, and to see that there is none. */
const ONE_WAIT_MS = { answer: 700, silence: WARM_MS };

/** Of a route that there is not, or that ends packets, IPv4 tells five times at once, and then once a second (ip_error); of fragments that do not arrive after half a minute. */
function mayBeHeldBack({ verdict }: Trace, { error, from }: SenderError): boolean {
  if (error === 'reassembly time exceeded') return true;
  const isOfRoute = verdict.kind === 'dropped' && verdict.reason === 'IP_INNOROUTES';
  return isOfRoute && familyOf(from) === 4;
}

/** What the own kernel of whoever asks tells it goes through no netns but its own. */
function isOwn(host: Host, { netns }: Question, { from }: Told): boolean {
  return localType(getNetns(host, netns), from) === 'local';
}

/** Does a socket of TCP take it for a refusal (tcp_v4_err, tcp_v6_err; icmp_err_convert)? */
function isRefusal(error: SenderError | null): boolean {
  return error?.error === 'connection refused' || error?.error === 'port unreachable';
}

/** Are senders told of what does not arrive as the simulator says? */
function isToldSo(host: Host, asked: Question, trace: Trace, { told, isRefused }: Answer): boolean {
  const { error } = trace;
  if (error === 'unknown') return true;
  // Where nobody listens the kernel says so, and what of that comes back is another question.
  const arrival = arrived(trace);
  if (arrival && !isHeard(arrival)) return true;
  // Of TCP the socket keeps to itself what else it was told.
  if (asked.protocol === 'tcp') return isRefusal(error) === (isRefused === true);
  if (error === null) return told === undefined || isOwn(host, asked, told);
  return formatTold(told) === formatError(error) || (!told && mayBeHeldBack(trace, error));
}

function isHalfOpen({ verdict, hops }: Trace): boolean {
  return (
    verdict.kind === 'dropped' &&
    hops.some(({ data }) => data.kind === 'ip' && isAcknowledgement(data.message))
  );
}

function isSame(host: Host, asked: Question, trace: Trace, answer: Answer): boolean {
  const { verdict } = trace;
  // It says what it does not know.
  if (verdict.kind === 'unknown') return true;
  const arrival = arrived(trace);
  // Its answer has come, and whoever was asked does not hear of it: then nothing comes after it.
  if (isHalfOpen(trace) && isHeard(arrival)) return answer.as === '';
  const reaches = verdict.kind === 'delivered' && isHeard(arrival);
  if (reaches !== (answer.as !== null)) return false;
  if (!reaches) return isToldSo(host, asked, trace, answer);
  if (answer.as === '') return asked.protocol !== 'udp';
  return answer.as === arrival?.source && (asked.protocol === 'tcp' || answer.ttl === arrival.ttl);
}

function say(asked: Question, trace: Trace, { as, ttl, told }: Answer): string {
  const seen = as === '' ? 'answered' : `answered, seen as ${as} with ttl ${ttl}`;
  const kernel = as === null ? `not answered, told ${formatTold(told)}` : seen;
  return `${formatQuestion(asked)}: on the kernel ${kernel}\n${formatTrace(trace)}`;
}

/** The host of `warm` with a ruleset on both sides, and on which of the questions they part. */
export async function compareRuleset(
  kernel: RoutedKernel,
  warm: World,
  ops: readonly Op[],
  questions: Questions,
): Promise<Comparison> {
  const { ops: done, host } = carriedOut(warm.host, ops);
  kernel.execute(NO_RULESET);
  for (const op of done) kernel.execute(op);
  return compareHost(kernel, warm, host, questions);
}

/** Has bridged packets pass the chains, or not, as a case before may have had. */
export function bridgedOps({ bridged = false }: ForeignRuleset): readonly Op[] {
  return ['iptables', 'ip6tables'].map((name) => ({
    op: 'sysctl.set',
    netns: 'node',
    key: `net/bridge/bridge-nf-call-${name}`,
    value: bridged ? '1' : '0',
  }));
}

/** Runs a command in a netns to its end; fails with what it said where it did. While it begins it has the files of this process, so that no tracepoints may be on. */
function runIn(netns: NetnsName, input: string, command: string): Promise<void> {
  return amongOthers(() => complete(netns, input, command));
}

async function complete(netns: NetnsName, input: string, command: string): Promise<void> {
  const [program = '', ...words] = command.split(' ');
  // It begins in the netns of the thread; `ip netns exec` would take as long again.
  const child = inNetns(netns, () =>
    Bun.spawn([program, ...words], {
      stdin: new TextEncoder().encode(input),
      stdout: 'ignore',
      stderr: 'pipe',
    }),
  );
  const [status, said] = await Promise.all([child.exited, new Response(child.stderr).text()]);
  if (status !== 0) throw new Error(`${command} ends with ${status}: ${said}`);
}

/** Does something while rules of others are in netns node. */
export async function withForeign<T>(
  kernel: RoutedHost,
  ruleset: ForeignRuleset,
  act: (netns: string) => T | Promise<T>,
): Promise<T> {
  const { nft, iptables, ip6tables } = ruleset;
  kernel.flush.ruleset();
  for (const op of bridgedOps(ruleset)) kernel.execute(op);
  const netns = kernel.places.real('node');
  try {
    if (nft !== undefined) await runIn(netns, nft, 'nft -f -');
    if (iptables !== undefined) await runIn(netns, iptables, 'iptables-nft-restore');
    if (ip6tables !== undefined) await runIn(netns, ip6tables, 'ip6tables-nft-restore');
    return await act(netns);
  } finally {
    kernel.flush.ruleset();
  }
}

/** The same of rules that others have written, as they are read from the kernel. */
export async function compareForeign(
  kernel: RoutedKernel,
  warm: World,
  ruleset: ForeignRuleset,
  questions: Questions,
): Promise<Comparison> {
  return withForeign(kernel, ruleset, (netns) => {
    const { host } = carriedOut(warm.host, bridgedOps(ruleset));
    const together = [...questions.together, ...(ruleset.questions ?? [])];
    const asked = { ...questions, together };
    return compareHost(kernel, warm, withRules(readRules(netns), host), asked);
  });
}

/** The rules of others in words, as they are read from the kernel, by their chains. */
export async function foreignTexts(
  kernel: RoutedKernel,
  ruleset: ForeignRuleset,
): Promise<readonly string[]> {
  const { nftables, ifindexes } = await withForeign(kernel, ruleset, readRules);
  return Object.values(nftables).flatMap((table) =>
    Object.values(table.chains).flatMap((chain) =>
      chain.rules.map((rule) => {
        const text = ruleText(rule, { ...table, ifindexes });
        return `${table.family} ${table.name} ${chain.name}: ${text}`;
      }),
    ),
  );
}

/** The ruleset of a netns, and the numbers of its links. */
type Rules = Required<Pick<Netns, 'nftables' | 'ifindexes'>>;

/** The ruleset of a netns on the kernel, with what others have in it. */
export function readRules(netns: string): Rules {
  const backend = makeLinuxBackend({ foreign: FOREIGN });
  const scope = { links: 'all', routes: 'none', sysctls: [], nftables: 'all' } as const;
  const host = backend.observe({ [netns]: scope });
  backend.close();
  const { nftables, ifindexes = {} } = getNetns(host, netns);
  return { nftables, ifindexes };
}

/** A host, the routed one where none is given, with that in netns node. */
export function withRules(rules: Rules, host: Host = ROUTED): Host {
  const node = getNetns(host, 'node');
  return { ...host, netns: { ...host.netns, node: { ...node, ...rules } } };
}

/** What is asked, and how. */
export interface Questions {
  /** All at once: of what is learned from one nothing matters to another. */
  readonly together: readonly Question[];
  /** One after the other: a vxlan learns from each. */
  readonly inTurn?: readonly Question[];
  /** Of these also by which links they go, and where and for what reason they end. */
  readonly followed?: readonly Question[];
}

/** A question, and what the simulator says of it. */
interface Traced {
  readonly asked: Question;
  readonly trace: Trace;
}

function traceOf(world: World, asked: Question): Traced {
  return { asked, trace: probe(world, requestOf(asked)) };
}

/** What the kernel does not answer as the simulator does, in words. */
async function partingsOf(
  kernel: RoutedKernel,
  host: Host,
  traced: readonly Traced[],
  waitsMs: readonly number[],
): Promise<readonly string[]> {
  let parted = traced.map((each) => ({ ...each, answer: NO_ANSWER }));
  for (const waitMs of waitsMs) {
    if (parted.length === 0) break;
    const answers = await kernel.ask(
      parted.map(({ asked }) => asked),
      waitMs,
    );
    parted = parted
      .map((each, index) => ({ ...each, answer: answers[index] ?? NO_ANSWER }))
      .filter(({ asked, trace, answer }) => !isSame(host, asked, trace, answer));
  }
  return parted.map(({ asked, trace, answer }) => say(asked, trace, answer));
}

/**
 * What a connection was translated to it keeps, also under other rules: those of a vxlan have the same ports again. And a
 * vxlan keeps the route to a place also when a MAC has moved to another (K-9.3), until routes are looked up anew.
 */
function forgetPaths({ flush }: RoutedKernel, world: World): World {
  flush.connections();
  for (const netns of ['a', 'c']) flush.routes(netns);
  return { ...world, connections: {} };
}

function countVerdicts(traced: readonly Traced[]): Readonly<Record<string, number>> {
  const verdicts: Record<string, number> = {};
  for (const { trace } of traced) {
    const { verdict } = trace;
    const kind = verdict.kind === 'dropped' ? verdict.reason : verdict.kind;
    verdicts[kind] = (verdicts[kind] ?? 0) + 1;
  }
  return verdicts;
}

/** On which questions the kernel and a host of the simulator part; `warm` is what its links have learned. */
export async function compareHost(
  kernel: RoutedKernel,
  warm: World,
  host: Host,
  { together, inTurn = [], followed = [] }: Questions,
): Promise<Comparison> {
  let world: World = { ...withHost(warm, host), connections: {} };
  const traced = together.map((asked) => traceOf(world, asked));
  const partings = [...(await partingsOf(kernel, host, traced, WAITS_MS))];
  for (const asked of followed)
    partings.push(...(await pathPartings(kernel.places, world, requestOf(asked))));
  for (const asked of inTurn) {
    world = forgetPaths(kernel, world);
    const each = traceOf(world, asked);
    ({ world } = each.trace);
    traced.push(each);
    const { verdict, error } = each.trace;
    const isSilent = verdict.kind === 'dropped' && error === null;
    const waitMs = ONE_WAIT_MS[isSilent ? 'silence' : 'answer'];
    partings.push(...(await partingsOf(kernel, host, [each], [waitMs])));
  }
  const traces = traced.map((each) => each.trace);
  const unknown = traces.flatMap(({ verdict }) => (verdict.kind === 'unknown' ? verdict.text : []));
  return {
    partings,
    verdicts: countVerdicts(traced),
    errors: traces.filter(({ error }) => error !== null && error !== 'unknown').length,
    unknown: [...new Set(unknown)],
    warm: withHost(world, warm.host),
  };
}
