import type { Host } from '../../model/host.ts';
import { planAttachment } from '../../plugin/call/attach.ts';
import { retreatOf } from '../../plugin/call/retreat.ts';
import { attachScope } from '../../plugin/network.ts';
import { afterOps, makeMachine } from '../../test/plugin/machine.ts';
import { median } from '../spread.ts';
import { inTurn } from '../turns.ts';
import type { Figure } from './figure.ts';
import { attachmentOf, netnsOp, nodeWith } from './pods.ts';
import { type Sizes, type Step, WARM_UP_ROUNDS } from './sizes.ts';
import { timed } from './stopwatch.ts';

/** Calls of a round, of which the middle one counts: a single one is shorter than what may interrupt it. */
const CALLS = 20;

/** A plan of a thousand pods is to take at most so much of one of ten. */
const MOST_GROWTH = 1.2;

type Plan = 'plan of one ADD' | 'plan of all that there is';

/** A node with its pods and the netns of one more, whose plan is measured. */
interface Lane {
  readonly name: Plan;
  readonly pods: number;
  /** Answers how long it took, in milliseconds. */
  readonly plan: () => number;
  readonly values: number[];
}

/**
 * What lies between observing and executing in an ADD: what is wanted, the difference, its order, the model after it, and
 * the way back. As the plugin does it, of what it reads; and the plan alone of a host of which everything was read.
 */
export async function measurePlans(sizes: Sizes, step: Step): Promise<Figure[]> {
  const lanes = sizes.pods.flatMap((pods): Lane[] => {
    const attachment = attachmentOf('node', pods);
    const host = afterOps(nodeWith('node', pods), [netnsOp(attachment)]);
    const { backend, ...context } = makeMachine(host).start();
    const read = backend.observe(attachScope(attachment));
    const draft = { attachment, begun: undefined };
    const planOf = (observed: Host) =>
      planAttachment({ ...context, backend: { ...backend, observe: () => observed } }, draft);
    const ofCall = () => timed(() => retreatOf(attachment, planOf(read))).ms;
    const ofAll = () => timed(() => planOf(host)).ms;
    return [
      { name: 'plan of one ADD', pods, plan: ofCall, values: [] },
      { name: 'plan of all that there is', pods, plan: ofAll, values: [] },
    ];
  });
  for (let round = -WARM_UP_ROUNDS; round < sizes.rounds; round++) {
    await step('plan: rounds', round + WARM_UP_ROUNDS, WARM_UP_ROUNDS + sizes.rounds);
    for (const { plan, values } of inTurn(lanes, round + WARM_UP_ROUNDS)) {
      const middle = median(Array.from({ length: CALLS }, plan));
      if (round >= 0) values.push(middle);
    }
  }

  const most = Math.max(...sizes.pods);
  const figuresOf = (wanted: Plan): Figure[] =>
    lanes
      .filter(({ name }) => name === wanted)
      .map(({ name, pods, values }) => ({
        name,
        on: `${pods} pods`,
        unit: 'ms',
        values,
        ...(name === 'plan of one ADD' && pods === most
          ? { target: { of: 'median', atMost: 1 } }
          : {}),
      }));
  const own = figuresOf('plan of one ADD');
  const [fewest, greatest] = [own[0], own.at(-1)];
  const growth: Figure = {
    name: 'plan of one ADD',
    on: `${most} pods against ${sizes.pods[0]}`,
    unit: 'times',
    values: (greatest?.values ?? []).map((ms, round) => ms / (fewest?.values[round] ?? Number.NaN)),
    target: { of: 'median', atMost: MOST_GROWTH },
  };
  return [...own, growth, ...figuresOf('plan of all that there is')];
}
