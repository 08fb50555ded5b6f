import { once } from 'node:events';
import { existsSync, statfsSync } from 'node:fs';
import {
  chmod,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rm,
  rmdir,
  symlink,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { execa } from 'execa';
import { connectCri, type Cri } from './cri.ts';
import { makeImages, PAUSE_IMAGE, BUSYBOX_IMAGE } from './image.ts';

/** What a containerd is started with. */
export interface Network {
  /** The plugin under test: its name in the conflist and its executable. */
  readonly plugin: { readonly type: string; readonly executable: string };
  /** Plugins beside it, likewise; containerd itself calls `loopback`. */
  readonly others: Readonly<Record<string, string>>;
  /** The network configuration list; the folder is containerd's, for the plugin's data and log. */
  readonly conflist: (folder: string) => object;
}

/** One call of the plugin under test, as the runtime made it. */
export interface PluginCall {
  readonly command: string;
  readonly containerId: string;
  readonly netns: string;
}

/** A containerd in a world of its own: what it does to links, mounts and processes is seen nowhere else on the machine. */
export interface Containerd {
  /** Where everything is: configuration, state, images, logs. */
  readonly folder: string;
  /** The client; another one after `restart`. */
  readonly cri: Cri;
  /** Runs a command in the node's namespaces and returns its output. */
  run(command: string, ...args: string[]): Promise<string>;
  /** Starts a command there that lasts as long as the node does. */
  serve(command: string, ...args: string[]): void;
  /** The calls of the plugin so far, in order. */
  calls(): Promise<readonly PluginCall[]>;
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

const START_TIMEOUT_MS = 30_000;

const REMOVE_TIMEOUT_MS = 20_000;

// A plugin inherits containerd's environment and folder. Give it those of a service, not the shell's.
const SERVICE = {
  cwd: '/',
  env: { PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' },
  extendEnv: false,
} as const;

/**
 * Starts containerd with a network, on a node that is empty but for `lo`, and returns when pods can be run. Wants
 * Linux, root, containerd, runc, util-linux, iproute2, gcc and a static busybox.
 */
export async function startContainerd(network: Network): Promise<Containerd> {
  const folder = await mkdtemp(path.join(tmpdir(), 'cube-cni-runtime-'));
  const name = path.basename(folder);
  const socket = path.join(folder, 'containerd.sock');
  const callsFile = path.join(folder, 'calls');
  const logFile = path.join(folder, 'containerd.log');
  const pidFile = path.join(folder, 'pid');
  const cniFolder = existsSync('/var/lib/cni') ? undefined : '/var/lib/cni';

  const node = startNode();
  let daemon: Promise<unknown> | undefined;
  let cri = connect();

  function connect(): Cri {
    return connectCri(socket, { logs: path.join(folder, 'logs'), cgroupParent: `/${name}` });
  }

  /** The arguments of nsenter for everything that happens on the node. */
  function enter(): string[] {
    // The pid is that of unshare, which is in the new network and mount namespaces, but only has children in the new
    // PID namespace. `ip netns exec` would not do: it mounts a fresh /sys, without the cgroups that runc needs.
    const pidNamespace = `--pid=/proc/${node.pid}/ns/pid_for_children`;
    return ['--target', `${node.pid}`, '--net', '--mount', pidNamespace, '--'];
  }

  async function run(command: string, ...args: string[]): Promise<string> {
    const { stdout } = await execa('nsenter', [...enter(), command, ...args], {
      ...SERVICE,
      stdin: 'ignore',
    });
    return stdout;
  }

  async function startDaemon(): Promise<void> {
    const script = 'echo $$ >"$1"; exec containerd --config "$2" >>"$3" 2>&1'; // $$: in the node's PID namespace
    const args = ['sh', '-c', script, 'sh', pidFile, path.join(folder, 'config.toml'), logFile];
    const started = execa('nsenter', [...enter(), ...args], {
      ...SERVICE,
      stdio: 'ignore',
      reject: false,
    });
    daemon = started;
    let ended = false;
    void started.then(() => (ended = true));
    let reason = 'no answer yet';
    await waitFor(
      'containerd to be ready',
      () => reason,
      async () => {
        if (ended) throw new Error(`containerd ended:\n${await tail(logFile)}`);
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
    await run('kill', '-s', signal.slice(3), (await readFile(pidFile, 'utf8')).trim());
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
    // The end of its process 1 takes with it all that ran on the node, shims and containers too, and so the
    // namespaces, links and mounts: from here on nothing under the folder is a mount point.
    node.stdin.end();
    await node;
    if (cniFolder !== undefined) await removeFolder(cniFolder); // unless somebody else uses it by now
    await rm(folder, { recursive: true, force: true });
    await removeCgroups(name);
    if (removed.status === 'rejected') throw removed.reason;
  }

  try {
    await nodeReady(node);
    await writePlugins(path.join(folder, 'bin'), network, callsFile);
    await mkdir(path.join(folder, 'net.d'));
    await writeFile(
      path.join(folder, 'net.d', '10-test.conflist'),
      JSON.stringify(network.conflist(folder)),
    );
    await writeFile(path.join(folder, 'config.toml'), containerdConfig(folder, socket));
    const [images] = await Promise.all([makeImages(path.join(folder, 'images')), startDaemon()]);
    for (const image of images) {
      const client = ['--address', socket, '--namespace', 'k8s.io'];
      await run('ctr', ...client, 'images', 'import', '--snapshotter', snapshotter(folder), image);
    }
    // CRI learns of an import by an event, a moment later; until then RunPodSandbox would try to pull.
    for (const image of [PAUSE_IMAGE, BUSYBOX_IMAGE]) {
      await waitFor(
        `containerd to know ${image}`,
        () => 'not listed',
        () => cri.hasImage(image),
      );
    }
  } catch (error) {
    await stop().catch(() => undefined); // the first error is the one to show
    throw error;
  }

  return {
    folder,
    get cri() {
      return cri;
    },
    run,
    serve(command, ...args) {
      void execa('nsenter', [...enter(), command, ...args], {
        ...SERVICE,
        stdio: 'ignore',
        reject: false,
      });
    },
    async calls() {
      return (await readFile(callsFile, 'utf8')).trimEnd().split('\n').map(parseCall);
    },
    log: () => tail(logFile),
    kill: () => kill('SIGKILL'),
    restart,
    removePods,
    stop,
  };
}

/**
 * Makes the node: network, mount and PID namespaces that live until the process' standard input ends. That happens
 * also when the tests die, so nothing of the node can outlive them.
 */
function startNode() {
  const script = [
    'ip link set lo up',
    // containerd's netns mounts, shim sockets and fifos, and libcni's cache, have fixed places. Keep them to the node.
    'mount -t tmpfs tmpfs /run',
    'mkdir -p /var/lib/cni',
    'mount -t tmpfs tmpfs /var/lib/cni',
    // A machine that was not booted by systemd may have no cgroups mounted. Version 2 only where there is nothing:
    // beside version 1 it has no controllers.
    '[ -e /sys/fs/cgroup/cgroup.controllers ] || [ -d /sys/fs/cgroup/memory ] || mount -t cgroup2 none /sys/fs/cgroup',
    'echo ready',
    'cat', // waits for the end of input; meanwhile the shell reaps orphans, such as shims
    ':', // so that cat is a child, not what the shell becomes
  ].join('\n');
  const namespaces = ['--net', '--mount', '--pid', '--fork', '--mount-proc'];
  return execa('unshare', [...namespaces, 'sh', '-ec', script], {
    ...SERVICE,
    stdin: 'pipe',
    reject: false,
  });
}

async function nodeReady(node: ReturnType<typeof startNode>): Promise<void> {
  const failed = node.then(({ stderr }) => {
    throw new Error(`Cannot make namespaces: ${stderr}`);
  });
  failed.catch(() => undefined); // for when the node ends later, which is no failure
  await Promise.race([once(node.stdout, 'data'), failed]);
}

/** Fills containerd's plugin folder: the plugin under test writes down each call before it starts. */
async function writePlugins(folder: string, network: Network, callsFile: string): Promise<void> {
  await mkdir(folder);
  for (const [type, executable] of Object.entries(network.others)) {
    await symlink(executable, path.join(folder, type));
  }
  const { type, executable } = network.plugin;
  const record = `printf '%s %s %s\\n' "$CNI_COMMAND" "$CNI_CONTAINERID" "$CNI_NETNS" >>'${callsFile}'`;
  await writeFile(path.join(folder, type), `#!/bin/sh\n${record}\nexec '${executable}'\n`);
  await chmod(path.join(folder, type), 0o755);
}

function parseCall(line: string): PluginCall {
  const [command = '', containerId = '', netns = ''] = line.split(' ');
  return { command, containerId, netns };
}

function containerdConfig(folder: string, socket: string): string {
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
    bin_dir = "${folder}/bin"
    conf_dir = "${folder}/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "${snapshotter(folder)}"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
`;
}

/** overlayfs, except on top of another overlay, where the kernel refuses it. */
function snapshotter(folder: string): 'overlayfs' | 'native' {
  const OVERLAYFS_SUPER_MAGIC = 0x794c7630; // include/uapi/linux/magic.h
  return statfsSync(folder).type === OVERLAYFS_SUPER_MAGIC ? 'native' : 'overlayfs';
}

/** Removes the parent cgroup of the pods from all hierarchies: its pods' cgroups go with them, the parent does not. */
async function removeCgroups(name: string): Promise<void> {
  const root = '/sys/fs/cgroup';
  const hierarchies = existsSync(path.join(root, 'cgroup.controllers'))
    ? ['.']
    : await readdir(root);
  for (const hierarchy of hierarchies) {
    const parent = path.join(root, hierarchy, name);
    if (!existsSync(parent)) continue;
    const children = (await readdir(parent, { recursive: true, withFileTypes: true }))
      .filter((entry) => entry.isDirectory())
      .map((entry) => path.join(entry.parentPath, entry.name));
    // Deepest first. A cgroup is busy for a moment after its last process has ended.
    for (const cgroup of [parent, ...children].toSorted((a, b) => b.length - a.length)) {
      await waitFor(
        `cgroup ${cgroup} to be empty`,
        () => 'busy',
        () => removeFolder(cgroup),
      );
    }
  }
}

/** Removes an empty folder; false when it would not go. */
function removeFolder(folder: string): Promise<boolean> {
  return rmdir(folder).then(
    () => true,
    () => false,
  );
}

async function tail(file: string): Promise<string> {
  const text = await readFile(file, 'utf8').catch(() => '(none)');
  return text.trimEnd().split('\n').slice(-30).join('\n');
}

async function waitFor(
  what: string,
  why: () => string,
  done: () => Promise<boolean>,
): Promise<void> {
  const deadline = Date.now() + START_TIMEOUT_MS;
  while (!(await done())) {
    if (Date.now() > deadline) throw new Error(`Waited in vain for ${what}: ${why()}`);
    await sleep(20);
  }
}
