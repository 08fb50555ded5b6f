/** What each kind of operation is in the kernel: one message, file or batch. */
import type { Fault } from '../../model/errno.ts';
import type { Ifname } from '../../model/ifname.ts';
import { type NftCommand, formatCommand } from '../../model/nftables.ts';
import type { Op, OpName, OpOf } from '../../model/op.ts';
import type { NewLink } from '../../model/ops/link-add.ts';
import { namesPlace } from '../../model/ops/nft-batch.ts';
import { encodeAddressAdd, encodeAddressDel } from './address-message.ts';
import { announceAddress } from './announce.ts';
import { flushConntrack } from './conntrack.ts';
import { encodeFdbAdd, encodeFdbDel, encodeRemoteAdd, encodeRemoteDel } from './fdb-message.ts';
import type { Kernel } from './kernel.ts';
import {
  ARPHRD_LOOPBACK,
  decodeIfindex,
  decodeLink,
  encodeAltnameAdd,
  encodeAltnameDel,
  encodeBridgeAdd,
  encodeGroupDel,
  encodeIfbAdd,
  encodeLinkDel,
  encodeLinkGet,
  encodeLinkMove,
  encodeLinkRename,
  encodeLinkSet,
  encodeMacvlanAdd,
  encodePortSet,
  encodeVethAdd,
  encodeVxlanAdd,
} from './link-message.ts';
import { encodeNeighbourAdd, encodeNeighbourDel } from './neighbour-message.ts';
import { addNetns, delNetns } from './netns.ts';
import { encodeBatch } from './nftables-batch.ts';
import { decodeGeneration, encodeGenerationGet } from './nftables-message.ts';
import { findHandles } from './nftables.ts';
import { encodePolicyRuleAdd, encodePolicyRuleDel } from './policy-rule-message.ts';
import { encodeRouteAdd, encodeRouteDel } from './route-message.ts';
import { type BatchFault, type NetlinkSocket, isFault } from './socket.ts';
import { writeSysctl } from './sysctl.ts';
import {
  encodeFilterAdd,
  encodeFilterDel,
  encodeQdiscAdd,
  encodeQdiscDel,
} from './traffic-control-message.ts';
import { encodeVlanAdd, encodeVlanDel } from './vlan-message.ts';

/** The rtnetlink socket of a netns. */
function routeSocket(kernel: Kernel, name: string): NetlinkSocket | Fault {
  const netns = kernel.netns(name);
  return isFault(netns) ? netns : netns.route();
}

/** The present ifindex of a link: asked each time, since a name may stand for another link by now. ENODEV without one. */
function ifindexOf(socket: NetlinkSocket, ifname: Ifname): number | Fault {
  const link = socket.ask(encodeLinkGet(ifname), decodeIfindex);
  return isFault(link) ? link : link.ifindex;
}

/** Sends one message about a netns as a whole. */
function aboutNetns(kernel: Kernel, netns: string, message: Uint8Array): Fault | undefined {
  const socket = routeSocket(kernel, netns);
  return isFault(socket) ? socket : socket.request(message);
}

/** Sends one message about the link with a name; `encode` gets its ifindex. */
function aboutLink(
  kernel: Kernel,
  { netns, ifname }: { readonly netns: string; readonly ifname: Ifname },
  encode: (ifindex: number) => Uint8Array,
): Fault | undefined {
  const socket = routeSocket(kernel, netns);
  if (isFault(socket)) return socket;
  const ifindex = ifindexOf(socket, ifname);
  return typeof ifindex === 'number' ? socket.request(encode(ifindex)) : ifindex;
}

/**
 * Makes a veth in one message, but for one thing: veth_open answers ENOTCONN until the ends know each other, which
 * is after the peer was configured (drivers/net/veth.c, veth_newlink). So the peer goes up in a message of its own.
 */
function addVeth(
  kernel: Kernel,
  netns: string,
  link: NewLink & { kind: 'veth' },
): Fault | undefined {
  const { peer } = link;
  const socket = routeSocket(kernel, netns);
  if (isFault(socket)) return socket;
  const masterIndex = link.master === null ? undefined : ifindexOf(socket, link.master);
  if (typeof masterIndex === 'object') return masterIndex;
  const there = kernel.netns(peer.netns);
  if (isFault(there)) return there;
  const peerNetnsFd = peer.netns === netns ? undefined : there.descriptor();
  if (typeof peerNetnsFd === 'object') return peerNetnsFd;
  // Before anything is made, so that a path that is no netns leaves nothing behind.
  const peerSocket = there.route();
  if (isFault(peerSocket)) return peerSocket;
  const pair = { end: link, masterIndex, peer: { ...peer, up: false }, peerNetnsFd };
  const fault = socket.request(encodeVethAdd(pair));
  if (fault || !peer.up) return fault;
  const upFault = peerSocket.request(encodeLinkSet(peer.ifname, { up: true }));
  // All or nothing, as for every operation.
  if (upFault) socket.request(encodeLinkDel(link.ifname));
  return upFault;
}

