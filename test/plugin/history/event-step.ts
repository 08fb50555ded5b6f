/** What happens to a node beside calls. */
import assert from 'node:assert/strict';
import { applyPlan } from '../../../backends/apply.ts';
import { HOST_NETNS } from '../../../model/host.ts';
import { applyOp, describeOp } from '../../../model/ops.ts';
import { formatKey } from '../../../plugin/attachment.ts';
import { planRepair } from '../../../plugin/call/check.ts';
import { retreatOf } from '../../../plugin/call/retreat.ts';
import { attached } from '../../../plugin/network.ts';
import { plainState } from '../../state.ts';
import { makeMachine } from '../machine.ts';
import { additionsIn, damagesOf, withoutAdditions } from './damage.ts';
import { foreignOp } from './foreign.ts';
import { type Node, podNetns, attachmentOf, linesOf, untroubled } from './node.ts';
import { lookAtPlan, isStateOp } from './sampled-plan.ts';
import type { Step } from './step.ts';
import { count } from './tally.ts';

/** A pod's netns goes. Answers what came of it. */
export function netnsStep(node: Node, pod: number): string {
  const op = { op: 'netns.del' as const, netns: podNetns(pod) };
  const outcome = applyOp(node.shadow, op);
  if (!outcome.ok) return 'it is not there';
  node.shadow = outcome.host;
  node.machine.backend.execute(op);
  return 'gone';
}

/** Others do something of their own. Answers what came of it. */
export function foreignStep(node: Node, step: Extract<Step, { do: 'foreign' }>): string {
  // Of the pods' netns one, so that there are enough things of others in it.
  const universe = [HOST_NETNS, HOST_NETNS, podNetns(0)];
  const op = foreignOp(node.shadow, universe, step.seed);
  const outcome = op && applyOp(node.shadow, op);
  if (!op || !outcome?.ok) return 'they cannot';
  // A link is known by its name: what ADD does to somebody's bridge for as long as pods are on it stays on it then.
  const isRenaming = op.op === 'link.rename' || op.op === 'link.move';
  if (isRenaming && node.used.has(op.ifname)) return 'they do not';
  // And how large a vxlan can be follows from what ADD has made of a bridge below it.
  const lower = op.op === 'link.add' && op.link.kind === 'vxlan' ? op.link.lower : null;
  if (lower !== null && node.used.has(lower)) return 'they do not';
  if (node.machine.backend.execute(op)) return 'they cannot here';
  node.shadow = outcome.host;
  count(node.tally, 'foreign');
  return `${op.netns}: ${describeOp(op).join('; ')}`;
}

/** Somebody damages an attachment, and CHECK has to say just that. Answers what came of it. */
export function damageStep(node: Node, step: Extract<Step, { do: 'damage' }>): string {
  const { backend } = node.machine;
  const candidates = untroubled(node);
  const entry = candidates[step.attachment % candidates.length];
  if (!entry) return 'nothing to damage';
  const attachment = attachmentOf(node, entry);
  const damages = damagesOf(backend.host(), attachment);
  const damage = damages[step.what % damages.length];
  if (!damage || (damage.disowns && !step.mend)) return 'nothing to damage';
  const before = plainState(withoutAdditions(backend.host()));
  for (const op of damage.ops) assert.equal(backend.execute(op), undefined);
  const lines = linesOf(node, entry);
  const said = damage.isWhole ? lines.filter((line) => damage.findings.includes(line)) : lines;
  assert.deepEqual(
    said.toSorted(),
    damage.findings.toSorted(),
    `CHECK of ${formatKey(entry.key)} after: ${damage.name}`,
  );
  count(
    node.tally,
    `damage: ${damage.name.replaceAll(/veth[0-9a-f]{11}|ifb[0-9a-f]{11}|eth0|net1|[0-9a-f:.]{5,}(\/\d+)?/g, '·')}`,
  );
  if (!step.mend || damage.findings.length === 0) return `${formatKey(entry.key)}: ${damage.name}`;
  const added = additionsIn(backend.host());
  const context = node.machine.start();
  const { plan } = planRepair(context, entry.key);
  lookAtPlan(
    node,
    { before: plan.before, desired: attached(attachment, plan.before) },
    plan.ops.filter(isStateOp),
  );
  const report = applyPlan(backend, plan, retreatOf(attachment, plan), () => 0);
  assert.equal(report.failed, undefined, 'the repair is refused');
  assert.deepEqual(linesOf(node, entry), [], `not all of it is repaired: ${damage.name}`);
  assert.deepEqual(additionsIn(backend.host()), added, 'the repair has taken something of others');
  // What others had there is not mended with it.
  if (!damage.isShared)
    assert.deepEqual(
      plainState(withoutAdditions(backend.host())),
      before,
      `the repair has led elsewhere: ${damage.name}`,
    );
  return `${formatKey(entry.key)}: ${damage.name}, mended`;
}

/** The machine starts anew. Answers what came of it. */
export function rebootStep(node: Node, state: 'kept' | 'lost'): string {
  const { timeMs } = node.machine;
  node.machine = makeMachine(node.initial, node.file.boot(state));
  node.machine.timeMs = timeMs;
  if (state === 'lost') node.released.clear();
  node.shadow = node.initial;
  node.ledger.clear();
  count(node.tally, `reboot, ${state}`);
  return 'done';
}
