/** CHECK in a history, as a runtime calls it. */
import assert from 'node:assert/strict';
import { formatKey } from '../../../plugin/attachment.ts';
import { checkCall } from '../../../plugin/call/check.ts';
import type { CallContext } from '../../../plugin/call/context.ts';
import { formatResult } from '../../../plugin/cni/result.ts';
import { requestFor } from '../machine.ts';
import { call } from './call.ts';
import { chosen } from './del-step.ts';
import type { Entry } from './ledger.ts';
import { type Node, rawOf, whole, linesOf } from './node.ts';
import type { Step } from './step.ts';
import { count } from './tally.ts';

/** CHECK as a runtime calls it. */
export function checkWith(node: Node, entry: Entry, context: CallContext): void {
  const { key, pod, network, netns, result } = entry;
  assert(result);
  const raw = rawOf(node, network);
  const { cniVersion } = requestFor('CHECK', raw, pod, {
    containerId: key.containerId,
    ifname: key.ifname,
    netns,
  });
  const prevResult: unknown = JSON.parse(formatResult(result, cniVersion));
  const request = requestFor('CHECK', { ...raw, prevResult }, pod, {
    containerId: key.containerId,
    ifname: key.ifname,
    netns,
  });
  checkCall(context, request);
}

/** A CHECK. Answers what came of it. */
export function checkStep(node: Node, { attachment }: Extract<Step, { do: 'CHECK' }>): string {
  const entry = chosen(node, attachment);
  if (!entry?.result || entry.state !== 'attached') return 'nothing to check';
  const before = whole(node);
  const lines = linesOf(node, entry);
  const end = call(node, { kind: 'fine' }, (context) => checkWith(node, entry, context));
  assert.deepEqual(whole(node), before, 'CHECK has changed something');
  assert.equal(end.error !== undefined, lines.length > 0, 'CHECK does not say what it finds');
  count(node.tally, 'CHECK');
  return `${formatKey(entry.key)}: ${lines.length} findings`;
}
