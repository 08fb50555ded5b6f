/** ARP: asking who has an IPv4 address, and answering (net/ipv4/arp.c). */
import { connectedPrefix } from '../model/connected.ts';
import type { Netns } from '../model/host.ts';
import type { Ifname } from '../model/ifname.ts';
import type { Ip } from '../model/ip.ts';
import type { LinkRef } from '../model/link.ts';
import { type Mac, ZERO_MAC } from '../model/mac.ts';
import { prefixContains } from '../model/prefix.ts';
import { OWN_PACKETS, localType, lookupSurely } from '../model/route-lookup.ts';
import { type Arp, BROADCAST_MAC, type Frame, type IpPacket, isUnspecified } from './frame.ts';
import type { Heard } from './neighbour-state.ts';
import { isNeighbour, learnNeighbour, sendTo, timingOf } from './neighbour.ts';
import { passArpHook } from './netfilter.ts';
import { leadsBy } from './next-hop.ts';
import {
  type UnknownRoute,
  findInput,
  forwards,
  isSwitchedOn,
  strictest,
  unknownRoute,
} from './route.ts';
import { type Run, leave, linkAt, netnsOf, note } from './run.ts';
import { UNSPECIFIED, selectIpv4 } from './source.ts';
import { findNeighbourEntry } from './world.ts';

/**
 * The question where `target` is: in the name of the source of the packet that waits for it, where that is an own address
 * (arp_solicit, arp_announce 0). `knownMac`: whether it is still there, where it was; else everybody is asked.
 */
export function arpQuestion(
  run: Run,
  at: LinkRef,
  target: Ip,
  packet: IpPacket | null,
  knownMac: Mac | null = null,
): Frame {
  const netns = netnsOf(run, at.netns);
  const isOwn = packet !== null && localType(netns, packet.source) === 'local';
  const senderIp = isOwn
    ? packet.source
    : (selectIpv4(netns, at.ifname, target, 'link') ?? UNSPECIFIED[4]);
  const source = linkAt(run, at).mac ?? ZERO_MAC;
  const arp: Arp = {
    kind: 'arp',
    operation: 'request',
    senderMac: source,
    senderIp,
    targetIp: target,
  };
  return { kind: 'frame', source, destination: knownMac ?? BROADCAST_MAC, packet: arp };
}

/** Why arp_ignore or arp_filter keeps an own address from being answered for, or may; undefined where none does (K-7.1). */
function silence(netns: Netns, device: Ifname, arp: Arp): string | UnknownRoute | undefined {
  const ignore = strictest(netns, device, 'arp_ignore');
  const here =
    netns.links[device]?.addresses.filter((address) => address.ip === arp.targetIp) ?? [];
  if (ignore === 8) return 'arp_ignore is 8';
  if ((ignore === 1 || ignore === 2) && here.length === 0)
    return `arp_ignore is ${ignore}, and the address is not on ${device}`;
  if (
    ignore === 2 &&
    !here.some((address) => prefixContains(connectedPrefix(address), arp.senderIp))
  ) {
    return 'arp_ignore is 2, and the sender is not in the subnet';
  }
  if (!isSwitchedOn(netns, device, 'arp_filter')) return undefined;
  const back = lookupSurely(netns, arp.senderIp, { ...OWN_PACKETS, source: arp.targetIp });
  if (back && 'doubtful' in back) return unknownRoute(back);
  return back && leadsBy(back, device)
    ? undefined
    : `arp_filter is on, and the route to ${arp.senderIp} is by another link`;
}

