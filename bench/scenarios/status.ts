import { type Bench, WARM_UP_ROUNDS } from '../bench.ts';
import { call } from '../call.ts';
import { addPod } from '../host.ts';
import { FEW_PODS, populate } from '../lanes.ts';
import type { Measurement } from '../measurement.ts';

/** STATUS, which comes every few seconds, against the least that a plugin can be asked: the reference has no STATUS of its own. */
export async function compareStatus(bench: Bench): Promise<Measurement[]> {
  const ours = await populate(bench, 'status', bench.ours, FEW_PODS, 'masq');
  const reference = await populate(bench, 'status', bench.reference, FEW_PODS, 'masq');
  const [status, version]: [number[], number[]] = [[], []];
  const pods = [addPod(ours.host, 'status'), addPod(reference.host, 'status')] as const;
  for (let round = -WARM_UP_ROUNDS; round < bench.rounds; round++) {
    await bench.step('status', Math.max(round, 0), bench.rounds);
    const times = {
      status: () => call(ours.host, 'STATUS', pods[0]).ms,
      version: () => call(reference.host, 'VERSION', pods[1]).ms,
    };
    const first = round % 2 === 0 ? times.status() : undefined;
    const other = times.version();
    const own = first ?? times.status();
    if (round < 0) continue;
    status.push(own);
    version.push(other);
  }
  return [
    {
      name: 'STATUS, against VERSION',
      unit: 'ms',
      sides: [
        { label: 'ours', values: status },
        { label: 'reference', values: version },
      ],
      target: { of: 'ratio', atMost: 3.5 },
    },
  ];
}
