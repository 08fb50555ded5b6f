/** A bridge: it learns where MAC addresses are and forwards frames between its ports (net/bridge/br_input.c, br_forward.c). */
import { findLink, getNetns } from '../model/host.ts';
import type { Ifname } from '../model/ifname.ts';
import type { BridgeLink, Link, LinkRef } from '../model/link.ts';
import { type Mac, isUnicastMac } from '../model/mac.ts';
import { enterBridge, passToPort } from './bridge-netfilter.ts';
import { type Classified, classify, ingressText, isMember, leaving } from './bridge-vlan.ts';
import { type Frame, SLACK_BYTES, isGroupMac, packetBytes } from './frame.ts';
import { passBridgeHook } from './netfilter.ts';
import { portsAt } from './ports.ts';
import type { DropReason } from './reason.ts';
import { type AddressedTo, type Run, drop, linkAt, note } from './run.ts';
import type { LookedUp } from './trace.ts';
import { type World, findLearnedPort, portForwards, withLearnedPort } from './world.ts';

/** Where a bridge takes a MAC address to be. */
interface FdbFound {
  /** Its own address or that of a port: the frame is for the bridge itself (K-6.1). */
  readonly local: boolean;
  /** Null: the bridge's own address, which is at no port. */
  readonly port: Ifname | null;
}

function findInFdb(
  world: World,
  at: LinkRef,
  bridge: BridgeLink,
  mac: Mac,
  vlan: number,
): FdbFound | undefined {
  // The addresses of ports and of the bridge are in the VLANs that they are members of (br_fdb.c, br_fdb_change_mac_address).
  const owner = portsAt(getNetns(world.host, at.netns), at.ifname)
    .byMac.get(mac)
    ?.find((port) => isMember(bridge, port, vlan));
  const isMissing = bridge.fdb?.missing.includes(mac) === true;
  if (owner && !isMissing) return { local: true, port: owner.ifname };
  if (bridge.mac === mac && !isMissing && isMember(bridge, null, vlan))
    return { local: true, port: null };
  const set = bridge.fdb?.entries.find((entry) => entry.mac === mac && entry.state === 'local');
  if (set) return { local: true, port: set.port };
  const port = findLearnedPort(world, at, mac, vlan);
  return port === undefined ? undefined : { local: false, port };
}

function lookedUp(mac: Mac, found: FdbFound | undefined): LookedUp {
  if (found === undefined) return { kind: 'fdb', mac, found: null };
  return {
    kind: 'fdb',
    mac,
    found: found.local || found.port === null ? 'local' : { port: found.port },
  };
}

/** Notes the source of a frame, also when it was seen elsewhere before, or set to be there; never an address for the bridge itself (K-6.1, K-6.2). */
function learn(
  run: Run,
  at: LinkRef,
  bridge: BridgeLink,
  port: Ifname,
  mac: Mac,
  vlan: number,
): string {
  const known = findInFdb(run.world, at, bridge, mac, vlan);
  if (known?.local === true) return '';
  const before = run.world;
  run.world = withLearnedPort(before, at, mac, vlan, port);
  if (known?.port === port || run.world === before) return '';
  return known === undefined
    ? `learns ${mac} on ${port}; `
    : `learns that ${mac} moved from ${known.port} to ${port}; `;
}

interface Refusal {
  readonly reason: DropReason;
  readonly text: string;
  readonly rule: string;
}

/** Why a frame may not leave by a port, or undefined (br_forward.c, should_deliver; K-6.3). `from` is null for the bridge's own frames. */
function refusal(
  run: Run,
  netns: string,
  bridge: BridgeLink,
  from: Link | null,
  to: Link,
  vlan: number,
): Refusal | undefined {
  if (from?.ifname === to.ifname && to.port?.hairpin !== true) {
    return {
      reason: 'BRIDGE_SAME_PORT',
      text: `${to.ifname} is where it came in, and no hairpin`,
      rule: 'K-6.3',
    };
  }
  if (!portForwards(run.world.host, { netns, ifname: to.ifname })) {
    const text = `port ${to.ifname} is down or has no carrier`;
    return { reason: 'BRIDGE_PORT_DOWN', text, rule: 'K-1.7' };
  }
  if (!isMember(bridge, to, vlan)) {
    const text = `port ${to.ifname} is no member of VLAN ${vlan}`;
    return { reason: 'BRIDGE_VLAN', text, rule: 'K-6.6' };
  }
  if (from?.port?.isolated === true && to.port?.isolated === true) {
    const text = `ports ${from.ifname} and ${to.ifname} are isolated`;
    return { reason: 'BRIDGE_ISOLATED', text, rule: 'K-6.3' };
  }
  return undefined;
}

