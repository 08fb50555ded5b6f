import type { DesiredHost } from './desired.ts';
import { diff } from './diff.ts';
import type { Fault } from './errno.ts';
import type { Host } from './host.ts';
import type { EffectOp, Op } from './op.ts';
import { applyOp } from './ops.ts';
import { order } from './order.ts';

/** What will be done, in this order, and the host before and after as the model sees it. */
export interface Plan {
  readonly before: Host;
  readonly ops: readonly Op[];
  readonly after: Host;
}

/** A plan, or the operation that the kernel would refuse on the way. */
export type Planning =
  | { readonly ok: true; readonly plan: Plan }
  | { readonly ok: false; readonly op: Op; readonly fault: Fault };

/** A change may take others along, and mending those may take more: it never took more rounds than this. */
const MAX_ROUNDS = 8;

/**
 * Plans the way from a host to what is wanted: the difference is applied to the model, what the
 * kernel does by itself included, and what is then still different is added, until nothing is.
 */
export function planTo(before: Host, desired: DesiredHost): Planning {
  const ops: Op[] = [];
  let host = before;
  for (let round = 0; round < MAX_ROUNDS; round += 1) {
    const next = order(diff(host, desired));
    if (next.length === 0) return { ok: true, plan: { before, ops, after: host } };
    for (const op of next) {
      const outcome = applyOp(host, op);
      if (!outcome.ok) return { ok: false, op, fault: outcome.fault };
      host = outcome.host;
      ops.push(op);
    }
  }
  throw new Error(
    `no plan after ${MAX_ROUNDS} rounds: ${order(diff(host, desired))
      .map((op) => JSON.stringify(op))
      .join('; ')}`,
  );
}

/** Two plans of which the second begins where the first ended, as one. */
export function joinPlans(first: Plan, second: Plan): Plan {
  return { before: first.before, ops: [...first.ops, ...second.ops], after: second.after };
}

/** The same plan with some of its operations before the others; refused where one of them then does not find what it needs. */
export function withFirst(plan: Plan, isFirst: (op: Op) => boolean): Planning {
  const ops = [...plan.ops.filter(isFirst), ...plan.ops.filter((op) => !isFirst(op))];
  let host = plan.before;
  for (const op of ops) {
    const outcome = applyOp(host, op);
    if (!outcome.ok) return { ok: false, op, fault: outcome.fault };
    host = outcome.host;
  }
  return { ok: true, plan: { ...plan, ops, after: host } };
}

/** The plan with effects behind it; refused where the plan does not lead to a host in which each finds what it needs. */
export function withEffects(plan: Plan, effects: readonly EffectOp[]): Planning {
  for (const op of order(effects)) {
    const outcome = applyOp(plan.after, op);
    if (!outcome.ok) return { ok: false, op, fault: outcome.fault };
  }
  return { ok: true, plan: { ...plan, ops: [...plan.ops, ...order(effects)] } };
}
