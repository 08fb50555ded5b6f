/** What of the kernel this project needs, asked for without changing anything. */
import { HOST_NETNS } from '../../model/host.ts';
import { BRIDGE_VLANS } from '../backend.ts';
import type { Kernel } from './kernel.ts';
import { decodeGeneration, encodeGenerationGet } from './nftables-message.ts';
import { isFault } from './socket.ts';
import { bridgesKnowVlans } from './vlan.ts';

/** The parts that are missing, by the names of their kernel options. */
export function missingFeatures(kernel: Kernel, extra: { readonly vlans: boolean }): string[] {
  const netns = kernel.netns(HOST_NETNS);
  if (isFault(netns)) return ['network namespaces (CONFIG_NET_NS)'];
  const missing: string[] = [];
  const route = netns.route();
  if (isFault(route)) missing.push('rtnetlink (CONFIG_NET)');
  else if (extra.vlans && !bridgesKnowVlans(route)) missing.push(BRIDGE_VLANS);
  const socket = netns.netfilter();
  // Without nf_tables nobody has registered the subsystem (net/netfilter/nfnetlink.c, nfnetlink_rcv_msg: EINVAL).
  if (isFault(socket) || isFault(socket.ask(encodeGenerationGet(), decodeGeneration)))
    missing.push('nf_tables (CONFIG_NF_TABLES)');
  return missing;
}
