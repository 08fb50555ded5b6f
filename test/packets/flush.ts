/** What netns of a host are made to forget, without the programs that people do it with: so often their start would take most of the time. */
import { writeFileSync } from 'node:fs';
import { type Writer, makeWriter, written } from '../../backends/linux/attribute.ts';
import type { Kernel } from '../../backends/linux/kernel.ts';
import {
  NLMSG_HDRLEN,
  NLM_F_ACK,
  closeMessage,
  encodeMessage,
  openMessage,
} from '../../backends/linux/message.ts';
import {
  NFGENMSG_BYTES,
  NFNL_SUBSYS_NFTABLES,
  NFT_MSG,
} from '../../backends/linux/nftables-number.ts';
import { type NetlinkSocket, isFault } from '../../backends/linux/socket.ts';
import type { Fault } from '../../model/errno.ts';
import type { NetnsName } from '../../model/host.ts';

/** include/uapi/linux/netfilter/nfnetlink.h. */
const NFNL_MSG_BATCH_BEGIN = 0x10;
const NFNL_MSG_BATCH_END = 0x11;
/** IPCTNL_MSG_CT_DELETE of NFNL_SUBSYS_CTNETLINK. */
const DELETE_FLOWS = 0x102;

/** What is written to it does not matter (net/ipv4/route.c, ipv4_sysctl_rtcache_flush). */
const FLUSH_ROUTES = '/proc/sys/net/ipv4/route/flush';

function done(fault: Fault | undefined, what: string): void {
  if (fault) throw new Error(`${what}: ${fault.errno} ${fault.text}`);
}

function netfilterOf(kernel: Kernel, netns: NetnsName): NetlinkSocket {
  const there = kernel.netns(netns);
  const socket = isFault(there) ? there : there.netfilter();
  if (isFault(socket)) throw new Error(`no netfilter in ${netns}: ${socket.errno}`);
  return socket;
}

function putMarker(writer: Writer, type: number): void {
  const at = openMessage(writer, type, 0, NFGENMSG_BYTES);
  writer.view.setUint16(at + NLMSG_HDRLEN + 2, NFNL_SUBSYS_NFTABLES, false);
  closeMessage(writer, at);
}

/** Deletes all tables of a netns, as `nft flush ruleset`: by a command that names none, of no family (net/netfilter/nf_tables_api.c, nf_tables_deltable). */
export function flushRuleset(kernel: Kernel, netns: NetnsName): void {
  const writer = makeWriter(128);
  putMarker(writer, NFNL_MSG_BATCH_BEGIN);
  const type = (NFNL_SUBSYS_NFTABLES << 8) | NFT_MSG.delTable;
  closeMessage(writer, openMessage(writer, type, NLM_F_ACK, NFGENMSG_BYTES));
  putMarker(writer, NFNL_MSG_BATCH_END);
  const refused = netfilterOf(kernel, netns).batch(written(writer));
  done(refused?.fault, 'flushing the ruleset');
}

/** Forgets all connections of a netns, as `conntrack -F` (net/netfilter/nf_conntrack_netlink.c, ctnetlink_flush_conntrack). */
export function flushConnections(kernel: Kernel, netns: NetnsName): void {
  const message = encodeMessage(DELETE_FLOWS, NLM_F_ACK, NFGENMSG_BYTES, () => undefined);
  done(netfilterOf(kernel, netns).request(message), 'flushing connections');
}

/** Has routes of IPv4 looked up anew that something keeps, as `ip route flush cache`. */
export function flushRoutes(kernel: Kernel, netns: NetnsName): void {
  const there = kernel.netns(netns);
  const fault = isFault(there) ? there : there.run(() => writeFileSync(FLUSH_ROUTES, '-1'));
  done(fault ?? undefined, 'flushing routes');
}
