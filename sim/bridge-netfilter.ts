/**
 * What the chains of a netns make of frames that its bridges pass: those of family bridge, and with br_netfilter also those
 * of the packets in them (K-8.4; net/bridge/br_netfilter_hooks.c).
 */
import type { Ifname } from '../model/ifname.ts';
import { type Family, familyOf } from '../model/ip.ts';
import type { LinkRef } from '../model/link.ts';
import { ZERO_MAC } from '../model/mac.ts';
import { fitTo, tooBigText } from './fragment.ts';
import { type Frame, type IpPacket, packetBytes } from './frame.ts';
import { sendIcmpError } from './icmp-error.ts';
import { useNeighbour } from './neighbour.ts';
import {
  looksAtBridged,
  passBridgeHook,
  passHook,
  passHooks,
  passesBridgeNetfilter,
} from './netfilter.ts';
import { splitUp, waitForNeighbour } from './output.ts';
import { type InputRoute, type UnknownRoute, findInput } from './route.ts';
import { type Bridged, type Run, drop, leave, linkAt, netnsOf, note } from './run.ts';

const GROUNDS = { rule: 'K-8.4' } as const;

/** What is wrong with a packet itself, and not only with the way on: a bridge drops it for that (ip_route_input). */
const MARTIAN = ['K-7.4', 'K-7.5'];

/** Does the packet of a frame go up to the netns of the bridge, which may have no way on for it either? */
function goesUp(
  answer: Exclude<InputRoute, UnknownRoute>,
  family: Family,
  bridge: LinkRef,
): boolean {
  if (answer.kind === 'drop') return family === 4 && !MARTIAN.includes(answer.rule);
  return answer.kind !== 'forward' || answer.route.device !== bridge.ifname;
}

/** A frame whose packet is for somebody else since it came in: to that one where it is on the bridge, else up (br_nf_pre_routing_finish). */
function redirected(
  run: Run,
  bridge: LinkRef,
  { port, frame, to }: Bridged,
  packet: IpPacket,
): Frame | undefined {
  const { source, destination, skb } = packet;
  const answer = findInput(
    netnsOf(run, bridge.netns),
    bridge.ifname,
    source,
    destination,
    skb?.mark,
  );
  if (answer.kind === 'unknown') {
    leave(run, bridge, 'bridge', packet, answer.text);
    return undefined;
  }
  if (goesUp(answer, familyOf(destination), bridge)) {
    const changed = { ...frame, packet, destination: linkAt(run, bridge).mac ?? ZERO_MAC };
    note(run, bridge, 'bridge', changed, `for ${destination} now: goes up to be routed`, GROUNDS);
    return changed;
  }
  if (answer.kind === 'drop') {
    drop(run, bridge, 'bridge', packet, answer.reason, answer.text, GROUNDS);
    return undefined;
  }
  const nextHop = answer.route.gateway ?? destination;
  const mac = useNeighbour(run, bridge, nextHop);
  const text = `for ${destination} now: ${nextHop} is on this bridge`;
  if (mac === undefined) {
    note(run, bridge, 'bridge', { ...frame, packet }, text, GROUNDS);
    const bridged = { port, frame, to };
    waitForNeighbour(run, { at: bridge, nextHop, packet, iif: bridge.ifname, bridged });
    return undefined;
  }
  const changed = { ...frame, packet, destination: mac };
  note(run, bridge, 'bridge', changed, `${text}, at ${mac}`, GROUNDS);
  return changed;
}

/** A frame that came in by a port, after the chains that see it there; undefined where it does not go on at once. */
export function enterBridge(run: Run, bridge: LinkRef, entering: Bridged): Frame | undefined {
  const { port, frame } = entering;
  if (!passBridgeHook(run, bridge, frame, { hook: 'prerouting', iif: port.ifname, oif: null }))
    return undefined;
  const { packet } = frame;
  if (packet.kind !== 'ip' || !passesBridgeNetfilter(run, bridge, frame)) return frame;
  const passing = { hook: 'prerouting', iif: bridge.ifname, oif: null } as const;
  const { source, destination } = frame;
  const bridged = { port, source, destination };
  const came: IpPacket = { ...packet, skb: { mark: 0, ...packet.skb, bridged } };
  const passed = passHook(run, bridge, came, passing);
  if (!passed) return undefined;
  const skb = { mark: 0, ...passed.skb, prerouted: true, bridged } as const;
  const seen: IpPacket = { ...passed, skb };
  return seen.destination === packet.destination
    ? { ...frame, packet: seen }
    : redirected(run, bridge, entering, seen);
}

/** The frames that leave by a port of one that is to; `from` is the port that it came in by, null for one of the netns itself. */
export function passToPort(
  run: Run,
  bridge: LinkRef,
  from: Ifname | null,
  to: Ifname,
  frame: Frame,
): readonly Frame[] {
  const hook = from === null ? 'output' : 'forward';
  if (!passBridgeHook(run, bridge, frame, { hook, iif: from, oif: to })) return [];
  let passed = frame;
  if (frame.packet.kind === 'ip' && from !== null && passesBridgeNetfilter(run, bridge, frame)) {
    const { ifname } = bridge;
    const packet = passHooks(run, bridge, frame.packet, [
      { hook: 'forward', iif: ifname, oif: ifname },
      // By then nobody knows any more by which link it came in (br_nf_post_routing).
      { hook: 'postrouting', iif: null, oif: ifname, nextHop: frame.packet.destination },
    ]);
    if (!packet) return [];
    passed = { ...frame, packet };
  }
  if (!passBridgeHook(run, bridge, passed, { hook: 'postrouting', iif: null, oif: to })) return [];
  return from === null ? [passed] : fitToPort(run, bridge, to, passed);
}

/** Whose packets IP looks at it splits too, as the bridge's MTU wants it, where they are too large for a port or were joined (br_nf_dev_queue_xmit). */
function fitToPort(run: Run, bridge: LinkRef, to: Ifname, frame: Frame): readonly Frame[] {
  const { packet } = frame;
  if (packet.kind !== 'ip') return [frame];
  if (!looksAtBridged(netnsOf(run, bridge.netns), familyOf(packet.destination))) return [frame];
  const portBytes = linkAt(run, { netns: bridge.netns, ifname: to }).mtuBytes;
  const limit = Math.min(portBytes, packet.skb?.joined?.largestBytes ?? portBytes);
  if (packetBytes(packet) <= limit) return [frame];
  const { mtuBytes } = linkAt(run, bridge);
  const fit = fitTo(packet, mtuBytes, false);
  if (fit.kind === 'whole') return [frame];
  // Unlike a router it makes no fragments smaller than they came (br_nf_ip_fragment).
  const isSmaller = (packet.skb?.joined?.largestBytes ?? 0) > mtuBytes;
  if (fit.kind === 'split' && !isSmaller)
    return splitUp(run, bridge, 'bridge', packet, fit.mtuBytes).map((part) => ({
      ...frame,
      packet: part,
    }));
  drop(run, bridge, 'bridge', frame, 'PKT_TOO_BIG', tooBigText(packet, mtuBytes), GROUNDS);
  // Of IPv4 nobody is told (br_nf_ip_fragment), of IPv6 as by a router (ip6_fragment).
  if (familyOf(packet.destination) === 6) sendIcmpError(run, bridge, packet, 'too big', mtuBytes);
  return [];
}