function addVxlan(socket: NetlinkSocket, link: NewLink & { kind: 'vxlan' }): Fault | undefined {
  const lowerIndex = link.lower === null ? undefined : ifindexOf(socket, link.lower);
  return typeof lowerIndex === 'object'
    ? lowerIndex
    : socket.request(encodeVxlanAdd(link, link, lowerIndex));
}

function addMacvlan(socket: NetlinkSocket, link: NewLink & { kind: 'macvlan' }): Fault | undefined {
  const lowerIndex = ifindexOf(socket, link.lower);
  return typeof lowerIndex === 'object'
    ? lowerIndex
    : socket.request(encodeMacvlanAdd(link, link.mode, lowerIndex));
}

/** Sends one message about a vxlan; to a link of another kind it would mean something else, and is not sent. */
function aboutTunnel(
  kernel: Kernel,
  { netns, ifname }: OpOf<'remote.add'> | OpOf<'remote.del'>,
  encode: (ifindex: number) => Uint8Array,
): Fault | undefined {
  const socket = routeSocket(kernel, netns);
  if (isFault(socket)) return socket;
  const link = socket.ask(encodeLinkGet(ifname), decodeLink);
  if (isFault(link)) return link;
  return link.kind === 'vxlan' || link.hardware === ARPHRD_LOOPBACK
    ? socket.request(encode(link.ifindex))
    : { errno: 'EOPNOTSUPP', text: '' };
}

function setLink(kernel: Kernel, { netns, ifname, set }: OpOf<'link.set'>): Fault | undefined {
  const socket = routeSocket(kernel, netns);
  if (isFault(socket)) return socket;
  if (!('master' in set)) return socket.request(encodeLinkSet(ifname, set));
  const masterIndex = set.master === null ? 0 : ifindexOf(socket, set.master);
  return typeof masterIndex === 'number'
    ? socket.request(encodeLinkSet(ifname, { masterIndex }))
    : masterIndex;
}

function moveLink(kernel: Kernel, op: OpOf<'link.move'>): Fault | undefined {
  const there = kernel.netns(op.toNetns);
  const netnsFd = isFault(there) ? there : there.descriptor();
  return typeof netnsFd === 'number'
    ? aboutLink(kernel, op, (ifindex) => encodeLinkMove(ifindex, netnsFd))
    : netnsFd;
}

function addFilter(kernel: Kernel, op: OpOf<'filter.add'>): Fault | undefined {
  const socket = routeSocket(kernel, op.netns);
  if (isFault(socket)) return socket;
  const redirectIndex = ifindexOf(socket, op.redirect);
  if (typeof redirectIndex !== 'number') return redirectIndex;
  return aboutLink(kernel, op, (ifindex) => encodeFilterAdd(ifindex, redirectIndex));
}

type RouteOp = OpOf<'route.add'> | OpOf<'route.del'>;

function aboutRoute(
  kernel: Kernel,
  { netns, route }: RouteOp,
  encode: typeof encodeRouteAdd,
): Fault | undefined {
  const { device } = route;
  if (device !== null)
    return aboutLink(kernel, { netns, ifname: device }, (ifindex) => encode(route, ifindex));
  const socket = routeSocket(kernel, netns);
  return isFault(socket) ? socket : socket.request(encode(route, undefined));
}

/** How often a batch is made anew because others changed the ruleset meanwhile. */
const BATCH_TRIES = 10;

/**
 * Sends commands as one batch. Where some name rules by their numbers, it is bound to the ruleset in which these were found:
 * who makes a table anew has other rules with the same numbers.
 */
function sendBatch(
  socket: NetlinkSocket,
  commands: readonly NftCommand[],
): Fault | BatchFault | undefined {
  if (!commands.some(namesPlace)) return socket.batch(encodeBatch(commands));
  for (let tries = 1; ; tries += 1) {
    const found = socket.ask(encodeGenerationGet(), decodeGeneration);
    if (!found || isFault(found)) return found;
    const handles = findHandles(socket, commands);
    if (isFault(handles)) return handles;
    const refusal = socket.batch(encodeBatch(commands, { handles, ...found }));
    if (refusal?.fault.errno !== 'ERESTART' || tries >= BATCH_TRIES) return refusal;
  }
}

function applyNftBatch(
  kernel: Kernel,
  { netns: name, commands }: OpOf<'nft.batch'>,
): Fault | undefined {
  if (commands.length === 0) return undefined;
  const netns = kernel.netns(name);
  const socket = isFault(netns) ? netns : netns.netfilter();
  if (isFault(socket)) return socket;
  const refusal = sendBatch(socket, commands);
  if (!refusal || isFault(refusal)) return refusal;
  // The kernel seldom has a text here; which of the commands it was says more. Number 0 is the batch as a whole.
  const command = commands[refusal.sequence - 1];
  const { errno, text } = refusal.fault;
  return {
    errno,
    text: [text, command ? formatCommand(command) : ''].filter((part) => part !== '').join(': '),
  };
}

type Executor<K extends OpName> = (kernel: Kernel, op: OpOf<K>) => Fault | undefined;

