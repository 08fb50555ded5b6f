/** Everything that follows from what was begun: frames under way, and what happens by itself while time passes. */
import { familyOf } from '../model/ip.ts';
import type { LinkRef } from '../model/link.ts';
import { arpQuestion } from './arp.ts';
import { bridgePasses } from './bridge.ts';
import type { Frame } from './frame.ts';
import { receiveUp } from './input.ts';
import { receive, transmit } from './link.ts';
import { ndQuestion } from './nd.ts';
import { type Due, whenDue } from './neighbour-state.ts';
import { giveUp, leaveBeyond, timingOf } from './neighbour.ts';
import { sendOwn, sendQuestion } from './output.ts';
import { expireFragments } from './reassembly.ts';
import { type Event, type Run, drop, linkAt } from './run.ts';
import { type DueNeighbour, nextDueNeighbours, withNeighbour } from './world.ts';

/** How often the same frame may arrive at a bridge port: more often only a loop of bridges brings it; routers count the TTL down. */
const MAX_VISITS = 2;

/** More frames than any host should need for one probe: a bridge takes 1023 ports (K-1.14). */
const MAX_STEPS = 20_000;

function perform(run: Run, event: Event): void {
  switch (event.step) {
    case 'send':
      sendOwn(run, event.netns, event.own, event.device);
      break;
    case 'transmit':
      transmit(run, event.at, event.frame);
      break;
    case 'receive':
      receive(run, event.at, event.frame);
      break;
    case 'pass':
      bridgePasses(run, event.at, event.frame, event.to);
      break;
    case 'up':
      receiveUp(run, event.at, event.frame, event.to);
      break;
  }
}

/** The frames that have arrived at bridge ports. */
class Arrivals {
  /** By the port: the first frame that came there, until another comes, and then how often each has. */
  readonly #at = new Map<string, Frame | Map<string, number>>();

  /** Notes one, and answers how often the very same came there before. Few ports are passed twice, and only then is it looked what came. */
  note({ netns, ifname }: LinkRef, frame: Frame): number {
    const port = `${netns} ${ifname}`;
    const before = this.#at.get(port);
    if (!before) {
      this.#at.set(port, frame);
      return 0;
    }
    const counts = before instanceof Map ? before : new Map([[JSON.stringify(before), 1]]);
    const text = JSON.stringify(frame);
    const times = counts.get(text) ?? 0;
    this.#at.set(port, counts.set(text, times + 1));
    return times;
  }
}

/** Lets what is under way go on to its end, at this moment. */
function runQueue(run: Run): void {
  const arrivals = new Arrivals();
  for (let steps = 0; steps < MAX_STEPS; steps += 1) {
    const event = run.queue.shift();
    if (event === undefined) return;
    const isLooping =
      event.step === 'receive' &&
      linkAt(run, event.at).port !== null &&
      arrivals.note(event.at, event.frame) >= MAX_VISITS;
    if (!isLooping) {
      perform(run, event);
      continue;
    }
    const text = `this very frame came by ${MAX_VISITS} times before`;
    drop(run, event.at, 'receive', event.frame, 'LOOP', text);
  }
  for (const event of run.queue.splice(0)) {
    if (event.step === 'send') continue;
    const text = `not done after ${MAX_STEPS} steps`;
    drop(run, event.at, 'receive', event.frame, 'STEP_LIMIT', text);
  }
}

/** A neighbour is asked whether it is still there (K-7.10). */
function ask(run: Run, { at, ip, entry }: DueNeighbour, asks: Due['asks']): void {
  if (asks === null) return;
  const knownMac = asks === 'unicast' ? entry.mac : null;
  const question = familyOf(ip) === 4 ? arpQuestion : ndQuestion;
  const frame = question(run, at, ip, null, knownMac);
  if (frame) sendQuestion(run, at, frame);
}

function changeNeighbour(run: Run, due: DueNeighbour): void {
  const { at, ip } = due;
  const { entry, asks } = whenDue(due.entry, run.world.nowMs, timingOf(run, at, ip));
  run.world = withNeighbour(run.world, at, ip, entry);
  ask(run, due, asks);
}

/** Until when somebody waits: the first who does not wait longer. */
function firstDue(run: Run): number | undefined {
  // Nearly always so.
  if (run.waiting.length === 0 && run.gatherings.size === 0) return undefined;
  const due = [...run.waiting, ...run.gatherings.values()].map(({ dueMs }) => dueMs);
  return Math.min(...due);
}

function moveTo(run: Run, nowMs: number): void {
  if (nowMs > run.world.nowMs) run.world = { ...run.world, nowMs };
}

/**
 * Lets everything happen that follows, until nothing is under way and nobody waits, and then until it is `untilMs`
 * milliseconds since the world began: no time passes but what is waited for, or asked for here.
 */
export function settle(run: Run, untilMs = run.world.nowMs): void {
  for (;;) {
    runQueue(run);
    if (leaveBeyond(run)) continue;
    const waitedMs = firstDue(run);
    const nextMs = waitedMs ?? untilMs;
    const neighbours = nextMs > run.world.nowMs ? nextDueNeighbours(run.world, nextMs) : [];
    moveTo(run, neighbours[0]?.dueMs ?? nextMs);
    if (neighbours.length > 0) {
      run.isAside = true;
      for (const due of neighbours) changeNeighbour(run, due);
      runQueue(run);
      run.isAside = false;
      continue;
    }
    if (waitedMs === undefined) return;
    if (run.waiting.some(({ dueMs }) => dueMs <= run.world.nowMs)) giveUp(run);
    else expireFragments(run);
  }
}
