import type { RuntimeNode } from './runtime-node.ts';

/** Where libcni keeps results. */
const RESULTS = '/var/lib/cni/results';

/** What a runtime and its plugins may leave on a node, outside of pods and of their own state. */
export interface Footprint {
  readonly links: readonly { readonly ifname: string; readonly master?: string }[];
  readonly routes: readonly object[];
  /** All of nftables. */
  readonly ruleset: readonly object[];
  /** Limits and filters of links. */
  readonly qdiscs: readonly string[];
  /** Where the runtime has mounted network namespaces: other tests have theirs beside them. */
  readonly netns: readonly string[];
  /** libcni's cache of results. */
  readonly results: readonly string[];
}

/** The routes of link-local addresses and of multicast come when a link has had its carrier for a while. */
function isLasting({ dst }: { readonly dst: string }): boolean {
  return !/^(fe80|ff00)::/.test(dst);
}

/** How the names of a runtime's network namespaces begin. */
export type NetnsPrefix = 'cni-' | 'netns-';

/** Looks at a node as somebody who knows nothing of the plugin. */
export async function observeFootprint(node: RuntimeNode, prefix: NetnsPrefix): Promise<Footprint> {
  const [links, routes4, routes6, nft, qdiscs, mounts, results] = await Promise.all([
    node.run('ip', '-json', 'link'),
    node.run('ip', '-json', '-4', 'route', 'show', 'table', 'all'),
    node.run('ip', '-json', '-6', 'route', 'show', 'table', 'all'),
    node.run('nft', '-j', 'list', 'ruleset'),
    node.run('tc', 'qdisc', 'show'),
    node.run('cat', '/proc/self/mountinfo'),
    // Not there before the first ADD.
    node.run('sh', '-c', `[ ! -e ${RESULTS} ] || ls ${RESULTS}`),
  ]);
  return {
    links: JSON.parse(links),
    routes: [...JSON.parse(routes4), ...JSON.parse(routes6)].filter(isLasting),
    ruleset: JSON.parse(nft).nftables,
    // Every link has one that the kernel chose, with the number 0.
    qdiscs: qdiscs.split('\n').filter((line) => line !== '' && !/^qdisc \w+ 0: /.test(line)),
    netns: mounts.split('\n').flatMap((line) => {
      const [mountPoint = ''] = line.split(' ').slice(4); // proc_pid_mountinfo(5)
      return mountPoint.startsWith(`/run/netns/${prefix}`) ? [mountPoint] : [];
    }),
    results: results.split('\n').filter((name) => name !== ''),
  };
}
