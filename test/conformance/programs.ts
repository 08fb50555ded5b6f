/** What every backend answers to every kind of operation: programs that end with the operation in question. */
import { expect } from 'vitest';
import { makeAddress } from '../../model/address.ts';
import type { Host } from '../../model/host.ts';
import { parseIp } from '../../model/ip.ts';
import { parseMac } from '../../model/mac.ts';
import {
  type LookupField,
  type NftCommand,
  type SetKey,
  type Statement,
  formatRule,
} from '../../model/nftables.ts';
import type { Op, OpName, OpOf } from '../../model/op.ts';
import type { LinkAttribute } from '../../model/ops/link-set.ts';
import { parsePrefix } from '../../model/prefix.ts';
import { PROTOCOL_CUBE, makeRoute } from '../../model/route.ts';
import { FDB_ADD, FDB_DEL } from './fdb-programs.ts';
import {
  MACVLAN_LINK_ADD,
  MACVLAN_LINK_DEL,
  MACVLAN_LINK_MOVE,
  MACVLAN_LINK_RENAME,
  MACVLAN_LINK_SET,
  MACVLAN_NETNS_DEL,
} from './macvlan-programs.ts';
import { ALTNAME_ADD, ALTNAME_DEL, LINK_MOVE, LINK_RENAME } from './name-programs.ts';
import {
  BR0,
  BRIDGE_MAC,
  ETH0,
  ETH0_MAC,
  GONE,
  LO,
  NETNS,
  PAIR,
  type Program,
  V0,
  V0_MAC,
  bridge,
  linkOf,
  veth,
} from './program.ts';
import { RULE_ADD, RULE_DEL } from './rule-programs.ts';
import {
  FILTER_ADD,
  FILTER_DEL,
  GROUP_DEL,
  IFB_LINK_ADD,
  QDISC_ADD,
  QDISC_DEL,
} from './traffic-control-programs.ts';
import { VLAN_ADD, VLAN_DEL, VLAN_LINK_ADD, VLAN_LINK_SET } from './vlan-programs.ts';
import {
  REMOTE_ADD,
  REMOTE_DEL,
  VXLAN_LINK_ADD,
  VXLAN_LINK_DEL,
  VXLAN_LINK_MOVE,
  VXLAN_LINK_SET,
} from './vxlan-programs.ts';

const MULTICAST_MAC = parseMac('01:00:5e:00:00:01');

const set = (ifname: typeof BR0, attribute: LinkAttribute): Op => ({
  op: 'link.set',
  netns: 'one',
  ifname,
  set: attribute,
});

const ADDRESS = makeAddress({ ip: parseIp('10.1.0.2'), prefixLength: 24 });
const addAddress = (ip = '10.1.0.2', ifname = ETH0, prefixLength = 24): Op => ({
  op: 'address.add',
  netns: 'two',
  ifname,
  address: makeAddress({ ip: parseIp(ip), prefixLength }),
});

const announce = (changes: Partial<OpOf<'address.announce'>> = {}): Op => ({
  op: 'address.announce',
  netns: 'two',
  ifname: ETH0,
  ip: ADDRESS.ip,
  mac: ETH0_MAC,
  ...changes,
});

const DEFAULT_ROUTE = makeRoute({
  destination: parsePrefix('0.0.0.0/0'),
  device: ETH0,
  gateway: parseIp('10.1.0.1'),
  protocol: PROTOCOL_CUBE,
});
const addRoute = (changes: Partial<typeof DEFAULT_ROUTE> = {}): Op => ({
  op: 'route.add',
  netns: 'two',
  route: { ...DEFAULT_ROUTE, ...changes },
});
const delRoute: Op = { op: 'route.del', netns: 'two', route: DEFAULT_ROUTE };

const NEIGHBOUR = { ip: parseIp('10.1.0.9'), mac: BRIDGE_MAC };
const FORWARD = 'net/ipv4/ip_forward';

const REF = { family: 'inet', table: 'conform' } as const;
const batch = (...commands: readonly NftCommand[]): Op => ({
  op: 'nft.batch',
  netns: 'one',
  commands,
});
const ELEMENT = {
  key: parseIp('10.1.0.2'),
  verdict: { verdict: 'goto', chain: 'masq' },
  comment: 'pod',
} as const;

