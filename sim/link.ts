/** What links do with frames: where one goes that a link sends, and whom one is for that a link receives. */
import { hasCarrier } from '../model/carrier.ts';
import { findLink } from '../model/host.ts';
import type { Ifname } from '../model/ifname.ts';
import type { Link, LinkRef } from '../model/link.ts';
import { bridgeReceives, bridgeSends } from './bridge.ts';
import {
  BROADCAST_MAC,
  type Frame,
  SLACK_BYTES,
  isGroupMac,
  packetBytes,
  scrubbed,
} from './frame.ts';
import { passLinkHook } from './netfilter.ts';
import { type AddressedTo, type Run, drop, leave, leaveHost, linkAt, note } from './run.ts';
import { sendVxlan } from './vxlan.ts';

/** What a frame has before its packet. */
const HEADER_BYTES = 14;

function sendVeth(run: Run, at: LinkRef, link: Link & { kind: 'veth' }, frame: Frame): void {
  const peer = link.peer === null ? undefined : findLink(run.world.host, link.peer);
  if (link.peer === null || peer === undefined) {
    leave(run, at, 'transmit', frame, 'the other end is in a netns that was not looked at');
    return;
  }
  const bytes = packetBytes(frame.packet);
  if (bytes > peer.mtuBytes + SLACK_BYTES) {
    const text = `${bytes} bytes, and ${peer.ifname} in ${link.peer.netns} has mtu ${peer.mtuBytes}`;
    drop(run, at, 'transmit', frame, 'FRAME_TOO_BIG', text, { rule: 'K-6.4', about: link.peer });
    return;
  }
  const where = link.peer.netns === at.netns ? '' : ` in ${link.peer.netns}`;
  note(
    run,
    at,
    'transmit',
    frame,
    `to ${frame.destination}, through the veth to ${peer.ifname}${where}`,
  );
  const { packet } = frame;
  // Whatever was beside it stays behind (net/core/dev.c, ____dev_forward_skb; skbuff.c, skb_scrub_packet).
  const bare = packet.kind === 'ip' ? scrubbed(packet, link.peer.netns === at.netns) : packet;
  const received = bare === packet ? frame : { ...frame, packet: bare };
  run.queue.push({ step: 'receive', at: link.peer, frame: received });
}

/** Is a frame longer than all that the link's token bucket ever lets go at once (net/sched/sch_tbf.c, tbf_enqueue)? */
function isTooLong({ trafficControl }: Link, frame: Frame): boolean {
  const root = trafficControl?.root;
  return root?.kind === 'tbf' && packetBytes(frame.packet) + HEADER_BYTES > root.burstBytes;
}

/** A link sends a frame (dev_queue_xmit and the driver of its kind). */
export function transmit(run: Run, at: LinkRef, frame: Frame): void {
  const link = linkAt(run, at);
  passLinkHook(run, at, frame, 'egress');
  if (!link.up) {
    drop(run, at, 'transmit', frame, 'QDISC_DROP', `${at.ifname} is down`);
    return;
  }
  // Without carrier the queue is noop_qdisc, which drops everything (net/sched/sch_generic.c).
  if (!hasCarrier(run.world.host, at)) {
    drop(run, at, 'transmit', frame, 'QDISC_DROP', `${at.ifname} has no carrier`, {
      rule: link.kind === 'bridge' ? 'K-1.7' : 'K-1.6',
    });
    return;
  }
  if (isTooLong(link, frame)) {
    const text = `${at.ifname} lets no frame as long through its token bucket`;
    drop(run, at, 'transmit', frame, 'QDISC_DROP', text, { rule: 'K-8.7' });
    return;
  }
  switch (link.kind) {
    case 'ifb':
      drop(run, at, 'transmit', frame, 'IFB_OWN', 'it was not redirected here', { rule: 'K-8.7' });
      break;
    case 'loopback':
      note(run, at, 'transmit', frame, 'comes back at once');
      run.queue.push({ step: 'receive', at, frame });
      break;
    case 'veth':
      sendVeth(run, at, link, frame);
      break;
    case 'bridge':
      bridgeSends(run, at, link, frame);
      break;
    case 'vxlan':
      sendVxlan(run, at, link, frame);
      break;
    case 'macvlan':
      leave(run, at, 'transmit', frame, `the packets of a ${link.kind} are not modelled yet`);
      break;
    case 'device':
      leaveHost(run, at, 'transmit', frame);
      break;
  }
}

/** eth_type_trans: whom a frame is for, seen from the link that received it. */
function addressedTo(link: Link, frame: Frame): AddressedTo {
  // No link of the model is for a VLAN's frames (net/core/dev.c, __netif_receive_skb_core, check_vlan_id).
  if (frame.tag !== undefined && link.port === null) return 'other';
  if (link.kind === 'loopback' || frame.destination === link.mac) return 'us';
  if (frame.destination === BROADCAST_MAC) return 'broadcast';
  return isGroupMac(frame.destination) ? 'multicast' : 'other';
}

/**
 * A frame that came in is sent through another link first: an ifb gives it back, any other link takes it away
 * (net/sched/act_mirred.c, drivers/net/ifb.c). Answers whether it goes on where it came in.
 */
function passesRedirect(run: Run, at: LinkRef, redirect: Ifname | null, frame: Frame): boolean {
  const through = redirect === null ? undefined : { netns: at.netns, ifname: redirect };
  const link = through && findLink(run.world.host, through);
  const grounds = { rule: 'K-8.7' } as const;
  if (!through || !link?.up) {
    const text = `redirected to ${redirect ?? 'a link'} that is ${link ? 'down' : 'gone'}`;
    drop(run, at, 'receive', frame, 'TC_INGRESS', text, {
      ...grounds,
      ...(through ? { about: through } : {}),
    });
    return false;
  }
  if (link.kind !== 'ifb') {
    note(run, at, 'receive', frame, `redirected to ${through.ifname}`, grounds);
    transmit(run, through, frame);
    return false;
  }
  if (isTooLong(link, frame)) {
    const text = `${through.ifname} lets no frame as long through its token bucket`;
    drop(run, at, 'receive', frame, 'QDISC_DROP', text, grounds);
    return false;
  }
  note(run, at, 'receive', frame, `through ${through.ifname}, which gives it back`, grounds);
  return true;
}

/** A frame arrives at a link: its bridge takes it, else the protocols of the netns. */
export function receive(run: Run, at: LinkRef, frame: Frame): void {
  const link = linkAt(run, at);
  const redirect = link.trafficControl?.ingress?.redirect;
  // What an ifb gives back is not shown to chains any more (tc_skip_classify).
  if (redirect === undefined) passLinkHook(run, at, frame, 'ingress');
  else if (!passesRedirect(run, at, redirect, frame)) return;
  const to = addressedTo(link, frame);
  if (link.port !== null) bridgeReceives(run, at, frame, to);
  else run.queue.push({ step: 'up', at, frame, to });
}
