import type { ApplyReport } from '../../backends/apply.ts';
import { describeOp } from '../../model/ops.ts';
import type { Attachment } from '../attachment.ts';
import type { CallContext } from './context.ts';

/** Writes what ran for an attachment into the log, an operation a line. */
export function logReport(
  context: CallContext,
  { key: { containerId, network, ifname } }: Attachment,
  report: ApplyReport,
): void {
  logOps(context, { container: containerId, network, ifname }, report);
}

/** Writes what ran into the log, an operation a line; `common` stands in every line. */
export function logOps(
  context: CallContext,
  common: Readonly<Record<string, unknown>>,
  report: ApplyReport,
): void {
  for (const { op, fault, durationMs } of report.ran) {
    const fields = {
      ...common,
      netns: op.netns,
      operation: op.op,
      durationMs: Math.round(durationMs * 1000) / 1000,
    };
    const line = describeOp(op).join('; ');
    if (fault) context.log('error', `${line}: ${fault.errno} ${fault.text}`.trim(), fields);
    else context.log('info', line, fields);
  }
  for (const { op, fault } of report.undo) {
    const line = `undo: ${describeOp(op).join('; ')}`;
    context.log(
      fault ? 'error' : 'info',
      fault ? `${line}: ${fault.errno} ${fault.text}`.trim() : line,
      { ...common, netns: op.netns, operation: op.op },
    );
  }
}
