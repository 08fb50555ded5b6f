/** Small hosts for the simulator: netns with a veth each, most of them ports of one bridge. */
import { makeAddress } from '../../model/address.ts';
import type { Host } from '../../model/host.ts';
import type { Ifname } from '../../model/ifname.ts';
import { parseIp } from '../../model/ip.ts';
import { parseMac } from '../../model/mac.ts';
import type { Op } from '../../model/op.ts';
import { applyOp } from '../../model/ops.ts';
import { parsePrefix, parsePrefixedIp } from '../../model/prefix.ts';
import { makeRoute } from '../../model/route.ts';

const name = (text: string): Ifname => text as Ifname;

/** The host after operations none of which may fail. */
export function applyAll(host: Host, ops: readonly Op[]): Host {
  return ops.reduce((state, op) => {
    const outcome = applyOp(state, op);
    if (!outcome.ok)
      throw new Error(`${JSON.stringify(op)}: ${outcome.fault.errno} ${outcome.fault.text}`);
    return outcome.host;
  }, host);
}

/** A netns in which IPv6 makes no addresses by itself, with its loopback up. */
export function netnsOps(netns: string): Op[] {
  return [
    { op: 'netns.add', netns },
    { op: 'sysctl.set', netns, key: 'net/ipv6/conf/default/addr_gen_mode', value: '1' },
    { op: 'sysctl.set', netns, key: 'net/ipv6/conf/default/accept_dad', value: '0' },
    { op: 'sysctl.set', netns, key: 'net/ipv4/ip_forward', value: '0' },
    { op: 'sysctl.set', netns, key: 'net/ipv6/conf/all/forwarding', value: '0' },
    { op: 'link.set', netns, ifname: name('lo'), set: { up: true } },
  ];
}

export function addressOps(netns: string, ifname: string, ...addresses: readonly string[]): Op[] {
  return addresses.map((text) => ({
    op: 'address.add',
    netns,
    ifname: name(ifname),
    address: makeAddress(parsePrefixedIp(text)),
  }));
}

export function routeOps(
  netns: string,
  ifname: string,
  destination: string,
  gateway: string,
): Op[] {
  const route = makeRoute({
    destination: parsePrefix(destination),
    device: name(ifname),
    gateway: parseIp(gateway),
  });
  return [{ op: 'route.add', netns, route }];
}

export function bridgeOps(netns: string, ifname: string, mac: string, mtuBytes = 1500): Op[] {
  return [
    {
      op: 'link.add',
      netns,
      link: { kind: 'bridge', ifname: name(ifname), mac: parseMac(mac), mtuBytes, up: true },
    },
  ];
}

/** A veth from `ifname` in `netns`, a port of `master` if that is not null, to `peer` in `peerNetns`. */
export function vethOps(
  netns: string,
  ifname: string,
  mac: string,
  master: string | null,
  peerNetns: string,
  peer: string,
  peerMac: string,
  mtuBytes = 1500,
): Op[] {
  const end = { mtuBytes, up: true };
  return [
    {
      op: 'link.add',
      netns,
      link: {
        kind: 'veth',
        ifname: name(ifname),
        mac: parseMac(mac),
        master: master === null ? null : name(master),
        peer: { netns: peerNetns, ifname: name(peer), mac: parseMac(peerMac), ...end },
        ...end,
      },
    },
  ];
}

/** A pod on bridge cni0 of netns node: eth0 with `.NUMBER` and `::NUMBER`, and default routes by the bridge. */
export function podOps(pod: string, number: number): Op[] {
  return [
    ...netnsOps(pod),
    ...vethOps(
      'node',
      `v-${pod}`,
      `02:00:00:00:01:0${number}`,
      'cni0',
      pod,
      'eth0',
      `02:00:00:00:00:0${number}`,
    ),
    ...addressOps(pod, 'eth0', `10.244.1.${number}/24`, `fd00:1::${number}/64`),
    ...routeOps(pod, 'eth0', '0.0.0.0/0', '10.244.1.1'),
    ...routeOps(pod, 'eth0', '::/0', 'fd00:1::1'),
  ];
}

/** Netns node with bridge cni0 at .1, and pods a (.2) and b (.3) on it. */
export const TWO_PODS_OPS: readonly Op[] = [
  ...netnsOps('node'),
  ...bridgeOps('node', 'cni0', '02:00:00:00:00:01'),
  ...addressOps('node', 'cni0', '10.244.1.1/24', 'fd00:1::1/64'),
  ...podOps('a', 2),
  ...podOps('b', 3),
];

export const TWO_PODS: Host = applyAll({ netns: {} }, TWO_PODS_OPS);
