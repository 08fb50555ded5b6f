/** The way up: what a netns does with a frame for one of its links (net/ipv4/ip_input.c, ip_forward.c, net/ipv6/ip6_input.c). */
import { hasIpv6 } from '../model/connected.ts';
import { familyOf } from '../model/ip.ts';
import type { LinkRef } from '../model/link.ts';
import type { Route } from '../model/route.ts';
import { receiveArp } from './arp.ts';
import { deliver } from './deliver.ts';
import { type Frame, type IpPacket, isMulticast, isNeighbourMessage } from './frame.ts';
import { sendIcmpError } from './icmp-error.ts';
import { receiveNd } from './nd.ts';
import { passHook, passLinkHook } from './netfilter.ts';
import { isRefusedBySize, sendByRoute } from './output.ts';
import { forgetSizes } from './reassembly.ts';
import { formatRoute, routeInput } from './route.ts';
import { type AddressedTo, type Run, drop, leave, linkAt, netnsOf, note, noteFork } from './run.ts';

function forward(run: Run, at: LinkRef, packet: IpPacket, route: Route): void {
  const lookedUp = { kind: 'route', destination: packet.destination, found: route } as const;
  if (packet.ttl <= 1) {
    drop(run, at, 'forward', packet, 'IP_INHDR', `the TTL is used up`, { rule: 'K-7.7', lookedUp });
    sendIcmpError(run, at, packet, 'time exceeded');
    return;
  }
  const [iif, oif] = [at.ifname, route.device];
  noteFork(run, at, packet, route);
  if (oif !== null && isRefusedBySize(run, { netns: at.netns, ifname: oif }, packet, route, iif))
    return;
  const aged = { ...packet, ttl: packet.ttl - 1 };
  note(run, at, 'forward', aged, `${formatRoute(route)}, ttl ${aged.ttl}`, {
    rule: 'K-7.6',
    lookedUp,
  });
  const passed = passHook(run, at, aged, { hook: 'forward', iif, oif });
  if (passed && oif !== null)
    sendByRoute(run, { netns: at.netns, ifname: oif }, route, passed, iif);
}

function receiveIp(run: Run, at: LinkRef, frame: Frame, came: IpPacket, to: AddressedTo): void {
  const netns = netnsOf(run, at.netns);
  const link = linkAt(run, at);
  if (familyOf(came.destination) === 6 && !hasIpv6(netns, link)) {
    drop(run, at, 'receive', frame, 'IPV6DISABLED', `IPv6 is off on ${at.ifname}`, {
      rule: 'K-4.3',
    });
    return;
  }
  const { message } = came;
  if (isNeighbourMessage(message)) {
    receiveNd(run, at, frame, came, message);
    return;
  }
  if (isMulticast(came.destination)) {
    leave(run, at, 'receive', came, 'IP multicast is not modelled yet');
    return;
  }
  const packet = came.skb?.prerouted
    ? forgetSizes(came)
    : passHook(run, at, came, { hook: 'prerouting', iif: at.ifname, oif: null });
  if (!packet) return;
  // What comes back through loopback keeps the route it was sent with.
  if (link.kind === 'loopback') {
    deliver(run, at, packet, null);
    return;
  }
  const { source, destination, skb } = packet;
  const answer = routeInput(netns, at.ifname, source, destination, skb?.mark);
  if (answer.kind === 'unknown') {
    leave(run, at, 'route', packet, answer.text);
  } else if (answer.kind === 'drop') {
    const lookedUp = { kind: 'route', destination: packet.destination, found: null } as const;
    drop(run, at, 'route', packet, answer.reason, answer.text, { rule: answer.rule, lookedUp });
    if (answer.error !== undefined && to === 'us') sendIcmpError(run, at, packet, answer.error);
  } else if (answer.kind === 'broadcast') {
    drop(
      run,
      at,
      'deliver',
      packet,
      'INVALID_PROTO',
      `${packet.destination} is a broadcast address here`,
      { lookedUp: { kind: 'route', destination, found: answer.route } },
    );
  } else if (answer.kind === 'local') {
    deliver(run, at, packet, answer.route);
  } else if (to === 'us') {
    forward(run, at, packet, answer.route);
  } else {
    drop(
      run,
      at,
      'forward',
      packet,
      'UNICAST_IN_L2_MULTICAST',
      'only frames for this link are forwarded',
    );
  }
}

/** A frame reaches the protocols of a netns. */
export function receiveUp(run: Run, at: LinkRef, frame: Frame, to: AddressedTo): void {
  const { packet } = frame;
  // What a bridge gives up comes in by the bridge itself now (br_pass_frame_up).
  if (linkAt(run, at).kind === 'bridge') passLinkHook(run, at, frame, 'ingress');
  if (to === 'other') {
    const mac = linkAt(run, at).mac ?? 'without a MAC address';
    const what =
      frame.tag === undefined
        ? `the frame is for ${frame.destination}, ${at.ifname} is ${mac}`
        : `the frame has the tag of VLAN ${frame.tag}, for which ${at.netns} has no link`;
    const lookedUp = { kind: 'own mac', mac: frame.destination, found: null } as const;
    drop(run, at, 'receive', frame, 'OTHERHOST', what, frame.tag === undefined ? { lookedUp } : {});
  } else if (packet.kind === 'arp') {
    receiveArp(run, at, frame, packet);
  } else {
    receiveIp(run, at, frame, packet, to);
  }
}
