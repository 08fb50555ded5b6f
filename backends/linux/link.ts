/** A link in the model's form, made of what the kernel tells about it and about the links around it. */
import type { Address } from '../../model/address.ts';
import type { Ifname } from '../../model/ifname.ts';
import {
  type BridgeHistory,
  type Link,
  type LinkRef,
  type Neighbour,
  TX_QUEUE_LENGTH,
  type VxlanLink,
  isOurs,
} from '../../model/link.ts';
import { type Mac, ZERO_MAC } from '../../model/mac.ts';
import type { TrafficControl } from '../../model/traffic-control.ts';
import type { VlanRange } from '../../model/vlan.ts';
import {
  ARPHRD_LOOPBACK,
  IFF_ALLMULTI,
  IFF_PROMISC,
  IFF_UP,
  type LinkRecord,
} from './link-message.ts';

/** What a link's own record does not say. */
export interface Surroundings {
  readonly master: Ifname | null;
  readonly peer: LinkRef | null;
  /** Of a vxlan the netns of its packets and the link below; null and none when nobody looked. */
  readonly below: Pick<VxlanLink, 'underlay' | 'lower'>;
  /** The link that a macvlan is on. */
  readonly lower: LinkRef | null;
  /** The ports of a bridge; undefined where not all links were read. */
  readonly ports: readonly LinkRecord[] | undefined;
  readonly addresses: readonly Address[];
  readonly neighbours: readonly Neighbour[];
  /** The VLANs of a port or a bridge; undefined where they were not looked at, or bridges know none. */
  readonly vlans: readonly VlanRange[] | undefined;
  /** Undefined where it does nothing, or was not looked at. */
  readonly trafficControl: TrafficControl | undefined;
}

const IF_OPER_UNKNOWN = 0;
/** What a bridge without ports has until somebody chooses. */
const BRIDGE_MTU_BYTES = 1500;

/** The lowest MAC and the least MTU of a bridge's ports: what it takes for its own until it is told otherwise. */
function leastOf(ports: readonly LinkRecord[]): { readonly mac: Mac; readonly mtuBytes: number } {
  let mac: Mac = ZERO_MAC;
  let mtuBytes = ports.length === 0 ? BRIDGE_MTU_BYTES : Number.POSITIVE_INFINITY;
  for (const port of ports) {
    if (port.mac !== null && (mac === ZERO_MAC || port.mac < mac)) mac = port.mac;
    if (port.mtuBytes < mtuBytes) mtuBytes = port.mtuBytes;
  }
  return { mac, mtuBytes };
}

/**
 * What a bridge remembers has no attribute in netlink (NET_ADDR_SET and BROPT_MTU_SET_BY_USER are kernel-internal),
 * so it is told from its traces:
 * - hadPorts: it has ports, or no carrier, or its operational state is not "unknown", which it becomes with the first
 *   port and never again. Choosing its MAC has the same effect (br_stp_if.c, br_stp_change_bridge_id).
 * - macChosen: ours are made with a MAC; of the others, one that is not the lowest of all ports'.
 * - mtuChosen: an MTU that is not the least of all ports'. Making a bridge with an MTU does not choose it. Where only
 *   some links were read it counts as chosen: what it would follow is not known.
 */
function historyOf(
  record: LinkRecord,
  link: Link & { kind: 'bridge' },
  ports: readonly LinkRecord[] | undefined,
): BridgeHistory {
  const least = leastOf(ports ?? []);
  const isSettled = !record.carrier || (link.up && record.operstate !== IF_OPER_UNKNOWN);
  const hasPorts = ports !== undefined && ports.length > 0;
  return {
    hadPorts: hasPorts || isSettled,
    macChosen: isOurs(link) || link.mac !== least.mac,
    mtuChosen:
      ports === undefined || (link.mtuBytes !== least.mtuBytes && (hasPorts || !isOurs(link))),
  };
}

/** Older kernels, or odd ones, may tell of a vxlan without saying what it is: then it is some device. */
function makeVxlan(
  { kind, carrier, vxlan }: LinkRecord,
  common: Omit<Extract<Link, { kind: 'ifb' }>, 'kind'>,
  below: Surroundings['below'],
): Link {
  if (!vxlan) return { kind: 'device', ...common, deviceKind: kind, carrier };
  const { lowerIndex: _number, ...tunnel } = vxlan;
  return { kind: 'vxlan', ...common, ...tunnel, ...below };
}

/** The link that a record and its surroundings describe; kinds that the model lacks become devices. */
export function makeLink(
  record: LinkRecord,
  { master, peer, below, lower, ports, addresses, neighbours, vlans, trafficControl }: Surroundings,
): Link {
  const isLoopback = record.hardware === ARPHRD_LOOPBACK;
  const common = {
    ifname: record.ifname,
    ...(record.altnames ? { altnames: record.altnames } : {}),
    mac: isLoopback ? null : record.mac,
    mtuBytes: record.mtuBytes,
    up: (record.flags & IFF_UP) !== 0,
    promiscuous: (record.flags & IFF_PROMISC) !== 0,
    ...((record.flags & IFF_ALLMULTI) === 0 ? {} : { allMulticast: true as const }),
    ...(record.txQueueLength === TX_QUEUE_LENGTH ? {} : { txQueueLength: record.txQueueLength }),
    ...(record.group === 0 ? {} : { group: record.group }),
    alias: record.alias,
    port:
      master !== null && record.port
        ? { master, ...record.port, ...(vlans ? { vlans } : {}) }
        : null,
    addresses,
    neighbours,
    ...(trafficControl ? { trafficControl } : {}),
  };
  if (isLoopback) return { kind: 'loopback', ...common };
  switch (record.kind) {
    case 'veth':
      return { kind: 'veth', ...common, peer };
    case 'vxlan':
      return makeVxlan(record, common, below);
    case 'macvlan':
      return record.macvlanMode === undefined
        ? { kind: 'device', ...common, deviceKind: record.kind, carrier: record.carrier }
        : { kind: 'macvlan', ...common, mode: record.macvlanMode, lower };
    case 'ifb':
      return { kind: 'ifb', ...common };
    case 'bridge': {
      const bridge = {
        kind: 'bridge',
        ...common,
        hadPorts: false,
        macChosen: false,
        mtuChosen: false,
        ...(vlans && record.bridgeVlans ? { vlans: { ...record.bridgeVlans, own: vlans } } : {}),
      } as const;
      return { ...bridge, ...historyOf(record, bridge, ports) };
    }
    default:
      return { kind: 'device', ...common, deviceKind: record.kind, carrier: record.carrier };
  }
}
