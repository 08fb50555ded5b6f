import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { NetnsScope } from '../../backends/backend.ts';
import { echo } from '../../backends/linux/echo.ts';
import { makeLinuxBackend } from '../../backends/linux/linux.ts';
import {
  addNetns,
  delNetns,
  insideNetns,
  netnsPath,
  openNetns,
} from '../../backends/linux/netns.ts';
import type { Ip } from '../../model/ip.ts';
import { formatFault } from '../../model/message.ts';
import { type Answer, type DemoVerb, type Pod, type Stage, networkConfig } from './stage.ts';

const ECHO_TIMEOUT_MS = 2000;

const EVERYTHING: NetnsScope = { links: 'all', routes: 'all', sysctls: [], nftables: 'all' };

/** Makes a netns or says why it cannot be made. */
function makeNetns(name: string): void {
  const fault = addNetns(name);
  if (fault) throw new Error(`cannot make netns "${name}": ${formatFault(fault)}`);
}

/** Runs `act` in a netns that exists. A process started inside is in it too. */
function within<T>(fd: number, act: () => T): T {
  const result = insideNetns(fd, act);
  if (result !== null && typeof result === 'object' && 'errno' in result) {
    throw new Error(`cannot enter a netns: ${formatFault(result)}`);
  }
  return result;
}

/**
 * The kernel of this machine, in three netns made for it: one plays the host, two the pods. State and
 * log are in a temporary folder. Throws when netns cannot be made.
 */
export function makeLinuxStage(executable: string): Stage {
  const prefix = `cube-demo-${process.pid}`;
  const names = { host: `${prefix}-host`, a: `${prefix}-a`, b: `${prefix}-b` };
  const folder = mkdtempSync(join(tmpdir(), 'cube-cni-demo-'));
  const made: string[] = [];
  const close = (): void => {
    for (const name of made.toReversed()) delNetns(name);
    rmSync(folder, { recursive: true, force: true });
  };
  try {
    for (const name of Object.values(names)) {
      makeNetns(name);
      made.push(name);
    }
  } catch (error) {
    close();
    throw error;
  }
  const host = openNetns(names.host);
  if (typeof host !== 'number')
    throw new Error(`cannot open netns "${names.host}": ${formatFault(host)}`);
  const config = networkConfig(join(folder, 'state'), join(folder, 'plugin.log'));
  const podOf = (name: 'a' | 'b'): Pod => ({
    name: `pod ${name}`,
    containerId: `demo-${name}`,
    netns: netnsPath(names[name]),
  });
  const backend = makeLinuxBackend();

  const run = (verb: DemoVerb, pod: Pod, args: readonly string[], prevResult?: unknown): Answer => {
    const stdin = JSON.stringify(prevResult === undefined ? config : { ...config, prevResult });
    const { exitCode, stdout } = within(host, () =>
      Bun.spawnSync([executable, ...args], {
        stdin: new TextEncoder().encode(stdin),
        env: {
          CNI_COMMAND: verb,
          CNI_CONTAINERID: pod.containerId,
          CNI_NETNS: pod.netns,
          CNI_IFNAME: 'eth0',
          CNI_PATH: '/opt/cni/bin',
        },
      }),
    );
    return { ok: exitCode === 0, output: stdout.toString() };
  };

  return {
    title: 'the Linux kernel of this machine, in network namespaces of its own',
    pods: [podOf('a'), podOf('b')],
    plan: async (verb, pod) => run(verb, pod, ['--plan']).output,
    call: async (verb, pod, prevResult) => run(verb, pod, [], prevResult),
    ping: (from, destination: Ip) => {
      const reply = echo({ netns: from.netns, destination, timeoutMs: ECHO_TIMEOUT_MS });
      const text = reply.ok
        ? `answer from ${reply.from} after ${(reply.roundTripUs / 1000).toFixed(3)} ms`
        : `${reply.reason} ${reply.text}`.trim();
      return { ok: reply.ok, text, trace: '' };
    },
    interfere: (op) => backend.execute(op.netns === 'host' ? { ...op, netns: names.host } : op),
    observe: () =>
      backend.observe({
        [names.host]: EVERYTHING,
        [podOf('a').netns]: EVERYTHING,
        [podOf('b').netns]: EVERYTHING,
      }),
    close: () => {
      backend.close();
      close();
    },
  };
}