function forwardTo(
  run: Run,
  at: LinkRef,
  bridge: BridgeLink,
  from: Link | null,
  to: Link,
  classified: Classified,
): void {
  const port = { netns: at.netns, ifname: to.ifname };
  const sent = leaving(bridge, to, classified);
  for (const frame of passToPort(run, at, from?.ifname ?? null, to.ifname, sent)) {
    const bytes = packetBytes(frame.packet);
    if (bytes <= to.mtuBytes + SLACK_BYTES) {
      run.queue.push({ step: 'transmit', at: port, frame });
    } else {
      // br_dev_queue_push_xmit, is_skb_forwardable.
      const text = `${bytes} bytes, and port ${to.ifname} has mtu ${to.mtuBytes}`;
      drop(run, at, 'bridge', frame, 'FRAME_TOO_BIG', text, { rule: 'K-6.4', about: port });
    }
  }
}

/** The ports that a flooded frame goes to; `flood` of a port is about unicast only (BR_FLOOD). */
function floodPorts(
  run: Run,
  at: LinkRef,
  bridge: BridgeLink,
  from: Link | null,
  { vlan, frame }: Classified,
): Link[] {
  const ports = portsAt(getNetns(run.world.host, at.netns), at.ifname).all;
  const wanted = isGroupMac(frame.destination)
    ? ports
    : ports.filter((port) => port.port?.flood === true);
  return wanted.filter((port) => refusal(run, at.netns, bridge, from, port, vlan) === undefined);
}

/** So many ports are named of those that a frame is flooded to. */
const NAMED = 8;

function names(ports: readonly Link[]): string {
  const named = ports.slice(0, NAMED).map((port) => port.ifname);
  const others = ports.length - named.length;
  return others === 0 ? named.join(', ') : `${named.join(', ')} and ${others} others`;
}

/** Sends a frame to one port that is known, or says why not. */
function unicast(
  run: Run,
  at: LinkRef,
  bridge: BridgeLink,
  from: Link | null,
  classified: Classified,
  found: FdbFound,
  learned: string,
): void {
  const { frame, vlan } = classified;
  const grounds = { rule: 'K-6.3', lookedUp: lookedUp(frame.destination, found) };
  const port =
    found.port === null
      ? undefined
      : findLink(run.world.host, { netns: at.netns, ifname: found.port });
  if (port === undefined) {
    drop(
      run,
      at,
      'bridge',
      frame,
      'NO_TX_TARGET',
      `${frame.destination} is the bridge itself`,
      grounds,
    );
    return;
  }
  const refused = refusal(run, at.netns, bridge, from, port, vlan);
  if (refused) {
    drop(run, at, 'bridge', frame, refused.reason, `${learned}${refused.text}`, {
      ...grounds,
      rule: refused.rule,
      about: { netns: at.netns, ifname: port.ifname },
    });
    return;
  }
  note(
    run,
    at,
    'bridge',
    frame,
    `${learned}${frame.destination} is on ${port.ifname}: forwards`,
    grounds,
  );
  forwardTo(run, at, bridge, from, port, classified);
}

/** The bridge sends a frame of its own netns (br_device.c, br_dev_xmit). */
export function bridgeSends(run: Run, at: LinkRef, bridge: BridgeLink, sent: Frame): void {
  const classified = classify(bridge, null, sent);
  if (!classified) {
    const text = ingressText(at.ifname, sent);
    drop(run, at, 'bridge', sent, 'BRIDGE_VLAN', text, { rule: 'K-6.6' });
    return;
  }
  const { frame, vlan } = classified;
  const isGroup = isGroupMac(frame.destination);
  const found = isGroup ? undefined : findInFdb(run.world, at, bridge, frame.destination, vlan);
  if (found) {
    unicast(run, at, bridge, null, classified, found, '');
    return;
  }
  const ports = floodPorts(run, at, bridge, null, classified);
  const grounds = isGroup
    ? { rule: 'K-6.3' }
    : { rule: 'K-6.3', lookedUp: lookedUp(frame.destination, undefined) };
  const why = isGroup ? 'for many' : `${frame.destination} is not known`;
  if (ports.length === 0) {
    drop(run, at, 'bridge', frame, 'NO_TX_TARGET', `${why}, and no port forwards`, grounds);
    return;
  }
  note(run, at, 'bridge', frame, `${why}: floods to ${names(ports)}`, grounds);
  for (const port of ports) forwardTo(run, at, bridge, null, port, classified);
}

/** The bridge of a port. */
function bridgeOf(run: Run, { netns }: LinkRef, { ifname, port }: Link): BridgeLink {
  const master = port === null ? null : linkAt(run, { netns, ifname: port.master });
  if (master?.kind !== 'bridge') throw new Error(`${ifname} is no port of a bridge`);
  return master;
}

