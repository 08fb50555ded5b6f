/** Joining and leaving a bridge, which both link.add and link.set do (net/bridge/br_if.c, br_add_if and br_del_if). */
import { type Host, findLink, getLink, getNetns, portsOf, withLink } from '../host.ts';
import type { Ifname } from '../ifname.ts';
import type { BridgeLink, BridgePort, LinkRef } from '../link.ts';
import { claimMac, followMaster, settleCarrier } from '../netdev.ts';
import { type Outcome, done, refuse } from '../op.ts';
import { lowerOf, macvlansOver } from '../upper.ts';
import { joiningVlans } from '../vlan.ts';

/** How a port starts. */
export function freshPort(master: Ifname, { vlans }: Pick<BridgeLink, 'vlans'> = {}): BridgePort {
  return {
    master,
    hairpin: false,
    isolated: false,
    learning: true,
    flood: true,
    ...(vlans ? { vlans: joiningVlans(vlans) } : {}),
  };
}

function release(before: Host, ref: LinkRef): Host {
  const link = getLink(before, ref);
  if (link.port === null) return before;
  const { master } = link.port;
  const host = followMaster(
    withLink(before, ref.netns, { ...link, port: null }),
    ref.netns,
    master,
    before,
  );
  return settleCarrier(before, host, { netns: ref.netns, ifname: master });
}

/** The links that one is made of: the ports of a bridge, and what a macvlan or a vxlan is over. */
function lowersOf(host: Host, { netns, ifname }: LinkRef): LinkRef[] {
  const link = findLink(host, { netns, ifname });
  if (!link) return [];
  if (link.kind !== 'bridge') return [lowerOf(link) ?? []].flat();
  return portsOf(getNetns(host, netns), ifname).map((port) => ({ netns, ifname: port.ifname }));
}

/** Is a link made of another, through however many between? */
function isAbove(host: Host, ref: LinkRef, other: LinkRef): boolean {
  return lowersOf(host, ref).some(
    (lower) =>
      (lower.netns === other.netns && lower.ifname === other.ifname) || isAbove(host, lower, other),
  );
}

/** Makes a link a port of `master`, or of none; a port of another bridge moves (K-1.14). */
export function enslave(before: Host, ref: LinkRef, master: Ifname | null): Outcome {
  const link = getLink(before, ref);
  if (master === null) return done(release(before, ref));
  const bridge = findLink(before, { netns: ref.netns, ifname: master });
  if (bridge === undefined) return refuse('ENODEV');
  if (bridge.kind !== 'bridge') return refuse('EOPNOTSUPP');
  if (link.port?.master === master) return done(before);
  if (link.kind === 'bridge') return refuse('ELOOP', 'Can not enslave a bridge to a bridge');
  if (link.kind === 'loopback') return refuse('EINVAL');
  // One taker only can there be of what comes in by a link (K-1.18; net/core/dev.c, netdev_rx_handler_register).
  if (macvlansOver(before, ref).length > 0) return refuse('EBUSY');
  // net/core/dev.c, __netdev_upper_dev_link.
  if (isAbove(before, ref, { ...ref, ifname: master })) return refuse('EBUSY');
  const released = release(before, ref);
  const joined = withLink(released, ref.netns, {
    ...getLink(released, ref),
    port: freshPort(master, bridge),
  });
  return done(settleCarrier(released, followJoined(joined, ref, bridge), ref));
}

/** A bridge after a link has become a port of it. */
export function followJoined(
  host: Host,
  ref: LinkRef,
  { ifname, hadPorts }: Pick<BridgeLink, 'ifname' | 'hadPorts'>,
): Host {
  const { netns } = ref;
  const bridge = getLink(host, { netns, ifname });
  const known =
    hadPorts || bridge.kind !== 'bridge'
      ? host
      : withLink(host, netns, { ...bridge, hadPorts: true });
  return followMaster(claimMac(known, netns, ifname, getLink(host, ref).mac), netns, ifname);
}
