/** Links that let no packet through, or not this one. */
import { type Host, findLink, getNetns, portsOf } from '../../model/host.ts';
import type { LinkRef } from '../../model/link.ts';
import { linkDown, within } from '../cause.ts';
import type { DropReason } from '../reason.ts';
import { formatRoute } from '../route.ts';
import type { LookedUp } from '../trace.ts';
import type { Blame } from './blame.ts';

/** Why a link sends nothing: it is down, or what it gets its carrier from is. */
export function ofSilence(host: Host, at: LinkRef, text: string): Blame {
  const link = findLink(host, at);
  const object = `link ${at.ifname}`;
  if (!link?.up) return linkDown(at);
  if (text.includes('token bucket'))
    return {
      object: `qdisc of link ${at.ifname}`,
      text: 'lets no packet of this size through its token bucket',
      mend: [],
    };
  if (link.kind === 'veth' && link.peer) {
    const peer = findLink(host, link.peer);
    if (peer && !peer.up) return linkDown(link.peer);
  }
  if (link.kind === 'macvlan' && link.lower) return ofSilence(host, link.lower, text);
  const what = link.kind === 'bridge' ? 'has no port that is up and has carrier' : 'has no carrier';
  return { object, text: what, mend: [] };
}

/** The largest MTU of what a link exchanges frames with at once: the far end of a veth, the ports of a bridge. */
function mtuBeside(host: Host, at: LinkRef): number {
  const link = findLink(host, at);
  const peer = link?.kind === 'veth' && link.peer ? findLink(host, link.peer) : undefined;
  const ports = link?.kind === 'bridge' ? portsOf(getNetns(host, at.netns), at.ifname) : [];
  return Math.max(peer?.mtuBytes ?? 0, ...ports.map(({ mtuBytes }) => mtuBytes));
}

/** A link, or a route, whose MTU the packet does not fit. */
export function ofMtu(
  host: Host,
  at: LinkRef,
  text: string,
  lookedUp: LookedUp | undefined,
): Blame {
  const mtuBytes = findLink(host, at)?.mtuBytes;
  const bytes = /^(\d+) bytes/.exec(text)?.[1] ?? '';
  const { netns, ifname } = at;
  const route = lookedUp?.kind === 'route' ? lookedUp.found : null;
  if (route?.mtuBytes !== undefined)
    return {
      netns,
      object: `route ${formatRoute(route)}`,
      text: `has an MTU of ${route.mtuBytes}, and the packet has ${bytes} bytes`,
      mend: [],
    };
  // Into a vxlan's packets less may fit than its MTU says.
  const room = /there is room for (\d+)$/.exec(text)?.[1];
  const limit = room === undefined ? '' : `, with room for ${room} in its packets`;
  return {
    netns,
    object: `link ${ifname}`,
    text: `has an MTU of ${mtuBytes}${limit}, and the packet has ${bytes} bytes`,
    mend: [
      within(
        netns,
        `ip link set ${ifname} mtu ${room ?? Math.max(Number(bytes), mtuBeside(host, at))}`,
      ),
    ],
  };
}

/** A port of a bridge that does not take the frame. */
export function ofPort(host: Host, at: LinkRef, reason: DropReason, text: string): Blame {
  const { netns, ifname } = at;
  const object = `bridge port ${ifname}`;
  if (reason === 'BRIDGE_ISOLATED')
    return {
      netns,
      object,
      text: 'is isolated, as is the port that the frame came in by',
      mend: [within(netns, `bridge link set dev ${ifname} isolated off`)],
    };
  if (reason === 'BRIDGE_SAME_PORT')
    return {
      netns,
      object,
      text: 'is where the frame came in, and no hairpin',
      mend: [within(netns, `bridge link set dev ${ifname} hairpin on`)],
    };
  if (reason === 'BRIDGE_VLAN')
    return { netns, object, text: `does not pass the frame on: ${text}`, mend: [] };
  return { netns, ...ofSilence(host, at, text) };
}
