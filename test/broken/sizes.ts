/** Packets that are too long for a link, and links that let none through. */
import { tokenBucket } from '../../model/traffic-control.ts';
import { B4, type BrokenHost, C4, D4, name, set } from './broken-host.ts';

export const BROKEN_SIZES: readonly BrokenHost[] = [
  {
    name: 'the MTU on the way is too small',
    ops: [set('node', 'cni1', { mtuBytes: 1280 })],
    trace: { from: 'a', to: C4, payloadBytes: 1400 },
    check: 'warning',
    guilty: ['node', 'link cni1'],
    traceMends: ['ip link set cni1 mtu 1500'],
  },
  {
    name: 'the MTU of the other end is too small',
    ops: [set('b', 'eth0', { mtuBytes: 1280 })],
    trace: { from: 'a', to: B4, payloadBytes: 1400 },
    check: 'warning',
    guilty: ['b', 'link eth0'],
    traceMends: ['ip link set eth0 mtu 1500'],
  },
  {
    name: 'the MTU of a port is too small',
    // Chosen, so that it does not follow the port.
    ops: [
      set('node', 'cni0', { mtuBytes: 1400 }),
      set('node', 'cni0', { mtuBytes: 1500 }),
      set('node', 'v-b', { mtuBytes: 1400 }),
    ],
    trace: { from: 'a', to: B4, payloadBytes: 1450 },
    check: 'warning',
    guilty: ['node', 'link v-b'],
    traceMends: ['ip link set v-b mtu 1500'],
  },
  {
    name: 'a token bucket lets no packet of this size through',
    ops: [
      {
        op: 'qdisc.add',
        netns: 'node',
        ifname: name('v-d'),
        qdisc: { kind: 'tbf', ...tokenBucket(1_000_000, 60) },
      },
    ],
    trace: { from: 'a', to: D4 },
    check: 'error',
    guilty: ['node', 'qdisc of link v-d'],
  },
  {
    name: 'what comes in is redirected to a link that is down',
    ops: [set('node', 'ifb0', { up: false })],
    trace: { from: 'c', to: D4 },
    check: 'error',
    guilty: ['node', 'link ifb0'],
  },
];
