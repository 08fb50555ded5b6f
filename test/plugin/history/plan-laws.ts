/** What holds of every plan: it may be carried out in any order that its dependencies allow, and nothing in it is idle. */
import assert from 'node:assert/strict';
import type { DesiredHost } from '../../../model/desired.ts';
import { diff } from '../../../model/diff.ts';
import type { Fault } from '../../../model/errno.ts';
import type { Host } from '../../../model/host.ts';
import type { NftCommand } from '../../../model/nftables.ts';
import type { Op, StateOp } from '../../../model/op.ts';
import { applyOp, describeOp } from '../../../model/ops.ts';
import { dependencies, order } from '../../../model/order.ts';
import { plainState } from '../../state.ts';
import type { Dice } from './dice.ts';

/** A wish and the host that it was planned from. */
export interface Wish {
  readonly before: Host;
  readonly desired: DesiredHost;
}

/** Where operations end that are carried out in this order: the host, or the first that is refused. */
function carriedOut(
  before: Host,
  ops: readonly Op[],
): { readonly host: Host } | { readonly op: Op; readonly fault: Fault } {
  let host = before;
  for (const op of ops) {
    const outcome = applyOp(host, op);
    if (!outcome.ok) return { op, fault: outcome.fault };
    host = outcome.host;
  }
  return { host };
}

function textOf(op: Op): string {
  return `${op.netns}: ${describeOp(op).join('; ')}`;
}

/** Every order of `ops` that `before` allows, at most `limit` of them; undefined when there are more. */
function allOrders(before: readonly ReadonlySet<number>[], limit: number): number[][] | undefined {
  const orders: number[][] = [];
  const extend = (chosen: readonly number[]): boolean => {
    if (chosen.length === before.length) {
      orders.push([...chosen]);
      return orders.length <= limit;
    }
    for (const [i, needs] of before.entries()) {
      if (chosen.includes(i) || ![...needs].every((need) => chosen.includes(need))) continue;
      if (!extend([...chosen, i])) return false;
    }
    return true;
  };
  return extend([]) ? orders : undefined;
}

/** One of the orders that `before` allows. */
function randomOrder(before: readonly ReadonlySet<number>[], dice: Dice): number[] {
  const chosen: number[] = [];
  while (chosen.length < before.length) {
    const ready = before.flatMap((needs, i) =>
      !chosen.includes(i) && [...needs].every((need) => chosen.includes(need)) ? [i] : [],
    );
    chosen.push(ready[dice(ready.length)] as number);
  }
  return chosen;
}

/** How many orders of a plan are tried. */
const ORDERS = 24;

/**
 * Fails unless the first round of a plan, which is the difference itself, ends in the same host in every order that its
 * dependencies allow: all of them where they are few, else a sample. Answers how many were tried.
 */
export function assertAnyOrder({ before, desired }: Wish, dice: Dice): number {
  const ops = diff(before, desired);
  const needs = dependencies(ops);
  const usual = carriedOut(before, order(ops));
  assert('host' in usual, 'a plan is refused in its own order');
  const wanted = plainState(usual.host);
  const orders =
    allOrders(needs, ORDERS) ?? Array.from({ length: ORDERS }, () => randomOrder(needs, dice));
  for (const each of orders) {
    const sequence = each.map((i) => ops[i] as StateOp);
    const lines = (): string => sequence.map(textOf).join('\n  ');
    const end = carriedOut(before, sequence);
    if ('op' in end)
      assert.fail(
        `${textOf(end.op)} is refused with ${end.fault.errno} ${end.fault.text} in the order\n  ${lines()}`,
      );
    assert.deepEqual(plainState(end.host), wanted, `another host in the order\n  ${lines()}`);
  }
  return orders.length;
}

/** Is the wish fulfilled all the same, without anybody being refused? */
function isFulfilled({ before, desired }: Wish, ops: readonly Op[]): boolean {
  const end = carriedOut(before, ops);
  return 'host' in end && diff(end.host, desired).length === 0;
}

/** Is a chain emptied that is then deleted? The kernel would do both at once, but nft, which reads printed plans, does not ask it to. */
function isForNft(command: NftCommand, all: readonly NftCommand[]): boolean {
  return (
    command.do === 'flush chain' &&
    all.some(
      (each) =>
        each.do === 'delete chain' &&
        each.family === command.family &&
        each.table === command.table &&
        each.chain === command.chain,
    )
  );
}

/** The plan without one of its operations, or without one command of a batch, each with what it lacks. */
function lessened(ops: readonly StateOp[]): { readonly ops: StateOp[]; readonly lacks: string }[] {
  return ops.flatMap((op, i) => {
    const rest = (part: readonly StateOp[]): StateOp[] => [
      ...ops.slice(0, i),
      ...part,
      ...ops.slice(i + 1),
    ];
    const whole = { ops: rest([]), lacks: textOf(op) };
    if (op.op !== 'nft.batch' || op.commands.length === 1) return [whole];
    const parts = op.commands.flatMap((command, at) => {
      if (isForNft(command, op.commands)) return [];
      const commands = op.commands.filter((_each, other) => other !== at);
      return { ops: rest([{ ...op, commands }]), lacks: textOf({ ...op, commands: [command] }) };
    });
    return [whole, ...parts];
  });
}

/** Fails when an operation of a plan, or a command of a batch, could be left out. The plan's effects are nobody's wish. */
export function assertMinimal(wish: Wish, ops: readonly StateOp[]): void {
  assert(isFulfilled(wish, ops), 'a plan does not lead to what is wanted');
  for (const each of lessened(ops))
    assert(!isFulfilled(wish, each.ops), `the plan would do without ${each.lacks}`);
}
