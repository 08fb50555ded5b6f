/** Two hosts with a vxlan between them over the routed host, and what can be wrong with it (K-9). */
import type { Ifname } from '../../model/ifname.ts';
import { parseIp } from '../../model/ip.ts';
import { ZERO_MAC, parseMac } from '../../model/mac.ts';
import type { Op } from '../../model/op.ts';
import type { NewLink } from '../../model/ops/link-add.ts';
import { addressOps, bridgeOps, vethOps } from './pods.ts';

export interface TunnelCase {
  readonly name: string;
  readonly ops: readonly Op[];
  /** Does an echo from `a` to `TUNNEL_TARGET` come back? */
  readonly reaches: boolean;
  /** Who is to blame where not. */
  readonly guilty?: readonly [netns: string, object: string];
}

export const TUNNEL_TARGET = parseIp('10.8.0.2');

const VX0 = 'vx0' as Ifname;
const ENDS = {
  a: { local: '10.244.1.2', remote: '10.244.2.4', ip: '10.8.0.1/24', mac: '02:00:00:00:08:01' },
  c: { local: '10.244.2.4', remote: '10.244.1.2', ip: '10.8.0.2/24', mac: '02:00:00:00:08:02' },
} as const;

type End = keyof typeof ENDS;

export function tunnel(netns: End, changes: Partial<NewLink & { kind: 'vxlan' }> = {}): Op[] {
  const { local, ip, mac } = ENDS[netns];
  return [
    {
      op: 'link.add',
      netns,
      link: {
        kind: 'vxlan',
        ifname: VX0,
        mac: parseMac(mac),
        mtuBytes: 1400,
        up: true,
        vni: 7,
        udpPort: 4789,
        local: parseIp(local),
        lower: null,
        learning: true,
        ...changes,
      },
    },
    ...addressOps(netns, 'vx0', ip),
  ];
}

export function flood(netns: End, to: string = ENDS[netns].remote): Op {
  const remote = { mac: ZERO_MAC, ip: parseIp(to) };
  return { op: 'remote.add', netns, ifname: VX0, remote, append: false };
}

/** The other end's address, as somebody sets it. */
export function tunnelNeighbour(netns: End): Op {
  const { ip, mac } = ENDS[netns === 'a' ? 'c' : 'a'];
  const neighbour = { ip: parseIp(ip.split('/')[0] ?? ''), mac: parseMac(mac) };
  return { op: 'neighbour.add', netns, ifname: VX0, neighbour };
}

/** The node masquerades what it forwards. */
const MASQUERADE_ALL: Op = {
  op: 'nft.batch',
  netns: 'node',
  commands: [
    { family: 'ip', table: 'fuzz', do: 'add table' },
    {
      family: 'ip',
      table: 'fuzz',
      do: 'add chain',
      chain: 'masq',
      hook: { type: 'nat', hook: 'postrouting', priority: 100, policy: 'accept' },
    },
    {
      family: 'ip',
      table: 'fuzz',
      do: 'add rule',
      chain: 'masq',
      rule: { statements: [{ kind: 'masquerade' }], comment: '' },
    },
  ],
};

const BOTH = [...tunnel('a'), flood('a'), ...tunnel('c'), flood('c')];

/** Both ends know everything by heart. */
const BY_HEART: readonly Op[] = [
  ...tunnel('a'),
  ...tunnel('c'),
  ...(['a', 'c'] as const).flatMap((netns): Op[] => {
    const other = ENDS[netns === 'a' ? 'c' : 'a'];
    const mac = parseMac(other.mac);
    return [
      {
        op: 'remote.add',
        netns,
        ifname: VX0,
        remote: { mac, ip: parseIp(other.local) },
        append: false,
      },
      tunnelNeighbour(netns),
    ];
  }),
];

export const TUNNEL_CASES: readonly TunnelCase[] = [
  { name: 'both ends are told of each other', ops: BOTH, reaches: true },
  {
    name: 'one end is told, and the other learns',
    ops: [...tunnel('a'), flood('a'), ...tunnel('c')],
    reaches: true,
  },
  {
    name: 'one end is told, and the other does not learn',
    ops: [...tunnel('a'), flood('a'), ...tunnel('c', { learning: false })],
    reaches: false,
    guilty: ['c', 'link vx0'],
  },
  {
    name: 'the sender is not told',
    ops: [...tunnel('a'), ...tunnel('c'), flood('c')],
    reaches: false,
    guilty: ['a', 'link vx0'],
  },
  {
    name: 'the networks have other numbers',
    ops: [...tunnel('a'), flood('a'), ...tunnel('c', { vni: 8 }), flood('c')],
    reaches: false,
    guilty: ['c', 'link eth0'],
  },
  {
    name: 'the other end is down',
    ops: [...BOTH, { op: 'link.set', netns: 'c', ifname: VX0, set: { up: false } }],
    reaches: false,
    guilty: ['c', 'link vx0'],
  },
  {
    name: 'it is told of the wrong host',
    ops: [...tunnel('a'), flood('a', '10.244.2.99'), ...tunnel('c'), flood('c')],
    reaches: false,
    guilty: ['node', 'neighbour 10.244.2.99'],
  },
  {
    name: 'the underlay does not forward',
    ops: [...BOTH, { op: 'sysctl.set', netns: 'node', key: 'net/ipv4/ip_forward', value: '0' }],
    reaches: false,
    guilty: ['node', 'sysctl net.ipv4.ip_forward'],
  },
  { name: 'each MAC has its place, and nothing else goes anywhere', ops: BY_HEART, reaches: true },
  {
    name: 'its packets come from elsewhere than each end was told',
    ops: [...BY_HEART, MASQUERADE_ALL],
    reaches: false,
    guilty: ['c', 'link vx0'],
  },
];

/** Vxlans into whose packets less fits than their MTU says. */
export const LARGE_TUNNEL_OPS: readonly Op[] = [
  ...tunnel('a', { mtuBytes: 2000 }),
  flood('a'),
  ...tunnel('c', { mtuBytes: 2000 }),
  flood('c'),
];

/** Of netns `a` the vxlan is a port of a bridge, on which `d` is too: what that sends to `TUNNEL_TARGET` a bridge passes on. */
export const BRIDGED_TUNNEL_OPS: readonly Op[] = [
  ...tunnel('a', { mtuBytes: 1600 }),
  flood('a'),
  ...tunnel('c', { mtuBytes: 1600 }),
  flood('c'),
  ...addressOps('c', 'vx0', 'fd08::2/64', 'fe80::82/64'),
  ...bridgeOps('a', 'br8', '02:00:00:00:08:11', 1600),
  { op: 'link.set', netns: 'a', ifname: VX0, set: { master: 'br8' as Ifname } },
  ...vethOps('a', 'v-d', '02:00:00:00:08:12', 'br8', 'd', 'eth8', '02:00:00:00:08:13', 1600),
  ...addressOps('d', 'eth8', '10.8.0.3/24', 'fd08::3/64', 'fe80::83/64'),
];

/** The other end of both by IPv6. */
export const TUNNEL_TARGET6 = parseIp('fd08::2');
