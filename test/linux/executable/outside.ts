/** A node with who is outside of it, and who answers whom. */
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import { type Call, type Node, joinTo, makeNode, netnsPath, runIn } from './node.ts';

const TALK = join(import.meta.dirname, 'talk.ts');

/** Keys of a configuration. */
export type Changes = Readonly<Record<string, unknown>>;
/** A host port as a runtime asks for it. */
export type Mapping = Readonly<Record<string, unknown>>;

type Addresses = Readonly<Record<4 | 6, string>>;

/** The node's addresses outside, and the client's beside them. */
export const NODE: Addresses = { 4: '192.0.2.1', 6: '2001:db8:2::1' };
export const CLIENT: Addresses = { 4: '192.0.2.2', 6: '2001:db8:2::2' };

const IPAM = {
  type: 'cube-ipam',
  ranges: [[{ subnet: '10.7.0.0/24' }], [{ subnet: 'fd07::/64' }]],
};

/** Runs commands of `ip` in a netns. */
export function runLines(netns: string, lines: readonly string[]): void {
  for (const line of lines) runIn(netns, 'ip', ...line.split(' '));
}

/** Makes a netns outside, behind a link of the node, and answers its path. */
export function addClient(node: Node, ifname: string, own: Addresses, client: Addresses): string {
  const netns = node.addPod();
  joinTo(node, ifname, netns);
  runLines(node.netns, [
    `address add ${own[4]}/24 dev ${ifname}`,
    `address add ${own[6]}/64 dev ${ifname} nodad`,
    `link set ${ifname} up`,
  ]);
  runLines(netns, [
    `address add ${client[4]}/24 dev in0`,
    `address add ${client[6]}/64 dev in0 nodad`,
    'link set in0 up',
    `route add default via ${own[4]}`,
    `-6 route add default via ${own[6]}`,
  ]);
  return netns;
}

/** A node with a client outside. */
export function makeOutside(): { readonly node: Node; readonly client: string } {
  const node = makeNode();
  node.run('ip', 'link', 'set', 'lo', 'up');
  return { node, client: addClient(node, 'out0', NODE, CLIENT) };
}

function inNetns(netns: string, ...words: readonly string[]): string[] {
  return ['nsenter', `--net=${netnsPath(netns)}`, '--', process.execPath, ...words];
}

/** Runs a program in a netns until the test ends; answers when it says that it is ready. */
export async function start(netns: string, ...words: readonly string[]): Promise<void> {
  const child = Bun.spawn(inNetns(netns, ...words), { stderr: 'inherit' });
  onTestFinished(() => child.kill());
  for await (const chunk of child.stdout)
    if (new TextDecoder().decode(chunk).includes('ready')) return;
  throw new Error(`${words.join(' ')} is not ready`);
}

/** What a program in a netns prints; undefined when it fails. */
export function hear(netns: string, ...words: readonly string[]): string | undefined {
  const { exitCode, stdout } = Bun.spawnSync(inNetns(netns, ...words), { stderr: 'ignore' });
  return exitCode === 0 ? stdout.toString().trim() : undefined;
}

/** Lets somebody say `who` in a netns, until the test ends. */
export function serve(netns: string, who: string, port = 80): Promise<void> {
  return start(netns, TALK, 'serve', who, String(port));
}

/** Who answers, and whom it sees; undefined when nobody does. */
export function ask(
  netns: string,
  protocol: 'tcp' | 'udp',
  address: string,
  port: number,
  from = 0,
): string | undefined {
  return hear(netns, TALK, 'ask', protocol, address, String(port), String(from));
}

/** The configuration of a pod with these host ports. */
export function configFor(
  node: Node,
  portMappings: readonly Mapping[],
  changes: Changes = {},
): Changes {
  return node.config({
    cniVersion: '1.1.0',
    isDefaultGateway: true,
    ipam: IPAM,
    runtimeConfig: { portMappings },
    ...changes,
  });
}

/** Attaches a pod. */
export function addPod(node: Node, containerId: string, config: Changes): Call & { netns: string } {
  const call = { netns: node.addPod(), containerId, config };
  node.add(call);
  return call;
}

/** The marks that packets leave with. */
export interface Marks {
  /** Those of connections' first packets since the last time. */
  readonly seen: () => number[];
}

/** Looks at the marks of what leaves the node or goes to its pods, before any source is replaced. */
export function watchMarks(node: Node): Marks {
  node.run(
    'nft',
    `table inet watch {
      set marks { type mark; flags dynamic; size 64; }
      chain postrouting {
        type filter hook postrouting priority 98;
        meta l4proto { tcp, udp } ct state new add @marks { meta mark }
      }
    }`,
  );
  return {
    seen: () => {
      const { nftables } = JSON.parse(
        node.run('nft', '-j', 'list', 'set', 'inet', 'watch', 'marks'),
      ) as { readonly nftables: readonly { readonly set?: { readonly elem?: number[] } }[] };
      node.run('nft', 'flush', 'set', 'inet', 'watch', 'marks');
      const marks = nftables.flatMap(({ set }) => set?.elem ?? []);
      return marks.toSorted((a, b) => a - b);
    },
  };
}

export const TCP = { hostPort: 8080, containerPort: 80, protocol: 'tcp' };
export const UDP = { ...TCP, protocol: 'udp' };
