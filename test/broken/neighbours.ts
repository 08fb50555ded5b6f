/** Addresses, and who is asked for them: by ARP, by what somebody set, by the forwarding database. */
import { parseIp } from '../../model/ip.ts';
import { parseMac } from '../../model/mac.ts';
import { FDB_BREAKAGES } from '../sim/hosts.ts';
import { addressOps } from '../sim/pods.ts';
import { B4, type BrokenHost, C4, name, sysctl, withoutAddress } from './broken-host.ts';

export const BROKEN_NEIGHBOURS: readonly BrokenHost[] = [
  {
    name: 'the other end has lost its address',
    ops: [withoutAddress('b', 'eth0', B4)],
    trace: { from: 'a', to: B4 },
    guilty: ['a', `neighbour ${B4}`],
  },
  {
    name: 'nobody is to answer ARP',
    ops: [sysctl('b', 'net/ipv4/conf/eth0/arp_ignore', '8')],
    trace: { from: 'a', to: B4 },
    check: 'error',
    guilty: ['b', 'sysctl net.ipv4.conf.eth0.arp_ignore'],
  },
  {
    name: 'a neighbour is set to a MAC that is not its own',
    ops: [
      {
        op: 'neighbour.add',
        netns: 'a',
        ifname: name('eth0'),
        neighbour: { ip: parseIp(B4), mac: parseMac('02:00:00:00:00:77') },
      },
    ],
    trace: { from: 'a', to: B4 },
    check: 'error',
    guilty: ['a', `neighbour ${B4}`],
  },
  {
    name: 'the bridge has lost its address',
    ops: [withoutAddress('node', 'cni0', '10.244.1.1')],
    trace: { from: 'a', to: C4 },
    guilty: ['a', 'neighbour 10.244.1.1'],
    check: 'error',
    checkNames: ['a', 'route default via 10.244.1.1 dev eth0'],
  },
  {
    name: 'two pods have one address',
    ops: addressOps('b', 'eth0', '10.244.1.2/24'),
    check: 'error',
    guilty: ['b', 'address 10.244.1.2/24 of link eth0'],
  },
  {
    name: 'the subnets of two bridges overlap',
    ops: addressOps('node', 'cni1', '10.244.1.129/25'),
    check: 'warning',
    guilty: ['node', 'subnet 10.244.1.128/25 of link cni1'],
  },
  {
    name: 'somebody says that a pod is at the port of another',
    ops: FDB_BREAKAGES[1] ?? [],
    trace: { from: 'a', to: B4 },
    check: 'warning',
    guilty: ['node', 'FDB entry 02:00:00:00:00:03 of bridge cni0'],
  },
  {
    name: 'somebody says that the MAC of a pod is the bridge itself',
    ops: FDB_BREAKAGES[2] ?? [],
    trace: { from: 'a', to: B4 },
    check: 'error',
    guilty: ['node', 'FDB entry 02:00:00:00:00:03 of bridge cni0'],
  },
  {
    name: 'a bridge does not know its own MAC any more',
    ops: FDB_BREAKAGES[3] ?? [],
    trace: { from: 'a', to: C4 },
    check: 'error',
    guilty: ['node', 'FDB entry 02:00:00:00:00:01 of bridge cni0'],
  },
  {
    name: 'an entry of the forwarding database is for nobody',
    ops: [
      {
        op: 'fdb.add',
        netns: 'node',
        ifname: name('v-a'),
        self: false,
        mac: parseMac('02:00:00:00:00:77'),
        state: 'static',
      },
    ],
    check: 'warning',
    guilty: ['node', 'FDB entry 02:00:00:00:00:77 of bridge cni0'],
  },
];
