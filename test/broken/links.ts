/** Links that are down or on their own, and what hangs on them. */
import type { Host } from '../../model/host.ts';
import { withLink, without } from '../../model/host.ts';
import { parseMac } from '../../model/mac.ts';
import type { NftCommand } from '../../model/nftables.ts';
import type { Op } from '../../model/op.ts';
import { applyAll } from '../sim/pods.ts';
import { addressOps, bridgeOps, vethOps } from '../sim/pods.ts';
import { B4, type BrokenHost, C4, D4, name, set } from './broken-host.ts';

const PORT_MAC = '02:00:00:00:09:01';

/** The bridge as one that nobody gave a MAC address: it has that of its port. */
function withFollowingMac(host: Host): Host {
  const bridge = host.netns['node']?.links['br9'];
  if (bridge?.kind !== 'bridge') throw new Error('there is no br9');
  return withLink(host, 'node', { ...bridge, mac: parseMac(PORT_MAC), macChosen: false });
}

/** The host as it is to be seen when a netns has no name any more, of which something keeps it. */
function withoutName(host: Host, netns: string): Host {
  const others = without(host.netns, netns);
  const named = Object.entries(others).map(([at, state]) => {
    const links = Object.entries(state.links).map(([ifname, link]) => [
      ifname,
      link.kind === 'veth' && link.peer?.netns === netns ? { ...link, peer: null } : link,
    ]);
    return [at, { ...state, links: Object.fromEntries(links) }];
  });
  return { ...host, netns: Object.fromEntries(named) };
}

const following: BrokenHost = {
  name: 'a bridge follows the MAC addresses of its ports',
  ops: [],
  beyond: {
    host: (host) =>
      withFollowingMac(
        applyAll(host, [
          ...bridgeOps('node', 'br9', '02:00:00:00:09:00'),
          ...vethOps('node', 'p9', PORT_MAC, 'br9', 'node', 'q9', '02:00:00:00:09:02'),
          ...addressOps('node', 'br9', '10.9.0.1/24'),
        ]),
      ),
    commands: (real) =>
      [
        'link add br9 up type bridge',
        `link add p9 up address ${PORT_MAC} type veth peer name q9`,
        'link set q9 up',
        'link set p9 master br9',
        'address add 10.9.0.1/24 dev br9',
      ].map((words) => ['ip', '-n', real('node'), ...words.split(' ')]),
  },
  check: 'warning',
  mends: false,
  guilty: ['node', 'link br9'],
};

/** The policy of forward is drop, but for what comes in by a bridge. */
const ONLY_BRIDGED: Op = {
  op: 'nft.batch',
  netns: 'node',
  commands: [
    { family: 'inet', table: 'fuzz', do: 'add table' },
    {
      family: 'inet',
      table: 'fuzz',
      do: 'add chain',
      chain: 'forward',
      hook: { type: 'filter', hook: 'forward', priority: 0, policy: 'drop' },
    },
    ...['cni0', 'cni1', 'v-d'].map((ifname): NftCommand => ({
      family: 'inet',
      table: 'fuzz',
      do: 'add rule',
      chain: 'forward',
      rule: {
        statements: [
          { kind: 'match', field: 'iifname', negate: false, value: name(ifname) },
          { kind: 'verdict', verdict: 'accept' },
        ],
        comment: '',
      },
    })),
  ],
};

const nameless: BrokenHost = {
  name: 'the netns of a pod has lost its name',
  ops: [set('node', 'v-b', { alias: 'cube-cni podnet/b/eth0' })],
  beyond: {
    host: (host) => withoutName(host, 'b'),
    commands: (real) => [['ip', 'netns', 'del', real('b')]],
  },
  check: 'warning',
  // Whoever keeps it has to be asked.
  mends: false,
  guilty: ['node', 'link v-b'],
};

export const BROKEN_LINKS: readonly BrokenHost[] = [
  {
    name: "the sender's link is down",
    ops: [set('a', 'eth0', { up: false })],
    trace: { from: 'a', to: B4 },
    check: 'warning',
    guilty: ['a', 'link eth0'],
  },
  {
    name: 'the loopback is down',
    ops: [set('a', 'lo', { up: false })],
    trace: { from: 'a', to: '::1' },
    guilty: ['a', 'link lo'],
  },
  {
    name: 'the port of the other end is down',
    ops: [set('node', 'v-b', { up: false })],
    trace: { from: 'a', to: B4 },
    check: 'error',
    guilty: ['node', 'link v-b'],
  },
  {
    name: 'the link of the other end is down',
    ops: [set('b', 'eth0', { up: false })],
    trace: { from: 'a', to: B4 },
    check: 'warning',
    guilty: ['b', 'link eth0'],
  },
  {
    name: 'the bridge is down',
    ops: [set('node', 'cni0', { up: false })],
    trace: { from: 'a', to: B4 },
    check: 'error',
    guilty: ['node', 'link cni0'],
  },
  {
    name: 'a bare link to a pod is down',
    ops: [set('node', 'v-d', { up: false })],
    trace: { from: 'a', to: D4 },
    check: 'error',
    guilty: ['node', 'link v-d'],
  },
  {
    name: 'a port has left its bridge',
    ops: [set('node', 'v-b', { master: null })],
    trace: { from: 'a', to: B4 },
    check: 'error',
    guilty: ['node', 'link v-b'],
  },
  {
    name: 'the port of the sender has left its bridge, and the node passes on only what comes by that',
    ops: [set('node', 'v-b', { master: null }), ONLY_BRIDGED],
    trace: { from: 'b', to: C4 },
    check: 'error',
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
    trace: { from: 'a', to: B4 },
    guilty: ['node', 'bridge port v-b'],
  },
  {
    name: 'a pod has the MAC address of another',
    ops: [set('b', 'eth0', { mac: parseMac('02:00:00:00:00:02') })],
    check: 'error',
    mends: false,
    guilty: ['b', 'link eth0'],
  },
  following,
  nameless,
];