/** Does the netns answer a request, and why (not)? Weak host: any own address counts, on any link (arp_process, K-7.1, K-7.2). */
function answer(
  netns: Netns,
  device: Ifname,
  arp: Arp,
): { readonly answers: boolean | 'unknown'; readonly text: string; readonly rule: string } {
  const { senderIp, targetIp } = arp;
  // Nobody's address as the sender is a probe for duplicates, which no route is looked up for.
  const route = isUnspecified(senderIp) ? undefined : findInput(netns, device, senderIp, targetIp);
  const isProxying = forwards(netns, 4, device) && isSwitchedOn(netns, device, 'proxy_arp');
  const isOwn = localType(netns, targetIp) === 'local';
  if (route?.kind === 'unknown' && (isOwn || isProxying))
    return { answers: 'unknown', text: route.text, rule: 'K-7.1' };
  const isLocal = route === undefined ? isOwn : route.kind === 'local';
  if (isLocal) {
    const silent = silence(netns, device, arp);
    if (typeof silent === 'object') return { answers: 'unknown', text: silent.text, rule: 'K-7.1' };
    return {
      answers: silent === undefined,
      text: silent ?? `${targetIp} is its own`,
      rule: 'K-7.1',
    };
  }
  if (route?.kind === 'forward' && isProxying && route.route.device !== device) {
    return {
      answers: true,
      text: `proxy_arp is on, and ${targetIp} is behind ${route.route.device}`,
      rule: 'K-7.2',
    };
  }
  const other =
    route?.kind === 'drop' && route.reason !== 'IP_INADDRERRORS'
      ? route.text
      : `${targetIp} is not its own`;
  return { answers: false, text: other, rule: 'K-7.1' };
}

/** What a packet of ARP says of where its sender is. One that says where itself is replaces what was said a moment ago too (arp_process). */
function heardFrom(run: Run, at: LinkRef, frame: Frame, arp: Arp): Heard {
  const { senderIp, senderMac, targetIp, operation } = arp;
  const isAnswer = operation === 'reply' && frame.destination === linkAt(run, at).mac;
  const known = findNeighbourEntry(run.world, at, senderIp);
  const { locktimeMs } = timingOf(run, at, senderIp);
  const isLocked = known !== undefined && run.world.nowMs <= known.updatedMs + locktimeMs;
  return {
    mac: senderMac,
    isCertain: isAnswer,
    overrides: !isLocked || (operation === 'request' && senderIp === targetIp),
  };
}

function receiveRequest(run: Run, at: LinkRef, frame: Frame, arp: Arp): void {
  const netns = netnsOf(run, at.netns);
  const { answers, text, rule } = answer(netns, at.ifname, arp);
  if (answers === 'unknown') {
    leave(run, at, 'arp', frame, text);
    return;
  }
  if (!answers) {
    const known = isNeighbour(run, at, arp.senderIp)
      ? `; ${learnNeighbour(run, at, arp.senderIp, heardFrom(run, at, frame, arp))}`
      : '';
    note(run, at, 'arp', frame, `${text}: no answer${known}`, { rule });
    return;
  }
  // neigh_event_ns
  const heard = { mac: arp.senderMac, isCertain: false, overrides: true } as const;
  const learned = isUnspecified(arp.senderIp)
    ? ''
    : `; ${learnNeighbour(run, at, arp.senderIp, heard)}`;
  note(run, at, 'arp', frame, `${text}: answers${learned}`, { rule });
  const senderMac = linkAt(run, at).mac ?? ZERO_MAC;
  const reply: Arp = {
    kind: 'arp',
    operation: 'reply',
    senderMac,
    senderIp: arp.targetIp,
    targetIp: arp.senderIp,
  };
  passArpHook(run, at, reply, 'output');
  sendTo(run, at, reply, arp.senderMac);
}

/** An ARP packet that is not for another MAC address arrives. */
export function receiveArp(run: Run, at: LinkRef, frame: Frame, arp: Arp): void {
  passArpHook(run, at, arp, 'input');
  const { senderIp } = arp;
  const grounds = { rule: 'K-7.3' } as const;
  if (arp.operation === 'request') {
    receiveRequest(run, at, frame, arp);
  } else if (isNeighbour(run, at, senderIp)) {
    const learned = learnNeighbour(run, at, senderIp, heardFrom(run, at, frame, arp));
    note(run, at, 'arp', frame, learned, grounds);
  } else {
    note(run, at, 'arp', frame, `nobody asked for ${senderIp}: ignored`, grounds);
  }
}
