import { applyPlan } from '../../backends/apply.ts';
import type { Scope } from '../../backends/backend.ts';
import { HOST_NETNS, findNetns, portsOf } from '../../model/host.ts';
import { formatFailure } from '../../model/message.ts';
import { type Plan, planTo } from '../../model/plan.ts';
import { type Attachment, formatKey } from '../attachment.ts';
import { CNI_ERROR, CniError } from '../cni/error.ts';
import type { AttachmentKey } from '../cni/request.ts';
import { type Departing, detachScope, detached } from '../network.ts';
import type { AttachmentRecord } from '../state.ts';
import type { CallContext } from './context.ts';
import { logReport } from './report.ts';
import { sharedUse, spareGateways } from './usage.ts';

/** The kernel removes links on its own when their netns goes: what has vanished between reading and acting is looked for again. */
const ATTEMPTS = 3;

/** Is the bridge, which no record needs any more, somebody's all the same? Of a state file that was lost, the pods are still there. */
function hasOtherPorts(context: CallContext, { bridge, hostIfname }: Attachment): boolean {
  const observed = context.backend.observe({
    [HOST_NETNS]: { links: 'all', routes: 'none', sysctls: [], nftables: [] },
  });
  const netns = findNetns(observed, HOST_NETNS);
  return netns !== undefined && portsOf(netns, bridge).some((port) => port.ifname !== hostIfname);
}

function planDetachment(
  context: CallContext,
  attachment: Attachment,
  departing: Departing = 'attachment',
): Plan {
  const observed = context.backend.observe(detachScope(attachment));
  const recorded = sharedUse(context.state, attachment);
  const use = recorded.bridge
    ? recorded
    : { ...recorded, bridge: hasOtherPorts(context, attachment) };
  const planning = planTo(observed, detached(attachment, observed, use, departing));
  if (planning.ok) return planning.plan;
  throw new CniError(CNI_ERROR.kernel, formatFailure(planning.op, planning.fault));
}

/** Removes what the kernel has of an attachment. Throws when the kernel refuses; the record stays in either case. `verify` may refuse the plan. */
export function detach(
  context: CallContext,
  attachment: Attachment,
  departing: Departing = 'attachment',
  verify: (plan: Plan) => void = () => undefined,
): void {
  for (let attempt = 1; ; attempt += 1) {
    const plan = planDetachment(context, attachment, departing);
    if (attempt === 1) verify(plan);
    const report = applyPlan(context.backend, plan, undefined, context.clock);
    logReport(context, attachment, report);
    if (!report.failed) break;
    const { op, fault } = report.failed;
    if (attempt === ATTEMPTS)
      throw new CniError(CNI_ERROR.kernel, formatFailure(op, fault), 'DEL may be called again');
  }
  for (const object of spareGateways(context.state, attachment)) context.state.unclaim(object);
}

function findRecord(context: CallContext, key: AttachmentKey): AttachmentRecord | undefined {
  const record = context.state.find(key);
  if (
    record?.state === 'pending' &&
    record.worker.pid !== context.worker.pid &&
    context.isAlive(record.worker)
  ) {
    throw new CniError(
      CNI_ERROR.tryAgainLater,
      `attachment ${formatKey(key)} is being added by process ${record.worker.pid}`,
    );
  }
  return record;
}

/** Removes a record, unless an ADD has taken it over from the one that died: that waits for the lock, and goes on. */
function removeRecord(
  { state }: CallContext,
  { attachment: { key }, worker }: AttachmentRecord,
): void {
  state.transact(() => {
    const now = state.find(key);
    if (now?.worker.pid === worker.pid && now.worker.startTime === worker.startTime)
      state.remove(key);
  });
}

/** DEL: removes the attachment by its record alone; without a record there is nothing to remove. */
export function del(context: CallContext, key: AttachmentKey, verify?: (plan: Plan) => void): void {
  if (!findRecord(context, key)) {
    context.log('info', 'nothing to remove', {
      container: key.containerId,
      network: key.network,
      ifname: key.ifname,
    });
    return;
  }
  context.exclusively(() => {
    // Another DEL of the same attachment may have been faster.
    const record = findRecord(context, key);
    if (!record) return;
    detach(context, record.attachment, 'attachment', verify);
    removeRecord(context, record);
  });
}

/** What DEL would do, without doing it; undefined when there is no record. */
export function planDel(
  context: CallContext,
  key: AttachmentKey,
): { readonly plan: Plan; readonly attachment: Attachment; readonly scope: Scope } | undefined {
  const attachment = findRecord(context, key)?.attachment;
  return (
    attachment && {
      plan: planDetachment(context, attachment),
      attachment,
      scope: detachScope(attachment),
    }
  );
}
