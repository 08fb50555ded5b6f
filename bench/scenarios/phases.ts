import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Bench, WARM_UP_ROUNDS } from '../bench.ts';
import { call } from '../call.ts';
import { type Host, addPod } from '../host.ts';
import { FEW_PODS, populate, takeTurns } from '../lanes.ts';
import type { Samples } from '../measurement.ts';

/** Where the time of our ADD goes: the start of any Bun executable, then of ours, then the work. */
export async function splitPhases(bench: Bench): Promise<Samples[]> {
  const lane = await populate(bench, 'phases', bench.ours, FEW_PODS, 'masq');
  const executable = compileEmpty(bench.folder);
  const { network } = lane.host;
  const plugins = network.plugins.map((plugin) => ({ ...plugin, executable }));
  const emptyHost: Host = { ...lane.host, network: { ...network, plugins } };
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
