/** Broken hosts: the routed host with one fault each, a probe that dies of it, and the object that is to blame. */
import type { Host } from '../../model/host.ts';
import type { Ifname } from '../../model/ifname.ts';
import { parseIp } from '../../model/ip.ts';
import { parseMac } from '../../model/mac.ts';
import type { ChainHook, NftCommand, NftFamily, Statement } from '../../model/nftables.ts';
import type { Op } from '../../model/op.ts';
import type { LinkAttribute } from '../../model/ops/link-set.ts';
import { parsePrefix } from '../../model/prefix.ts';
import { PROTOCOL_KERNEL, makeRoute } from '../../model/route.ts';
import { tokenBucket } from '../../model/traffic-control.ts';
import { ROUTED } from './hosts.ts';

export interface BrokenHost {
  readonly name: string;
  readonly ops: readonly Op[];
  readonly from: string;
  readonly to: string;
  readonly payloadBytes?: number;
  /** The netns and the object that are to blame. */
  readonly guilty: readonly [netns: string, object: string];
}

const name = (text: string): Ifname => text as Ifname;

function set(netns: string, ifname: string, attribute: LinkAttribute): Op {
  return { op: 'link.set', netns, ifname: name(ifname), set: attribute };
}

function sysctl(netns: string, key: string, value: string): Op {
  return { op: 'sysctl.set', netns, key, value };
}

function withoutRoute(host: Host, netns: string, destination: string): Op {
  const route = host.netns[netns]?.routes.find(
    (each) => each.destination === destination && each.protocol !== PROTOCOL_KERNEL,
  );
  if (!route) throw new Error(`netns ${netns} has no route to ${destination}`);
  return { op: 'route.del', netns, route };
}

function withoutAddress(host: Host, netns: string, ifname: string, ip: string): Op {
  const address = host.netns[netns]?.links[ifname]?.addresses.find((each) => each.ip === ip);
  if (!address) throw new Error(`${ifname} in netns ${netns} has no ${ip}`);
  return { op: 'address.del', netns, ifname: name(ifname), address };
}

function chain(
  netns: string,
  hook: ChainHook['hook'],
  policy: ChainHook['policy'],
  statements: readonly Statement[] = [],
  family: NftFamily = 'inet',
): Op {
  const ref = { family, table: 'fuzz' };
  const commands: NftCommand[] = [
    { ...ref, do: 'add table' },
    { ...ref, do: 'add chain', chain: hook, hook: { type: 'filter', hook, priority: 0, policy } },
    ...(statements.length > 0
      ? [{ ...ref, do: 'add rule', chain: hook, rule: { statements, comment: '' } } as const]
      : []),
  ];
  return { op: 'nft.batch', netns, commands };
}

const DROP: Statement = { kind: 'verdict', verdict: 'drop' };
const [B4, C4, C6, D4] = ['10.244.1.3', '10.244.2.4', 'fd00:2::4', '10.244.3.2'];

