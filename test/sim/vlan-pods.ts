/** Pods on a bridge that filters VLANs, and the VLANs that their ports may get. */
import type { Host } from '../../model/host.ts';
import type { Ifname } from '../../model/ifname.ts';
import { type Ip, parseIp } from '../../model/ip.ts';
import type { Op } from '../../model/op.ts';
import { type VlanRange, vlan } from '../../model/vlan.ts';
import { probe } from '../../sim/probe.ts';
import { makeWorld } from '../../sim/world.ts';
import { TWO_PODS_OPS, applyAll, podOps } from './pods.ts';

/** Who sends and who is asked: the node by its bridge, and three pods. */
export const MEMBERS: Readonly<Record<string, Ip>> = {
  node: parseIp('10.244.1.1'),
  a: parseIp('10.244.1.2'),
  b: parseIp('10.244.1.3'),
  c: parseIp('10.244.1.4'),
};

const NAMES = Object.keys(MEMBERS);

/** Netns node with bridge cni0, which filters VLANs, and pods a, b and c on it. */
export const VLAN_PODS_OPS: readonly Op[] = [
  ...TWO_PODS_OPS,
  ...podOps('c', 4),
  { op: 'link.set', netns: 'node', ifname: 'cni0' as Ifname, set: { vlanFiltering: true } },
];

/** Puts a pod's port, or for the node its bridge, in these VLANs and no others. */
export function memberOps(member: string, ranges: readonly VlanRange[]): Op[] {
  const self = member === 'node';
  const on = { netns: 'node', ifname: (self ? 'cni0' : `v-${member}`) as Ifname, self };
  return [
    { op: 'vlan.del', ...on, first: 1, last: 4094 },
    ...ranges.map((range): Op => ({ op: 'vlan.add', ...on, vlan: range })),
  ];
}

/** The host of these operations, on a kernel whose bridges know VLANs. */
export function vlanHost(ops: readonly Op[]): Host {
  return applyAll({ netns: {}, kernel: { bridgeVlans: true } }, [...VLAN_PODS_OPS, ...ops]);
}

/** Whom everybody reaches, in one world where each ping finds what those before it have taught. */
export function reachedIn(host: Host): Readonly<Record<string, readonly string[]>> {
  let world = makeWorld(host);
  const round = (): Record<string, string[]> =>
    Object.fromEntries(
      NAMES.map((netns) => [
        netns,
        NAMES.filter((other) => {
          const destination = MEMBERS[other];
          if (other === netns || destination === undefined) return false;
          const trace = probe(world, { netns, destination });
          world = trace.world;
          return trace.verdict.kind === 'delivered';
        }),
      ]),
    );
  // The first is for nothing: on the kernel all send at once, and teach each other in no certain order.
  round();
  return round();
}

/** A VLAN for frames without a tag, which leave without one. */
export function access(id: number): VlanRange {
  return vlan(id, { pvid: true, untagged: true });
}
