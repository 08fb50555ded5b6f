/** DEL and GC in a history. */
import assert from 'node:assert/strict';
import { formatKey } from '../../../plugin/attachment.ts';
import { del, planDel } from '../../../plugin/call/del.ts';
import { gc } from '../../../plugin/call/gc.ts';
import { sharedUse } from '../../../plugin/call/usage.ts';
import { detached } from '../../../plugin/network.ts';
import { requestFor } from '../machine.ts';
import { call } from './call.ts';
import type { Entry } from './ledger.ts';
import { type Node, podNetns, rawOf, whole, settle, addressesOf, noteReleased } from './node.ts';
import { lookAtPlan, isStateOp } from './sampled-plan.ts';
import type { Fate, Step } from './step.ts';
import { count } from './tally.ts';

/** One of the attachments, or, as often as one of them, none. */
export function chosen(node: Node, attachment: number): Entry | undefined {
  return [...node.ledger.values()][attachment % (node.ledger.size + 1)];
}

/** A DEL of an attachment that there is, or of one that never was. Answers what came of it. */
export function delStep(node: Node, { attachment, fate }: Extract<Step, { do: 'DEL' }>): string {
  const entry = chosen(node, attachment);
  const never = requestFor('DEL', rawOf(node, 0), 0, { containerId: 'never', netns: podNetns(0) });
  return deleted(node, entry?.key ?? never.key, entry, fate);
}

/** DEL of one attachment. Answers what came of it. */
export function deleted(
  node: Node,
  key: Entry['key'],
  entry: Entry | undefined,
  fate: Fate,
): string {
  const context = node.machine.start();
  const addresses = addressesOf(node);
  const planned = planDel(context, key);
  if (planned) {
    const { plan, attachment } = planned;
    const desired = detached(
      attachment,
      plan.before,
      sharedUse(node.machine.state, attachment),
      'attachment',
    );
    lookAtPlan(node, { before: plan.before, desired }, plan.ops.filter(isStateOp));
  }
  const before = whole(node);
  const end = call(node, fate, (each) => del(each, key));
  if (entry === undefined) {
    assert.deepEqual(whole(node), before, 'DEL of nothing has changed something');
    return 'nothing to remove';
  }
  if (end.error !== undefined && !end.isHit) throw end.error;
  settle(node, { ...entry, state: 'unsure' });
  noteReleased(node, addresses);
  const isGone = !node.ledger.has(formatKey(key));
  assert(isGone || end.error !== undefined || end.isDead, 'DEL has succeeded and left its record');
  // It looks again and goes on when one operation is refused.
  const isOnce = (fate.kind === 'refused' || fate.kind === 'half') && !fate.lasts;
  assert(isGone || !isOnce, 'DEL has not gone on after one refusal');
  count(node.tally, isGone ? 'DEL' : end.isDead ? 'DEL died' : 'DEL failed');
  return `${formatKey(key)}: ${isGone ? 'gone' : end.isDead ? 'died' : 'failed'}`;
}

/** A GC. Answers what came of it. */
export function gcStep(node: Node, { known, fate, ...of }: Extract<Step, { do: 'GC' }>): string {
  const network = of.network % node.networks.length;
  const attachments = [...node.ledger.values()].filter((entry) => entry.network === network);
  const attachedOnes = attachments.filter(({ state }) => state === 'attached');
  const valid = attachedOnes.filter(
    (_each, i) => known === 'all' || (known === 'some' && i % 2 === 0),
  );
  const list = valid.map(({ key }) => ({ containerID: key.containerId, ifname: key.ifname }));
  const raw = { ...rawOf(node, network), cniVersion: '1.1.0', 'cni.dev/valid-attachments': list };
  const addresses = addressesOf(node);
  const end = call(node, fate, (context) =>
    gc(context, requestFor('GC', raw, 0, { netns: podNetns(0) })),
  );
  if (end.error !== undefined && !end.isHit) throw end.error;
  for (const entry of attachments) {
    if (valid.includes(entry)) continue;
    settle(node, { ...entry, state: 'unsure' });
    const isGone = !node.ledger.has(formatKey(entry.key));
    assert(isGone || end.error !== undefined || end.isDead, 'GC has succeeded and left a record');
  }
  noteReleased(node, addresses);
  count(node.tally, 'GC');
  return `${valid.length} of ${attachments.length} are valid`;
}
