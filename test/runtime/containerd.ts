import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { execa } from 'execa';
import { connectCri, type Cri } from './cri.ts';
import { BUSYBOX_IMAGE, makeBusyboxImage, makePauseImage, PAUSE_IMAGE } from './image.ts';
import { logTail } from './log-tail.ts';
import { makeRuntimeNode, type RuntimeNode, SERVICE } from './runtime-node.ts';
import { liesOnOverlay } from './storage.ts';
import { waitFor } from './wait.ts';

/** Where containerd finds its network. */
export interface NetworkFolders {
  /** The folder of the plugins, and of the `loopback` that containerd also calls. */
  readonly pluginFolder: string;
  /** The folder of the network configuration list. */
  readonly configFolder: string;
}

/** A containerd on a node of its own. */
export interface Containerd<Network extends NetworkFolders = NetworkFolders> {
  readonly node: RuntimeNode;
  readonly network: Network;
  /** The client; another one after `restart`. */
  readonly cri: Cri;
  /** The end of containerd's log, for a test that failed. */
  log(): Promise<string>;
  /** Kills containerd with SIGKILL, so that it can tidy up nothing. Its pods live on. */
  kill(): Promise<void>;
  /** Starts containerd again on the same state. */
  restart(): Promise<void>;
  /** Removes all pods as a kubelet would, with a new containerd should it have been killed. */
  removePods(): Promise<void>;
  /**
   * Removes what pods are left, then everything else. Rejects when a pod could not be removed in the regular way, but
   * only after all is gone.
   */
  stop(): Promise<void>;
}

const REMOVE_TIMEOUT_MS = 20_000;

/**
 * Starts containerd with a network that is written for its node, and returns when pods can be run. Wants what a node
 * wants, and containerd, runc, gcc and a static busybox.
 */
export async function startContainerd<Network extends NetworkFolders>(
  writeNetwork: (node: RuntimeNode) => Promise<Network>,
): Promise<Containerd<Network>> {
  const node = await makeRuntimeNode();
  const { folder } = node;
  const socket = path.join(folder, 'containerd.sock');
  const logFile = path.join(folder, 'containerd.log');
  const pidFile = path.join(folder, 'pid');

  let daemon: Promise<unknown> | undefined;
  let cri = connect();

  function connect(): Cri {
    return connectCri(socket, { logs: path.join(folder, 'logs'), cgroupParent: `/${node.name}` });
  }

  async function startDaemon(): Promise<void> {
    const script = 'echo $$ >"$1"; exec containerd --config "$2" >>"$3" 2>&1'; // $$: in the node's PID namespace
    const args = ['sh', '-c', script, 'sh', pidFile, path.join(folder, 'config.toml'), logFile];
    const started = execa(...node.enter(...args), { ...SERVICE, stdio: 'ignore', reject: false });
    daemon = started;
    let ended = false;
    void started.then(() => (ended = true));
    let reason = 'no answer yet';
    await waitFor(
      'containerd to be ready',
      () => reason,
      async () => {
        if (ended) throw new Error(`containerd ended:\n${await logTail(logFile)}`);
        try {
          // Its socket is there before the CRI plugin behind it serves.
          reason = (await cri.notReady()).join(', ');
          return reason === '';
        } catch (error) {
          reason = String(error);
          return false;
        }
      },
    );
  }

  async function kill(signal: 'SIGKILL' | 'SIGTERM'): Promise<void> {
    cri.close();
    await node.run('kill', '-s', signal.slice(3), (await readFile(pidFile, 'utf8')).trim());
    await daemon;
    daemon = undefined;
  }

  async function restart(): Promise<void> {
    if (daemon !== undefined) throw new Error('containerd runs');
    cri = connect();
    await startDaemon();
  }

  async function removePods(): Promise<void> {
    if (daemon === undefined) await restart();
    const failures: string[] = [];
    for (const id of await cri.list()) {
      try {
        await cri.stopPod(id);
        await cri.removePod(id);
      } catch (error) {
        failures.push(`Cannot remove pod ${id}: ${String(error)}`);
      }
    }
    if (failures.length > 0) throw new Error(failures.join('\n'));
  }

  async function stop(): Promise<void> {
    const late = sleep(REMOVE_TIMEOUT_MS, undefined, { ref: false }).then(() => {
      throw new Error('Removing the pods takes too long');
    });
    const [removed] = await Promise.allSettled([Promise.race([removePods(), late])]);
    late.catch(() => undefined);
    if (daemon !== undefined) await kill('SIGTERM').catch(() => undefined); // or it dies with the node
    cri.close();
    await node.remove();
    if (removed.status === 'rejected') throw removed.reason;
  }

  try {
    const network = await writeNetwork(node);
    await writeFile(path.join(folder, 'config.toml'), containerdConfig(folder, socket, network));
    const images = path.join(folder, 'images');
    const [pause, busybox] = await Promise.all([
      makePauseImage(images),
      makeBusyboxImage(images),
      startDaemon(),
    ]);
    for (const image of [pause, busybox]) {
      const client = ['--address', socket, '--namespace', 'k8s.io'];
      const how = ['--snapshotter', snapshotter(folder)];
      await node.run('ctr', ...client, 'images', 'import', ...how, image);
    }
    // CRI learns of an import by an event, a moment later; until then RunPodSandbox would try to pull.
    for (const image of [PAUSE_IMAGE, BUSYBOX_IMAGE]) {
      await waitFor(
        `containerd to know ${image}`,
        () => 'not listed',
        () => cri.hasImage(image),
      );
    }
    return {
      node,
      network,
      get cri() {
        return cri;
      },
      log: () => logTail(logFile),
      kill: () => kill('SIGKILL'),
      restart,
      removePods,
      stop,
    };
  } catch (error) {
    await stop().catch(() => undefined); // the first error is the one to show
    throw error;
  }
}

function containerdConfig(folder: string, socket: string, network: NetworkFolders): string {
  return `
version = 2
root = "${folder}/root"
state = "${folder}/state"
[grpc]
  address = "${socket}"
[ttrpc]
  address = "${socket}.ttrpc"
[plugins."io.containerd.internal.v1.opt"]
  path = "${folder}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "${PAUSE_IMAGE}"
  # A sandbox asks for an OOM score of -998, which root may be refused (no CAP_SYS_RESOURCE); then runc dies.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "${network.pluginFolder}"
    conf_dir = "${network.configFolder}"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "${snapshotter(folder)}"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
`;
}

function snapshotter(folder: string): 'overlayfs' | 'native' {
  return liesOnOverlay(folder) ? 'native' : 'overlayfs';
}
