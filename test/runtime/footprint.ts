import type { RuntimeNode } from './runtime-node.ts';

/** Where libcni keeps results. */
const RESULTS = '/var/lib/cni/results';

/** What a runtime and its plugins may leave on a node, outside of pods and of their own state. */
export interface Footprint {
  readonly links: readonly { readonly ifname: string; readonly master?: string }[];
  readonly routes: readonly object[];
  /** All of nftables. */
  readonly ruleset: readonly object[];
  /** Where network namespaces are mounted. */
  readonly netns: readonly string[];
  /** libcni's cache of results. */
  readonly results: readonly string[];
}

/** Looks at a node as somebody who knows nothing of the plugin. */
export async function observeFootprint(node: RuntimeNode): Promise<Footprint> {
  const [links, routes4, routes6, nft, mounts, results] = await Promise.all([
    node.run('ip', '-json', 'link'),
    node.run('ip', '-json', '-4', 'route', 'show', 'table', 'all'),
    node.run('ip', '-json', '-6', 'route', 'show', 'table', 'all'),
    node.run('nft', '-j', 'list', 'ruleset'),
    node.run('cat', '/proc/self/mountinfo'),
    // Not there before the first ADD.
    node.run('sh', '-c', `[ ! -e ${RESULTS} ] || ls ${RESULTS}`),
  ]);
  return {
    links: JSON.parse(links),
    routes: [...JSON.parse(routes4), ...JSON.parse(routes6)],
    ruleset: JSON.parse(nft).nftables,
    netns: mounts.split('\n').flatMap((line) => {
      const [mountPoint = ''] = line.split(' ').slice(4); // proc_pid_mountinfo(5)
      return mountPoint.startsWith('/run/netns/') ? [mountPoint] : [];
    }),
    results: results.split('\n').filter((name) => name !== ''),
  };
}
