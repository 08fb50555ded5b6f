/** Other shapes of the routed host, with the same netns and addresses: what makes them of it. */
import { makeAddress } from '../../model/address.ts';
import { getNetns } from '../../model/host.ts';
import type { Ifname } from '../../model/ifname.ts';
import { parseIp } from '../../model/ip.ts';
import type { Op } from '../../model/op.ts';
import { makePolicyRule } from '../../model/policy-rule.ts';
import { parsePrefix, parsePrefixedIp } from '../../model/prefix.ts';
import { makeRoute } from '../../model/route.ts';
import { ROUTED } from '../sim/hosts.ts';
import { addressOps, routeOps, vethOps } from '../sim/pods.ts';

const name = (text: string): Ifname => text as Ifname;

function lostAddressOps(netns: string, ifname: string, ...addresses: readonly string[]): Op[] {
  return addresses.map((text) => ({
    op: 'address.del',
    netns,
    ifname: name(ifname),
    address: makeAddress(parsePrefixedIp(text)),
  }));
}

function lostDefaultOps(netns: string): Op[] {
  return getNetns(ROUTED, netns)
    .routes.filter(({ destination }) => destination === '::/0')
    .map((route) => ({ op: 'route.del', netns, route }));
}

function linkRouteOps(netns: string, ifname: string, destination: string, table?: number): Op[] {
  const route = makeRoute({
    destination: parsePrefix(destination),
    device: name(ifname),
    ...(table === undefined ? {} : { table }),
  });
  return [{ op: 'route.add', netns, route }];
}

/** A pod that has an address for itself alone, and asks for a router that nobody is, in whose name the node answers. */
function bareOps(pod: 'a' | 'b', number: number): Op[] {
  const port = `v-${pod}`;
  const [own4, own6] = [`10.244.1.${number}`, `fd00:1::${number}`];
  return [
    { op: 'link.set', netns: 'node', ifname: name(port), set: { master: null } },
    { op: 'sysctl.set', netns: 'node', key: `net/ipv4/conf/${port}/proxy_arp`, value: '1' },
    // Else it answers after a while of its choice, when the pod has given up.
    { op: 'sysctl.set', netns: 'node', key: `net/ipv4/neigh/${port}/proxy_delay`, value: '0' },
    ...addressOps('node', port, 'fe80::ee/64'),
    ...linkRouteOps('node', port, `${own4}/32`),
    ...linkRouteOps('node', port, `${own6}/128`),
    ...lostAddressOps(pod, 'eth0', `${own4}/24`, `${own6}/64`),
    ...lostDefaultOps(pod),
    ...addressOps(pod, 'eth0', `${own4}/32`, `${own6}/128`, `fe80::${number}/64`),
    ...linkRouteOps(pod, 'eth0', '169.254.1.1/32'),
    ...routeOps(pod, 'eth0', '0.0.0.0/0', '169.254.1.1'),
    ...routeOps(pod, 'eth0', '::/0', 'fe80::ee'),
  ];
}

/** Pods on bare veths; whoever is nowhere else is behind `d`, without which the node answered for nobody. */
const BARE: readonly Op[] = [
  ...routeOps('node', 'v-d', '0.0.0.0/0', '10.244.3.2'),
  ...bareOps('a', 2),
  ...bareOps('b', 3),
];

const BEHIND_C = 100;

/** `d` is behind `c`, a second router that sends what comes from there by a table of its own. */
const CHAIN: readonly Op[] = [
  ...lostAddressOps('node', 'v-d', '10.244.3.1/30', 'fd00:3::1/126'),
  ...lostAddressOps('d', 'eth0', '10.244.3.2/30', 'fd00:3::2/126'),
  ...lostDefaultOps('d'),
  ...vethOps('c', 'v-d', '02:00:00:00:02:05', null, 'd', 'eth1', '02:00:00:00:02:06'),
  ...addressOps('c', 'v-d', '10.244.3.1/30', 'fd00:3::1/126', 'fe80::25/64'),
  ...addressOps('d', 'eth1', '10.244.3.2/30', 'fd00:3::2/126'),
  ...routeOps('d', 'eth1', '0.0.0.0/0', '10.244.3.1'),
  ...routeOps('d', 'eth1', '::/0', 'fd00:3::1'),
  ...routeOps('node', 'cni1', '10.244.3.0/30', '10.244.2.4'),
  ...routeOps('node', 'cni1', 'fd00:3::/126', 'fd00:2::4'),
  { op: 'sysctl.set', netns: 'c', key: 'net/ipv4/ip_forward', value: '1' },
  { op: 'sysctl.set', netns: 'c', key: 'net/ipv6/conf/all/forwarding', value: '1' },
  {
    op: 'route.add',
    netns: 'c',
    route: makeRoute({
      destination: parsePrefix('0.0.0.0/0'),
      device: name('eth0'),
      gateway: parseIp('10.244.2.1'),
      table: BEHIND_C,
    }),
  },
  ...linkRouteOps('c', 'v-d', '10.244.3.0/30', BEHIND_C),
  {
    op: 'rule.add',
    netns: 'c',
    rule: makePolicyRule({
      family: 4,
      priority: 200,
      source: parsePrefix('10.244.3.0/30'),
      table: BEHIND_C,
    }),
  },
];

/** Each by what it is. */
export const SHAPES: readonly { readonly name: string; readonly ops: readonly Op[] }[] = [
  { name: 'pods on bare veths', ops: BARE },
  { name: 'a chain of two routers', ops: CHAIN },
];
