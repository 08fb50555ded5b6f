import type { Fault } from './errno.ts';
import type { Op } from './op.ts';
import { describeOp } from './ops.ts';

/** The kernel's answer in its own words: `ENETUNREACH, "Nexthop has invalid gateway"`. */
export function formatFault(fault: Fault): string {
  return fault.text === '' ? fault.errno : `${fault.errno}, "${fault.text}"`;
}

/** Which operation failed, where, and why: netns, the command, then the kernel's words. */
export function formatFailure(op: Op, fault: Fault): string {
  const lines = describeOp(op);
  const command = lines.length > 1 ? `${lines[0]} (and ${lines.length - 1} more)` : lines[0];
  return `Cannot do "${command}" in netns "${op.netns}": ${formatFault(fault)}`;
}
