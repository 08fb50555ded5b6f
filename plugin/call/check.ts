import type { Scope } from '../../backends/backend.ts';
import { type Finding, check, formatFinding } from '../../model/check.ts';
import { findNetns } from '../../model/host.ts';
import { formatFailure } from '../../model/message.ts';
import { type Plan, planTo } from '../../model/plan.ts';
import { formatPrefixedIp } from '../../model/prefix.ts';
import { type Attachment, formatKey } from '../attachment.ts';
import { CNI_ERROR, CniError } from '../cni/error.ts';
import type { AttachmentKey, Request } from '../cni/request.ts';
import { addressesIn } from '../cni/result.ts';
import { attachScope, attached } from '../network.ts';
import { checkNames } from './add.ts';
import type { CallContext } from './context.ts';

function getAttachment(context: CallContext, key: AttachmentKey): Attachment {
  const record = context.state.find(key);
  if (record) return record.attachment;
  throw new CniError(
    CNI_ERROR.unknownContainer,
    `there is no attachment ${formatKey(key)}`,
    'ADD was never called for it, or DEL has removed it',
  );
}

/** Everything about an attachment that is not as ADD left it. */
export function findings(context: CallContext, key: AttachmentKey): Finding[] {
  const attachment = getAttachment(context, key);
  const observed = context.backend.observe(attachScope(attachment));
  if (!findNetns(observed, attachment.netns)) {
    return [
      {
        netns: attachment.netns,
        text: 'it does not exist or is not a network namespace',
        repair: [],
      },
    ];
  }
  return check(observed, attached(attachment, observed));
}

/** What would bring an attachment back to what ADD left; CHECK itself mends nothing. */
export function planRepair(
  context: CallContext,
  key: AttachmentKey,
): { readonly plan: Plan; readonly attachment: Attachment; readonly scope: Scope } {
  const attachment = getAttachment(context, key);
  const scope = attachScope(attachment);
  const observed = context.backend.observe(scope);
  if (!findNetns(observed, attachment.netns)) {
    throw new CniError(
      CNI_ERROR.drift,
      `netns "${attachment.netns}" does not exist or is not a network namespace`,
    );
  }
  checkNames(attachment, observed);
  const planning = planTo(observed, attached(attachment, observed));
  if (!planning.ok)
    throw new CniError(CNI_ERROR.kernel, formatFailure(planning.op, planning.fault));
  return { plan: planning.plan, attachment, scope };
}

/** Does the result the runtime keeps agree with the record? Plugins behind ours may have added addresses, but not taken any. */
function checkPrevResult(context: CallContext, request: Request): Finding[] {
  const prevResult = request.config['prevResult'];
  if (prevResult === undefined || prevResult === null)
    throw new CniError(CNI_ERROR.invalidConfig, 'Required prevResult missing');
  const given = addressesIn(prevResult, request.key.ifname);
  if (!given) throw new CniError(CNI_ERROR.decode, 'prevResult is not a CNI result');
  const { addresses, netns } = getAttachment(context, request.key);
  return addresses
    .map(formatPrefixedIp)
    .filter((address) => !given.includes(address))
    .map((address) => ({
      netns,
      text: `address ${address} of the attachment is not in prevResult`,
      repair: [],
    }));
}

/** CHECK: throws an error of code 103 that names every difference, or returns when there is none. */
export function checkCall(context: CallContext, request: Request): void {
  const all = [...checkPrevResult(context, request), ...findings(context, request.key)];
  const [first] = all;
  if (!first) return;
  const count = all.length === 1 ? '1 difference' : `${all.length} differences`;
  throw new CniError(
    CNI_ERROR.drift,
    `attachment ${formatKey(request.key)} has ${count}: ${formatFinding(first)}`,
    all.map(formatFinding).join('\n'),
  );
}
