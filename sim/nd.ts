/** Neighbour discovery: asking who has an IPv6 address, and answering (net/ipv6/ndisc.c). */
import { type Ip, ipBits, ipFromBits, parseIp } from '../model/ip.ts';
import type { LinkRef } from '../model/link.ts';
import { type Mac, ZERO_MAC } from '../model/mac.ts';
import {
  type Advertisement,
  type Frame,
  type IpPacket,
  type NeighbourMessage,
  type Solicitation,
  isLinkLocal,
  isMulticast,
  multicastMac,
} from './frame.ts';
import type { Heard } from './neighbour-state.ts';
import { isNeighbour, learnNeighbour, sendTo, useNeighbour, waitingFor } from './neighbour.ts';
import { passHooks, unrouted } from './netfilter.ts';
import { type Run, linkAt, netnsOf, note } from './run.ts';
import { isUsable } from './source.ts';
import { findNeighbourEntry } from './world.ts';

const SOLICITED_NODE_BITS = ipBits(parseIp('ff02::1:ff00:0'));

/** The group that an address's owner listens to (RFC 4291 §2.7.1). */
function solicitedNode(ip: Ip): Ip {
  return ipFromBits(6, SOLICITED_NODE_BITS | (ipBits(ip) & 0xffffffn));
}

/**
 * The question where `target` is: in the name of the source of the packet that waits for it, where that is an address of
 * the link, else of the link's link-local address. Undefined when it has none: then nothing is asked. `knownMac`: whether it
 * is still there, where it was; else everybody is asked (ndisc_solicit).
 */
export function ndQuestion(
  run: Run,
  at: LinkRef,
  target: Ip,
  packet: IpPacket | null,
  knownMac: Mac | null = null,
): Frame | undefined {
  const link = linkAt(run, at);
  const usable = link.addresses.filter(isUsable);
  const own =
    usable.find((address) => address.ip === packet?.source) ??
    usable.find((address) => isLinkLocal(address.ip));
  if (own === undefined) return undefined;
  const mac = link.mac ?? ZERO_MAC;
  const destination = knownMac === null ? solicitedNode(target) : target;
  const message: Solicitation = { kind: 'solicitation', target, mac };
  const question: IpPacket = {
    kind: 'ip',
    source: own.ip,
    destination,
    ttl: 255,
    dontFragment: false,
    message,
  };
  return {
    kind: 'frame',
    source: mac,
    destination: knownMac ?? multicastMac(destination),
    packet: question,
  };
}

function receiveSolicitation(
  run: Run,
  at: LinkRef,
  frame: Frame,
  packet: IpPacket,
  message: Solicitation,
): void {
  const link = linkAt(run, at);
  const { target } = message;
  // Unlike IPv4, only addresses of this very link count; anycast ones among them.
  const isAnycast = netnsOf(run, at.netns).routes.some(
    (route) =>
      route.type === 'anycast' &&
      route.device === at.ifname &&
      route.destination === `${target}/128`,
  );
  const isOwn = link.addresses.some((address) => address.ip === target && isUsable(address));
  if (!isOwn && !isAnycast) {
    note(run, at, 'nd', frame, `${target} is not an address of ${at.ifname}: no answer`, {
      rule: 'K-7.1',
    });
    return;
  }
  const heard = { mac: message.mac, isCertain: false, overrides: true } as const;
  const learned = learnNeighbour(run, at, packet.source, heard);
  note(run, at, 'nd', frame, `${target} is its own: answers; ${learned}`, { rule: 'K-7.1' });
  const mac = link.mac ?? ZERO_MAC;
  const reply: IpPacket = {
    kind: 'ip',
    source: target,
    destination: packet.source,
    ttl: 255,
    dontFragment: false,
    message: {
      kind: 'advertisement',
      target,
      mac,
      isSolicited: true,
      overrides: isOwn && isMulticast(packet.destination),
    },
  };
  const passed = passHooks(run, at, reply, unrouted(at.ifname));
  // It goes to whoever asks by what is known of that one, be it wrong, and set for good (ndisc_send_na); of ARP to the MAC that asked.
  if (passed) sendTo(run, at, passed, useNeighbour(run, at, packet.source) ?? message.mac);
}

/** A neighbour message arrives that is not for another MAC address. */
export function receiveNd(
  run: Run,
  at: LinkRef,
  frame: Frame,
  packet: IpPacket,
  message: NeighbourMessage,
): void {
  const [iif, oif] = [at.ifname, null];
  const hooks = [
    { hook: 'prerouting', iif, oif },
    { hook: 'input', iif, oif },
  ] as const;
  if (!passHooks(run, at, packet, hooks)) return;
  if (message.kind === 'solicitation') receiveSolicitation(run, at, frame, packet, message);
  else receiveAdvertisement(run, at, frame, message);
}

function receiveAdvertisement(
  run: Run,
  at: LinkRef,
  frame: Frame,
  { target, mac, isSolicited, overrides }: Advertisement,
): void {
  const grounds = { rule: 'K-7.3' } as const;
  const hasFailed = findNeighbourEntry(run.world, at, target)?.state === 'failed';
  const isAsked = waitingFor(run, at, target) !== undefined;
  // Who was asked for in vain is asked for again before it is believed (ndisc_recv_na).
  if (!isAsked && (hasFailed || !isNeighbour(run, at, target))) {
    note(run, at, 'nd', frame, `nobody asked for ${target}: ignored`, grounds);
    return;
  }
  const heard: Heard = { mac, isCertain: isSolicited, overrides: overrides ? true : 'weakly' };
  note(run, at, 'nd', frame, learnNeighbour(run, at, target, heard), grounds);
}
