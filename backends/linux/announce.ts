/** Telling the neighbours on a link where an address is, when the link can carry the news. */
import type { Fault } from '../../model/errno.ts';
import { familyOf } from '../../model/ip.ts';
import type { OpOf } from '../../model/op.ts';
import { decodeAddress, encodeAddressDump } from './address-message.ts';
import { ETH_P_ARP, ETH_P_IPV6, encodeAnnouncement } from './announce-message.ts';
import type { Kernel } from './kernel.ts';
import {
  ARPHRD_LOOPBACK,
  IFF_UP,
  decodeLink,
  decodePortState,
  encodeLinkGet,
} from './link-message.ts';
import { type NetlinkSocket, isFault } from './socket.ts';

/** Many times what the kernel's work queue takes on a busy machine, and short for a call. */
const WAIT_MS = 100;
const PAUSE_MS = 0.3;

/** IF_OPER_* (include/uapi/linux/if.h): a link of a kind that never says is "unknown". */
const IF_OPER_UNKNOWN = 0;
const IF_OPER_UP = 6;

const BR_STATE_DISABLED = 0;

/**
 * Would a frame sent now get beyond the link? Carrier is there at once, but the kernel acts on it from a work queue
 * (K-1.9): until then the link may have no transmit queue (net/core/link_watch.c, linkwatch_do_dev), and a bridge keeps
 * the port at the far end of a veth disabled (net/bridge/br_if.c, br_port_carrier_check). Each end has its turn in that
 * queue, so both are asked, and since kernels of today answer only after that turn, mostly once.
 */
function isReady(socket: NetlinkSocket, ifindex: number): boolean {
  const link = socket.ask(encodeLinkGet(ifindex), decodeLink);
  // A link that has gone, or has no carrier, does not become ready by waiting.
  if (isFault(link) || !link.carrier) return true;
  if (link.operstate !== IF_OPER_UP && link.operstate !== IF_OPER_UNKNOWN) return false;
  if (link.kind !== 'veth' || link.linkIndex === undefined) return true;
  const port = socket.ask(encodeLinkGet(link.linkIndex, link.peerNetnsId), decodePortState);
  // Other states are for the spanning tree to end, in its own time.
  return isFault(port) || port.state !== BR_STATE_DISABLED;
}

function awaitReady(socket: NetlinkSocket, ifindex: number): void {
  const deadlineNs = Bun.nanoseconds() + WAIT_MS * 1e6;
  while (!isReady(socket, ifindex) && Bun.nanoseconds() < deadlineNs) Bun.sleepSync(PAUSE_MS);
}

/** The ifindex of a link that has MAC addresses, is up and holds the address. */
function findHolder(
  socket: NetlinkSocket,
  { ifname, ip }: OpOf<'address.announce'>,
): number | Fault {
  const link = socket.ask(encodeLinkGet(ifname), decodeLink);
  if (isFault(link)) return link;
  if (link.mac === null || link.hardware === ARPHRD_LOOPBACK)
    return { errno: 'EOPNOTSUPP', text: 'not an Ethernet link' };
  if ((link.flags & IFF_UP) === 0) return { errno: 'ENETDOWN', text: '' };
  const { ifindex } = link;
  const held = socket.dump(encodeAddressDump(ifindex), (message) => {
    const each = decodeAddress(message);
    return each?.ifindex === ifindex && each.address.ip === ip ? each : undefined;
  });
  if (isFault(held)) return held;
  return held.length > 0 ? ifindex : { errno: 'EADDRNOTAVAIL', text: '' };
}

/** Sends the news once. Needs CAP_NET_RAW. */
export function announceAddress(kernel: Kernel, op: OpOf<'address.announce'>): Fault | undefined {
  const netns = kernel.netns(op.netns);
  if (isFault(netns)) return netns;
  const socket = netns.route();
  if (isFault(socket)) return socket;
  const ifindex = findHolder(socket, op);
  if (typeof ifindex === 'object') return ifindex;
  awaitReady(socket, ifindex);
  const packets = netns.packet();
  if (isFault(packets)) return packets;
  const protocol = familyOf(op.ip) === 4 ? ETH_P_ARP : ETH_P_IPV6;
  return packets.send(ifindex, protocol, encodeAnnouncement(op.ip, op.mac));
}
