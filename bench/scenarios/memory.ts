import type { Bench } from '../bench.ts';
import { addPod, attached } from '../host.ts';
import { FEW_PODS, populate, sides } from '../lanes.ts';
import type { Measurement } from '../measurement.ts';
import { peakMemory } from '../memory.ts';

const CALLS = 5;

/** The peak memory of ADD and DEL. */
export async function compareMemory(bench: Bench): Promise<Measurement[]> {
  const ours = await populate(bench, 'memory', bench.ours, FEW_PODS, 'masq');
  const reference = await populate(bench, 'memory', bench.reference, FEW_PODS, 'masq');
  for (const { host, add, del } of [ours, reference]) {
    for (let index = 0; index < CALLS; index++) {
      await bench.step(`memory of ${host.plugin.label}`, index, CALLS);
      const pod = addPod(host, `memory${index}`);
      const added = await peakMemory(host, 'ADD', pod);
      const deleted = await peakMemory(host, 'DEL', attached(pod, added.stdout));
      add.push(added.bytes / 1e6);
      del.push(deleted.bytes / 1e6);
    }
  }
  const target = { of: 'max', atMost: 45 } as const;
  return [
    { name: 'Peak memory of ADD', unit: 'MB', sides: sides(ours, reference, 'add'), target },
    { name: 'Peak memory of DEL', unit: 'MB', sides: sides(ours, reference, 'del'), target },
  ];
}
