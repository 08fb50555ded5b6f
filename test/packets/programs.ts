/** Random hosts with random rules, ours and those of others, and on what the simulator and the kernel part there. */
import fc from 'fast-check';
import { type Host, getNetns } from '../../model/host.ts';
import { parseIp } from '../../model/ip.ts';
import type { Op, OpOf } from '../../model/op.ts';
import { ROUTED, breakageLists, carriedOut } from '../sim/hosts.ts';
import { rulesets } from '../sim/rulesets.ts';
import { TUNNEL_CASES, TUNNEL_TARGET } from '../sim/tunnels.ts';
import { type Comparison, compareForeign, compareRuleset, warmUp, warmWorld } from './compare.ts';
import { foreignRulesets } from './foreign-random.ts';
import { FOREIGN_RULESETS, type ForeignRuleset } from './foreign.ts';
import { DYING, QUESTIONS } from './questions.ts';
import { type RoutedKernel, buildRouted, neighbourOps } from './routed-kernel.ts';
import { SHAPES } from './shapes.ts';
import type { Question } from './stations.ts';

/** Rules, and what is asked while they hold. */
interface Asked {
  /** Operations, or rules in the words of others. */
  readonly rules: readonly Op[] | ForeignRuleset;
  readonly questions: readonly Question[];
}

/** A host, made from the routed one, and rules on it one after another. */
export interface PacketProgram {
  readonly ops: readonly Op[];
  readonly asked: readonly Asked[];
  /** Of what also the path is looked at, and with which of the rules. */
  readonly followed: { readonly at: number; readonly question: Question } | undefined;
}

/** Through the vxlan that there may be. */
const THROUGH_TUNNEL: readonly Question[] = [
  { netns: 'a', protocol: 'icmp', destination: TUNNEL_TARGET, port: 0 },
  { netns: 'c', protocol: 'icmp', destination: parseIp('10.8.0.1'), port: 0 },
  { netns: 'a', protocol: 'icmp', destination: TUNNEL_TARGET, port: 0, payloadBytes: 1372 },
  { netns: 'a', protocol: 'icmp', destination: TUNNEL_TARGET, port: 0, payloadBytes: 1373 },
];

const [MIN_QUESTIONS, MAX_QUESTIONS] = [40, 60];

function asked(): fc.Arbitrary<Asked> {
  const rules = fc.oneof(
    { weight: 4, arbitrary: rulesets() },
    { weight: 2, arbitrary: foreignRulesets() },
    { weight: 1, arbitrary: fc.constantFrom(...FOREIGN_RULESETS) },
  );
  const questions = fc
    .tuple(
      fc.shuffledSubarray([...QUESTIONS], { minLength: MIN_QUESTIONS, maxLength: MAX_QUESTIONS }),
      fc.shuffledSubarray([...DYING], { minLength: MIN_QUESTIONS, maxLength: MAX_QUESTIONS }),
    )
    .map(([alive, dying]) => [...alive, ...dying]);
  return fc.record({ rules, questions });
}

/** Has one pod the address of another then? Who learns what of whom depends on who asks first. */
function isDuplicate(op: Op): boolean {
  return op.op === 'address.add' && op.netns === 'a' && op.address.ip === '10.244.1.3';
}

const RULESETS_A_HOST = 4;

/** Programs of some changes to the routed host or to one of another shape, in most of them with a vxlan over it, and several rulesets each. */
export function packetPrograms(): fc.Arbitrary<PacketProgram> {
  // Rules are others' to make.
  const without = TUNNEL_CASES.map(({ ops }) => ops.filter(({ op }) => op !== 'nft.batch'));
  const tunnels = fc.option(fc.constantFrom(...without), { nil: [] });
  const shapes = fc.option(fc.constantFrom(...SHAPES.map(({ ops }) => ops)), { freq: 1, nil: [] });
  return fc.record({
    ops: fc
      .tuple(shapes, tunnels, breakageLists(3))
      .map(([shape, tunnel, broken]) => [
        ...shape,
        ...tunnel,
        ...broken.filter((op) => !isDuplicate(op)),
      ]),
    asked: fc.array(asked(), { minLength: RULESETS_A_HOST, maxLength: RULESETS_A_HOST }),
    followed: fc.oneof(
      { weight: 7, arbitrary: fc.constant(undefined) },
      {
        weight: 1,
        arbitrary: fc.record({
          at: fc.nat(RULESETS_A_HOST - 1),
          question: fc.constantFrom(...QUESTIONS),
        }),
      },
    ),
  });
}

/** Does a rule know a link by its number that the host has not? nft refuses that. */
function lacksLink(rules: Asked['rules'], host: Host): boolean {
  if (!('name' in rules)) return false;
  const { links } = getNetns(host, 'node');
  const named = [...(rules.nft ?? '').matchAll(/\b[io]if\b[^;\n]*/g)].flatMap(
    ([condition]) => condition.match(/\b(?:cni\d|v-\w)\b/g) ?? [],
  );
  return named.some((name) => links[name] === undefined);
}

/** How long the kernel may take to notice that a bridge gained or lost its carrier (K-1.9). */
const SETTLE_MS = 1_200;

/** What a new link is told of its neighbours. */
function pinsOf({ netns, link }: OpOf<'link.add'>): readonly Op[] {
  const own = neighbourOps(netns, link.ifname);
  return link.kind === 'veth' ? [...own, ...neighbourOps(link.peer.netns, link.peer.ifname)] : own;
}

/** Changes a host on the kernel, and lets everybody there ask everybody until nobody learns anything. */
export async function prepare(kernel: RoutedKernel, ops: readonly Op[]): Promise<void> {
  for (const op of ops) {
    kernel.execute(op);
    if (op.op === 'link.add') for (const pin of pinsOf(op)) kernel.execute(pin);
  }
  if (ops.length > 0) await Bun.sleep(SETTLE_MS);
  // All at once teach neighbours in no certain order.
  await warmUp(kernel);
  await warmUp(kernel);
}

/** What is compared while some of the rules hold, by their number. */
interface Compared {
  readonly at: number;
  readonly comparison: Comparison;
}

/** Asks nobody any more once it is interrupted, but throws. */
function interruptible(kernel: RoutedKernel, interrupted: AbortSignal): RoutedKernel {
  return {
    ...kernel,
    ask: (questions, waitMs) => {
      interrupted.throwIfAborted();
      return kernel.ask(questions, waitMs);
    },
  };
}

/** What comes of a program, of its rules one after another; throws where it is interrupted meanwhile. */
export async function* comparePackets(
  program: PacketProgram,
  interrupted: AbortSignal,
): AsyncGenerator<Compared> {
  const { ops, host } = carriedOut(ROUTED, program.ops);
  const kernel = interruptible(buildRouted(), interrupted);
  try {
    await prepare(kernel, ops);
    let warm = warmWorld(host);
    const inTurn = ops.some((op) => op.op === 'link.add' && op.link.kind === 'vxlan')
      ? THROUGH_TUNNEL
      : [];
    for (const [at, { rules, questions }] of program.asked.entries()) {
      if (lacksLink(rules, host)) continue;
      const { followed } = program;
      const paths = followed?.at === at ? [followed.question] : [];
      const all = { together: questions, inTurn, followed: paths };
      const comparison =
        'name' in rules
          ? await compareForeign(kernel, warm, rules, all)
          : await compareRuleset(kernel, warm, rules, all);
      ({ warm } = comparison);
      yield { at, comparison };
    }
  } finally {
    kernel.tearDown();
  }
}
