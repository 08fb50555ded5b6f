/** Waits for what the kernel does later by rule, so that the model, which does it at once, can be compared with it. */
import { execFileSync } from 'node:child_process';
import type { Kernel } from '../../backends/linux/kernel.ts';
import { decodeIfindex, encodeLinkGet, encodeLinkSet } from '../../backends/linux/link-message.ts';
import { decodeRoute, encodeTableDump } from '../../backends/linux/route-message.ts';
import { type NetlinkSocket, isFault } from '../../backends/linux/socket.ts';
import { neighbourhood } from '../../model/carrier.ts';
import { type Host, type Netns, type NetnsName, findLink } from '../../model/host.ts';
import type { Ifname } from '../../model/ifname.ts';
import type { Link, LinkRef } from '../../model/link.ts';
import type { Prefix } from '../../model/prefix.ts';
import { TABLE_LOCAL, routeFamily } from '../../model/route.ts';
import type { Places } from './place.ts';

/** The far ends of a veth and a netns that goes are taken away by a work queue (K-2.4). */
const TEARDOWN_MS = 5000;
/** What waits for nothing but its turn is done sooner than this, even where others keep the kernel busy. */
const WORK_MS = 5000;

/** Ports before bridges, since a bridge follows its ports; then what follows a bridge. Macvlans may be over it or its ports. */
const PASSES: readonly Link['kind'][] = [
  'veth',
  'ifb',
  'vxlan',
  'macvlan',
  'bridge',
  'veth',
  'macvlan',
  'bridge',
];

function socketOf(kernel: Kernel, place: NetnsName): NetlinkSocket | undefined {
  const netns = kernel.netns(place);
  const socket = isFault(netns) ? netns : netns.route();
  return isFault(socket) ? undefined : socket;
}

/** Asks about one link, which makes the kernel carry out its pending carrier change first (K-1.9; net/core/rtnetlink.c, rtnl_getlink). */
function isThere(kernel: Kernel, place: NetnsName, ifname: Ifname): boolean {
  const answer = socketOf(kernel, place)?.ask(encodeLinkGet(ifname), decodeIfindex);
  return answer !== undefined && !isFault(answer);
}

function refsOf(host: Host): LinkRef[] {
  return Object.entries(host.netns).flatMap(([netns, { links }]) =>
    Object.values(links).map(({ ifname }) => ({ netns, ifname })),
  );
}

/** The links about which anything changed, and those whose carrier can change with theirs: far ends, and the bridges above. */
function touched(before: Host, after: Host): LinkRef[] {
  const changed = [...refsOf(before), ...refsOf(after)].filter(
    (ref) => findLink(before, ref) !== findLink(after, ref),
  );
  const around = changed.flatMap((ref) => [
    ...neighbourhood(before, ref),
    ...neighbourhood(after, ref),
  ]);
  const unique = new Map(around.map((ref) => [`${ref.netns}/${ref.ifname}`, ref]));
  return [...unique.values()].filter((ref) => findLink(after, ref) !== undefined);
}

function bringCarrier(kernel: Kernel, places: Places, host: Host, refs: readonly LinkRef[]): void {
  for (const pass of PASSES) {
    for (const ref of refs) {
      if (findLink(host, ref)?.kind === pass) isThere(kernel, places.real(ref.netns), ref.ifname);
    }
  }
}

/** Brings about every carrier change that is pending. */
export function settleCarriers(kernel: Kernel, places: Places, host: Host): void {
  bringCarrier(kernel, places, host, refsOf(host));
}

/**
 * Has the bridge of a port forget what it has learned: the kernel sends packets by itself, such as of multicast listeners, and
 * in the model programs send none (K-6.2).
 */
export function forgetLearned(places: Places, host: Host, at: LinkRef): void {
  const master = findLink(host, at)?.port?.master;
  if (master === undefined) return;
  const words = ['link', 'set', master, 'type', 'bridge', 'fdb_flush'];
  execFileSync('ip', ['-n', places.real(at.netns), ...words]);
}

