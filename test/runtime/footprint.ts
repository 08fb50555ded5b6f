import type { RuntimeNode } from './runtime-node.ts';

/** What a runtime and its plugins may leave on a node, outside of pods and of their own state. */
export interface Footprint {
  readonly links: readonly { readonly ifname: string; readonly master?: string }[];
  readonly routes: readonly object[];
  /** All of nftables. */
  readonly ruleset: readonly object[];
  /** The network namespaces that are mounted. */
  readonly netns: readonly string[];
  /** libcni's cache of results. */
  readonly results: readonly string[];
}

/** Looks at a node as somebody who knows nothing of the plugin. */
export async function observeFootprint(node: RuntimeNode): Promise<Footprint> {
  const [links, routes4, routes6, nft, netns, results] = await Promise.all([
    node.run('ip', '-json', 'link'),
    node.run('ip', '-json', '-4', 'route', 'show', 'table', 'all'),
    node.run('ip', '-json', '-6', 'route', 'show', 'table', 'all'),
    node.run('nft', '-j', 'list', 'ruleset'),
    listFiles(node, '/run/netns'),
    listFiles(node, '/var/lib/cni/results'),
  ]);
  return {
    links: JSON.parse(links),
    routes: [...JSON.parse(routes4), ...JSON.parse(routes6)],
    ruleset: JSON.parse(nft).nftables,
    netns,
    results,
  };
}

/** The files in a folder of the node's own mounts; none when it is not there. */
async function listFiles(node: RuntimeNode, folder: string): Promise<string[]> {
  const names = await node.run('sh', '-c', `[ ! -e ${folder} ] || ls ${folder}`);
  return names.split('\n').filter((name) => name !== '');
}
