/** The way down: from a packet to the frame that carries it to its next hop (net/ipv4/ip_output.c, net/ipv6/ip6_output.c). */
import type { Netns, NetnsName } from '../model/host.ts';
import type { Ifname } from '../model/ifname.ts';
import { type Ip, familyOf } from '../model/ip.ts';
import type { LinkRef } from '../model/link.ts';
import { ZERO_MAC } from '../model/mac.ts';
import type { Route } from '../model/route.ts';
import { arpQuestion } from './arp.ts';
import { fitTo, split, splitText, tooBigText } from './fragment.ts';
import { type Frame, type IpPacket, type OwnPacket, isUnspecified, packetBytes } from './frame.ts';
import { sendIcmpError } from './icmp-error.ts';
import { ndQuestion } from './nd.ts';
import { sendTo, timingOf, useNeighbour, waitingFor } from './neighbour.ts';
import { passArpHook, passHook, passHooks, unrouted } from './netfilter.ts';
import { oncePerWords } from './remembered.ts';
import { type OutputRoute, formatRoute, routeOutput } from './route.ts';
import { type Run, type Waiting, drop, leave, linkAt, netnsOf, note, noteFork } from './run.ts';
import { UNSPECIFIED, selectIpv6, selectSource } from './source.ts';
import type { Stage } from './trace.ts';
import { findPermanentNeighbour } from './world.ts';

/** A question about a neighbour leaves; one of IPv6 is a packet, which chains see. */
export function sendQuestion(run: Run, at: LinkRef, question: Frame): void {
  const { packet } = question;
  if (packet.kind === 'arp') passArpHook(run, at, packet, 'output');
  const passed = packet.kind === 'ip' ? passHooks(run, at, packet, unrouted(at.ifname)) : packet;
  if (passed) run.queue.push({ step: 'transmit', at, frame: { ...question, packet: passed } });
}

/** Sends a packet to its next hop: at once, or when the neighbour has answered (K-7.3). */
function toNextHop(run: Run, at: LinkRef, nextHop: Ip, packet: IpPacket, iif: Ifname | null): void {
  const mac = useNeighbour(run, at, nextHop);
  if (mac !== undefined) {
    const isPermanent = findPermanentNeighbour(run.world.host, at, nextHop) !== undefined;
    note(
      run,
      at,
      'neighbour',
      packet,
      `${nextHop} is at ${mac}${isPermanent ? ', permanently' : ''}`,
      { rule: 'K-7.3', lookedUp: { kind: 'neighbour', ip: nextHop, found: mac } },
    );
    sendTo(run, at, packet, mac);
    return;
  }
  waitForNeighbour(run, { at, nextHop, packet, iif });
}

/** Settings that would have somebody wait for years are in no host that lives. */
const LONGEST_WAIT_MS = 600_000;

/** Has a packet wait until its next hop's MAC address is known, and asks for that where nobody has. */
export function waitForNeighbour(run: Run, waiting: Omit<Waiting, 'dueMs'>): void {
  const { at, nextHop, packet } = waiting;
  const grounds = {
    rule: 'K-7.3',
    lookedUp: { kind: 'neighbour', ip: nextHop, found: null },
  } as const;
  const asked = waitingFor(run, at, nextHop);
  const { multicastProbes, retransMs } = timingOf(run, at, nextHop);
  const waitMs = Math.min(multicastProbes * retransMs, LONGEST_WAIT_MS);
  const dueMs = asked?.dueMs ?? run.world.nowMs + waitMs;
  run.waiting.push({ ...waiting, dueMs });
  if (asked) {
    note(run, at, 'neighbour', packet, `${nextHop} is asked for already: waits too`, grounds);
    return;
  }
  const ask = familyOf(nextHop) === 4 ? arpQuestion : ndQuestion;
  const question = ask(run, at, nextHop, packet);
  if (question === undefined) {
    note(
      run,
      at,
      'neighbour',
      packet,
      `${nextHop} is not known, and ${at.ifname} has no link-local address to ask from`,
      grounds,
    );
    return;
  }
  const name = familyOf(nextHop) === 4 ? 'ARP' : 'ND';
  note(
    run,
    at,
    'neighbour',
    packet,
    `${nextHop} is not known: asks by ${name}, and waits`,
    grounds,
  );
  sendQuestion(run, at, question);
}

/** What fits into a packet that leaves by a route: a route's own MTU comes before that of its link, be it larger (ip_dst_mtu_maybe_forward, ip6_mtu). */
export function mtuBy(run: Run, at: LinkRef, route: Route | null): number {
  return route?.mtuBytes ?? linkAt(run, at).mtuBytes;
}

/** Ends a packet that is too big for a link, or for the route by which it leaves. */
function dropTooBig(run: Run, at: LinkRef, packet: IpPacket, route: Route | null): void {
  const isOfRoute = route?.mtuBytes !== undefined;
  const { destination } = packet;
  const text = tooBigText(packet, mtuBy(run, at, route));
  drop(run, at, 'route', packet, 'PKT_TOO_BIG', isOfRoute ? `${text}, of the route` : text, {
    rule: 'K-7.7',
    ...(isOfRoute ? { lookedUp: { kind: 'route', destination, found: route } } : {}),
  });
}

