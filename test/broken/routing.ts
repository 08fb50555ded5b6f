import { type Host, getNetns, withNetns } from '../../model/host.ts';
import type { Op } from '../../model/op.ts';
import { makePolicyRule } from '../../model/policy-rule.ts';
import { parsePrefix } from '../../model/prefix.ts';
/** Routes, rules and settings that keep packets from going on, or back. */
import { PROTOCOL_KERNEL, type Route, makeRoute } from '../../model/route.ts';
import { ROUTED } from '../sim/hosts.ts';
import { type BrokenHost, C4, C6, name, sysctl } from './broken-host.ts';

function withoutRoute(netns: string, destination: string, made: 'by hand' | 'by the kernel'): Op {
  const route = ROUTED.netns[netns]?.routes.find(
    (each) =>
      each.destination === destination &&
      (each.protocol === PROTOCOL_KERNEL) === (made === 'by the kernel'),
  );
  if (!route)
    throw new Error(`netns ${netns} has no route to ${destination} that was made ${made}`);
  return { op: 'route.del', netns, route };
}

/** Where no operation lets anybody make the route. */
const PROHIBITED = makeRoute({ destination: parsePrefix('10.244.2.4/32'), device: name('lo') });

function withRoute(host: Host, netns: string, route: Route): Host {
  const state = getNetns(host, netns);
  return withNetns(host, netns, { ...state, routes: [...state.routes, route] });
}

export const BROKEN_ROUTING: readonly BrokenHost[] = [
  {
    name: 'the sender has no default route',
    ops: [withoutRoute('a', '0.0.0.0/0', 'by hand')],
    trace: { from: 'a', to: C4 },
    guilty: ['a', `route to ${C4}`],
    traceMends: ['ip route add default via 10.244.1.1'],
    check: 'warning',
    checkNames: ['a', 'default route'],
  },
  {
    name: 'the other end has no way back',
    ops: [withoutRoute('c', '::/0', 'by hand')],
    trace: { from: 'a', to: C6 },
    guilty: ['c', 'route to fd00:1::2'],
    traceMends: ['ip -6 route add default via fd00:2::1'],
  },
  {
    name: 'the node does not forward',
    ops: [sysctl('node', 'net/ipv4/ip_forward', '0')],
    trace: { from: 'a', to: C4 },
    check: 'error',
    guilty: ['node', 'sysctl net.ipv4.ip_forward'],
  },
  {
    name: 'one link of the node does not forward',
    ops: [sysctl('node', 'net/ipv4/conf/cni0/forwarding', '0')],
    trace: { from: 'a', to: C4 },
    check: 'error',
    guilty: ['node', 'sysctl net.ipv4.conf.cni0.forwarding'],
  },
  {
    name: 'the node does not forward IPv6',
    ops: [sysctl('node', 'net/ipv6/conf/all/forwarding', '0')],
    trace: { from: 'a', to: C6 },
    check: 'error',
    guilty: ['node', 'sysctl net.ipv6.conf.all.forwarding'],
  },
  {
    name: 'the reverse path filter wants it from elsewhere',
    ops: [
      sysctl('node', 'net/ipv4/conf/cni0/rp_filter', '1'),
      {
        op: 'route.add',
        netns: 'node',
        route: makeRoute({ destination: parsePrefix('10.244.1.2/32'), device: name('v-d') }),
      },
    ],
    trace: { from: 'a', to: C4 },
    check: 'error',
    guilty: ['node', 'sysctl net.ipv4.conf.cni0.rp_filter'],
  },
  {
    name: 'a route leads pods of one bridge to another, and the filter is for all links',
    ops: [
      sysctl('node', 'net/ipv4/conf/all/rp_filter', '1'),
      {
        op: 'route.add',
        netns: 'node',
        route: makeRoute({ destination: parsePrefix('10.244.1.0/25'), device: name('cni1') }),
      },
    ],
    trace: { from: 'a', to: C4 },
    check: 'error',
    guilty: ['node', 'sysctl net.ipv4.conf.all.rp_filter'],
  },
  {
    name: 'the route to a subnet is gone',
    ops: [withoutRoute('node', '10.244.2.0/24', 'by the kernel')],
    trace: { from: 'a', to: C4 },
    guilty: ['node', `route to ${C4}`],
    check: 'error',
    checkNames: ['node', 'route to 10.244.2.0/24'],
  },
  {
    name: 'a route lets nobody through',
    ops: [],
    beyond: {
      host: (host) => withRoute(host, 'node', { ...PROHIBITED, type: 'prohibit', device: null }),
      commands: (real) => [
        `ip -n ${real('node')} route add prohibit ${PROHIBITED.destination}`.split(' '),
      ],
    },
    trace: { from: 'a', to: C4 },
    check: 'error',
    guilty: ['node', 'route prohibit 10.244.2.4/32'],
    traceMends: ['ip route del prohibit 10.244.2.4/32'],
  },
  {
    name: 'a policy rule lets nobody through',
    ops: [
      {
        op: 'rule.add',
        netns: 'node',
        rule: makePolicyRule({
          family: 6,
          priority: 100,
          source: parsePrefix('fd00:1::2/128'),
          action: 'blackhole',
        }),
      },
    ],
    trace: { from: 'a', to: C6 },
    check: 'error',
    guilty: ['node', 'rule pref 100 from fd00:1::2/128 blackhole'],
    traceMends: ['ip -6 rule del pref 100 from fd00:1::2/128 blackhole'],
  },
  {
    name: 'a policy rule lets nobody out',
    ops: [
      {
        op: 'rule.add',
        netns: 'a',
        rule: makePolicyRule({
          family: 4,
          priority: 100,
          destination: parsePrefix('10.244.2.0/24'),
          action: 'unreachable',
        }),
      },
    ],
    trace: { from: 'a', to: C4 },
    check: 'error',
    guilty: ['a', 'rule pref 100 to 10.244.2.0/24 unreachable'],
  },
  {
    name: 'the address is that of a whole subnet',
    ops: [],
    trace: { from: 'a', to: '10.244.1.255' },
    guilty: ['a', 'address 10.244.1.255'],
  },
  {
    name: 'a policy rule asks a table without routes',
    ops: [
      {
        op: 'rule.add',
        netns: 'node',
        rule: makePolicyRule({
          family: 4,
          priority: 100,
          source: parsePrefix('10.244.1.0/24'),
          table: 77,
        }),
      },
    ],
    check: 'note',
    guilty: ['node', 'rule pref 100 from 10.244.1.0/24 table 77'],
  },
  {
    name: 'echoes are ignored',
    ops: [sysctl('c', 'net/ipv4/icmp_echo_ignore_all', '1')],
    trace: { from: 'a', to: C4 },
    guilty: ['c', 'sysctl net.ipv4.icmp_echo_ignore_all'],
  },
  {
    name: 'echoes of IPv6 are ignored',
    ops: [sysctl('c', 'net/ipv6/icmp/echo_ignore_all', '1')],
    trace: { from: 'a', to: C6 },
    guilty: ['c', 'sysctl net.ipv6.icmp.echo_ignore_all'],
  },
  {
    name: 'IPv6 is switched off on the bridge',
    ops: [sysctl('node', 'net/ipv6/conf/cni0/disable_ipv6', '1')],
    check: 'error',
    guilty: ['node', 'sysctl net.ipv6.conf.cni0.disable_ipv6'],
  },
];
