/**
 * The map of pods: what becomes of packets that are forwarded from and to a pod, by its address. A pod is in it before
 * its link goes up, so that who isolates a pod by changing its element catches its first packet already.
 */
import type { Family } from '../model/ip.ts';
import type { Chain, ChainHook } from '../model/nftables.ts';
import type { Attachment } from './attachment.ts';
import { type TablePart, addressMaps, commentOf, rule } from './table.ts';

/** The maps from a pod's address to its verdict. */
export const POD_MAPS: Readonly<Record<Family, string>> = { 4: 'pods4', 6: 'pods6' };

/** NF_IP_PRI_FILTER. */
const FILTER_PRIORITY = 0;

function chainOf(name: string, direction: 'saddr' | 'daddr', priority: number): Chain {
  const hook: ChainHook = { type: 'filter', hook: 'forward', priority, policy: 'accept' };
  return {
    name,
    hook,
    rules: [
      rule({ kind: 'vmap', field: `ip ${direction}`, map: POD_MAPS[4] }),
      rule({ kind: 'vmap', field: `ip6 ${direction}`, map: POD_MAPS[6] }),
    ],
  };
}

/** Two base chains: an `accept` for the sender ends only its own, and does not speak for the receiver. */
const CHAINS = [
  chainOf('from-pods', 'saddr', FILTER_PRIORITY - 1),
  chainOf('to-pods', 'daddr', FILTER_PRIORITY),
];

/** Is the pod in the map? Records of versions before there was one are not. */
export function isMapped({ verdict, addresses }: Attachment): boolean {
  return verdict !== undefined && addresses.length > 0;
}

/** The map with an attachment's addresses in it. */
export function podPart(attachment: Attachment): TablePart {
  const comment = commentOf(attachment.key);
  const verdict = { verdict: attachment.verdict ?? 'accept' };
  return {
    chains: Object.fromEntries(CHAINS.map((chain) => [chain.name, chain])),
    sets: addressMaps(
      POD_MAPS,
      attachment.addresses.map(({ ip }) => [ip, { key: ip, verdict, comment }] as const),
    ),
  };
}

/** The map without these addresses. */
export function withoutPod(addresses: Attachment['addresses']): TablePart {
  return {
    chains: {},
    sets: addressMaps(
      POD_MAPS,
      addresses.map(({ ip }) => [ip, 'absent'] as const),
    ),
  };
}
