import { type ProbeRequest, outcomeOf, probe } from '../../sim/probe.ts';
import { type World, makeWorld } from '../../sim/world.ts';
import { inTurn } from '../turns.ts';
import { fabric, podIp, podName } from './fabric.ts';
import type { Figure } from './figure.ts';
import { attachmentOf, nodeWith } from './pods.ts';
import { type Sizes, type Step, WARM_UP_ROUNDS } from './sizes.ts';
import { timed } from './stopwatch.ts';

/** Probes of a round, one after the other: a single one is shorter than what may interrupt it, and leaves to the collector what falls on others. */
const PROBES = 500;

/** How it is asked, and how many steps are to be made in a second. A step is what a trace has a hop of, be it noted or not. */
const WAYS = [
  { name: 'traced', ask: probe, stepsPerSecond: 300_000 },
  { name: 'untraced', ask: outcomeOf, stepsPerSecond: 1_000_000 },
] as const;

/** What is to be reached across a cluster. */
const ACROSS_MICROSECONDS = 5000;

interface Lane {
  readonly on: string;
  readonly way: (typeof WAYS)[number];
  readonly world: World;
  readonly request: ProbeRequest;
  /** Of the trace of one. */
  readonly hops: number;
  readonly values: number[];
}

/** A pod that knows its neighbour asks it, and is answered: over a bridge of as many pods. */
function lanesOf(pods: number): Lane[] {
  const [first, last] = [attachmentOf('node', 0), attachmentOf('node', pods - 1)];
  const [address] = last.addresses;
  if (!address) throw new Error('a pod has no address');
  const request = { netns: first.netns, destination: address.ip };
  const { world } = probe(makeWorld(nodeWith('node', pods)), request);
  return lanesIn(`${pods} pods`, world, request);
}

/** Pods of two hosts, over the router of a whole cluster. */
function crossingLanes({ clusterHosts, clusterPods }: Sizes): Lane[] {
  const last = { host: clusterHosts - 1, pod: clusterPods - 1 };
  const request = { netns: podName(0, 0), destination: podIp(last.host, last.pod) };
  const { world } = probe(makeWorld(fabric(clusterHosts, clusterPods)), request);
  return lanesIn(`${clusterHosts} hosts of ${clusterPods} pods`, world, request);
}

function lanesIn(on: string, world: World, request: ProbeRequest): Lane[] {
  const { hops, verdict } = probe(world, request);
  if (verdict.kind !== 'delivered') throw new Error('a pod does not reach another');
  return WAYS.map((way) => ({ on, way, world, request, hops: hops.length, values: [] }));
}

/** Fills in how long each lane's probes take, in µs. */
async function measureLanes(lanes: readonly Lane[], sizes: Sizes, step: Step): Promise<void> {
  for (let round = -WARM_UP_ROUNDS; round < sizes.rounds; round++) {
    await step('packets: rounds', round + WARM_UP_ROUNDS, WARM_UP_ROUNDS + sizes.rounds);
    for (const { way, world, request, values } of inTurn(lanes, round + WARM_UP_ROUNDS)) {
      const { ms } = timed(() => {
        for (let each = 0; each < PROBES; each++) way.ask(world, request);
      });
      if (round >= 0) values.push((ms * 1000) / PROBES);
    }
  }
}

/** How long an echo takes, there and back, with a trace and without, and how many steps that is a second. */
export async function measurePackets(sizes: Sizes, step: Step): Promise<Figure[]> {
  await step('packets: hosts come about', 0, 1);
  const near = sizes.pods.flatMap((pods) => lanesOf(Math.max(pods, 2)));
  await measureLanes(near, sizes, step);
  await step('packets: a cluster comes about', 0, 1);
  const across = crossingLanes(sizes);
  await measureLanes(across, sizes, step);
  const inOrder = WAYS.flatMap((way) => near.filter((lane) => lane.way === way));
  return [
    ...across.map(({ on, way, values }): Figure => {
      const name = `an echo between pods of two hosts, ${way.name}`;
      return {
        name,
        on,
        unit: 'µs',
        values,
        target: { of: 'median', atMost: ACROSS_MICROSECONDS },
      };
    }),
    ...inOrder.map(({ on, way, values }): Figure => {
      return { name: `an echo between two pods, ${way.name}`, on, unit: 'µs', values };
    }),
    ...inOrder.map(({ on, way, hops, values }): Figure => ({
      name: `steps of it, ${way.name}`,
      on,
      unit: 'ops/s',
      values: values.map((microseconds) => (hops * 1e6) / microseconds),
      target: { of: 'median', atLeast: way.stepsPerSecond },
    })),
  ];
}
