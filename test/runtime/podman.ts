import { mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { BUSYBOX_IMAGE, makeBusyboxImage } from './image.ts';
import { type Network, writeNetwork } from './network.ts';
import { makeRuntimeNode, type RuntimeNode } from './runtime-node.ts';
import { liesOnOverlay } from './storage.ts';

/** podman on a node of its own, with the plugin as its only network. */
export interface Podman {
  readonly node: RuntimeNode;
  readonly network: Network;
  /** Runs podman and returns its output; rejects with its words. */
  podman(...args: string[]): Promise<string>;
  /** Starts a container of busybox on the network; returns its id. */
  run(options: readonly string[], command: readonly string[]): Promise<string>;
  /** Removes all containers. */
  removeContainers(): Promise<void>;
  /** Removes what containers are left, then everything else; rejects when a container could not be removed. */
  stop(): Promise<void>;
}

/**
 * Sets up podman with its CNI backend and an image. Nothing of it runs but containers. Wants what a node wants, and
 * podman, conmon, runc and a static busybox.
 */
export async function startPodman(): Promise<Podman> {
  const node = await makeRuntimeNode();
  const { folder } = node;
  const containersConf = path.join(folder, 'containers.conf');
  const storageConf = path.join(folder, 'storage.conf');

  const podman: Podman['podman'] = (...args) =>
    node.run(
      'env',
      `CONTAINERS_CONF=${containersConf}`,
      `CONTAINERS_STORAGE_CONF=${storageConf}`,
      `HOME=${folder}`,
      'podman',
      ...args,
    );

  async function removeContainers(): Promise<void> {
    await podman('rm', '--force', '--time', '0', '--all');
  }

  async function stop(): Promise<void> {
    const [removed] = await Promise.allSettled([removeContainers()]);
    await node.remove();
    if (removed.status === 'rejected') throw removed.reason;
  }

  try {
    const network = await writeNetwork(node, ['portMappings', 'ips', 'mac']);
    await mkdir(path.join(folder, 'tmp'));
    await writeFile(containersConf, engineConfig(folder, network));
    await writeFile(storageConf, storageConfig(folder));
    const image = await makeBusyboxImage(path.join(folder, 'images'));
    await podman('load', '--quiet', '--input', image);
    return {
      node,
      network,
      podman,
      run: (options, command) =>
        podman(
          'run',
          '--detach',
          '--network',
          network.name,
          '--cgroup-parent',
          `/${node.name}`,
          ...options,
          BUSYBOX_IMAGE,
          ...command,
        ),
      removeContainers,
      stop,
    };
  } catch (error) {
    await node.remove().catch(() => undefined); // the first error is the one to show
    throw error;
  }
}

function engineConfig(folder: string, network: Network): string {
  return `
[containers]
# podman raises both as far as it can, which runc is refused where root lacks CAP_SYS_RESOURCE.
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[network]
network_backend = "cni"
cni_plugin_dirs = ["${network.pluginFolder}"]
network_config_dir = "${network.configFolder}"
default_network = "${network.name}"
[engine]
runtime = "runc"
# There may be neither systemd nor its journal.
cgroup_manager = "cgroupfs"
events_logger = "file"
# The other kind is in shared memory, common to all of podman on the machine.
lock_type = "file"
tmp_dir = "${folder}/tmp"
`;
}

function storageConfig(folder: string): string {
  return `
[storage]
driver = "${liesOnOverlay(folder) ? 'vfs' : 'overlay'}"
graphroot = "${folder}/root"
runroot = "/run/containers/storage"
`;
}
