/** A sender whose link ends where nothing takes its frames for the bridge that its gateway is. */
import { type Host, findLink, getLink, getNetns } from '../../model/host.ts';
import type { Ip } from '../../model/ip.ts';
import type { LinkRef } from '../../model/link.ts';
import { applyOp } from '../../model/ops.ts';
import { prefixIp } from '../../model/prefix.ts';
import { within } from '../cause.ts';
import { isLinkLocal } from '../frame.ts';
import { outcomeOf } from '../probe.ts';
import type { Blame, Inquiry } from './blame.ts';

/** Is something done with what comes in by a link, be it by a bridge, by routing or by traffic control? */
export function isTakenIn(host: Host, at: LinkRef): boolean {
  const link = getLink(host, at);
  return (
    link.port !== null ||
    link.addresses.some(({ scope }) => scope === 'global') ||
    link.uppers !== undefined ||
    link.trafficControl?.ingress?.redirect !== undefined ||
    getNetns(host, at.netns).routes.some(
      ({ device, type, destination }) =>
        device === at.ifname && type === 'unicast' && !isLinkLocal(prefixIp(destination)),
    )
  );
}

interface LostPort {
  readonly end: LinkRef;
  readonly bridge: LinkRef;
  readonly gateway: Ip;
}

/** A bare far end of a veth, beside a bridge that has the address of the near end's gateway. */
function findLostPort(host: Host, at: LinkRef): LostPort | undefined {
  const link = findLink(host, at);
  if (link?.kind !== 'veth' || !link.peer || !findLink(host, link.peer)) return undefined;
  const end = link.peer;
  if (end.netns === at.netns || isTakenIn(host, end)) return undefined;
  const bridges = Object.values(getNetns(host, end.netns).links).filter(
    ({ kind }) => kind === 'bridge',
  );
  for (const { gateway, device } of getNetns(host, at.netns).routes) {
    if (gateway === null || device !== at.ifname) continue;
    const bridge = bridges.find(({ addresses }) => addresses.some(({ ip }) => ip === gateway));
    if (bridge) return { end, bridge: { netns: end.netns, ifname: bridge.ifname }, gateway };
  }
  return undefined;
}

/** The end of the sender's link that is no port of its gateway's bridge, where the same packet is not lost with it as one. */
export function ofLostPort({ world, request, hops }: Inquiry): Blame | undefined {
  const { netns } = request;
  const ifname = hops.find((hop) => hop.netns === netns && hop.link !== null)?.link ?? undefined;
  const lost = ifname === undefined ? undefined : findLostPort(world.host, { netns, ifname });
  if (!lost) return undefined;
  const { end, bridge, gateway } = lost;
  const mended = applyOp(world.host, {
    op: 'link.set',
    ...end,
    set: { master: bridge.ifname },
  });
  if (!mended.ok) return undefined;
  const { verdict } = outcomeOf({ ...world, host: mended.host }, request);
  if (verdict.kind === 'dropped') return undefined;
  return {
    netns: end.netns,
    object: `link ${end.ifname}`,
    text: `is no port of bridge ${bridge.ifname}, which has the address of the gateway of netns ${netns}, ${gateway}`,
    mend: [within(end.netns, `ip link set ${end.ifname} master ${bridge.ifname}`)],
  };
}
