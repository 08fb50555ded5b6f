import { type ProbeRequest, probe } from '../../sim/probe.ts';
import { type World, makeWorld } from '../../sim/world.ts';
import { median } from '../spread.ts';
import { inTurn } from '../turns.ts';
import { fabric, podIp, podName } from './fabric.ts';
import type { Figure } from './figure.ts';
import { attachmentOf, nodeWith } from './pods.ts';
import { type Sizes, type Step, WARM_UP_ROUNDS } from './sizes.ts';
import { timed } from './stopwatch.ts';

/** Probes of a round, of which the middle one counts. */
const PROBES = 20;

interface Lane {
  readonly pods: number;
  readonly world: World;
  readonly request: ProbeRequest;
  readonly ms: number[];
  readonly hopsPerSecond: number[];
}

/** A pod that knows its neighbour asks it, and is answered: over a bridge of as many pods. */
function laneOf(pods: number): Lane {
  const [first, last] = [attachmentOf('node', 0), attachmentOf('node', pods - 1)];
  const [address] = last.addresses;
  if (!address) throw new Error('a pod has no address');
  const request = { netns: first.netns, destination: address.ip };
  const { world, verdict } = probe(makeWorld(nodeWith('node', pods)), request);
  if (verdict.kind !== 'delivered') throw new Error('a pod does not reach another');
  return { pods, world, request, ms: [], hopsPerSecond: [] };
}

/** How long the trace of an echo between pods of two hosts takes, over the router of a whole cluster. */
async function measureCrossing(sizes: Sizes, step: Step): Promise<Figure[]> {
  const { clusterHosts, clusterPods } = sizes;
  await step('packets: a cluster comes about', 0, 1);
  const last = { host: clusterHosts - 1, pod: clusterPods - 1 };
  const request = { netns: podName(0, 0), destination: podIp(last.host, last.pod) };
  const { world, verdict } = probe(makeWorld(fabric(clusterHosts, clusterPods)), request);
  if (verdict.kind !== 'delivered') throw new Error('a pod does not reach that of another host');
  const values: number[] = [];
  for (let round = -WARM_UP_ROUNDS; round < sizes.rounds; round++) {
    await step('packets: across', round + WARM_UP_ROUNDS, WARM_UP_ROUNDS + sizes.rounds);
    const took = median(
      Array.from({ length: PROBES }, () => timed(() => probe(world, request)).ms),
    );
    if (round >= 0) values.push(took);
  }
  const on = `${clusterHosts} hosts of ${clusterPods} pods`;
  const target = { of: 'median', atMost: 5 } as const;
  return [{ name: 'an echo between pods of two hosts, traced', on, unit: 'ms', values, target }];
}

/** How long the trace of an echo between two pods takes, there and back, and how many hops that is a second. */
export async function measurePackets(sizes: Sizes, step: Step): Promise<Figure[]> {
  const lanes = sizes.pods.map((pods) => laneOf(Math.max(pods, 2)));
  for (let round = -WARM_UP_ROUNDS; round < sizes.rounds; round++) {
    await step('packets: rounds', round + WARM_UP_ROUNDS, WARM_UP_ROUNDS + sizes.rounds);
    for (const { world, request, ms, hopsPerSecond } of inTurn(lanes, round + WARM_UP_ROUNDS)) {
      const took = median(
        Array.from({ length: PROBES }, () => timed(() => probe(world, request)).ms),
      );
      if (round < 0) continue;
      ms.push(took);
      hopsPerSecond.push((probe(world, request).hops.length * 1000) / took);
    }
  }
  return [
    ...(await measureCrossing(sizes, step)),
    ...lanes.map(({ pods, ms }): Figure => ({
      name: 'an echo between two pods, traced',
      on: `${pods} pods`,
      unit: 'ms',
      values: ms,
    })),
    ...lanes.map(({ pods, hopsPerSecond }): Figure => ({
      name: 'hops of it',
      on: `${pods} pods`,
      unit: 'ops/s',
      values: hopsPerSecond,
    })),
  ];
}
