import { closeSync, mkdirSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { addNetns, inNetns } from './netns.ts';

/** An executable under measurement, and whose configuration it understands. */
export interface Plugin {
  readonly label: 'ours' | 'reference';
  readonly executable: string;
  readonly type: 'cube-cni' | 'bridge';
  /** CNI_PATH: the folder in which it finds the plugins that it delegates to. */
  readonly cniPath: string;
}

/** A node of its own for one plugin: its netns, its state folder, its network. */
export interface Host {
  readonly name: string;
  readonly plugin: Plugin;
  readonly netns: string;
  readonly folder: string;
  readonly network: object;
}

/** What a runtime knows of a pod: `prevResult` is what ADD printed, and DEL is given it back. */
interface Pod {
  readonly containerId: string;
  readonly netns: string;
  readonly prevResult?: unknown;
}

type Verb = 'ADD' | 'DEL' | 'STATUS' | 'VERSION';

/** One call, from the spawn of the process to its end and the last byte of its output. */
interface Call {
  readonly ms: number;
  readonly stdout: string;
}

/** Makes a host with nothing on it; its state is kept in a new folder below `parent`. */
export function addHost(name: string, plugin: Plugin, ipMasq: boolean, parent: string): Host {
  const folder = join(parent, name);
  mkdirSync(folder);
  const network = {
    cniVersion: '1.0.0',
    name: 'bench',
    type: plugin.type,
    bridge: 'cni0',
    isGateway: true,
    isDefaultGateway: true,
    ipMasq,
    ...allocation(plugin.type, folder),
  };
  return { name, plugin, netns: addNetns(name), folder, network };
}

function allocation(type: Plugin['type'], folder: string): object {
  const dataDir = join(folder, 'data');
  const ranges = [[{ subnet: '10.88.0.0/16' }]];
  return type === 'bridge'
    ? { ipam: { type: 'host-local', ranges, dataDir } }
    : { dataDir, logFile: join(folder, 'log'), ipam: { type: 'cube-ipam', ranges } };
}

/** Makes a pod that may be attached to the host: a netns of its own, still empty. */
export function addPod(host: Host, label: string): Pod {
  const containerId = `${host.name}-${label}`;
  return { containerId, netns: addNetns(containerId) };
}

/** The pod after its ADD printed `stdout`. */
export function attached(pod: Pod, stdout: string): Pod {
  return { ...pod, prevResult: JSON.parse(stdout) };
}

/**
 * Calls the plugin as a runtime does and times it; throws the plugin's own words when it fails.
 *
 * Bun.spawnSync is the stopwatch: no event loop turns between the two readings of the clock, the
 * child is a vfork (so the size of this process does not count) and inherits the thread's netns.
 * Starting /bin/true takes 0.62 ms this way with a spread of 0.1 ms, and 0.51 ms with the same
 * spread from a C program with posix_spawn and without pipes. Both sides carry the difference.
 */
export function call(host: Host, verb: Verb, pod: Pod): Call {
  const { cmd, env, stdin } = invocation(host, verb, pod);
  return inNetns(host.netns, () => {
    const startNs = Bun.nanoseconds();
    const child = Bun.spawnSync({ cmd, env, stdin, stdout: 'pipe', stderr: 'pipe' });
    const ms = (Bun.nanoseconds() - startNs) / 1e6;
    const stdout = child.stdout.toString();
    if (!child.success) throw failure(host, verb, pod, `${stdout}\n${child.stderr.toString()}`);
    return { ms, stdout };
  });
}

/**
 * The highest resident set of one call, of the plugin's own process without those that it starts.
 *
 * ru_maxrss (Bun's resourceUsage) cannot say this: exec keeps the high-water mark of the address
 * space that it replaces (fs/exec.c, exec_mmap), which after a vfork is the bench's own, so that
 * /bin/true would "need" 32 MB. VmHWM belongs to the new address space alone. It never falls and
 * is read every few microseconds until the process ends; GNU time gives the same within 2 %.
 */
export async function peakMemory(
  host: Host,
  verb: Verb,
  pod: Pod,
): Promise<{ readonly bytes: number; readonly stdout: string }> {
  const { cmd, env, stdin } = invocation(host, verb, pod);
  // Files, not pipes: nobody would serve a pipe while this thread watches the process.
  const [inputPath, outputPath] = [join(host.folder, 'stdin'), join(host.folder, 'stdout')];
  writeFileSync(inputPath, stdin);
  const [input, output] = [openSync(inputPath, 'r'), openSync(outputPath, 'w')];
  const child = inNetns(host.netns, () =>
    Bun.spawn({ cmd, env, stdin: input, stdout: output, stderr: output }),
  );
  const bytes = watchMemory(child.pid);
  const exitCode = await child.exited;
  closeSync(input);
  closeSync(output);
  const stdout = readFileSync(outputPath, 'utf8');
  if (exitCode !== 0) throw failure(host, verb, pod, stdout);
  return { bytes, stdout };
}

function watchMemory(pid: number): number {
  let kibibytes = 0;
  for (;;) {
    const status = findStatus(pid);
    // A process has no Vm lines for a moment before it is a zombie, and while exec swaps them.
    if (status === undefined || /^State:\s+[ZX]/m.test(status)) return kibibytes * 1024;
    kibibytes = Math.max(kibibytes, Number(/^VmHWM:\s+(\d+) kB/m.exec(status)?.[1] ?? 0));
  }
}

function findStatus(pid: number): string | undefined {
  try {
    return readFileSync(`/proc/${pid}/status`, 'latin1');
  } catch {
    return undefined;
  }
}

function invocation({ plugin, network }: Host, verb: Verb, pod: Pod) {
  return {
    cmd: [plugin.executable],
    env: {
      PATH: process.env['PATH'] ?? '/usr/sbin:/usr/bin:/sbin:/bin',
      CNI_COMMAND: verb,
      CNI_CONTAINERID: pod.containerId,
      CNI_NETNS: pod.netns,
      CNI_IFNAME: 'eth0',
      CNI_PATH: plugin.cniPath,
    },
    stdin: Buffer.from(
      JSON.stringify({
        ...network,
        // The version that brought it.
        ...(verb === 'STATUS' ? { cniVersion: '1.1.0' } : {}),
        prevResult: pod.prevResult,
      }),
    ),
  };
}

function failure({ plugin }: Host, verb: Verb, pod: Pod, output: string): Error {
  return new Error(
    `${verb} of ${plugin.executable} failed for ${pod.containerId}:\n${output.trim()}`,
  );
}
