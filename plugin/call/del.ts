import type { Scope } from '../../backends/backend.ts';
import type { Plan } from '../../model/plan.ts';
import { type Attachment, formatKey } from '../attachment.ts';
import { CNI_ERROR, CniError } from '../cni/error.ts';
import type { AttachmentKey } from '../cni/request.ts';
import { NEEDS_LINK } from '../ipam/delegate.ts';
import { detachScope } from '../network.ts';
import type { AttachmentRecord } from '../state.ts';
import type { CallContext } from './context.ts';
import { releaseDelegated } from './delegated.ts';
import { detach, planDetachment } from './detach.ts';

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
  { state, now }: CallContext,
  { attachment: { key }, worker }: AttachmentRecord,
): void {
  state.transact(() => {
    const found = state.find(key);
    if (found?.worker.pid === worker.pid && found.worker.startTime === worker.startTime)
      state.remove(key, now());
  });
}

/** Removes an attachment by its record alone; answers whether there was one. */
export function del(
  context: CallContext,
  key: AttachmentKey,
  prevResult?: unknown,
  verify?: (plan: Plan) => void,
): boolean {
  const begun = findRecord(context, key)?.attachment;
  if (!begun) {
    context.log('info', 'nothing to remove', {
      container: key.containerId,
      network: key.network,
      ifname: key.ifname,
    });
    return false;
  }
  // Other addresses are given back when no link has them any more, so that nobody gets them before.
  const isFirst = begun.ipam !== undefined && NEEDS_LINK.has(begun.ipam.type);
  if (isFirst) releaseDelegated(context, begun, prevResult);
  if (begun.madeBy !== undefined) context.depart(begun);
  const record = context.exclusively(() => {
    // Another DEL of the same attachment may have been faster.
    const found = findRecord(context, key);
    if (!found) return undefined;
    detach(context, found.attachment, 'attachment', verify);
    if (found.attachment.ipam === undefined) removeRecord(context, found);
    return found;
  });
  if (record?.attachment.ipam) {
    if (!isFirst) releaseDelegated(context, record.attachment, prevResult);
    removeRecord(context, record);
  }
  return true;
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
