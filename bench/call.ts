import type { Host, Pod } from './host.ts';
import { inNetns } from './netns.ts';
import type { NetworkList } from './network.ts';

/** What a runtime asks of the plugins of a network. */
export type Verb = 'ADD' | 'DEL' | 'STATUS' | 'VERSION';

/** One call of all plugins of a network. */
interface Call {
  /** The time of its processes, each from the spawn to its end and the last byte of its output. */
  readonly ms: number;
  /** What the last one printed; of ADD it is the result. */
  readonly stdout: string;
}

/** How one process of a call is started. */
interface Invocation {
  readonly cmd: readonly [string];
  readonly env: Readonly<Record<string, string>>;
  readonly stdin: Buffer;
}

/**
 * The processes of a call, one after another as libcni starts them: it is given what each printed,
 * hands the result of ADD on to the next plugin, and goes through the list backwards for DEL.
 */
export function* invocations(
  { plugin, network }: Host,
  verb: Verb,
  pod: Pod,
): Generator<Invocation, string, string> {
  const plugins = verb === 'DEL' ? network.plugins.toReversed() : network.plugins;
  let { prevResult } = pod;
  let stdout = '';
  for (const { executable, config } of plugins) {
    stdout = yield {
      cmd: [executable],
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
          // The version that brought STATUS.
          cniVersion: verb === 'STATUS' ? '1.1.0' : network.cniVersion,
          name: network.name,
          ...config,
          runtimeConfig: chosen(config.capabilities, pod),
          prevResult,
        }),
      ),
    };
    if (verb === 'ADD') prevResult = JSON.parse(stdout);
  }
  return stdout;
}

function chosen(
  capabilities: NetworkList['plugins'][number]['config']['capabilities'],
  { runtimeConfig }: Pod,
): object | undefined {
  if (capabilities === undefined) return undefined;
  return Object.fromEntries(
    Object.entries(runtimeConfig).filter(([name]) => Object.hasOwn(capabilities, name)),
  );
}

/**
 * Calls the plugins as a runtime does and times them; throws a plugin's own words when it fails.
 *
 * Bun.spawnSync is the stopwatch: no event loop turns between the two readings of the clock, the
 * child is a vfork (so the size of this process does not count) and inherits the thread's netns.
 * Starting /bin/true takes 0.62 ms this way with a spread of 0.1 ms, and 0.51 ms with the same
 * spread from a C program with posix_spawn and without pipes. Both sides carry the difference.
 */
export function call(host: Host, verb: Verb, pod: Pod): Call {
  const processes = invocations(host, verb, pod);
  let ms = 0;
  let next = processes.next();
  while (next.done !== true) {
    const invocation = next.value;
    const { cmd, env, stdin } = invocation;
    const stdout = inNetns(host.netns, () => {
      const startNs = Bun.nanoseconds();
      const child = Bun.spawnSync({ cmd: [...cmd], env, stdin, stdout: 'pipe', stderr: 'pipe' });
      ms += (Bun.nanoseconds() - startNs) / 1e6;
      const text = child.stdout.toString();
      if (!child.success) throw failure(invocation, `${text}\n${child.stderr.toString()}`);
      return text;
    });
    next = processes.next(stdout);
  }
  return { ms, stdout: next.value };
}

/** As `call`, but beside other calls; who starts many takes the time of all. Answers what the last plugin printed. */
export async function callBesideOthers(host: Host, verb: Verb, pod: Pod): Promise<string> {
  const processes = invocations(host, verb, pod);
  let next = processes.next();
  while (next.done !== true) {
    const invocation = next.value;
    const { cmd, env, stdin } = invocation;
    const child = inNetns(host.netns, () =>
      Bun.spawn({ cmd: [...cmd], env, stdin, stdout: 'pipe', stderr: 'pipe' }),
    );
    const [stdout, stderr, exitCode] = await Promise.all([
      child.stdout.text(),
      child.stderr.text(),
      child.exited,
    ]);
    if (exitCode !== 0) throw failure(invocation, `${stdout}\n${stderr}`);
    next = processes.next(stdout);
  }
  return next.value;
}

/** The error of a process that said `output` and failed. */
export function failure({ cmd, env }: Invocation, output: string): Error {
  const { CNI_COMMAND: verb, CNI_CONTAINERID: containerId } = env;
  return new Error(`${verb} of ${cmd[0]} failed for ${containerId}:\n${output.trim()}`);
}
