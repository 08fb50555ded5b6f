/** Plans that are met in histories: some of them are looked at from all sides. */
import type { StateOp } from '../../../model/op.ts';
import type { Added } from '../../../plugin/call/add.ts';
import type { Node } from './node.ts';
import { type Wish, assertAnyOrder, assertMinimal } from './plan-laws.ts';
import { count } from './tally.ts';

/** One plan in so many is looked at from all sides. */
const PLANS_LOOKED_AT = 3;

/** Looks at a plan now and then. Fails unless it may be carried out in any order, and holds nothing idle. */
export function lookAtPlan(node: Node, wish: Wish, ops: readonly StateOp[]): void {
  if (ops.length === 0 || node.dice(PLANS_LOOKED_AT) !== 0) return;
  count(node.tally, 'plans');
  count(node.tally, 'orders', assertAnyOrder(wish, node.dice));
  assertMinimal(wish, ops);
}

/** Does an operation change state? */
export function isStateOp(op: Added['plan']['ops'][number]): op is StateOp {
  return op.op !== 'conntrack.flush' && op.op !== 'address.announce';
}