/** The same of one that came in by a link: its sender is told. */
function refuse(run: Run, at: LinkRef, packet: IpPacket, route: Route | null, iif: Ifname): void {
  dropTooBig(run, at, packet, route);
  const mtuBytes = mtuBy(run, at, route);
  sendIcmpError(run, { netns: at.netns, ifname: iif }, packet, 'too big', mtuBytes);
}

/** A router looks at the size before the chains of forward do (ip_forward, ip6_forward): is the packet too big, of which its sender is told? */
export function isRefusedBySize(
  run: Run,
  at: LinkRef,
  packet: IpPacket,
  route: Route,
  iif: Ifname,
): boolean {
  // IPv6 asks for the route's own MTU later (ip6_finish_output).
  const asked = familyOf(packet.destination) === 4 ? route : null;
  const mtuBytes = mtuBy(run, at, asked);
  if (packetBytes(packet) <= mtuBytes) return false;
  if (fitTo(packet, mtuBytes, false).kind !== 'too big') return false;
  refuse(run, at, packet, asked, iif);
  return true;
}

/** The fragments of a packet, of which a hop tells. */
export function splitUp(
  run: Run,
  at: LinkRef,
  stage: Stage,
  packet: IpPacket,
  mtuBytes: number,
): readonly IpPacket[] {
  const parts = split(packet, mtuBytes, run.nextIdentification);
  if (parts.length === 1) return parts;
  if (parts[0]?.fragment?.identification === run.nextIdentification) run.nextIdentification += 1;
  note(run, at, stage, packet, splitText(packet, mtuBytes, parts), { rule: 'K-7.9' });
  return parts;
}

/** What leaves of a packet by a route, or by a loopback without one: itself, or its fragments; nothing where it is too big. */
function fitting(
  run: Run,
  at: LinkRef,
  packet: IpPacket,
  route: Route | null,
  iif: Ifname | null,
): readonly IpPacket[] {
  const fit = fitTo(packet, mtuBy(run, at, route), iif === null);
  if (fit.kind === 'whole') return [packet];
  if (fit.kind === 'split') return splitUp(run, at, 'route', packet, fit.mtuBytes);
  // The sender's own kernel knows without an error.
  if (iif === null) dropTooBig(run, at, packet, route);
  else refuse(run, at, packet, route, iif);
  return [];
}

/** Sends a packet by a unicast route; `iif` is the link that it came in by, null for one of the netns itself. */
export function sendByRoute(
  run: Run,
  at: LinkRef,
  route: Route,
  routed: IpPacket,
  iif: Ifname | null,
): void {
  const nextHop = route.gateway ?? routed.destination;
  const passing = { hook: 'postrouting', iif, oif: at.ifname, nextHop } as const;
  const packet = passHook(run, at, routed, passing);
  if (!packet) return;
  // Nearly always so.
  if (packet.skb?.joined === undefined && packetBytes(packet) <= mtuBy(run, at, route)) {
    toNextHop(run, at, nextHop, packet, iif);
    return;
  }
  for (const each of fitting(run, at, packet, route, iif)) toNextHop(run, at, nextHop, each, iif);
}

/** Finds the loopback link, by which packets to own addresses go. */
function loopbackOf(run: Run, netns: NetnsName): Ifname | undefined {
  return Object.values(netnsOf(run, netns).links).find((link) => link.kind === 'loopback')?.ifname;
}

/** By which route a packet of the netns's own leaves, and from whom it is then. */
interface Departure {
  readonly answer: OutputRoute;
  readonly source: Ip;
}

const departureOf = oncePerWords(
  (netns: Netns, chosen: Ip | null, destination: Ip, device: Ifname | null): Departure => {
    const first = routeOutput(netns, chosen, destination, device);
    // Without a route IPv6 looks for a source first, of which a policy rule may know a way (ip6_dst_lookup_tail).
    const guess =
      first.kind === 'drop' && familyOf(destination) === 6
        ? (chosen ?? selectIpv6(netns, device, destination) ?? null)
        : chosen;
    const answer = guess === chosen ? first : routeOutput(netns, guess, destination, device);
    const source = !('route' in answer)
      ? chosen
      : (guess ?? selectSource(netns, answer.route, destination));
    return { answer, source: source ?? UNSPECIFIED[familyOf(destination)] };
  },
);