/** A frame arrives at a port (br_input.c, br_handle_frame). */
export function bridgeReceives(run: Run, from: LinkRef, received: Frame, to: AddressedTo): void {
  const bridge = bridgeOf(run, from, linkAt(run, from));
  if (!isUnicastMac(received.source)) {
    const text = `${received.source} is no source address`;
    drop(run, from, 'bridge', received, 'MAC_INVALID_SOURCE', text);
    return;
  }
  if (!portForwards(run.world.host, from)) {
    const { ifname, up } = bridge;
    const text = up ? `port ${from.ifname} has no carrier` : `bridge ${ifname} is down`;
    drop(run, from, 'bridge', received, 'BRIDGE_INGRESS_STP_STATE', text, { rule: 'K-1.7' });
    return;
  }
  const at = { netns: from.netns, ifname: bridge.ifname };
  // What is for the bridge stays so for its netns, also where a rule has it go to somebody else (br_handle_frame).
  const seenAs = received.destination === bridge.mac ? 'us' : to;
  const entered = enterBridge(run, at, { port: from, frame: received, to: seenAs });
  if (entered) bridgePasses(run, from, entered, seenAs);
}

/** What a bridge overhears has no connection any more (br_netfilter_hooks.c, br_nf_local_in). */
function withoutConnection(frame: Frame): Frame {
  const { packet } = frame;
  if (packet.kind !== 'ip' || !packet.skb?.track) return frame;
  const { track: _, ...skb } = packet.skb;
  return { ...frame, packet: { ...packet, skb } };
}

/** The bridge of a port goes on with a frame that came in by it (br_handle_frame_finish). `seenAs`: what its destination MAC meant to the port. */
export function bridgePasses(run: Run, from: LinkRef, entered: Frame, seenAs: AddressedTo): void {
  const port = linkAt(run, from);
  const bridge = bridgeOf(run, from, port);
  const at = { netns: from.netns, ifname: bridge.ifname };
  const classified = classify(bridge, port, entered);
  if (!classified) {
    const text = ingressText(`port ${from.ifname}`, entered);
    drop(run, from, 'bridge', entered, 'BRIDGE_VLAN', text, { rule: 'K-6.6' });
    return;
  }
  const { frame, vlan } = classified;
  const learned = port.port?.learning
    ? learn(run, at, bridge, from.ifname, frame.source, vlan)
    : '';
  const to = frame.destination === bridge.mac ? 'us' : seenAs;
  const goUp = (isOverheard: boolean): void => {
    if (!isMember(bridge, null, vlan)) return;
    const passing = { hook: 'input', iif: from.ifname, oif: null } as const;
    if (!passBridgeHook(run, at, frame, passing)) return;
    const whole = leaving(bridge, null, classified);
    const up = isOverheard ? withoutConnection(whole) : whole;
    run.queue.push({ step: 'up', at, frame: up, to: up.tag === undefined ? to : 'other' });
  };
  const isGroup = isGroupMac(frame.destination);
  const found = isGroup ? undefined : findInFdb(run.world, at, bridge, frame.destination, vlan);
  if (found?.local === true) {
    note(run, at, 'bridge', frame, `${learned}${frame.destination} is its own: goes up`, {
      rule: 'K-6.1',
      lookedUp: lookedUp(frame.destination, found),
    });
    goUp(false);
    return;
  }
  // A promiscuous bridge sees everything; its netns then drops what is for others.
  if (isGroup || bridge.promiscuous) goUp(bridge.promiscuous);
  if (found) {
    unicast(run, at, bridge, port, classified, found, learned);
    return;
  }
  const ports = floodPorts(run, at, bridge, port, classified);
  const grounds = isGroup
    ? { rule: 'K-6.3' }
    : { rule: 'K-6.3', lookedUp: lookedUp(frame.destination, undefined) };
  const why = isGroup ? 'for many: goes up' : `${frame.destination} is not known`;
  if (ports.length > 0) {
    note(
      run,
      at,
      'bridge',
      frame,
      `${learned}${why}${isGroup ? ', and' : ':'} floods to ${names(ports)}`,
      grounds,
    );
    for (const each of ports) forwardTo(run, at, bridge, port, each, classified);
  } else if (isGroup) {
    note(run, at, 'bridge', frame, `${learned}${why}, no other port`, grounds);
  } else {
    drop(
      run,
      at,
      'bridge',
      frame,
      'NO_TX_TARGET',
      `${learned}${why}, and no other port forwards`,
      grounds,
    );
  }
}
