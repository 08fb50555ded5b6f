import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { execa } from 'execa';
import { removeCgroups } from './cgroup.ts';

/**
 * What a program on the node is started with. A plugin inherits the runtime's environment and folder: those of a
 * service, not of the shell that runs the tests. Nor does Ctrl-C there reach the node, which may have pods to remove.
 */
export const SERVICE = {
  cwd: '/',
  env: { PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' },
  extendEnv: false,
  detached: true,
} as const;

/** A node in a world of its own: what happens to its links, mounts and processes is seen nowhere else on the machine. */
export interface RuntimeNode {
  /** A name that no other node has, for its parent cgroup. */
  readonly name: string;
  /** Where everything is that the machine sees too: configuration, state, images, logs. */
  readonly folder: string;
  /** A command that runs another in the node's namespaces, and its arguments. */
  enter(...command: readonly string[]): readonly [string, string[]];
  /** Runs a command there and returns its output. */
  run(command: string, ...args: string[]): Promise<string>;
  /** Starts a command there that lasts as long as the node does. */
  serve(command: string, ...args: string[]): void;
  /** Ends everything that runs on the node, then removes it with its folder and cgroups. */
  remove(): Promise<void>;
}

/** Makes a node that is empty but for `lo`. Wants Linux, root, util-linux and iproute2. */
export async function makeRuntimeNode(): Promise<RuntimeNode> {
  const folder = await mkdtemp(path.join(tmpdir(), 'cube-cni-runtime-'));
  const name = path.basename(folder);
  const init = startInit();

  const enter: RuntimeNode['enter'] = (...command) => {
    // The pid is that of unshare, which is in the new network and mount namespaces, but only has children in the new
    // PID namespace. `ip netns exec` would not do: it mounts a fresh /sys, without the cgroups that runc needs.
    const pidNamespace = `--pid=/proc/${init.pid}/ns/pid_for_children`;
    return [
      'nsenter',
      ['--target', `${init.pid}`, '--net', '--mount', pidNamespace, '--', ...command],
    ];
  };

  async function remove(): Promise<void> {
    // The end of its process 1 takes with it all that ran on the node, shims and containers too, and so the
    // namespaces, links and mounts: from here on nothing under the folder is a mount point.
    init.stdin.end();
    await init;
    await rm(folder, { recursive: true, force: true });
    await removeCgroups(name);
  }

  try {
    await ready(init);
  } catch (error) {
    await remove();
    throw error;
  }

  return {
    name,
    folder,
    enter,
    async run(...command) {
      const [nsenter, args] = enter(...command);
      const { stdout } = await execa(nsenter, args, { ...SERVICE, stdin: 'ignore' });
      return stdout;
    },
    serve(...command) {
      void execa(...enter(...command), { ...SERVICE, stdio: 'ignore', reject: false });
    },
    remove,
  };
}

/**
 * Starts process 1 of the node, in network, mount and PID namespaces that live until its standard input ends. That
 * happens also when the tests die, so nothing of the node can outlive them.
 */
function startInit() {
  const script = [
    'ip link set lo up',
    // Runtimes' netns mounts, sockets and fifos, their caches and libcni's have fixed places. Keep them to the node.
    'mount -t tmpfs tmpfs /run',
    'mount -t tmpfs tmpfs /var/lib',
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

async function ready(init: ReturnType<typeof startInit>): Promise<void> {
  const failed = init.then(({ stderr }) => {
    throw new Error(`Cannot make namespaces: ${stderr}`);
  });
  failed.catch(() => undefined); // for when the node ends later, which is no failure
  await Promise.race([once(init.stdout, 'data'), failed]);
}
