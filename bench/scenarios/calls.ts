import type { Bench } from '../bench.ts';
import { FEW_PODS, populate, sides, takeTurns } from '../lanes.ts';
import type { Measurement, Target } from '../measurement.ts';
import type { Features } from '../network.ts';

interface Targets {
  readonly add: Target | null;
  readonly del: Target | null;
}

const NAMES = { plain: 'without ipMasq', masq: 'with ipMasq', chain: 'of the whole chain' };

/** ADD and DEL of one pod after another. */
export async function compareCalls(
  bench: Bench,
  features: Features,
  targets: Targets,
): Promise<Measurement[]> {
  const ours = await populate(bench, features, bench.ours, FEW_PODS, features);
  const reference = await populate(bench, features, bench.reference, FEW_PODS, features);
  await takeTurns(bench, features, [ours, reference]);
  return [
    {
      name: `ADD ${NAMES[features]}`,
      unit: 'ms',
      sides: sides(ours, reference, 'add'),
      target: targets.add,
    },
    {
      name: `DEL ${NAMES[features]}`,
      unit: 'ms',
      sides: sides(ours, reference, 'del'),
      target: targets.del,
    },
  ];
}
