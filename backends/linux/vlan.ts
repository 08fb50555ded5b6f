/** Whether bridges of this kernel know VLANs, and which VLANs links have. */
import { existsSync } from 'node:fs';
import type { VlanRange } from '../../model/vlan.ts';
import { expectAnswer } from './answer.ts';
import type { LinkRecord } from './link-message.ts';
import { type NetlinkSocket, isFault } from './socket.ts';
import { decodeVlans, encodeVlanDump } from './vlan-message.ts';

/** The loopback, which is no bridge and no port (net/core/dev.c, LOOPBACK_IFINDEX). */
const LOOPBACK_IFINDEX = 1;

/** What the bridge's code is called where it is loaded or built in. */
const BRIDGE_MODULE = '/sys/module/bridge';

/**
 * Do bridges know VLANs? Where the kernel has them, it refuses to tell those of the loopback by EINVAL; where it has not,
 * nobody answers the question. Nobody does before the bridge's module is loaded either, which comes with the first bridge:
 * then it is taken to know them, and making a bridge that filters will tell.
 */
export function bridgesKnowVlans(socket: NetlinkSocket): boolean {
  const answer = socket.dump(encodeVlanDump(LOOPBACK_IFINDEX), decodeVlans);
  return !isFault(answer) || answer.errno !== 'EOPNOTSUPP' || !existsSync(BRIDGE_MODULE);
}

/** The VLANs of a bridge or a port; undefined for other links, and for one that has just gone or left its bridge. */
export function readVlans(
  socket: NetlinkSocket,
  netns: string,
  { ifindex, ifname, kind, port }: LinkRecord,
): readonly VlanRange[] | undefined {
  if (kind !== 'bridge' && !port) return undefined;
  const answer = socket.dump(encodeVlanDump(ifindex), decodeVlans);
  if (isFault(answer) && (answer.errno === 'ENODEV' || answer.errno === 'EINVAL')) return undefined;
  return expectAnswer(answer, netns, `the VLANs of link "${ifname}"`).flat();
}
