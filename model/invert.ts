import { desiredOf } from './desired.ts';
import type { Host } from './host.ts';
import type { Op } from './op.ts';
import { applyOp } from './ops.ts';
import { planTo } from './plan.ts';

/**
 * The operations that undo one, given the host before it: the plan back. So everything that the
 * kernel took along comes back too. Empty for an operation that the kernel refuses: it changed nothing.
 */
export function invertOp(before: Host, op: Op): readonly Op[] {
  const outcome = applyOp(before, op);
  if (!outcome.ok) return [];
  const planning = planTo(outcome.host, {
    ...absentIn(before, outcome.host),
    ...desiredOf(before),
  });
  if (!planning.ok)
    throw new Error(
      `no way back from ${op.op}: ${planning.op.op} would answer ${planning.fault.errno}`,
    );
  return planning.plan.ops;
}

/** The netns of `after` that `before` did not have. */
function absentIn(before: Host, after: Host): Record<string, 'absent'> {
  const names = Object.keys(after.netns).filter((name) => !Object.hasOwn(before.netns, name));
  return Object.fromEntries(names.map((name) => [name, 'absent' as const]));
}