/** The addresses that the machine answers to, each as often as there is a route to it. */
function localPrefixes(netns: Netns | undefined): Prefix[] {
  return (netns?.routes ?? [])
    .filter((r) => r.type === 'local' && routeFamily(r) === 6)
    .map((r) => r.destination);
}

function times(list: readonly Prefix[], prefix: Prefix): number {
  return list.filter((each) => each === prefix).length;
}

function hasAll(there: readonly Prefix[], wanted: readonly Prefix[]): boolean {
  return wanted.every((prefix) => times(there, prefix) >= times(wanted, prefix));
}

function isReached(socket: NetlinkSocket, prefixes: readonly Prefix[]): boolean {
  const answer = socket.dump(encodeTableDump(6, TABLE_LOCAL), decodeRoute);
  if (isFault(answer)) return false;
  const local = answer.filter(({ route }) => route.type === 'local');
  return hasAll(
    local.map(({ route }) => route.destination),
    prefixes,
  );
}

/** The route to an IPv6 address of the machine is added by a work queue too, even without DAD (addrconf_dad_work). */
function settleLocalRoutes(kernel: Kernel, places: Places, before: Host, after: Host): void {
  for (const [name, netns] of Object.entries(after.netns)) {
    const old = before.netns[name];
    if (netns.routes === old?.routes) continue;
    const wanted = localPrefixes(netns);
    if (hasAll(localPrefixes(old), wanted)) continue;
    const socket = socketOf(kernel, places.real(name));
    if (!socket) continue;
    const deadline = performance.now() + WORK_MS;
    while (!isReached(socket, wanted) && performance.now() < deadline) Bun.sleepSync(0.2);
  }
}

/** Links that the model says are gone with a netns are waited for (K-2.4). */
function settleTeardown(kernel: Kernel, places: Places, before: Host, after: Host): void {
  const isRemoved = Object.keys(before.netns).some((n) => !Object.hasOwn(after.netns, n));
  if (!isRemoved) return;
  const gone = refsOf(before).filter(
    (ref) => Object.hasOwn(after.netns, ref.netns) && findLink(after, ref) === undefined,
  );
  const deadline = performance.now() + TEARDOWN_MS;
  for (const { netns, ifname } of gone) {
    while (isThere(kernel, places.real(netns), ifname) && performance.now() < deadline)
      Bun.sleepSync(2);
  }
}

/**
 * Waits for what the kernel does later because of one operation, given the hosts around it. Carrier changes lag by up to a
 * second (K-1.9): each link that the operation may have changed is asked for.
 */
export function settle(kernel: Kernel, places: Places, before: Host, after: Host): void {
  if (before === after) return;
  settleTeardown(kernel, places, before, after);
  bringCarrier(kernel, places, after, touched(before, after));
  settleLocalRoutes(kernel, places, before, after);
}

/** May packets go round by it: a bridge of several ports, or a link that sends on what comes in? */
function isOnLoop({ links }: Netns, link: Link): boolean {
  const ports = Object.values(links).filter(({ port }) => port?.master === link.ifname);
  return ports.length > 1 || typeof link.trafficControl?.ingress?.redirect === 'string';
}

/**
 * Ends what goes round in these netns, before they go or when nobody needs them any more. Programs make loops, a bridge has
 * no STP, and one packet keeps a processor busy. One that a socket of a user sent, as an announcement is, also keeps its
 * socket and so its netns alive, which then nobody can reach.
 */
export function calm(
  kernel: Kernel,
  places: Places,
  host: Host,
  names: readonly NetnsName[] = Object.keys(host.netns),
): void {
  for (const name of names) {
    const netns = host.netns[name];
    const looping = Object.values(netns?.links ?? {}).filter(
      (link) => netns && link.up && isOnLoop(netns, link),
    );
    const socket = looping.length > 0 ? socketOf(kernel, places.real(name)) : undefined;
    for (const { ifname } of looping) socket?.request(encodeLinkSet(ifname, { up: false }));
  }
}
