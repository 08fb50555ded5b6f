import { type Bench, WARM_UP_ROUNDS } from './bench.ts';
import { call } from './call.ts';
import { type Host, addHost, addPod, attached } from './host.ts';
import type { Samples } from './measurement.ts';
import type { Features, Plugin } from './network.ts';
import { inTurn } from './turns.ts';

/** A host, and what was measured on it. */
export interface Lane {
  readonly host: Host;
  readonly add: number[];
  readonly del: number[];
}

/** The pods that a host has before anything is measured, unless the scenario is about their number. */
export const FEW_PODS = 5;

/** Makes a host, and attaches `count` pods that stay. */
export async function populate(
  bench: Bench,
  scenario: string,
  plugin: Plugin,
  count: number,
  features: Features,
): Promise<Lane> {
  const name = `${bench.prefix}${scenario}-${plugin.label}-${count}`;
  const host = addHost(name, plugin, features, bench.folder);
  for (let index = 0; index < count; index++) {
    await bench.step(`${scenario}: ${count} pods of ${plugin.label}`, index, count);
    call(host, 'ADD', addPod(host, `stays${index}`));
  }
  return { host, add: [], del: [] };
}

/** What both lanes have of a verb, as the sides of a measurement. */
export function sides(
  ours: Lane,
  reference: Lane,
  verb: 'add' | 'del',
): readonly [Samples, Samples] {
  return [
    { label: 'ours', values: ours[verb] },
    { label: 'reference', values: reference[verb] },
  ];
}

/** In each round a new pod is added on every host and then deleted, in an order that alternates. */
export async function takeTurns(
  bench: Bench,
  scenario: string,
  lanes: readonly Lane[],
  beforeRound: () => void = () => undefined,
): Promise<void> {
  // All netns are made before the first call and deleted after the last one of the bench: the
  // kernel goes on working for both in the background, in the middle of somebody's call.
  const rounds = Array.from({ length: WARM_UP_ROUNDS + bench.rounds }, (_, round) =>
    inTurn(lanes, round).map((lane) => ({
      lane,
      pod: addPod(lane.host, `round${round}`),
      stdout: '',
    })),
  );
  for (const [round, guests] of rounds.entries()) {
    const counts = round >= WARM_UP_ROUNDS;
    beforeRound();
    for (const guest of guests) {
      await bench.step(`${scenario}: rounds`, round, rounds.length);
      const { ms, stdout } = call(guest.lane.host, 'ADD', guest.pod);
      guest.stdout = stdout;
      if (counts) guest.lane.add.push(ms);
    }
    for (const { lane, pod, stdout } of guests) {
      await bench.step(`${scenario}: rounds`, round, rounds.length);
      const { ms } = call(lane.host, 'DEL', attached(pod, stdout));
      if (counts) lane.del.push(ms);
    }
  }
}
