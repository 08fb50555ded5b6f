import type { Op } from '../../model/op.ts';
import { planAttachment } from '../../plugin/call/attach.ts';
import { planDetachment } from '../../plugin/call/detach.ts';
import { usesOf } from '../../plugin/call/usage.ts';
import { afterOps, makeMachine } from '../../test/plugin/machine.ts';
import { inTurn } from '../turns.ts';
import type { Figure } from './figure.ts';
import { attachmentOf, netnsOp, nodeWith } from './pods.ts';
import { type Sizes, type Step, WARM_UP_ROUNDS } from './sizes.ts';
import { timed } from './stopwatch.ts';

/** How often a pod comes and goes in a round. */
const GUESTS = 20;

/** Operations that the model carries out in a second, where one pod more comes and goes on a host with others. */
export async function measureOperations(sizes: Sizes, step: Step): Promise<Figure[]> {
  const lanes = sizes.pods.map((pods) => {
    const host = nodeWith('node', pods);
    return { pods, host, ops: comeAndGo(pods), values: [] as number[] };
  });
  for (let round = -WARM_UP_ROUNDS; round < sizes.rounds; round++) {
    await step('operations: rounds', round + WARM_UP_ROUNDS, WARM_UP_ROUNDS + sizes.rounds);
    for (const { host, ops, values } of inTurn(lanes, round + WARM_UP_ROUNDS)) {
      const { ms } = timed(() => {
        for (let guest = 0; guest < GUESTS; guest++) afterOps(host, ops);
      });
      if (round >= 0) values.push((GUESTS * ops.length) / (ms / 1000));
    }
  }
  return lanes.map(({ pods, values }) => ({
    name: 'operations of an ADD and a DEL',
    on: `${pods} pods`,
    unit: 'ops/s',
    values,
  }));
}

/** The operations by which pod `number`, which has others beside it, is made and removed. */
function comeAndGo(number: number): Op[] {
  const attachment = attachmentOf('node', number);
  const made = netnsOp(attachment);
  const machine = makeMachine(afterOps(nodeWith('node', 1), [made]));
  const context = machine.start();
  const first = attachmentOf('node', 0);
  machine.state.put(first, context.worker, usesOf(first));
  const added = planAttachment(context, { attachment, begun: undefined });
  machine.backend.replace(afterOps(machine.backend.host(), added.ops));
  const removed = planDetachment(context, attachment);
  return [made, ...added.ops, ...removed.ops, { op: 'netns.del', netns: attachment.netns }];
}
