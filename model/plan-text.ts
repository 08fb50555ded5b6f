import { type Fact, factsOf } from './facts.ts';
import type { Host } from './host.ts';
import { formatKernel } from './kernel-profile.ts';
import type { Op } from './op.ts';
import { applyOp, describeOp, removesOf, signOf, writesOf } from './ops.ts';
import type { Plan } from './plan.ts';

/** Something that the kernel does by itself because of an operation. */
export interface Effect {
  readonly sign: '+' | '-';
  readonly netns: string;
  readonly text: string;
}

/** How lines of a plan are marked: the identity, or colours for a terminal. */
export type Paint = (sign: '+' | '-' | '~' | 'note', line: string) => string;

const PLAIN: Paint = (_sign, line) => line;

/** The facts of `a` that `b` does not hold. */
function lost(a: readonly Fact[], b: readonly Fact[]): Fact[] {
  const held = new Set(b.map((fact) => `${fact.netns} ${fact.text}`));
  return a.filter((fact) => !held.has(`${fact.netns} ${fact.text}`));
}

function summarise(sign: Effect['sign'], facts: readonly Fact[]): Effect[] {
  const listed = facts
    .filter((f) => f.kind !== 'local route')
    .map(({ netns, text }) => ({ sign, netns, text }));
  const local = new Map<string, number>();
  for (const fact of facts)
    if (fact.kind === 'local route') local.set(fact.netns, (local.get(fact.netns) ?? 0) + 1);
  const counted = [...local].map(([netns, n]) => ({
    sign,
    netns,
    text: `${n} ${n === 1 ? 'route' : 'routes'} in table local`,
  }));
  return [...listed, ...counted];
}

/**
 * What the kernel does by itself when `op` turns `before` into `after`: routes that follow addresses,
 * the far end of a veth, ports that are released, a bridge that follows its ports.
 */
function effectsOf(before: Host, op: Op, after: Host): Effect[] {
  const own = new Set([...writesOf(op), ...removesOf(op)]);
  const was = factsOf(before);
  const is = factsOf(after);
  const wasLink = new Set(was.map((f) => f.subject));
  const isLink = new Set(is.map((f) => f.subject));
  // What a link is made with, or loses by going, goes without saying.
  const said = (fact: Fact, others: ReadonlySet<string>): boolean =>
    own.has(fact.subject) || (fact.kind === 'attribute' && !others.has(fact.subject));
  const gone = lost(was, is).filter((fact) => !said(fact, isLink));
  const come = lost(is, was).filter((fact) => !said(fact, wasLink));
  return [...summarise('-', gone), ...summarise('+', come)];
}

/** How many things a plan adds, changes and removes. */
export interface PlanCounts {
  readonly add: number;
  readonly change: number;
  readonly remove: number;
}

export function countOps(ops: readonly Op[]): PlanCounts {
  const count = (sign: string): number => ops.filter((op) => signOf(op) === sign).length;
  return { add: count('+'), change: count('~'), remove: count('-') };
}

/** An operation with what the kernel will do because of it. */
export interface Step {
  readonly op: Op;
  readonly effects: readonly Effect[];
}

/** The steps of a plan. */
export function stepsOf(plan: Plan): Step[] {
  let host = plan.before;
  return plan.ops.map((op) => {
    const outcome = applyOp(host, op);
    if (!outcome.ok)
      throw new Error(`a plan holds an operation that fails: ${op.op}, ${outcome.fault.errno}`);
    const step = { op, effects: effectsOf(host, op, outcome.host) };
    host = outcome.host;
    return step;
  });
}

/** A plan for people: one line per command, grouped by netns, what follows of itself below it, and a count. */
export function formatPlan(
  plan: Plan,
  notes: readonly string[] = [],
  paint: Paint = PLAIN,
): string {
  const lines: string[] = [];
  let netns: string | undefined;
  let effects = 0;
  for (const step of stepsOf(plan)) {
    if (step.op.netns !== netns) {
      netns = step.op.netns;
      lines.push(`netns ${netns}`);
    }
    const sign = signOf(step.op);
    for (const line of describeOp(step.op)) lines.push(paint(sign, `  ${sign} ${line}`));
    for (const effect of step.effects) {
      const where = effect.netns === netns ? '' : ` in netns ${effect.netns}`;
      lines.push(paint('note', `      kernel also: ${effect.sign} ${effect.text}${where}`));
    }
    effects += step.effects.length;
  }
  for (const note of notes) lines.push(paint('note', `note: ${note}`));
  const { add, change, remove } = countOps(plan.ops);
  // Of a plan that nobody read anything for, the kernel says nothing.
  const isBlind = plan.ops.length === 0 && plan.before.kernel === undefined;
  const head = isBlind ? 'Plan' : `Plan for ${formatKernel(plan.before.kernel)}`;
  const also = effects === 0 ? '' : ` The kernel does ${effects} more by itself.`;
  lines.push(
    plan.ops.length === 0
      ? `${head}: nothing to do.`
      : `${head}: ${add} to add, ${change} to change, ${remove} to remove.${also}`,
  );
  return `${lines.join('\n')}\n`;
}
