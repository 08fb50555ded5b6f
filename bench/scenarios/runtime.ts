import { mkdir, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  type Containerd,
  type NetworkFolders,
  startContainerd,
} from '../../test/runtime/containerd.ts';
import type { PodNetwork } from '../../test/runtime/cri.ts';
import type { RuntimeNode } from '../../test/runtime/runtime-node.ts';
import { type Bench, WARM_UP_ROUNDS } from '../bench.ts';
import { FEW_PODS } from '../lanes.ts';
import type { Measurement, Samples, Target } from '../measurement.ts';
import { BANDWIDTH, type NetworkList, type Plugin, networkList } from '../network.ts';
import { inTurn } from '../turns.ts';

type Rpc = 'RunPodSandbox' | 'StopPodSandbox' | 'RemovePodSandbox';

/** A containerd with a network, and how long its calls took. */
interface Lane {
  readonly label: string;
  readonly containerd: Containerd;
  readonly times: Readonly<Record<Rpc, number[]>>;
}

type WriteNetwork = (node: RuntimeNode) => Promise<NetworkFolders>;

/** The end of a pod's netns, cgroup and shim goes on when the call is over, and is nobody else's time. */
const SETTLE_MS = 50;

const FIRST_HOST_PORT = 20_000;

/** What the machine lacks for `compareRuntimes`; undefined when it has all. */
export function missingForRuntimes(): string | undefined {
  const commands = ['containerd', 'ctr', 'runc', 'gcc', 'busybox'];
  const missing = commands.filter((command) => Bun.which(command) === null);
  return missing.length === 0 ? undefined : `needs ${missing.join(', ')} in PATH`;
}

/**
 * What a pod costs in containerd, with all that the chain does for it, against a plugin that does
 * nothing: what is beyond that is the plugin's, the rest is containerd's and runc's own.
 *
 * Each lane has a containerd of its own, and all of them run until the end: so the lanes take turns
 * within a second, and each containerd has behind it what the others have. A single one would have
 * to start anew for each lane of each round, cold, or be done with one lane minutes before the
 * next. A containerd that is asked nothing takes no time from the others.
 */
export async function compareRuntimes(bench: Bench): Promise<Measurement[]> {
  await using containerds = new AsyncDisposableStack();
  const start = async (label: string, writeNetwork: WriteNetwork): Promise<Lane> => {
    const stage = `runtime: containerd and ${FEW_PODS} pods of ${label}`;
    await bench.step(stage, 0, FEW_PODS);
    const containerd = await startContainerd(writeNetwork);
    containerds.defer(() => containerd.stop());
    for (let index = 0; index < FEW_PODS; index++) {
      await bench.step(stage, index, FEW_PODS);
      await containerd.cri.runPod(`stays${index}`, podNetwork(index));
    }
    return {
      label,
      containerd,
      times: { RunPodSandbox: [], StopPodSandbox: [], RemovePodSandbox: [] },
    };
  };
  const ours = await start('ours', chainOf(bench.ours));
  const nothing = await start('no-op', doNothing(bench.folder));
  const reference = await start('reference', chainOf(bench.reference));
  await takeTurns(bench, [ours, nothing, reference]);

  const measurement = (rpc: Rpc, target: Target): Measurement => {
    const side = ({ label, times }: Lane): Samples => ({ label, values: times[rpc] });
    return { name: rpc, unit: 'ms', sides: [side(ours), side(nothing), side(reference)], target };
  };
  return [
    measurement('RunPodSandbox', { of: 'ratio', atMost: 1.2 }),
    measurement('StopPodSandbox', { of: 'ratio', atMost: 1.8 }),
    measurement('RemovePodSandbox', { of: 'ratio', atMost: 2 }),
  ];
}

async function takeTurns(bench: Bench, lanes: readonly Lane[]): Promise<void> {
  const length = WARM_UP_ROUNDS + bench.rounds;
  for (let round = 0; round < length; round++) {
    const turn = inTurn(lanes, round);
    const timed = async (lane: Lane, rpc: Rpc, call: () => Promise<unknown>): Promise<void> => {
      await bench.step('runtime: rounds', round, length);
      await sleep(SETTLE_MS);
      const startNs = Bun.nanoseconds();
      await call();
      const ms = (Bun.nanoseconds() - startNs) / 1e6;
      if (round >= WARM_UP_ROUNDS) lane.times[rpc].push(ms);
    };
    const ids = new Map<Lane, string>();
    for (const lane of turn) {
      await timed(lane, 'RunPodSandbox', async () => {
        const pod = await lane.containerd.cri.runPod(`round${round}`, podNetwork(FEW_PODS));
        ids.set(lane, pod.id);
      });
    }
    for (const lane of turn) {
      await timed(lane, 'StopPodSandbox', () => lane.containerd.cri.stopPod(ids.get(lane) ?? ''));
    }
    for (const lane of turn) {
      await timed(lane, 'RemovePodSandbox', () =>
        lane.containerd.cri.removePod(ids.get(lane) ?? ''),
      );
    }
  }
}

/** What CRI is told for containerd to choose as the other scenarios do: a host port, and limits. */
function podNetwork(index: number): PodNetwork {
  return {
    portMappings: [{ protocol: 'TCP', hostPort: FIRST_HOST_PORT + index, containerPort: 80 }],
    annotations: {
      'kubernetes.io/ingress-bandwidth': `${BANDWIDTH.ingressRate}`,
      'kubernetes.io/egress-bandwidth': `${BANDWIDTH.egressRate}`,
    },
  };
}

/** The whole chain of a side, with its loopback. */
function chainOf(plugin: Plugin): WriteNetwork {
  const fromCniPath = (name: string) => [name, join(plugin.cniPath, name)] as const;
  const others =
    plugin.type === 'bridge'
      ? ['host-local', 'loopback'].map(fromCniPath)
      : [['loopback', plugin.executable] as const];
  return (node) =>
    writeList(node, networkList(plugin, 'chain', node.folder), Object.fromEntries(others));
}

/** Compiles the plugin that does nothing, which is its own loopback too. */
function doNothing(folder: string): WriteNetwork {
  const executable = join(folder, 'do-nothing');
  const source = join(import.meta.dirname, '../do-nothing.c');
  const gcc = Bun.spawnSync(['gcc', '-Os', '-static', '-s', '-o', executable, source]);
  if (!gcc.success) throw new Error(`Cannot compile ${source}: ${gcc.stderr.toString()}`);
  const plugins = [{ executable, config: { type: 'do-nothing' } }];
  return (node) =>
    writeList(node, { cniVersion: '1.0.0', name: 'bench', plugins }, { loopback: executable });
}

/** Writes the list for containerd; `others` are plugins by their names that are called without being listed. */
async function writeList(
  node: RuntimeNode,
  { plugins, ...list }: NetworkList,
  others: Readonly<Record<string, string>>,
): Promise<NetworkFolders> {
  const pluginFolder = join(node.folder, 'bin');
  const configFolder = join(node.folder, 'net.d');
  await mkdir(pluginFolder);
  const listed = plugins.map(({ executable, config }) => [config.type, executable] as const);
  for (const [name, executable] of [...listed, ...Object.entries(others)]) {
    await symlink(executable, join(pluginFolder, name));
  }
  await mkdir(configFolder);
  const conflist = { ...list, plugins: plugins.map(({ config }) => config) };
  await writeFile(join(configFolder, 'bench.conflist'), JSON.stringify(conflist));
  return { pluginFolder, configFolder };
}
