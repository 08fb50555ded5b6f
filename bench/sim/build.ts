import type { Host } from '../../model/host.ts';
import { afterOps } from '../../test/plugin/machine.ts';
import type { Figure } from './figure.ts';
import { NODE_OPS, nodeWith, podOps } from './pods.ts';
import { LONG_ROUNDS, type Sizes, type Step, WARM_UP_ROUNDS } from './sizes.ts';
import { heapMegabytes, peakMegabytes, timedOnProcessor } from './stopwatch.ts';

/** 1 GiB in MB of 10^6 bytes. */
const CLUSTER_MEGABYTES = 1073;

/** What the rounds gave: wall clock, processor time of all threads, and what the heap holds more than before. */
interface Samples {
  readonly ms: number[];
  readonly processorMs: number[];
  readonly heapMegabytes: number[];
}

function noSamples(): Samples {
  return { ms: [], processorMs: [], heapMegabytes: [] };
}

function figuresOf(name: string, on: string, samples: Samples, atMostMs: number): Figure[] {
  return [
    { name, on, unit: 'ms', values: samples.ms, target: { of: 'median', atMost: atMostMs } },
    { name: `${name}: processor time`, on, unit: 'ms', values: samples.processorMs },
    { name: `${name}: heap`, on, unit: 'MB', values: samples.heapMegabytes },
  ];
}

/** A host of the most pods, made by the operations of their ADDs, which are planned before and are part of neither figure. */
export async function measureBuilding(sizes: Sizes, step: Step): Promise<Figure[]> {
  const pods = Math.max(...sizes.pods);
  const rounds = Math.min(sizes.rounds, LONG_ROUNDS);
  const ops = [...NODE_OPS, ...podOps('node', pods).flat()];
  const samples = noSamples();
  for (let round = -WARM_UP_ROUNDS; round < rounds; round++) {
    await step('a host: rounds', round + WARM_UP_ROUNDS, WARM_UP_ROUNDS + rounds);
    const before = heapMegabytes();
    const { ms, processorMs, answer } = timedOnProcessor(() => afterOps({ netns: {} }, ops));
    const grown = heapMegabytes() - before;
    if (Object.keys(answer.netns).length !== pods + 1) throw new Error('pods are missing');
    if (round < 0) continue;
    samples.ms.push(ms);
    samples.processorMs.push(processorMs);
    samples.heapMegabytes.push(grown);
  }
  return figuresOf('a host', `${pods} pods, ${ops.length} operations`, samples, 500);
}

/** Many hosts, each made by operations of its own, whose planning is not counted. */
export async function measureCluster(sizes: Sizes, step: Step): Promise<Figure[]> {
  const { clusterHosts, clusterPods } = sizes;
  const rounds = Math.min(sizes.rounds, LONG_ROUNDS);
  const samples = noSamples();
  nodeWith('warm-up', clusterPods);
  const before = heapMegabytes();
  for (let round = 0; round < rounds; round++) {
    const hosts: Host[] = [];
    const sums = { ms: 0, processorMs: 0 };
    for (let index = 0; index < clusterHosts; index++) {
      await step(`a cluster: hosts of round ${round + 1}`, index, clusterHosts);
      const ops = [...NODE_OPS, ...podOps(`node${index}`, clusterPods).flat()];
      const { ms, processorMs, answer } = timedOnProcessor(() => afterOps({ netns: {} }, ops));
      sums.ms += ms;
      sums.processorMs += processorMs;
      hosts.push(answer);
    }
    samples.ms.push(sums.ms);
    samples.processorMs.push(sums.processorMs);
    samples.heapMegabytes.push(heapMegabytes() - before);
    // Else what is left of this round would be part of the next one's heap.
    hosts.length = 0;
  }
  const on = `${clusterHosts} hosts of ${clusterPods} pods`;
  return [
    ...figuresOf('a cluster', on, samples, 5000),
    {
      name: 'a cluster: peak resident set',
      on,
      unit: 'MB',
      values: [peakMegabytes()],
      target: { of: 'max', atMost: CLUSTER_MEGABYTES },
    },
  ];
}