export const BROKEN_HOSTS: readonly BrokenHost[] = [
  {
    name: "the sender's link is down",
    ops: [set('a', 'eth0', { up: false })],
    from: 'a',
    to: B4,
    guilty: ['a', 'link eth0'],
  },
  {
    name: 'the port of the other end is down',
    ops: [set('node', 'v-b', { up: false })],
    from: 'a',
    to: B4,
    guilty: ['node', 'link v-b'],
  },
  {
    name: 'the link of the other end is down',
    ops: [set('b', 'eth0', { up: false })],
    from: 'a',
    to: B4,
    guilty: ['b', 'link eth0'],
  },
  {
    name: 'the bridge is down',
    ops: [set('node', 'cni0', { up: false })],
    from: 'a',
    to: B4,
    guilty: ['node', 'link cni0'],
  },
  {
    name: 'a bare link to a pod is down',
    ops: [set('node', 'v-d', { up: false })],
    from: 'a',
    to: D4,
    guilty: ['node', 'link v-d'],
  },
  {
    name: 'a port has left its bridge',
    ops: [set('node', 'v-b', { master: null })],
    from: 'a',
    to: B4,
    guilty: ['node', 'link v-b'],
  },
  {
    name: 'both ports are isolated',
    ops: ['v-a', 'v-b'].map((port): Op => ({
      op: 'port.set',
      netns: 'node',
      ifname: name(port),
      flag: 'isolated',
      on: true,
    })),
    from: 'a',
    to: B4,
    guilty: ['node', 'bridge port v-b'],
  },
  {
    name: 'the sender has no default route',
    ops: [withoutRoute(ROUTED, 'a', '0.0.0.0/0')],
    from: 'a',
    to: C4,
    guilty: ['a', `route to ${C4}`],
  },
  {
    name: 'the other end has no way back',
    ops: [withoutRoute(ROUTED, 'c', '::/0')],
    from: 'a',
    to: C6,
    guilty: ['c', 'route to fd00:1::2'],
  },
  {
    name: 'the other end has lost its address',
    ops: [withoutAddress(ROUTED, 'b', 'eth0', B4)],
    from: 'a',
    to: B4,
    guilty: ['a', `neighbour ${B4}`],
  },
  {
    name: 'the node does not forward',
    ops: [sysctl('node', 'net/ipv4/ip_forward', '0')],
    from: 'a',
    to: C4,
    guilty: ['node', 'sysctl net.ipv4.ip_forward'],
  },
  {
    name: 'one link of the node does not forward',
    ops: [sysctl('node', 'net/ipv4/conf/cni0/forwarding', '0')],
    from: 'a',
    to: C4,
    guilty: ['node', 'sysctl net.ipv4.conf.cni0.forwarding'],
  },
  {
    name: 'the node does not forward IPv6',
    ops: [sysctl('node', 'net/ipv6/conf/all/forwarding', '0')],
    from: 'a',
    to: C6,
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
    from: 'a',
    to: C4,
    guilty: ['node', 'sysctl net.ipv4.conf.cni0.rp_filter'],
  },
  {
    name: 'nobody is to answer ARP',
    ops: [sysctl('b', 'net/ipv4/conf/eth0/arp_ignore', '8')],
    from: 'a',
    to: B4,
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
    from: 'a',
    to: B4,
    guilty: ['a', `neighbour ${B4}`],
  },
  {
    name: 'the policy of forward is drop',
    ops: [chain('node', 'forward', 'drop')],
    from: 'a',
    to: C4,
    guilty: ['node', 'chain inet fuzz forward'],
  },
  {
    name: 'a rule drops what goes to the other end',
    ops: [
      chain('node', 'forward', 'accept', [
        { kind: 'match', field: 'ip6 daddr', negate: false, value: parseIp(C6) },
        DROP,
      ]),
    ],
    from: 'a',
    to: C6,
    guilty: ['node', 'chain inet fuzz forward'],
  },
  {
    name: 'a rule drops what the other end answers',
    ops: [
      chain('node', 'postrouting', 'accept', [
        { kind: 'match', field: 'ip saddr', negate: false, value: parseIp(C4) },
        DROP,
      ]),
    ],
    from: 'a',
    to: C4,
    guilty: ['node', 'chain inet fuzz postrouting'],
  },
  {
    name: 'the node takes nothing in',
    ops: [chain('node', 'input', 'drop')],
    from: 'a',
    to: '10.244.1.1',
    guilty: ['node', 'chain inet fuzz input'],
  },
  {
    name: 'the sender lets nothing out',
    ops: [chain('a', 'output', 'drop')],
    from: 'a',
    to: C4,
    guilty: ['a', 'chain inet fuzz output'],
  },
  {
    name: 'a chain of frames drops what comes in by a port',
    ops: [
      chain(
        'node',
        'prerouting',
        'accept',
        [{ kind: 'match', field: 'iifname', negate: false, value: name('v-a') }, DROP],
        'bridge',
      ),
    ],
    from: 'a',
    to: B4,
    guilty: ['node', 'chain bridge fuzz prerouting'],
  },
  {
    name: 'the MTU on the way is too small',
    ops: [set('node', 'cni1', { mtuBytes: 1280 })],
    from: 'a',
    to: C4,
    payloadBytes: 1400,
    guilty: ['node', 'link cni1'],
  },
  {
    name: 'the MTU of the other end is too small',
    ops: [set('b', 'eth0', { mtuBytes: 1280 })],
    from: 'a',
    to: B4,
    payloadBytes: 1400,
    guilty: ['b', 'link eth0'],
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
    from: 'a',
    to: D4,
    guilty: ['node', 'qdisc of link v-d'],
  },
  {
    name: 'what comes in is redirected to a link that is down',
    ops: [set('node', 'ifb0', { up: false })],
    from: 'c',
    to: D4,
    guilty: ['node', 'link ifb0'],
  },
];