/** A table with a chain of each kind, a map, a rule and an element. */
export const TABLE: Op = batch(
  { ...REF, do: 'add table' },
  {
    ...REF,
    do: 'add chain',
    chain: 'post',
    hook: { type: 'nat', hook: 'postrouting', priority: 100, policy: 'accept' },
  },
  { ...REF, do: 'add chain', chain: 'masq', hook: null },
  { ...REF, do: 'add set', set: 'pods', keyType: 'ipv4_addr', holds: 'verdict' },
  {
    ...REF,
    do: 'add rule',
    chain: 'masq',
    rule: { statements: [{ kind: 'masquerade' }], comment: 'why' },
  },
  {
    ...REF,
    do: 'add rule',
    chain: 'post',
    rule: { statements: [{ kind: 'vmap', field: 'ip saddr', map: 'pods' }], comment: '' },
  },
  { ...REF, do: 'add element', set: 'pods', element: ELEMENT },
);

const inChain = (
  what: 'add rule' | 'insert rule' | 'delete rule',
  comment: string,
): NftCommand => ({
  ...REF,
  do: what,
  chain: 'masq',
  rule: {
    statements: [
      { kind: 'match', field: 'oifname', negate: false, value: V0 },
      { kind: 'counter' },
      { kind: 'verdict', verdict: 'accept' },
    ],
    comment,
  },
});
const commentsIn = (host: Host): unknown =>
  host.netns['one']?.nftables['inet conform']?.chains['masq']?.rules.map(({ comment }) => comment);

const BRIDGE_REF = { family: 'bridge', table: 'conform' } as const;
const spoofed = (...statements: readonly Statement[]): NftCommand => ({
  ...BRIDGE_REF,
  do: 'add rule',
  chain: 'pre',
  rule: { statements: [...statements, { kind: 'verdict', verdict: 'drop' }], comment: '' },
});
const lookup = (field: LookupField, name: string, negate = false): Statement => ({
  kind: 'lookup',
  field,
  negate,
  set: name,
});
const PORT_KEY: SetKey = `${V0} . ${BRIDGE_MAC}`;

/** A table that looks at frames: who may come in by which port with which address. */
const BRIDGE_TABLE: Op = batch(
  { ...BRIDGE_REF, do: 'add table' },
  {
    ...BRIDGE_REF,
    do: 'add chain',
    chain: 'pre',
    hook: { type: 'filter', hook: 'prerouting', priority: -300, policy: 'accept' },
  },
  { ...BRIDGE_REF, do: 'add set', set: 'ports', keyType: 'ifname', holds: 'nothing' },
  { ...BRIDGE_REF, do: 'add set', set: 'macs', keyType: 'ifname . ether_addr', holds: 'nothing' },
  {
    ...BRIDGE_REF,
    do: 'add element',
    set: 'ports',
    element: { key: V0, verdict: null, comment: 'pod' },
  },
  {
    ...BRIDGE_REF,
    do: 'add element',
    set: 'macs',
    element: { key: PORT_KEY, verdict: null, comment: '' },
  },
  spoofed(lookup('iifname', 'ports'), lookup('iifname . ether saddr', 'macs', true)),
  spoofed(lookup('iifname', 'ports'), lookup('iifname . arp saddr ether', 'macs', true)),
);

const pick =
  (netns: string, ifname: string, ...keys: readonly string[]) =>
  (host: Host): unknown => {
    const link: object | undefined = linkOf(netns, ifname)(host);
    return link && Object.fromEntries(Object.entries(link).filter(([key]) => keys.includes(key)));
  };
const names = (netns: string) => (host: Host) =>
  Object.keys(host.netns[netns]?.links ?? {}).toSorted();
const ipv4Addresses = (host: Host): unknown =>
  linkOf(
    'two',
    ETH0,
  )(host)
    ?.addresses.filter(({ ip }) => !ip.includes(':'))
    .map(({ ip, prefixLength, broadcast, secondary }) => [ip, prefixLength, broadcast, secondary]);
const ipv4Routes = (host: Host): unknown =>
  host.netns['two']?.routes
    .filter(({ destination }) => !destination.includes(':'))
    .map(({ destination, type, gateway, source }) =>
      [type, destination, gateway ?? source].join(' '),
    )
    .toSorted();

const defaultRoutes = (host: Host): unknown =>
  host.netns['two']?.routes
    .filter(({ destination }) => destination === DEFAULT_ROUTE.destination)
    .map(({ table, mtuBytes, advmssBytes }) => ({ table, mtuBytes, advmssBytes }))
    .toSorted((a, b) => a.table - b.table);

