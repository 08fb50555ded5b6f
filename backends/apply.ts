import type { DesiredHost } from '../model/desired.ts';
import type { Fault } from '../model/errno.ts';
import type { Host } from '../model/host.ts';
import type { Op } from '../model/op.ts';
import { applyOp } from '../model/ops.ts';
import { type Plan, planTo } from '../model/plan.ts';
import type { Backend, Scope } from './backend.ts';

/** What became of one operation. */
export interface OpReport {
  readonly op: Op;
  /** Undefined when it was done. */
  readonly fault: Fault | undefined;
  readonly durationMs: number;
}

/** What became of a plan. */
export interface ApplyReport {
  /** Those that ran, in order; only the last can have a fault. */
  readonly ran: readonly OpReport[];
  /** The one that failed, with which the plan ended. */
  readonly failed: { readonly op: Op; readonly fault: Fault } | undefined;
  /** What was done to undo the others. */
  readonly undo: readonly OpReport[];
  /** Is everything undone that had to be? True when nothing failed. */
  readonly clean: boolean;
}

/** Where a failed plan goes back to. */
export interface Retreat {
  /** What to read in order to find the way. */
  readonly scope: Scope;
  readonly wish: DesiredHost;
}

/** Milliseconds that only grow; backends have no clock of their own. */
export type Clock = () => number;

function execute(backend: Backend, op: Op, clock: Clock): OpReport {
  const start = clock();
  const fault = backend.execute(op);
  return { op, fault, durationMs: clock() - start };
}

/** The host that the model expects after what ran. */
function remembered(before: Host, ran: readonly OpReport[]): Host {
  return ran.reduce((host, { op, fault }) => {
    const outcome = fault === undefined ? applyOp(host, op) : undefined;
    return outcome?.ok ? outcome.host : host;
  }, before);
}

/**
 * The way back: planned from what is there now, so that partial effects are covered; else from what the
 * model says is there. Undefined when there is none.
 */
function retreatOps(
  backend: Backend,
  plan: Plan,
  ran: readonly OpReport[],
  retreat: Retreat,
): readonly Op[] | undefined {
  const looks = [() => backend.observe(retreat.scope), () => remembered(plan.before, ran)];
  for (const look of looks) {
    try {
      const planning = planTo(look(), retreat.wish);
      if (planning.ok) return planning.plan.ops;
    } catch {
      // What cannot be read is undone from memory.
    }
  }
  return undefined;
}

/** Goes back, and looks once more: the kernel may have taken something along that the plan back did not foresee. */
function goBack(
  backend: Backend,
  plan: Plan,
  ran: readonly OpReport[],
  retreat: Retreat,
  clock: Clock,
): Pick<ApplyReport, 'undo' | 'clean'> {
  const back = retreatOps(backend, plan, ran, retreat);
  const undo = (back ?? []).map((each) => execute(backend, each, clock));
  if (back === undefined || undo.some(({ fault }) => fault)) return { undo, clean: false };
  const left = undo.length === 0 ? [] : retreatOps(backend, plan, [...ran, ...undo], retreat);
  undo.push(...(left ?? []).map((each) => execute(backend, each, clock)));
  return { undo, clean: left !== undefined && undo.every(({ fault }) => fault === undefined) };
}

/**
 * Carries out a plan. When an operation fails, it goes back to `retreat` and says what could not be
 * undone; without a retreat it stops where it is.
 */
export function applyPlan(
  backend: Backend,
  plan: Plan,
  retreat: Retreat | undefined,
  clock: Clock,
): ApplyReport {
  const ran: OpReport[] = [];
  for (const op of plan.ops) {
    const report = execute(backend, op, clock);
    ran.push(report);
    if (report.fault) {
      const failed = { op, fault: report.fault };
      if (!retreat) return { ran, failed, undo: [], clean: false };
      return { ran, failed, ...goBack(backend, plan, ran, retreat, clock) };
    }
  }
  return { ran, failed: undefined, undo: [], clean: true };
}
