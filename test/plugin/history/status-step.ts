/** STATUS in a history. */
import assert from 'node:assert/strict';
import { status } from '../../../plugin/call/status.ts';
import { parseConfig } from '../../../plugin/cni/config.ts';
import { CNI_ERROR, CniError } from '../../../plugin/cni/error.ts';
import { requestFor } from '../machine.ts';
import { call } from './call.ts';
import { isExhausted } from './exhaustion.ts';
import { type Node, podNetns, whole, rawOf } from './node.ts';
import type { Step } from './step.ts';

/** A STATUS. Answers what came of it. */
export function statusStep(node: Node, { network }: Extract<Step, { do: 'STATUS' }>): string {
  const before = whole(node);
  const raw = { ...rawOf(node, network), cniVersion: '1.1.0' };
  const request = requestFor('STATUS', raw, 0, { netns: podNetns(0) });
  const end = call(node, { kind: 'fine' }, (context) =>
    status(context, request, parseConfig(request.config)),
  );
  assert.deepEqual(whole(node), before, 'STATUS has changed something');
  if (end.error !== undefined && (end.error as CniError).code !== CNI_ERROR.notAvailable)
    throw end.error;
  assert(end.error !== undefined || !isExhausted(node, raw), 'STATUS is ready without an address');
  return end.error instanceof Error ? end.error.message : 'ready';
}
