import type { Scope } from '../../backends/backend.ts';
import { formatScript } from '../../model/plan-script.ts';
import { type Paint, formatPlan } from '../../model/plan-text.ts';
import type { Plan } from '../../model/plan.ts';
import type { ReachChange } from '../../sim/reach-change.ts';
import type { Attachment } from '../attachment.ts';
import type { PlanFormat } from '../call-options.ts';
import { type PlanFile, formatPlanFile } from '../format/plan-file.ts';
import { writeAll } from './stdio.ts';

/** A plan with what it was computed from. */
export interface Planned {
  readonly plan: Plan;
  readonly attachment: Attachment;
  readonly scope: Scope;
  /** Whom it connects and cuts, and what becomes of published ports, where that was asked. */
  readonly reach?: ReachChange;
}

/** What else a person should know about the plan of a call. */
function notesOf(verb: PlanFile['verb'], planned: Planned | undefined): string[] {
  if (!planned) return ['there is no record of this attachment: nothing of it is left to remove'];
  if (verb !== 'ADD') return [];
  const { addresses, ipam } = planned.attachment;
  if (ipam) return [`addresses: known after ${ipam.type} ADD`];
  if (addresses.length === 0) return [];
  return [
    `${addresses.map(({ ip }) => ip).join(', ')} would be reserved; another call may take ${addresses.length === 1 ? 'it' : 'them'} before`,
  ];
}

const EMPTY_PLAN: Plan = { before: { netns: {} }, ops: [], after: { netns: {} } };

/** The plan of a call as text in one of its forms. */
export function formatPlanned(
  verb: PlanFile['verb'],
  planned: Planned | undefined,
  format: PlanFormat,
  paint?: Paint,
): string {
  const plan = planned?.plan ?? EMPTY_PLAN;
  switch (format) {
    case 'text':
      return formatPlan(plan, notesOf(verb, planned), paint);
    case 'sh':
      return formatScript(plan.ops);
    case 'json':
      return formatPlanFile({
        verb,
        plan,
        scope: planned?.scope ?? {},
        attachment: planned?.attachment,
        ...(planned?.reach ? { reach: planned.reach } : {}),
      });
  }
}

/** Prints the plan of a call on standard output. */
export function printPlan(
  verb: PlanFile['verb'],
  planned: Planned | undefined,
  format: PlanFormat,
  paint?: Paint,
): void {
  writeAll(1, formatPlanned(verb, planned, format, paint));
}
