import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Host, type Plugin, addHost, addPod, attached, call, peakMemory } from './host.ts';
import type { Measurement, Samples, Target } from './measurement.ts';

/** What a scenario works with. */
export interface Bench {
  readonly ours: Plugin;
  readonly reference: Plugin;
  readonly rounds: number;
  /** The names of all netns begin with it, the files of all state lie below it. */
  readonly prefix: string;
  readonly folder: string;
  /** Says what begins now; rejects when the bench was interrupted. */
  readonly step: (stage: string, index: number, count: number) => Promise<void>;
}

/** Rounds at the start that do not count: cold page cache, first use of kernel modules. */
export const WARM_UP_ROUNDS = 3;

const FEW_PODS = 5;
const MANY_PODS = 1000;
const MEMORY_CALLS = 5;

/** The scenarios by name. The last one leaves thousands of netns behind, so it disturbs no other. */
export const SCENARIOS: Readonly<Record<string, (bench: Bench) => Promise<Measurement[]>>> = {
  masq: (bench) =>
    compareTimes(bench, 'masq', true, {
      add: { of: 'ratio', atMost: 0.45 },
      del: { of: 'ratio', atMost: 0.5 },
    }),
  plain: (bench) =>
    compareTimes(bench, 'plain', false, { add: { of: 'ratio', atMost: 0.95 }, del: null }),
  status: compareStatus,
  memory: compareMemory,
  crowd: compareCrowds,
};

interface Lane {
  readonly host: Host;
  readonly add: number[];
  readonly del: number[];
}

interface Targets {
  readonly add: Target | null;
  readonly del: Target | null;
}

async function compareTimes(
  bench: Bench,
  scenario: string,
  ipMasq: boolean,
  targets: Targets,
): Promise<Measurement[]> {
  const ours = await populate(bench, scenario, bench.ours, FEW_PODS, ipMasq);
  const reference = await populate(bench, scenario, bench.reference, FEW_PODS, ipMasq);
  await takeTurns(bench, scenario, [ours, reference]);
  const condition = ipMasq ? 'with ipMasq' : 'without ipMasq';
  return [
    {
      name: `ADD ${condition}`,
      unit: 'ms',
      sides: sides(ours, reference, 'add'),
      target: targets.add,
    },
    {
      name: `DEL ${condition}`,
      unit: 'ms',
      sides: sides(ours, reference, 'del'),
      target: targets.del,
    },
  ];
}

function sides(ours: Lane, reference: Lane, verb: 'add' | 'del'): readonly [Samples, Samples] {
  return [
    { label: 'ours', values: ours[verb] },
    { label: 'reference', values: reference[verb] },
  ];
}

/** STATUS, which comes every few seconds, against the least that a plugin can be asked: the reference has no STATUS of its own. */
async function compareStatus(bench: Bench): Promise<Measurement[]> {
  const ours = await populate(bench, 'status', bench.ours, FEW_PODS, true);
  const reference = await populate(bench, 'status', bench.reference, FEW_PODS, true);
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
      name: "STATUS, against the reference's VERSION",
      unit: 'ms',
      sides: [
        { label: 'ours', values: status },
        { label: 'reference', values: version },
      ],
      target: { of: 'ratio', atMost: 3.5 },
    },
  ];
}

/** Does the time of ADD grow with the pods that the node has already? Each plugin against itself. */
async function compareCrowds(bench: Bench): Promise<Measurement[]> {
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
      name: 'ADD on a full node, ours',
      unit: 'ms',
      sides: crowdSides(ours),
      target: { of: 'ratio', atMost: 1.2 },
    },
    {
      name: 'ADD on a full node, reference',
      unit: 'ms',
      sides: crowdSides(reference),
      target: null,
    },
  ];
}

async function populateTwice(bench: Bench, plugin: Plugin) {
  return {
    many: await populate(bench, 'crowd', plugin, MANY_PODS, true),
    few: await populate(bench, 'crowd', plugin, FEW_PODS, true),
  };
}

async function compareMemory(bench: Bench): Promise<Measurement[]> {
  const ours = await populate(bench, 'memory', bench.ours, FEW_PODS, true);
  const reference = await populate(bench, 'memory', bench.reference, FEW_PODS, true);
  for (const { host, add, del } of [ours, reference]) {
    for (let index = 0; index < MEMORY_CALLS; index++) {
      await bench.step(`memory of ${host.plugin.label}`, index, MEMORY_CALLS);
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

/** Where the time of our ADD goes: the start of any Bun executable, then of ours, then the work. */
export async function splitPhases(bench: Bench): Promise<Samples[]> {
  const lane = await populate(bench, 'phases', bench.ours, FEW_PODS, true);
  const plugin = { ...lane.host.plugin, executable: compileEmpty(bench.folder) };
  const emptyHost: Host = { ...lane.host, plugin };
  const [empty, version]: [number[], number[]] = [[], []];
  const pod = addPod(lane.host, 'version');
  await takeTurns(bench, 'phases', [lane], () => {
    empty.push(call(emptyHost, 'VERSION', pod).ms);
    version.push(call(lane.host, 'VERSION', pod).ms);
  });
  return [
    { label: 'empty Bun executable', values: empty.slice(WARM_UP_ROUNDS) },
    { label: 'VERSION', values: version.slice(WARM_UP_ROUNDS) },
    { label: 'ADD with ipMasq', values: lane.add },
  ];
}

/** Compiles an empty file with the flags that our executable is compiled with. */
function compileEmpty(folder: string): string {
  const [source, executable] = [join(folder, 'empty.ts'), join(folder, 'empty')];
  writeFileSync(source, '');
  const flags = ['--compile', '--minify', '--bytecode'];
  const closed = ['--no-compile-autoload-dotenv', '--no-compile-autoload-bunfig'];
  const bun = Bun.spawnSync(
    [process.execPath, 'build', ...flags, ...closed, '--outfile', executable, source],
    { cwd: folder },
  );
  if (!bun.success) throw new Error(`Cannot compile ${source}: ${bun.stderr.toString()}`);
  return executable;
}

/** Makes a host, and attaches `count` pods that stay. */
async function populate(
  bench: Bench,
  scenario: string,
  plugin: Plugin,
  count: number,
  ipMasq: boolean,
): Promise<Lane> {
  const name = `${bench.prefix}${scenario}-${plugin.label}-${count}`;
  const host = addHost(name, plugin, ipMasq, bench.folder);
  for (let index = 0; index < count; index++) {
    await bench.step(`${scenario}: ${count} pods of ${plugin.label}`, index, count);
    call(host, 'ADD', addPod(host, `stays${index}`));
  }
  return { host, add: [], del: [] };
}

/** In each round a new pod is added on every host and then deleted, in an order that alternates. */
async function takeTurns(
  bench: Bench,
  scenario: string,
  lanes: readonly Lane[],
  beforeRound: () => void = () => undefined,
): Promise<void> {
  // All netns are made before the first call and deleted after the last one of the bench: the
  // kernel goes on working for both in the background, in the middle of somebody's call.
  const rounds = Array.from({ length: WARM_UP_ROUNDS + bench.rounds }, (_, round) =>
    (round % 2 === 0 ? lanes : lanes.toReversed()).map((lane) => ({
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
