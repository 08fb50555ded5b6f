/** An answer that a bridge hands on as it is, so that whoever asked a translated address does not know it. */
import { type Host, type NetnsName, findLink, getNetns, withNetns } from '../../model/host.ts';
import { familyOf } from '../../model/ip.ts';
import type { LinkRef } from '../../model/link.ts';
import { sysctl, within } from '../cause.ts';
import { type IpPacket, innermost, isAnswer, isProbeMessage } from '../frame.ts';
import { looksAtBridged } from '../netfilter.ts';
import { outcomeOf } from '../probe.ts';
import type { Hop } from '../trace.ts';
import type { Blame, Inquiry } from './blame.ts';

function packetOf({ data }: Hop): IpPacket | undefined {
  const packet = innermost(data.kind === 'frame' ? data.packet : data);
  return packet.kind === 'ip' ? packet : undefined;
}

/** The bridge by which the answer came from whom was really asked, in a netns that had sent the question there. */
function findBridge({ hops, request, world }: Inquiry): LinkRef | undefined {
  const translating = hops
    .filter((hop) => {
      const packet = packetOf(hop);
      return (
        hop.stage === 'netfilter' &&
        packet !== undefined &&
        !(isProbeMessage(packet.message) && isAnswer(packet.message)) &&
        packet.destination !== request.destination
      );
    })
    .map(({ netns }) => netns);
  const bridged = hops.find((hop) => {
    const packet = packetOf(hop);
    return (
      packet !== undefined &&
      isProbeMessage(packet.message) &&
      isAnswer(packet.message) &&
      hop.link !== null &&
      translating.includes(hop.netns) &&
      findLink(world.host, { netns: hop.netns, ifname: hop.link })?.kind === 'bridge'
    );
  });
  return bridged && bridged.link !== null
    ? { netns: bridged.netns, ifname: bridged.link }
    : undefined;
}

function withSetting(host: Host, netns: NetnsName, key: string): Host {
  const state = getNetns(host, netns);
  return withNetns(host, netns, { ...state, sysctls: { ...state.sysctls, [key]: '1' } });
}

/** The setting by which a bridge would have had the answer translated back, as the same packet shows with it; undefined where it would not. */
export function ofUntranslatedAnswer(inquiry: Inquiry): Blame | undefined {
  const { world, request } = inquiry;
  const bridge = findBridge(inquiry);
  if (!bridge) return undefined;
  const { netns, ifname } = bridge;
  const state = getNetns(world.host, netns);
  const family = familyOf(request.destination);
  if (looksAtBridged(state, family)) return undefined;
  const key = `net/bridge/bridge-nf-call-${family === 4 ? 'iptables' : 'ip6tables'}`;
  const host = withSetting(world.host, netns, key);
  if (outcomeOf({ ...world, host }, request).verdict.kind !== 'delivered') return undefined;
  const blame = sysctl(
    netns,
    key,
    '1',
    `is ${state.sysctls[key] ?? 'not there'}, so that bridge ${ifname} hands the answer on without translating it back: it does not come from ${request.destination}, which was asked`,
  );
  // The module makes it, with 1 (net/bridge/br_netfilter_hooks.c).
  const load = key in state.sysctls ? [] : [within(netns, 'modprobe br_netfilter')];
  return { ...blame, mend: [...load, ...blame.mend] };
}
