import type { Bench } from '../bench.ts';
import { FEW_PODS, populate, takeTurns } from '../lanes.ts';
import type { Measurement, Samples } from '../measurement.ts';
import type { Plugin } from '../network.ts';

const MANY_PODS = 1000;

/** Does the time of ADD grow with the pods that the node has already? Each plugin against itself. */
export async function compareCrowds(bench: Bench): Promise<Measurement[]> {
  const [ours, reference] = [
    await populateTwice(bench, bench.ours),
    await populateTwice(bench, bench.reference),
  ];
  await takeTurns(bench, 'crowd', [ours.many, ours.few, reference.many, reference.few]);
  const crowdSides = ({ many, few }: typeof ours): readonly [Samples, Samples] => [
    { label: `${MANY_PODS} pods`, values: many.add },
    { label: `${FEW_PODS} pods`, values: few.add },
  ];
  return [
    {
      name: 'ADD on full node, ours',
      unit: 'ms',
      sides: crowdSides(ours),
      target: { of: 'ratio', atMost: 1.2 },
    },
    {
      name: 'ADD on full node, reference',
      unit: 'ms',
      sides: crowdSides(reference),
      target: null,
    },
  ];
}

async function populateTwice(bench: Bench, plugin: Plugin) {
  return {
    many: await populate(bench, 'crowd', plugin, MANY_PODS, 'masq'),
    few: await populate(bench, 'crowd', plugin, FEW_PODS, 'masq'),
  };
}