const EXECUTORS: { readonly [K in OpName]: Executor<K> } = {
  'netns.add': (_kernel, op) => addNetns(op.netns),
  'netns.del': (kernel, op) => {
    // An open socket would keep the netns alive.
    kernel.forget(op.netns);
    return delNetns(op.netns);
  },
  'link.add': (kernel, { netns, link }) => {
    if (link.kind === 'veth') return addVeth(kernel, netns, link);
    const socket = routeSocket(kernel, netns);
    if (isFault(socket)) return socket;
    if (link.kind === 'vxlan') return addVxlan(socket, link);
    if (link.kind === 'macvlan') return addMacvlan(socket, link);
    return socket.request(
      link.kind === 'ifb' ? encodeIfbAdd(link) : encodeBridgeAdd(link, link.vlanFiltering),
    );
  },
  'link.del': (kernel, op) => {
    const socket = routeSocket(kernel, op.netns);
    return isFault(socket) ? socket : socket.request(encodeLinkDel(op.ifname));
  },
  'group.del': (kernel, op) => {
    const socket = routeSocket(kernel, op.netns);
    return isFault(socket) ? socket : socket.request(encodeGroupDel(op.group));
  },
  'link.set': setLink,
  'link.rename': (kernel, op) =>
    aboutLink(kernel, op, (ifindex) => encodeLinkRename(ifindex, op.name)),
  'link.move': moveLink,
  'altname.add': (kernel, { netns, ifname, altname }) =>
    aboutNetns(kernel, netns, encodeAltnameAdd(ifname, altname)),
  'altname.del': (kernel, { netns, ifname, altname }) =>
    aboutNetns(kernel, netns, encodeAltnameDel(ifname, altname)),
  'port.set': (kernel, op) => {
    const socket = routeSocket(kernel, op.netns);
    return isFault(socket)
      ? socket
      : socket.request(encodePortSet(op.ifname, op.flag, op.on ? 1 : 0));
  },
  'fdb.add': (kernel, op) =>
    aboutLink(kernel, op, (ifindex) => encodeFdbAdd({ ...op, ifindex }, op.state)),
  'fdb.del': (kernel, op) => aboutLink(kernel, op, (ifindex) => encodeFdbDel({ ...op, ifindex })),
  'remote.add': (kernel, op) =>
    aboutTunnel(kernel, op, (ifindex) => encodeRemoteAdd(ifindex, op.remote, op.append)),
  'remote.del': (kernel, op) =>
    aboutTunnel(kernel, op, (ifindex) => encodeRemoteDel(ifindex, op.remote)),
  'vlan.add': (kernel, op) =>
    aboutLink(kernel, op, (ifindex) => encodeVlanAdd(ifindex, op.self, op.vlan)),
  'vlan.del': (kernel, op) =>
    aboutLink(kernel, op, (ifindex) => encodeVlanDel(ifindex, op.self, op.first, op.last)),
  'qdisc.add': (kernel, op) =>
    aboutLink(kernel, op, (ifindex) => encodeQdiscAdd(ifindex, op.qdisc)),
  'qdisc.del': (kernel, op) => aboutLink(kernel, op, (ifindex) => encodeQdiscDel(ifindex, op.at)),
  'filter.add': addFilter,
  'filter.del': (kernel, op) => aboutLink(kernel, op, (ifindex) => encodeFilterDel(ifindex)),
  'address.add': (kernel, op) =>
    aboutLink(kernel, op, (ifindex) => encodeAddressAdd(ifindex, op.address)),
  'address.del': (kernel, op) =>
    aboutLink(kernel, op, (ifindex) => encodeAddressDel(ifindex, op.address)),
  'route.add': (kernel, op) => aboutRoute(kernel, op, encodeRouteAdd),
  'route.del': (kernel, op) => aboutRoute(kernel, op, encodeRouteDel),
  'rule.add': (kernel, { netns, rule }) => aboutNetns(kernel, netns, encodePolicyRuleAdd(rule)),
  'rule.del': (kernel, { netns, rule }) => aboutNetns(kernel, netns, encodePolicyRuleDel(rule)),
  'neighbour.add': (kernel, op) =>
    aboutLink(kernel, op, (ifindex) => encodeNeighbourAdd(ifindex, op.neighbour)),
  'neighbour.del': (kernel, op) =>
    aboutLink(kernel, op, (ifindex) => encodeNeighbourDel(ifindex, op.ip)),
  'sysctl.set': (kernel, op) => {
    const netns = kernel.netns(op.netns);
    return isFault(netns) ? netns : netns.run(() => writeSysctl(op.key, op.value));
  },
  'nft.batch': applyNftBatch,
  'address.announce': announceAddress,
  'conntrack.flush': flushConntrack,
};

/** Carries out one operation: undefined when the kernel did it, else why it refused. */
export function executeOp(kernel: Kernel, op: Op): Fault | undefined {
  // TypeScript cannot follow that the executor is the one for exactly this operation.
  return (EXECUTORS[op.op] as Executor<OpName>)(kernel, op);
}
