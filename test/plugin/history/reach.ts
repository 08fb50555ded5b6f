/** Who reaches whom: a call for one attachment takes nothing of it from others. */
import assert from 'node:assert/strict';
import { familyOf } from '../../../model/ip.ts';
import { formatKey } from '../../../plugin/attachment.ts';
import { type ProbeRequest, outcomeOf, probe } from '../../../sim/probe.ts';
import { formatTrace } from '../../../sim/trace.ts';
import { type World, makeWorld } from '../../../sim/world.ts';
import type { Entry } from './ledger.ts';
import { type Node, attachmentOf, entriesOf } from './node.ts';

/** Of so many attachments every one asks every other: their number counts twice. */
const ASKED = 4;

interface Pair {
  readonly from: Entry;
  readonly to: Entry;
}

/** An attachment and another that it reached. */
export interface Reached extends Pair {
  /** What both pods have: one with several attachments may reach others by any of them. */
  readonly held: string;
}

function heldBy(node: Node, { from, to }: Pair): string {
  return [from, to]
    .flatMap(({ pod }) => entriesOf(node, pod))
    .map(({ key, state }) => `${formatKey(key)} ${state}`)
    .join();
}

/** What one sends to the other, and to where; undefined where they have no addresses of one family. */
function questionOf(node: Node, { from, to }: Pair): [World, ProbeRequest] | undefined {
  const [source, target] = [attachmentOf(node, from), attachmentOf(node, to)];
  const [own] = source.addresses;
  const other = target.addresses.find(({ ip }) => own && familyOf(ip) === familyOf(own.ip));
  if (!own || !other) return undefined;
  const request = { netns: source.netns, destination: other.ip, source: own.ip };
  return [makeWorld(node.machine.backend.host()), request];
}

function isReached(node: Node, pair: Pair): boolean {
  const question = questionOf(node, pair);
  return question !== undefined && outcomeOf(...question).verdict.kind === 'delivered';
}

/** Who of these, which are well, reaches whom. */
export function reachedPairs(node: Node, entries: readonly Entry[]): Reached[] {
  const some = entries.slice(0, ASKED);
  return some
    .flatMap((from) => some.map((to) => ({ from, to })))
    .filter((pair) => pair.from !== pair.to && isReached(node, pair))
    .map((pair) => ({ ...pair, held: heldBy(node, pair) }));
}

/** Fails when one does not reach another any more, though both pods have what they had. */
export function assertStillReached(node: Node, pairs: readonly Reached[]): void {
  for (const { from, to, held } of pairs) {
    if (heldBy(node, { from, to }) !== held) continue;
    if (isReached(node, { from, to })) continue;
    const question = questionOf(node, { from, to });
    const how = question ? formatTrace(probe(...question)) : '';
    assert.fail(`${formatKey(from.key)} does not reach ${formatKey(to.key)} any more:\n${how}`);
  }
}
