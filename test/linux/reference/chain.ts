/** A node whose pods the reference plugins made. */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Ifname } from '../../../model/ifname.ts';
import { type Node, type Result, makeNode, netnsPath, resultOf } from '../executable/node.ts';
import type { DepartAnswer, DepartQuestion } from './depart.ts';
import type { TakeoverAnswer, TakeoverQuestion } from './takeover.ts';

const PLUGINS = '/usr/lib/cni';
const NETWORK = 'podnet';

/** A plugin of a list. */
type Plugin = Readonly<Record<string, unknown>> & { readonly type: string };

/** One pod and what was asked for it. */
export interface ReferencePod {
  readonly containerId: string;
  readonly ifname: string;
  readonly netns: string;
  readonly result: Result;
}

export interface ReferenceNode {
  readonly node: Node;
  /** host-local's folder of the network. */
  readonly hostLocal: string;
  /** ADD by each plugin of the list in turn. */
  readonly add: (containerId: string, more?: { ifname?: string; netns?: string }) => ReferencePod;
  /** Departs by our code in the node's netns. */
  readonly depart: (
    pod: ReferencePod,
    changes?: Partial<DepartQuestion['departure']>,
    taken?: readonly string[],
  ) => DepartAnswer;
  /** The plan of a departure, as commands. */
  readonly plan: (
    pod: ReferencePod,
    changes?: Partial<DepartQuestion['departure']>,
  ) => readonly string[];
  /** Imports these pods, and then calls DEL for some containers. */
  readonly takeOver: (
    pods: readonly ReferencePod[],
    containerIds?: readonly string[],
  ) => TakeoverAnswer;
  /** All rules and chains of iptables, ip6tables and nft that name or hold one of the texts. */
  readonly rules: () => string[];
  /** The files that reserve an address. */
  readonly reserved: () => string[];
}

/** The bridge with everything that it and host-local can do for two families. */
export const BRIDGE = {
  type: 'bridge',
  bridge: 'cni0',
  isDefaultGateway: true,
  ipMasq: true,
  hairpinMode: true,
} as const;

const MAPPED_PORT = 8080;

function linesOf(node: Node, ...command: readonly string[]): string[] {
  return node
    .run(...command)
    .trim()
    .split('\n');
}

/** Makes a node with a list of reference plugins; the first is given host-local. */
export function makeReferenceNode(plugins: readonly Plugin[]): ReferenceNode {
  const node = makeNode();
  const dataDir = join(node.folder, 'networks');
  const hostLocal = join(dataDir, NETWORK);
  const ipam = {
    type: 'host-local',
    dataDir,
    ranges: [[{ subnet: '10.7.0.0/24' }], [{ subnet: 'fd07::/64' }]],
  };
  let ports = 0;

  const add: ReferenceNode['add'] = (containerId, more = {}) => {
    const { ifname = 'eth0', netns = node.addPod() } = more;
    ports += 1;
    const runtimeConfig = {
      portMappings: [{ hostPort: MAPPED_PORT + ports, containerPort: 80, protocol: 'tcp' }],
    };
    let result: Result | undefined;
    for (const [at, plugin] of plugins.entries()) {
      result = resultOf(
        node.call('ADD', {
          netns,
          containerId,
          ifname,
          program: join(PLUGINS, plugin.type),
          config: {
            cniVersion: '1.0.0',
            name: NETWORK,
            ...plugin,
            ...(at === 0 ? { ipam } : { prevResult: result, runtimeConfig }),
          },
        }),
      );
    }
    if (!result) throw new Error('there is no plugin in the list');
    return { containerId, ifname, netns, result };
  };

  const runScript = (script: string, question: unknown): unknown => {
    const command = [process.execPath, join(import.meta.dirname, script)];
    const { exitCode, stdout, stderr } = Bun.spawnSync(
      ['nsenter', `--net=${netnsPath(node.netns)}`, '--', ...command],
      {
        // As a runtime's may be: without sbin.
        env: { PATH: '/usr/bin:/bin' },
        stdin: new TextEncoder().encode(JSON.stringify(question)),
        stdout: 'pipe',
        stderr: 'pipe',
      },
    );
    if (exitCode !== 0) throw new Error(stderr.toString());
    return JSON.parse(stdout.toString());
  };

  const ask = (
    plan: boolean,
    { containerId, ifname, netns, result }: ReferencePod,
    changes: Partial<DepartQuestion['departure']>,
    taken: readonly string[] = [],
  ): unknown => {
    const departure = {
      key: { network: NETWORK, containerId, ifname },
      netns,
      prevResult: result,
      bridge: 'cni0',
      hostLocal,
      ...changes,
    };
    return runScript('depart.ts', { departure, taken, plan });
  };

  return {
    node,
    hostLocal,
    add,
    depart: (pod, changes = {}, taken = []) => ask(false, pod, changes, taken) as DepartAnswer,
    plan: (pod, changes = {}) => ask(true, pod, changes) as readonly string[],
    takeOver: (pods, containerIds = []) =>
      runScript('takeover.ts', {
        network: NETWORK,
        entries: pods.map(({ containerId, ifname, result }) => ({
          network: NETWORK,
          containerId,
          ifname: ifname as Ifname,
          config: { plugins: [{ ...plugins[0], ipam }, ...plugins.slice(1)] },
          result,
        })),
        hostLocal,
        dataDir: node.dataDir,
        del: containerIds,
      } satisfies TakeoverQuestion) as TakeoverAnswer,
    rules: () => [
      ...['iptables', 'ip6tables'].flatMap((program) =>
        ['nat', 'filter'].flatMap((table) =>
          linesOf(node, program, '-t', table, '-S').map((line) => `${program} ${table} ${line}`),
        ),
      ),
      ...['ip', 'ip6', 'inet', 'bridge'].flatMap((family) =>
        linesOf(node, 'nft', 'list', 'ruleset', family)
          .filter((line) => line.includes('comment "'))
          .map((line) => `nft ${family} ${line.trim()}`),
      ),
    ],
    reserved: () =>
      readdirSync(hostLocal)
        .filter((name) => /[.:]/.test(name) && !name.startsWith('last_reserved_ip'))
        .toSorted(),
  };
}