const CONNECTED = [
  'broadcast 10.1.0.255/32 10.1.0.2',
  'local 10.1.0.2/32 10.1.0.2',
  'unicast 10.1.0.0/24 10.1.0.2',
];

/** By kind: a new kind of operation is not complete without its programs. */
export const PROGRAMS: { readonly [K in OpName]: readonly Program[] } = {
  'netns.add': [
    {
      name: 'makes one with a loopback that is down',
      given: [],
      op: { op: 'netns.add', netns: 'one' },
      outcome: {
        see: pick('one', LO, 'kind', 'up', 'addresses'),
        is: { kind: 'loopback', up: false, addresses: [] },
      },
    },
    {
      name: 'of a name that is taken',
      given: NETNS,
      op: { op: 'netns.add', netns: 'one' },
      outcome: 'EEXIST',
    },
  ],
  'netns.del': [
    {
      name: 'takes it away',
      given: NETNS,
      op: { op: 'netns.del', netns: 'two' },
      outcome: { see: (host) => Object.keys(host.netns), is: ['one'] },
    },
    ...MACVLAN_NETNS_DEL,
    { name: 'of none', given: [], op: { op: 'netns.del', netns: 'one' }, outcome: 'ENOENT' },
  ],
  'link.add': [
    ...VLAN_LINK_ADD,
    ...VXLAN_LINK_ADD,
    ...MACVLAN_LINK_ADD,
    ...IFB_LINK_ADD,
    {
      name: 'makes a bridge',
      given: NETNS,
      op: bridge(),
      outcome: {
        see: pick('one', BR0, 'kind', 'mac', 'mtuBytes', 'up', 'port'),
        is: { kind: 'bridge', mac: BRIDGE_MAC, mtuBytes: 1450, up: true, port: null },
      },
    },
    {
      name: 'makes both ends of a veth, the port of a bridge at once',
      given: [...NETNS, bridge()],
      op: veth({ master: BR0 }),
      outcome: {
        see: (host) => [
          pick('one', V0, 'kind', 'mac', 'mtuBytes', 'up', 'peer')(host),
          linkOf('one', V0)(host)?.port?.master,
          pick('two', ETH0, 'kind', 'mac', 'mtuBytes', 'up', 'peer')(host),
        ],
        is: [
          {
            kind: 'veth',
            mac: V0_MAC,
            mtuBytes: 1400,
            up: true,
            peer: { netns: 'two', ifname: ETH0 },
          },
          BR0,
          {
            kind: 'veth',
            mac: ETH0_MAC,
            mtuBytes: 1400,
            up: true,
            peer: { netns: 'one', ifname: V0 },
          },
        ],
      },
    },
    {
      name: 'of a name that is taken',
      given: [...NETNS, bridge()],
      op: bridge(),
      outcome: 'EEXIST',
    },
    {
      name: 'of a peer name that is taken',
      given: PAIR,
      op: { ...veth(), netns: 'one' },
      outcome: 'EEXIST',
    },
    {
      name: 'with a master that is none',
      given: NETNS,
      op: veth({ master: GONE }),
      outcome: 'ENODEV',
    },
    {
      name: 'with a peer in no netns',
      given: NETNS,
      op: veth({ peerNetns: 'three' }),
      outcome: 'ENOENT',
    },
    { name: 'in no netns', given: [], op: bridge(), outcome: 'ENOENT' },
    { name: 'with too small an MTU', given: NETNS, op: bridge(67), outcome: 'EINVAL' },
    {
      name: 'with a multicast MAC',
      given: NETNS,
      op: bridge(1500, MULTICAST_MAC),
      outcome: 'EADDRNOTAVAIL',
    },
  ],
  'link.del': [
    ...VXLAN_LINK_DEL,
    ...MACVLAN_LINK_DEL,
    {
      name: 'takes both ends of a veth',
      given: PAIR,
      op: { op: 'link.del', netns: 'one', ifname: V0 },
      outcome: {
        see: (host) => [names('one')(host), names('two')(host)],
        is: [['br0', 'lo'], ['lo']],
      },
    },
    {
      name: 'takes them from the far end too',
      given: PAIR,
      op: { op: 'link.del', netns: 'two', ifname: ETH0 },
      outcome: { see: names('one'), is: ['br0', 'lo'] },
    },
    {
      name: 'of a bridge releases its ports',
      given: PAIR,
      op: { op: 'link.del', netns: 'one', ifname: BR0 },
      outcome: { see: pick('one', V0, 'port', 'up'), is: { port: null, up: true } },
    },
    {
      name: 'of none',
      given: NETNS,
      op: { op: 'link.del', netns: 'one', ifname: GONE },
      outcome: 'ENODEV',
    },
    {
      name: 'of lo',
      given: NETNS,
      op: { op: 'link.del', netns: 'one', ifname: LO },
      outcome: 'EOPNOTSUPP',
    },
  ],
  'link.set': [
    ...VLAN_LINK_SET,
    ...VXLAN_LINK_SET,
    ...MACVLAN_LINK_SET,
    ...(
      [
        ['up', { up: false }, { up: false }],
        ['the MTU', { mtuBytes: 1350 }, { mtuBytes: 1350 }],
        ['the MAC', { mac: BRIDGE_MAC }, { mac: BRIDGE_MAC }],
        ['promiscuous mode', { promiscuous: true }, { promiscuous: true }],
        ['the alias', { alias: 'cube-cni a/b/c' }, { alias: 'cube-cni a/b/c' }],
        ['no master', { master: null }, { port: null }],
      ] as const
    ).map(([what, attribute, is]): Program => ({
      name: `changes ${what}`,
      given: PAIR,
      op: set(V0, attribute),
      outcome: { see: pick('one', V0, ...Object.keys(is)), is },
    })),
    {
      name: 'changes the master',
      given: [...NETNS, bridge(), veth()],
      op: set(V0, { master: BR0 }),
      outcome: {
        see: (host) => linkOf('one', V0)(host)?.port,
        is: expect.objectContaining({
          master: BR0,
          hairpin: false,
          isolated: false,
          learning: true,
          flood: true,
        }),
      },
    },
    { name: 'of no link', given: NETNS, op: set(GONE, { up: true }), outcome: 'ENODEV' },
    {
      name: 'with too large an MTU',
      given: PAIR,
      op: set(V0, { mtuBytes: 65536 }),
      outcome: 'EINVAL',
    },
    {
      name: 'with a multicast MAC',
      given: PAIR,
      op: set(V0, { mac: MULTICAST_MAC }),
      outcome: 'EADDRNOTAVAIL',
    },
    {
      name: 'with too long an alias',
      given: PAIR,
      op: set(V0, { alias: 'a'.repeat(256) }),
      outcome: 'ERANGE',
    },
    {
      name: 'with a master that is no bridge',
      given: [...NETNS, bridge(), veth()],
      op: set(BR0, { master: V0 }),
      outcome: 'EOPNOTSUPP',
    },
    { name: 'with itself as master', given: PAIR, op: set(BR0, { master: BR0 }), outcome: 'ELOOP' },
  ],
  'group.del': GROUP_DEL,
  'vlan.add': VLAN_ADD,
  'vlan.del': VLAN_DEL,
  'qdisc.add': QDISC_ADD,
  'qdisc.del': QDISC_DEL,
  'filter.add': FILTER_ADD,
  'filter.del': FILTER_DEL,
  'port.set': [
    ...(['hairpin', 'isolated', 'learning', 'flood'] as const).map((flag): Program => {
      const on = flag === 'hairpin' || flag === 'isolated';
      return {
        name: `switches ${flag} ${on ? 'on' : 'off'}`,
        given: PAIR,
        op: { op: 'port.set', netns: 'one', ifname: V0, flag, on },
        outcome: { see: (host) => linkOf('one', V0)(host)?.port?.[flag], is: on },
      };
    }),
    {
      name: 'of what is no port',
      given: [...NETNS, bridge(), veth()],
      op: { op: 'port.set', netns: 'one', ifname: V0, flag: 'hairpin', on: true },
      outcome: 'EOPNOTSUPP',
    },
    {
      name: 'of no link',
      given: NETNS,
      op: { op: 'port.set', netns: 'one', ifname: GONE, flag: 'hairpin', on: true },
      outcome: 'ENODEV',
    },
  ],
  'address.add': [
    {
      name: 'comes with its routes',
      given: PAIR,
      op: addAddress(),
      outcome: {
        see: (host) => [ipv4Addresses(host), ipv4Routes(host)],
        is: [[['10.1.0.2', 24, '10.1.0.255', false]], CONNECTED],
      },
    },
    {
      name: 'a second one of the prefix is secondary',
      given: [...PAIR, addAddress()],
      op: addAddress('10.1.0.3'),
      outcome: {
        see: ipv4Addresses,
        is: [
          ['10.1.0.2', 24, '10.1.0.255', false],
          ['10.1.0.3', 24, '10.1.0.255', true],
        ],
      },
    },
    { name: 'twice', given: [...PAIR, addAddress()], op: addAddress(), outcome: 'EEXIST' },
    {
      name: 'twice, IPv6',
      given: [...PAIR, addAddress('fd00::2', ETH0, 64)],
      op: addAddress('fd00::2', ETH0, 64),
      outcome: 'EEXIST',
    },
    {
      name: 'of a multicast address',
      given: PAIR,
      op: addAddress('ff02::2', ETH0, 64),
      outcome: 'EADDRNOTAVAIL',
    },
    { name: 'on no link', given: NETNS, op: addAddress('10.1.0.2', GONE), outcome: 'ENODEV' },
  ],
  'address.del': [
    {
      name: 'takes its routes along',
      given: [...PAIR, addAddress(), addRoute()],
      op: { op: 'address.del', netns: 'two', ifname: ETH0, address: ADDRESS },
      outcome: { see: (host) => [ipv4Addresses(host), ipv4Routes(host)], is: [[], []] },
    },
    {
      name: 'of none',
      given: PAIR,
      op: { op: 'address.del', netns: 'two', ifname: ETH0, address: ADDRESS },
      outcome: 'EADDRNOTAVAIL',
    },
    {
      name: 'on no link',
      given: NETNS,
      op: { op: 'address.del', netns: 'two', ifname: GONE, address: ADDRESS },
      outcome: 'ENODEV',
    },
  ],
  'route.add': [
    {
      name: 'through a gateway',
      given: [...PAIR, addAddress()],
      op: addRoute(),
      outcome: { see: ipv4Routes, is: [...CONNECTED, 'unicast 0.0.0.0/0 10.1.0.1'].toSorted() },
    },
    {
      name: 'twice',
      given: [...PAIR, addAddress(), addRoute()],
      op: addRoute(),
      outcome: 'EEXIST',
    },
    {
      name: 'through a gateway that cannot be reached',
      given: PAIR,
      op: addRoute(),
      outcome: 'ENETUNREACH',
    },
    {
      name: 'through a broadcast address',
      given: [...PAIR, addAddress()],
      op: addRoute({ gateway: parseIp('10.1.0.255') }),
      outcome: 'EINVAL',
    },
    {
      name: 'through a link that is down',
      given: [...PAIR, { op: 'link.set', netns: 'two', ifname: ETH0, set: { up: false } }],
      op: addRoute({ gateway: null, scope: 'link' }),
      outcome: 'ENETDOWN',
    },
    {
      name: 'from an address that is not there',
      given: [...PAIR, addAddress()],
      op: addRoute({ source: parseIp('10.9.9.9') }),
      outcome: 'EINVAL',
    },
    { name: 'through no link', given: NETNS, op: addRoute({ device: GONE }), outcome: 'ENODEV' },
    {
      name: 'to a table of its own, through a gateway that main leads to',
      given: [...PAIR, addAddress(), addRoute()],
      op: addRoute({ table: 100 }),
      outcome: {
        see: defaultRoutes,
        is: [
          { table: 100, mtuBytes: undefined, advmssBytes: undefined },
          { table: 254, mtuBytes: undefined, advmssBytes: undefined },
        ],
      },
    },
    {
      name: 'with an MTU and an MSS',
      given: [...PAIR, addAddress()],
      op: addRoute({ table: 1000, mtuBytes: 1400, advmssBytes: 1360 }),
      outcome: {
        see: defaultRoutes,
        is: [{ table: 1000, mtuBytes: 1400, advmssBytes: 1360 }],
      },
    },
    {
      name: 'twice, with another MTU',
      given: [...PAIR, addAddress(), addRoute({ table: 100 })],
      op: addRoute({ table: 100, mtuBytes: 1300 }),
      outcome: 'EEXIST',
    },
  ],
  'route.del': [
    {
      name: 'takes it away',
      given: [...PAIR, addAddress(), addRoute()],
      op: delRoute,
      outcome: { see: ipv4Routes, is: CONNECTED },
    },
    { name: 'of none', given: [...PAIR, addAddress()], op: delRoute, outcome: 'ESRCH' },
    {
      name: 'of one in another table',
      given: [...PAIR, addAddress(), addRoute({ table: 100 })],
      op: delRoute,
      outcome: 'ESRCH',
    },
    {
      name: 'of one that somebody else made',
      given: [...PAIR, addAddress(), addRoute({ protocol: 3 })],
      op: delRoute,
      outcome: 'ESRCH',
    },
  ],
  'neighbour.add': [
    {
      name: 'makes a permanent entry',
      given: PAIR,
      op: { op: 'neighbour.add', netns: 'two', ifname: ETH0, neighbour: NEIGHBOUR },
      outcome: { see: (host) => linkOf('two', ETH0)(host)?.neighbours, is: [NEIGHBOUR] },
    },
    {
      name: 'on no link',
      given: NETNS,
      op: { op: 'neighbour.add', netns: 'two', ifname: GONE, neighbour: NEIGHBOUR },
      outcome: 'ENODEV',
    },
  ],
  'neighbour.del': [
    {
      name: 'takes it away',
      given: [...PAIR, { op: 'neighbour.add', netns: 'two', ifname: ETH0, neighbour: NEIGHBOUR }],
      op: { op: 'neighbour.del', netns: 'two', ifname: ETH0, ip: NEIGHBOUR.ip },
      outcome: { see: (host) => linkOf('two', ETH0)(host)?.neighbours, is: [] },
    },
    {
      name: 'of none',
      given: PAIR,
      op: { op: 'neighbour.del', netns: 'two', ifname: ETH0, ip: NEIGHBOUR.ip },
      outcome: 'ENOENT',
    },
  ],
  'link.rename': [...LINK_RENAME, ...MACVLAN_LINK_RENAME],
  'link.move': [...LINK_MOVE, ...VXLAN_LINK_MOVE, ...MACVLAN_LINK_MOVE],
  'altname.add': ALTNAME_ADD,
  'altname.del': ALTNAME_DEL,
  'fdb.add': FDB_ADD,
  'fdb.del': FDB_DEL,
  'remote.add': REMOTE_ADD,
  'remote.del': REMOTE_DEL,
  'rule.add': RULE_ADD,
  'rule.del': RULE_DEL,
  'address.announce': [
    {
      name: 'leaves the host as it was',
      given: [...PAIR, addAddress()],
      op: announce(),
      outcome: { see: ipv4Addresses, is: [['10.1.0.2', 24, '10.1.0.255', false]] },
    },
    { name: 'on no link', given: NETNS, op: announce({ ifname: GONE }), outcome: 'ENODEV' },
    {
      name: 'on the loopback, which has no neighbours',
      given: NETNS,
      op: announce({ ifname: LO }),
      outcome: 'EOPNOTSUPP',
    },
    {
      name: 'on a link that is down',
      given: [
        ...PAIR,
        addAddress(),
        { op: 'link.set', netns: 'two', ifname: ETH0, set: { up: false } },
      ],
      op: announce(),
      outcome: 'ENETDOWN',
    },
    {
      name: 'of an address that the link does not have',
      given: [...PAIR, addAddress()],
      op: announce({ ip: parseIp('10.1.0.3') }),
      outcome: 'EADDRNOTAVAIL',
    },
  ],
  'conntrack.flush': [
    {
      name: 'where nothing is tracked leaves the host as it was',
      given: [...PAIR, addAddress()],
      op: { op: 'conntrack.flush', netns: 'two', ip: ADDRESS.ip },
      outcome: { see: ipv4Addresses, is: [['10.1.0.2', 24, '10.1.0.255', false]] },
    },
    {
      name: 'in no netns',
      given: [],
      op: { op: 'conntrack.flush', netns: 'two', ip: ADDRESS.ip },
      outcome: 'ENOENT',
    },
  ],
  'sysctl.set': [
    {
      name: 'changes its value',
      given: NETNS,
      op: { op: 'sysctl.set', netns: 'one', key: FORWARD, value: '1' },
      outcome: { see: (host) => host.netns['one']?.sysctls[FORWARD], is: '1' },
    },
    {
      name: 'of a link that is none',
      given: NETNS,
      op: { op: 'sysctl.set', netns: 'one', key: 'net/ipv6/conf/gone0/accept_dad', value: '0' },
      outcome: 'ENOENT',
    },
  ],
  'nft.batch': [
    {
      name: 'makes a whole table',
      given: NETNS,
      op: TABLE,
      outcome: {
        see: (host) => host.netns['one']?.nftables,
        is: {
          'inet conform': {
            family: 'inet',
            name: 'conform',
            chains: {
              post: {
                name: 'post',
                hook: { type: 'nat', hook: 'postrouting', priority: 100, policy: 'accept' },
                rules: [
                  { statements: [{ kind: 'vmap', field: 'ip saddr', map: 'pods' }], comment: '' },
                ],
              },
              masq: {
                name: 'masq',
                hook: null,
                rules: [{ statements: [{ kind: 'masquerade' }], comment: 'why' }],
              },
            },
            sets: {
              pods: {
                name: 'pods',
                keyType: 'ipv4_addr',
                holds: 'verdict',
                elements: { '10.1.0.2': ELEMENT },
              },
            },
          },
        },
      },
    },
    {
      name: 'puts rules before the last one of a chain',
      given: [...NETNS, TABLE],
      op: batch(inChain('insert rule', 'first'), inChain('insert rule', 'second')),
      outcome: { see: commentsIn, is: ['first', 'second', 'why'] },
    },
    {
      name: 'takes single rules away, of several that read alike the first',
      given: [...NETNS, TABLE, batch(...['a', 'b', 'a'].map((each) => inChain('add rule', each)))],
      op: batch(inChain('delete rule', 'a'), inChain('delete rule', 'b')),
      outcome: { see: commentsIn, is: ['why', 'a'] },
    },
    {
      name: 'takes rules of the same number from two tables',
      given: [
        ...NETNS,
        ...(['ip', 'ip6'] as const).map((family) =>
          batch(
            { family, table: 'conform', do: 'add table' },
            { family, table: 'conform', do: 'add chain', chain: 'masq', hook: null },
            { ...inChain('add rule', 'a'), family },
          ),
        ),
      ],
      op: batch(
        { ...inChain('delete rule', 'a'), family: 'ip' },
        { ...inChain('delete rule', 'a'), family: 'ip6' },
      ),
      outcome: {
        see: (host) =>
          ['ip', 'ip6'].map(
            (family) => host.netns['one']?.nftables[`${family} conform`]?.chains['masq']?.rules,
          ),
        is: [[], []],
      },
    },
    {
      name: 'a rule before the last of none',
      given: [...NETNS, TABLE, batch({ ...REF, do: 'flush chain', chain: 'masq' })],
      op: batch(inChain('insert rule', 'a')),
      outcome: 'ENOENT',
    },
    {
      name: 'takes a rule away that is not there',
      given: [...NETNS, TABLE],
      op: batch(inChain('delete rule', 'a')),
      outcome: 'ENOENT',
    },
    {
      name: 'takes an element away',
      given: [...NETNS, TABLE],
      op: batch({ ...REF, do: 'delete element', set: 'pods', key: ELEMENT.key }),
      outcome: {
        see: (host) => host.netns['one']?.nftables['inet conform']?.sets['pods']?.elements,
        is: {},
      },
    },
    {
      name: 'takes a table away with all that is in it',
      given: [...NETNS, TABLE],
      op: batch({ ...REF, do: 'delete table' }),
      outcome: { see: (host) => host.netns['one']?.nftables, is: {} },
    },
    {
      name: 'of a table that is none',
      given: NETNS,
      op: batch({ ...REF, do: 'delete table' }),
      outcome: 'ENOENT',
    },
    {
      name: 'of which the last command fails: none is done',
      given: NETNS,
      op: batch({ ...REF, do: 'add table' }, { ...REF, do: 'delete chain', chain: 'none' }),
      outcome: 'ENOENT',
    },
    {
      name: 'of an element that is there otherwise',
      given: [...NETNS, TABLE],
      op: batch({
        ...REF,
        do: 'add element',
        set: 'pods',
        element: { ...ELEMENT, verdict: { verdict: 'accept' } },
      }),
      outcome: 'EEXIST',
    },
    {
      name: 'makes a table that looks at frames',
      given: NETNS,
      op: BRIDGE_TABLE,
      outcome: {
        see: (host) => {
          const table = host.netns['one']?.nftables['bridge conform'];
          return [
            table?.chains['pre']?.rules.map(formatRule),
            Object.values(table?.sets ?? {}).map(({ elements, ...keys }) => [
              keys,
              Object.values(elements),
            ]),
          ];
        },
        is: [
          [
            'iifname @ports iifname . ether saddr != @macs drop',
            'iifname @ports iifname . arp saddr ether != @macs drop',
          ],
          [
            [
              { name: 'ports', keyType: 'ifname', holds: 'nothing' },
              [{ key: V0, verdict: null, comment: 'pod' }],
            ],
            [
              { name: 'macs', keyType: 'ifname . ether_addr', holds: 'nothing' },
              [{ key: PORT_KEY, verdict: null, comment: '' }],
            ],
          ],
        ],
      },
    },
    {
      name: 'takes an element with a joined key away',
      given: [...NETNS, BRIDGE_TABLE],
      op: batch({ ...BRIDGE_REF, do: 'delete element', set: 'macs', key: PORT_KEY }),
      outcome: {
        see: (host) => host.netns['one']?.nftables['bridge conform']?.sets['macs']?.elements,
        is: {},
      },
    },
    {
      name: 'of an element whose key has another length',
      given: [...NETNS, BRIDGE_TABLE],
      op: batch({
        ...BRIDGE_REF,
        do: 'add element',
        set: 'macs',
        element: { key: V0, verdict: null, comment: '' },
      }),
      outcome: 'EINVAL',
    },
    {
      name: 'that takes away an element whose key has another length',
      given: [...NETNS, BRIDGE_TABLE],
      op: batch({ ...BRIDGE_REF, do: 'delete element', set: 'ports', key: PORT_KEY }),
      outcome: 'EINVAL',
    },
    {
      name: 'of a set that is there with other keys',
      given: [...NETNS, BRIDGE_TABLE],
      op: batch({
        ...BRIDGE_REF,
        do: 'add set',
        set: 'ports',
        keyType: 'ifname . ether_addr',
        holds: 'nothing',
      }),
      outcome: 'EEXIST',
    },
    {
      name: 'of a lookup with fewer bytes than the keys have',
      given: [...NETNS, BRIDGE_TABLE],
      op: batch(spoofed(lookup('iifname', 'macs'))),
      outcome: 'ENODATA',
      onLinux61: {
        see: (host) => host.netns['one']?.nftables['bridge conform']?.chains['pre']?.rules.length,
        is: 3,
      },
    },
    {
      name: 'of a lookup with bytes that an earlier statement loaded',
      given: [...NETNS, BRIDGE_TABLE],
      op: batch(
        { ...BRIDGE_REF, do: 'flush chain', chain: 'pre' },
        spoofed(lookup('iifname . ip6 saddr', 'macs'), lookup('ether saddr', 'ports')),
      ),
      outcome: {
        see: (host) =>
          host.netns['one']?.nftables['bridge conform']?.chains['pre']?.rules.map(formatRule),
        is: ['iifname . ip6 saddr @macs ether saddr @ports drop'],
      },
    },
    {
      name: 'of a base chain that is hooked in elsewhere',
      given: [...NETNS, BRIDGE_TABLE],
      op: batch({
        ...BRIDGE_REF,
        do: 'add chain',
        chain: 'pre',
        hook: { type: 'filter', hook: 'forward', priority: -300, policy: 'accept' },
      }),
      outcome: 'EOPNOTSUPP',
      onLinux61: 'EEXIST',
    },
    {
      name: 'of a base chain that has another type',
      given: [...NETNS, TABLE],
      op: batch({
        ...REF,
        do: 'add chain',
        chain: 'post',
        hook: { type: 'filter', hook: 'postrouting', priority: 100, policy: 'accept' },
      }),
      outcome: 'EEXIST',
    },
    {
      name: 'of a chain for nat of frames',
      given: [...NETNS, BRIDGE_TABLE],
      op: batch({
        ...BRIDGE_REF,
        do: 'add chain',
        chain: 'nat',
        hook: { type: 'nat', hook: 'postrouting', priority: -300, policy: 'accept' },
      }),
      outcome: 'ENOENT',
    },
    {
      name: 'of masquerade of frames',
      given: [...NETNS, BRIDGE_TABLE],
      op: batch({
        ...BRIDGE_REF,
        do: 'add rule',
        chain: 'pre',
        rule: { statements: [lookup('iifname', 'macs'), { kind: 'masquerade' }], comment: '' },
      }),
      outcome: 'ENOENT',
    },
    {
      name: 'of a chain that is in use',
      given: [...NETNS, TABLE],
      op: batch({ ...REF, do: 'delete chain', chain: 'masq' }),
      outcome: 'EBUSY',
    },
  ],
};
