import type { NetnsName } from '../model/host.ts';
import { familyOf, parseIp } from '../model/ip.ts';
/** What happens in a world while nobody sends anything: time passes, and with it what is known. */
import type { AddressAnnounce } from '../model/ops/address-announce.ts';
import { lasting } from './conntrack.ts';
import { BROADCAST_MAC, type Frame, type IpPacket, multicastMac } from './frame.ts';
import { transmit } from './link.ts';
import { startRun } from './run.ts';
import { settle } from './settle.ts';
import { type World, withoutForgotten } from './world.ts';

/**
 * The world so many milliseconds later. Neighbours that were needed lately are asked whether they are still there, and
 * forgotten if not (K-7.10); what bridges and vxlans learned is forgotten once it is too old (K-6.2), and connections end (K-8.2). Throws for a
 * time that is negative or no number.
 */
export function elapse(world: World, ms: number): World {
  if (!(ms >= 0)) throw new Error(`time does not pass by ${ms} ms`);
  const run = startRun(world, null, false);
  settle(run, world.nowMs + ms);
  return { ...withoutForgotten(run.world), connections: lasting(run.world) };
}

const ALL_NODES = parseIp('ff02::1');

/** A request that asks where the sender is (RFC 5227, section 3), or an advertisement that nobody asked for (RFC 4861, section 7.2.6). */
function announcement({ ip, mac }: AddressAnnounce): Frame {
  if (familyOf(ip) === 4) {
    const arp = { senderMac: mac, senderIp: ip, targetIp: ip } as const;
    const packet = { kind: 'arp', operation: 'request', ...arp } as const;
    return { kind: 'frame', source: mac, destination: BROADCAST_MAC, packet };
  }
  const packet: IpPacket = {
    kind: 'ip',
    source: ip,
    destination: ALL_NODES,
    ttl: 255,
    dontFragment: false,
    message: { kind: 'advertisement', target: ip, mac, isSolicited: false, overrides: true },
  };
  return { kind: 'frame', source: mac, destination: multicastMac(ALL_NODES), packet };
}

/** The world after a link has told everybody on it where an address is, as the operation `address.announce` does: those that know another MAC change it. */
export function announce(
  world: World,
  { netns, ...announced }: AddressAnnounce & { readonly netns: NetnsName },
): World {
  const run = startRun(world, null, false);
  transmit(run, { netns, ifname: announced.ifname }, announcement(announced));
  settle(run);
  return run.world;
}