/** Sends a packet of the netns's own (K-5.1, K-5.5); `device` is the link that a link-local destination is on. `connects`: by a socket that knows whom it is for. */
export function sendOwn(
  run: Run,
  name: NetnsName,
  own: OwnPacket,
  device: Ifname | null,
  connects = false,
): void {
  const netns = netnsOf(run, name);
  const first = departureOf(netns, own.source, own.destination, device);
  const { source } = first;
  // Whoever connects looks again, in the name of the source that was chosen (ip_route_connect); IPv6 keeps what it found.
  const isAskedAgain =
    connects && own.source === null && 'route' in first.answer && familyOf(source) === 4;
  const { answer } = isAskedAgain ? departureOf(netns, source, own.destination, device) : first;
  const packet: IpPacket = { ...own, kind: 'ip', source };
  if (answer.kind === 'unknown') {
    leave(run, { netns: name }, 'route', packet, answer.text);
    return;
  }
  const found = answer.kind === 'drop' ? null : answer.route;
  const grounds = {
    rule: 'K-5.1',
    lookedUp: { kind: 'route', destination: own.destination, found },
  } as const;
  if (answer.kind === 'drop') {
    drop(run, { netns: name }, 'route', packet, answer.reason, answer.text, {
      ...grounds,
      rule: answer.rule,
    });
    return;
  }
  if (isUnspecified(packet.source) && familyOf(packet.source) === 6) {
    drop(
      run,
      { netns: name },
      'route',
      packet,
      'SOCKET_REFUSED',
      'EADDRNOTAVAIL: no source address',
      { ...grounds, rule: 'K-5.5' },
    );
    return;
  }
  const chosen = own.source === null ? `, from ${packet.source}` : '';
  const via = answer.kind === 'local' ? loopbackOf(run, name) : answer.route.device;
  if (via === undefined || via === null) {
    leave(run, { netns: name }, 'route', packet, 'the loopback link was not looked at');
    return;
  }
  const at = { netns: name, ifname: via };
  noteFork(run, { netns: name }, packet, answer.route);
  note(
    run,
    at,
    'route',
    packet,
    `${formatRoute(answer.route)}${chosen}`,
    own.source === null ? { ...grounds, rule: 'K-5.5' } : grounds,
  );
  // A socket that lets nobody split it is refused before there is a packet (ip_append_data, ip6_append_data).
  if (own.dontFragment && packetBytes(packet) > mtuBy(run, at, answer.route)) {
    dropTooBig(run, at, packet, answer.route);
    return;
  }
  const passed = passHook(run, at, packet, { hook: 'output', iif: null, oif: via });
  if (!passed) return;
  const isElsewhere = passed.destination !== packet.destination;
  if (isElsewhere || asksRouteAgain(netns, packet, passed)) sendRerouted(run, name, passed);
  else if (answer.kind === 'forward') sendByRoute(run, at, answer.route, passed, null);
  else sendBack(run, at, passed);
}

/** Did a chain of type route change the packet's mark (nft_chain_route.c)? One of type filter that does changes no route. */
function asksRouteAgain(netns: Netns, before: IpPacket, after: IpPacket): boolean {
  if ((before.skb?.mark ?? 0) === (after.skb?.mark ?? 0)) return false;
  return Object.values(netns.nftables).some(({ chains }) =>
    Object.values(chains).some(({ hook }) => hook?.type === 'route'),
  );
}

/** A packet that is for somebody else since it passed the chains of output (ip_route_me_harder). */
function sendRerouted(run: Run, name: NetnsName, packet: IpPacket): void {
  const { source, destination, skb } = packet;
  const answer = routeOutput(netnsOf(run, name), source, destination, null, skb?.mark);
  if (answer.kind === 'unknown') {
    leave(run, { netns: name }, 'route', packet, answer.text);
    return;
  }
  const found = answer.kind === 'drop' ? null : answer.route;
  const grounds = { rule: 'K-5.1', lookedUp: { kind: 'route', destination, found } } as const;
  if (answer.kind === 'drop') {
    drop(run, { netns: name }, 'route', packet, answer.reason, answer.text, grounds);
    return;
  }
  const via = answer.kind === 'local' ? loopbackOf(run, name) : answer.route.device;
  if (via === undefined || via === null) {
    leave(run, { netns: name }, 'route', packet, 'the loopback link was not looked at');
    return;
  }
  const at = { netns: name, ifname: via };
  noteFork(run, { netns: name }, packet, answer.route);
  note(run, at, 'route', packet, `${formatRoute(answer.route)}, instead`, grounds);
  if (answer.kind === 'forward') sendByRoute(run, at, answer.route, packet, null);
  else sendBack(run, at, packet);
}

/** A packet for the netns itself leaves by its loopback. */
function sendBack(run: Run, at: LinkRef, routed: IpPacket): void {
  const nextHop = routed.destination;
  const passing = { hook: 'postrouting', iif: null, oif: at.ifname, nextHop } as const;
  const passed = passHook(run, at, routed, passing);
  if (!passed) return;
  for (const packet of fitting(run, at, passed, null, null)) {
    const frame = { kind: 'frame', source: ZERO_MAC, destination: ZERO_MAC, packet } as const;
    run.queue.push({ step: 'transmit', at, frame });
  }
}
