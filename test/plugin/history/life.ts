/** Histories happen: each step is done, and then everything that has to hold is looked at. */
import assert from 'node:assert/strict';
import { formatKey } from '../../../plugin/attachment.ts';
import type { History } from '../../arbitraries/history.ts';
import { addStep } from './add-step.ts';
import { checkStep } from './check-step.ts';
import { delStep, deleted, gcStep } from './del-step.ts';
import { netnsStep, foreignStep, damageStep, rebootStep } from './event-step.ts';
import { assertNothingLeft, assertUntouched, foreignPart } from './foreign.ts';
import { assertNoLeftovers, assertRecords } from './ledger.ts';
import { type Node, makeNode, entriesOf, renew, linesOf, untroubled } from './node.ts';
import { assertSameReach, whoReachesWhom } from './reach.ts';
import { statusStep } from './status-step.ts';
import { type Step, formatStep } from './step.ts';
import type { Tally } from './tally.ts';

/** Does a step, and answers what came of it. */
function done(node: Node, step: Step): string {
  switch (step.do) {
    case 'ADD':
      return addStep(node, step);
    case 'DEL':
      return delStep(node, step);
    case 'CHECK':
      return checkStep(node, step);
    case 'GC':
      return gcStep(node, step);
    case 'STATUS':
      return statusStep(node, step);
    case 'netns':
      return netnsStep(node, step.pod);
    case 'foreign':
      return foreignStep(node, step);
    case 'damage':
      return damageStep(node, step);
    case 'reboot':
      return rebootStep(node, step.state);
  }
}

const CALLS: readonly Step['do'][] = ['ADD', 'DEL', 'CHECK', 'GC', 'STATUS'];
/** Those that may change something: of the others it is seen that the node is as before. */
const CONNECTING: readonly Step['do'][] = ['ADD', 'DEL', 'GC'];

function assertHealth(node: Node): void {
  const { backend, state } = node.machine;
  assertRecords(state, node.ledger, node.networks);
  assertNoLeftovers(backend.host(), node.shadow, state);
  if (node.ledger.size === 0) assertNothingLeft(backend.host(), node.shadow, node.used);
}

/** Does a step and looks at everything that has to hold after it. */
function take(node: Node, step: Step): void {
  const isCall = CALLS.includes(step.do);
  const foreign = (): unknown => foreignPart(node.machine.backend.host(), node.shadow, node.used);
  const well = isCall ? untroubled(node) : [];
  if (step.do === 'ADD' && step.container === 'new' && entriesOf(node, step.pod).length === 0)
    renew(node, step.pod);
  const before = isCall ? foreign() : undefined;
  const mayConnect = CONNECTING.includes(step.do);
  const reach = mayConnect ? whoReachesWhom(node, well) : undefined;
  const known = new Set(node.ledger.keys());
  node.log.push(formatStep(step));
  const said = done(node, step);
  node.log[node.log.length - 1] += `: ${said}`;
  if (isCall) assertUntouched(before, foreign());
  const left = well.flatMap((entry) => node.ledger.get(formatKey(entry.key)) ?? []);
  for (const entry of left)
    if (entry.state === 'attached')
      assert.deepEqual(
        linesOf(node, entry),
        [],
        `${formatKey(entry.key)} has lost something to another`,
      );
  if (reach) {
    const come = [...node.ledger].flatMap(([name, entry]) => (known.has(name) ? [] : [entry]));
    assertSameReach(node, reach, whoReachesWhom(node, [...come, ...left]));
  }
  assertHealth(node);
}

/** Removes what is there, by DEL or by GC, after which nothing may be left. */
function removeAll(node: Node): void {
  const byGc = node.dice(2) === 0;
  if (byGc)
    for (const network of node.networks.keys())
      take(node, { do: 'GC', network, known: 'none', fate: { kind: 'fine' } });
  else
    for (const entry of node.ledger.values()) {
      node.log.push(
        `DEL ${formatKey(entry.key)}: ${deleted(node, entry.key, entry, { kind: 'fine' })}`,
      );
      assertHealth(node);
    }
  assert.equal(node.ledger.size, 0, 'attachments are left');
}

/** Lets a history happen on a node of so many pods. What does not hold is thrown, with what had happened till then. */
export function live(history: History, pods: number, tally: Tally): void {
  const node = makeNode(history, pods, tally);
  try {
    for (const step of history.steps) take(node, step);
    removeAll(node);
  } catch (error) {
    const lines = node.log.map((line, i) => `  ${i}. ${line}`).join('\n');
    const reason = error instanceof Error ? error.message : String(error);
    throw new Error(`${reason}\nafter\n${lines}`, { cause: error });
  } finally {
    node.file.close();
  }
}
