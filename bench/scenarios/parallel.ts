import type { Bench } from '../bench.ts';
import { type Verb, callBesideOthers } from '../call.ts';
import { type Host, type Pod, addPod, attached } from '../host.ts';
import { FEW_PODS, populate, sides } from '../lanes.ts';
import type { Measurement } from '../measurement.ts';
import { inTurn } from '../turns.ts';

/** As many pods as a node may be given at once, when it starts or another one fails. */
const PODS = 50;

/** One round is as many calls as fifty of another scenario, so that a few tell as much. */
const MOST_ROUNDS = 10;

const WARM_UP_ROUNDS = 1;

/** How long it takes until the last of many pods is there, and gone, when all are asked for at once. */
export async function compareParallel(bench: Bench): Promise<Measurement[]> {
  const ours = await populate(bench, 'parallel', bench.ours, FEW_PODS, 'chain');
  const reference = await populate(bench, 'parallel', bench.reference, FEW_PODS, 'chain');
  const length = WARM_UP_ROUNDS + Math.min(bench.rounds, MOST_ROUNDS);
  // All before the first call, as takeTurns has it.
  const rounds = Array.from({ length }, (_, round) =>
    inTurn([ours, reference], round).map((lane) => ({
      lane,
      pods: Array.from({ length: PODS }, (_pod, index) => addPod(lane.host, `${round}-${index}`)),
    })),
  );
  for (const [round, crowds] of rounds.entries()) {
    const counts = round >= WARM_UP_ROUNDS;
    for (const crowd of crowds) {
      await bench.step('parallel: rounds', round, length);
      const { ms, stdouts } = await callAll(crowd.lane.host, 'ADD', crowd.pods);
      crowd.pods = crowd.pods.map((pod, index) => attached(pod, stdouts[index] ?? ''));
      if (counts) crowd.lane.add.push(ms);
    }
    for (const { lane, pods } of crowds) {
      await bench.step('parallel: rounds', round, length);
      const { ms } = await callAll(lane.host, 'DEL', pods);
      if (counts) lane.del.push(ms);
    }
  }
  return [
    {
      name: `${PODS} chain ADDs at once`,
      unit: 'ms',
      sides: sides(ours, reference, 'add'),
      target: { of: 'ratio', atMost: 0.3 },
    },
    {
      name: `${PODS} chain DELs at once`,
      unit: 'ms',
      sides: sides(ours, reference, 'del'),
      target: null,
    },
  ];
}

/** The calls begin together; the time is until the last one has ended. */
async function callAll(
  host: Host,
  verb: Verb,
  pods: readonly Pod[],
): Promise<{ readonly ms: number; readonly stdouts: readonly string[] }> {
  const startNs = Bun.nanoseconds();
  const calls = pods.map((pod) => callBesideOthers(host, verb, pod));
  // Also when one fails, all have to end before anything is cleaned up.
  await Promise.allSettled(calls);
  const ms = (Bun.nanoseconds() - startNs) / 1e6;
  return { ms, stdouts: await Promise.all(calls) };
}
