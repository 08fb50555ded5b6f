import {
  encodeAddressAdd,
  encodeAddressDel,
  encodeAddressDump,
} from '../../../backends/linux/address-message.ts';
import {
  type FlowField,
  encodeFlowCountGet,
  encodeFlowDel,
  encodeFlowDump,
  encodeFlowSearch,
} from '../../../backends/linux/conntrack-message.ts';
import {
  encodeFdbAdd,
  encodeFdbDel,
  encodeFdbDump,
  encodeRemoteAdd,
  encodeRemoteDel,
} from '../../../backends/linux/fdb-message.ts';
import {
  encodeAltnameAdd,
  encodeAltnameDel,
  encodeBridgeAdd,
  encodeGroupDel,
  encodeIfbAdd,
  encodeLinkDel,
  encodeLinkDump,
  encodeLinkGet,
  encodeLinkMove,
  encodeLinkRename,
  encodeLinkSet,
  encodeNetnsIdGet,
  encodePortSet,
  encodeVethAdd,
  encodeMacvlanAdd,
  encodeVxlanAdd,
} from '../../../backends/linux/link-message.ts';
import {
  encodeNeighbourAdd,
  encodeNeighbourDel,
  encodeNeighbourDump,
} from '../../../backends/linux/neighbour-message.ts';
import { encodeNetconfGet } from '../../../backends/linux/netconf-message.ts';
import {
  encodePolicyRuleAdd,
  encodePolicyRuleDel,
  encodePolicyRuleDump,
} from '../../../backends/linux/policy-rule-message.ts';
import {
  encodeRouteAdd,
  encodeRouteDel,
  encodeRouteDump,
  encodeTableDump,
} from '../../../backends/linux/route-message.ts';
import {
  encodeFilterAdd,
  encodeFilterDel,
  encodeFilterDump,
  encodeQdiscAdd,
  encodeQdiscDel,
  encodeQdiscDump,
  encodeQdiscGet,
} from '../../../backends/linux/traffic-control-message.ts';
import { makeAddress } from '../../../model/address.ts';
import { type Ifname, parseIfname } from '../../../model/ifname.ts';
import { type Ip, ipBytes, parseIp } from '../../../model/ip.ts';
import { type Mac, ZERO_MAC, parseMac } from '../../../model/mac.ts';
import type {
  LookupField,
  NftCommand,
  Rule,
  SetKey,
  SetKeyType,
  Statement,
  TableRef,
} from '../../../model/nftables.ts';
import { makePolicyRule } from '../../../model/policy-rule.ts';
import { parsePrefix } from '../../../model/prefix.ts';
import { PROTOCOL_CUBE, makeRoute } from '../../../model/route.ts';
import { tokenBucket } from '../../../model/traffic-control.ts';

const BRIDGE = parseIfname('cube0');
const PORT = parseIfname('veth1');
const PEER = parseIfname('eth0');
const IFB = parseIfname('ifb0');
const GROUP = 0x4000_0001;
/** The kernel counts ifindexes from 1 in each netns; of a veth the peer comes first. */
export const INDEX = { lo: 1, bridge: 2, peer: 3, port: 4, ifb: 5, vxlan: 6 } as const;

const end = (ifname: typeof PORT, mac: string, mtuBytes: number) => ({
  ifname,
  mac: parseMac(mac),
  mtuBytes,
  up: false,
});
const address = (ip: string, prefixLength: number) =>
  makeAddress({ ip: parseIp(ip), prefixLength });

const PAIR = {
  end: { ...end(PORT, '02:00:00:00:00:02', 1400), up: true },
  masterIndex: INDEX.bridge,
  peer: end(PEER, '02:00:00:00:00:03', 1400),
} as const;

const DIRECT = makeRoute({ destination: parsePrefix('169.254.1.1/32'), device: PEER });
const DEFAULT4 = makeRoute({
  destination: parsePrefix('0.0.0.0/0'),
  device: PEER,
  gateway: parseIp('169.254.1.1'),
  metric: 7,
});
const ONLINK = makeRoute({
  destination: parsePrefix('10.9.0.0/16'),
  device: PEER,
  gateway: parseIp('10.8.0.1'),
  onlink: true,
  source: parseIp('10.1.0.5'),
  protocol: PROTOCOL_CUBE,
});
const FAR_TABLE = {
  ...makeRoute({ destination: parsePrefix('10.10.0.0/16'), device: PEER }),
  table: 1000,
};
const DEFAULT6 = makeRoute({
  destination: parsePrefix('::/0'),
  device: PEER,
  gateway: parseIp('fd00::1'),
});
const VIA6 = makeRoute({
  destination: parsePrefix('10.11.0.0/16'),
  device: PEER,
  gateway: parseIp('fd00::1'),
});
const NEIGHBOUR4 = { ip: parseIp('169.254.1.1'), mac: parseMac('02:00:00:00:00:01') };
const NEIGHBOUR6 = { ip: parseIp('fd00::1'), mac: parseMac('02:00:00:00:00:01') };

const ALTNAME = 'an alternative name';
const VXLAN = parseIfname('vxlan7');
const VXLAN6 = parseIfname('vxlan8');
const MACVLAN = parseIfname('macvlan0');
const RENAMED = parseIfname('vxlan9');
const TUNNEL = {
  vni: 7,
  udpPort: 4789,
  local: parseIp('10.1.0.5'),
  lower: BRIDGE,
  learning: false,
} as const;
const TUNNEL6 = {
  vni: 0xff_ffff,
  udpPort: 8472,
  local: parseIp('fd00::5'),
  lower: null,
  learning: true,
} as const;
const REMOTE = { mac: parseMac('02:00:00:00:00:e0'), ip: parseIp('192.0.2.1') };
const FLOOD = { mac: ZERO_MAC, ip: parseIp('192.0.2.2') };
const FDB_OF_PORT = {
  ifindex: INDEX.port,
  self: false,
  mac: parseMac('02:00:00:00:00:f0'),
} as const;
const FDB_OF_BRIDGE = {
  ifindex: INDEX.bridge,
  self: true,
  mac: parseMac('02:00:00:00:00:f1'),
} as const;
const RULE4 = makePolicyRule({
  family: 4,
  priority: 100,
  source: parsePrefix('10.1.0.0/24'),
  destination: parsePrefix('10.2.0.0/16'),
  iif: BRIDGE,
  mark: { value: 0x10, mask: 0xf0 },
  table: 1000,
  protocol: PROTOCOL_CUBE,
});
const RULE6 = makePolicyRule({
  family: 6,
  priority: 101,
  source: parsePrefix('fd00::/64'),
  oif: PEER,
  action: 'prohibit',
  table: null,
  protocol: PROTOCOL_CUBE,
});

/** Changes that a fresh netns accepts in this order, one after the other. */
export const CHANGES: readonly (readonly [string, Uint8Array])[] = [
  ['bridge add', encodeBridgeAdd({ ...end(BRIDGE, '02:00:00:00:00:01', 1450), up: true })],
  ['veth add', encodeVethAdd({ ...PAIR, peerNetnsFd: undefined })],
  ['link up', encodeLinkSet(PEER, { up: true })],
  ['link mtu', encodeLinkSet(PEER, { mtuBytes: 1300 })],
  ['link mac', encodeLinkSet(PEER, { mac: parseMac('02:00:00:00:00:33') })],
  ['link promiscuous', encodeLinkSet(PORT, { promiscuous: true })],
  ['link alias', encodeLinkSet(BRIDGE, { alias: 'cube-cni zürich' })],
  ['link without alias', encodeLinkSet(PORT, { alias: '' })],
  ['port hairpin on', encodePortSet(PORT, 'hairpin', 1)],
  ['port isolated on', encodePortSet(PORT, 'isolated', 1)],
  ['port learning off', encodePortSet(PORT, 'learning', 0)],
  ['port flood off', encodePortSet(PORT, 'flood', 0)],
  ['address add', encodeAddressAdd(INDEX.peer, address('10.1.0.5', 24))],
  ['secondary address add', encodeAddressAdd(INDEX.peer, address('10.1.0.6', 24))],
  ['host address add', encodeAddressAdd(INDEX.peer, { ...address('10.2.0.1', 32), scope: 'host' })],
  [
    'peer address add',
    encodeAddressAdd(
      INDEX.peer,
      makeAddress({ ip: parseIp('10.3.0.1'), prefixLength: 32, peer: parseIp('10.3.0.2') }),
    ),
  ],
  [
    'noprefixroute address add',
    encodeAddressAdd(INDEX.bridge, { ...address('10.4.0.1', 24), noPrefixRoute: true }),
  ],
  ['ipv6 address add', encodeAddressAdd(INDEX.peer, address('fd00::5', 64))],
  [
    'ipv6 peer address add',
    encodeAddressAdd(
      INDEX.bridge,
      makeAddress({ ip: parseIp('fd01::5'), prefixLength: 128, peer: parseIp('fd01::6') }),
    ),
  ],
  ['device route add', encodeRouteAdd(DIRECT, INDEX.peer)],
  ['gateway route add', encodeRouteAdd(DEFAULT4, INDEX.peer)],
  ['onlink route add', encodeRouteAdd(ONLINK, INDEX.peer)],
  ['route add to a far table', encodeRouteAdd(FAR_TABLE, INDEX.peer)],
  ['ipv6 route add', encodeRouteAdd(DEFAULT6, INDEX.peer)],
  ['ipv4 route add via ipv6', encodeRouteAdd(VIA6, INDEX.peer)],
  ['neighbour add', encodeNeighbourAdd(INDEX.peer, NEIGHBOUR4)],
  ['ipv6 neighbour add', encodeNeighbourAdd(INDEX.peer, NEIGHBOUR6)],
  ['ifb add', encodeIfbAdd({ ...end(IFB, '02:00:00:00:00:04', 1400), up: true, group: GROUP })],
  ['qdisc tbf add', encodeQdiscAdd(INDEX.ifb, { kind: 'tbf', ...tokenBucket(125_000, 20_000) })],
  [
    'qdisc tbf add of more than 32 bits',
    encodeQdiscAdd(INDEX.port, { kind: 'tbf', ...tokenBucket(5_000_000_000, 1_000_000) }),
  ],
  ['qdisc clsact add', encodeQdiscAdd(INDEX.port, { kind: 'clsact' })],
  ['filter add', encodeFilterAdd(INDEX.port, INDEX.ifb)],
  ['altname add', encodeAltnameAdd(PORT, ALTNAME)],
  ['policy rule add', encodePolicyRuleAdd(RULE4)],
  ['ipv6 policy rule add', encodePolicyRuleAdd(RULE6)],
  ['fdb add', encodeFdbAdd(FDB_OF_PORT, 'static')],
  ['fdb add of the bridge itself', encodeFdbAdd(FDB_OF_BRIDGE, 'local')],
  ['vxlan add', encodeVxlanAdd(end(VXLAN, '02:00:00:00:00:05', 1300), TUNNEL, INDEX.bridge)],
  [
    'ipv6 vxlan add over nothing',
    encodeVxlanAdd(end(VXLAN6, '02:00:00:00:00:06', 1300), TUNNEL6, undefined),
  ],
  [
    'macvlan add',
    encodeMacvlanAdd(end(MACVLAN, '02:00:00:00:00:07', 1300), 'private', INDEX.bridge),
  ],
  ['remote add', encodeRemoteAdd(INDEX.vxlan, REMOTE, false)],
  ['remote append', encodeRemoteAdd(INDEX.vxlan, FLOOD, true)],
];

/** Takes back what `CHANGES` made, in this order. */
export const REMOVALS: readonly (readonly [string, Uint8Array])[] = [
  ['remote del', encodeRemoteDel(INDEX.vxlan, REMOTE)],
  ['link rename', encodeLinkRename(INDEX.vxlan, RENAMED)],
  ['fdb del', encodeFdbDel(FDB_OF_PORT)],
  ['fdb del of the bridge itself', encodeFdbDel(FDB_OF_BRIDGE)],
  ['policy rule del', encodePolicyRuleDel(RULE4)],
  ['ipv6 policy rule del', encodePolicyRuleDel(RULE6)],
  ['altname del', encodeAltnameDel(PORT, ALTNAME)],
  ['filter del', encodeFilterDel(INDEX.port)],
  ['qdisc del at ingress', encodeQdiscDel(INDEX.port, 'ingress')],
  ['qdisc del at root', encodeQdiscDel(INDEX.ifb, 'root')],
  ['neighbour del', encodeNeighbourDel(INDEX.peer, NEIGHBOUR4.ip)],
  ['ipv6 neighbour del', encodeNeighbourDel(INDEX.peer, NEIGHBOUR6.ip)],
  ['ipv4 route del via ipv6', encodeRouteDel(VIA6, INDEX.peer)],
  ['ipv6 route del', encodeRouteDel(DEFAULT6, INDEX.peer)],
  ['route del from a far table', encodeRouteDel(FAR_TABLE, INDEX.peer)],
  ['onlink route del', encodeRouteDel(ONLINK, INDEX.peer)],
  ['gateway route del', encodeRouteDel(DEFAULT4, INDEX.peer)],
  ['device route del', encodeRouteDel(DIRECT, INDEX.peer)],
  ['ipv6 address del', encodeAddressDel(INDEX.peer, address('fd00::5', 64))],
  [
    'peer address del',
    encodeAddressDel(
      INDEX.peer,
      makeAddress({ ip: parseIp('10.3.0.1'), prefixLength: 32, peer: parseIp('10.3.0.2') }),
    ),
  ],
  ['address del', encodeAddressDel(INDEX.peer, address('10.1.0.5', 24))],
  ['link nomaster', encodeLinkSet(PORT, { masterIndex: 0 })],
  ['link down', encodeLinkSet(PEER, { up: false })],
  ['link del', encodeLinkDel(PORT)],
  ['group del', encodeGroupDel(GROUP)],
];

/** The addresses whose connections are recorded. */
export const FLOW_IPS = {
  4: ipBytes(parseIp('10.1.0.5')),
  6: ipBytes(parseIp('fd00::5')),
} as const;

const FLOW_FIELDS: readonly FlowField[] = [
  { tuple: 'original', end: 'source' },
  { tuple: 'original', end: 'destination' },
  { tuple: 'reply', end: 'source' },
  { tuple: 'reply', end: 'destination' },
];

/** What `conntrack -I` takes to make connections of those addresses, and one of others. */
export const FLOWS: readonly string[] = [
  '-s 10.1.0.5 -d 10.1.0.9 -p udp --sport 1 --dport 2',
  '-s 10.1.0.8 -d 10.96.0.1 -p tcp --sport 3 --dport 4 --state ESTABLISHED --dst-nat 10.1.0.5',
  '-s 10.1.0.9 -d 10.1.0.5 -p udp --sport 5 --dport 6 -w 7',
  '-s 10.1.0.8 -d 10.1.0.9 -p udp --sport 7 --dport 8',
  '-s fd00::8 -d fd00::5 -p udp --sport 9 --dport 10',
];

/** Questions, a deletion of a connection, whose id differs from run to run, and a message that holds a file descriptor, which differs from run to run: 9 here. */
export const QUESTIONS: readonly (readonly [string, Uint8Array])[] = [
  ['link get by name', encodeLinkGet(PEER)],
  ['link get by ifindex', encodeLinkGet(INDEX.bridge)],
  ['link dump', encodeLinkDump()],
  ['link move', encodeLinkMove(INDEX.peer, 9)],
  ['fdb dump', encodeFdbDump()],
  ['policy rule dump', encodePolicyRuleDump()],
  ['settings of all links get', encodeNetconfGet(4)],
  ['ipv6 settings of all links get', encodeNetconfGet(6)],
  ['address dump of all links', encodeAddressDump(0)],
  ['address dump of one link', encodeAddressDump(INDEX.peer)],
  ['route dump of all links', encodeRouteDump(0)],
  ['route dump of one link', encodeRouteDump(INDEX.peer)],
  ['route dump of one table', encodeTableDump(4, 254)],
  ['neighbour dump of all links', encodeNeighbourDump(0)],
  ['qdisc get at root', encodeQdiscGet(INDEX.ifb, 'root')],
  ['qdisc get at ingress', encodeQdiscGet(INDEX.port, 'ingress')],
  ['qdisc dump', encodeQdiscDump()],
  ['filter dump', encodeFilterDump(INDEX.port)],
  ['neighbour dump of one link', encodeNeighbourDump(INDEX.peer)],
  ['link get in another netns', encodeLinkGet(INDEX.bridge, 3)],
  ['flow count get', encodeFlowCountGet()],
  ['flow dump', encodeFlowDump(FLOW_IPS[4])],
  ['ipv6 flow dump', encodeFlowDump(FLOW_IPS[6])],
  ...FLOW_FIELDS.map(
    (field) =>
      [`flow search by ${field.tuple} ${field.end}`, encodeFlowSearch(FLOW_IPS[4], field)] as const,
  ),
  ['flow del', encodeFlowDel(FLOW_IPS[4], { key: Uint8Array.of(8, 0, 12, 0, 1, 2, 3, 4) })],
  ['netns id get', encodeNetnsIdGet(9)],
  ['veth add to another netns', encodeVethAdd({ ...PAIR, peerNetnsFd: 9 })],
];

/** The table of the nft vectors. */
export const TABLE: TableRef = { family: 'inet', table: 'cube' };
export const BRIDGE_TABLE: TableRef = { family: 'bridge', table: 'cube' };

const match = (field: 'ip saddr' | 'ip daddr', value: string): Statement => ({
  kind: 'match',
  field,
  negate: false,
  value: value.includes('/') ? parsePrefix(value) : parseIp(value),
});
const match6 = (field: 'ip6 saddr' | 'ip6 daddr', value: string): Statement => ({
  kind: 'match',
  field,
  negate: false,
  value: value.includes('/') ? parsePrefix(value) : parseIp(value),
});
const lookup = (field: LookupField, set: string): Statement => ({
  kind: 'lookup',
  field,
  negate: false,
  set,
});
const cameBy = (value: Ifname): Statement => ({
  kind: 'match',
  field: 'iifname',
  negate: false,
  value,
});
const not = (statement: Statement): Statement => ({ ...statement, negate: true }) as Statement;
const ACCEPT: Statement = { kind: 'verdict', verdict: 'accept' };
const DROP: Statement = { kind: 'verdict', verdict: 'drop' };
const rule = (comment: string, ...statements: Statement[]): Rule => ({ statements, comment });

/** Rules of a chain that jumps reach, each in the form that nft prints. */
export const RULES: readonly Rule[] = [
  rule('', match('ip saddr', '10.0.0.0/8'), ACCEPT),
  rule('a b', match('ip saddr', '10.0.16.0/20'), DROP),
  rule('', match('ip saddr', '1.2.3.4/31'), DROP),
  rule('', match('ip saddr', '0.0.0.0/0'), ACCEPT),
  rule('', not(match('ip saddr', '10.1.0.0/16')), match('ip daddr', '1.2.3.4'), ACCEPT),
  rule('', not(match('ip daddr', '10.0.16.0/20')), { kind: 'verdict', verdict: 'return' }),
  rule('', match6('ip6 daddr', 'fd00::/64'), { kind: 'verdict', verdict: 'continue' }),
  rule('', match6('ip6 saddr', 'fc00::/7'), ACCEPT),
  rule('', match6('ip6 saddr', '::/0'), DROP),
  rule('', match6('ip6 saddr', 'fd00::1'), DROP),
  rule('', { kind: 'lookup', field: 'ip saddr', negate: false, set: 's4' }, DROP),
  rule('', { kind: 'lookup', field: 'ip6 daddr', negate: true, set: 's6' }, DROP),
  rule('pods of a', { kind: 'vmap', field: 'ip daddr', map: 'm4' }),
  rule('', { kind: 'verdict', verdict: 'jump', chain: 'target' }),
  rule('', { kind: 'verdict', verdict: 'goto', chain: 'target' }),
  rule('', lookup('iifname', 'links'), not(lookup('iifname . ip saddr', 'links4')), DROP),
  rule('', lookup('iifname', 'links'), not(lookup('iifname . ip6 saddr', 'links6')), DROP),
  rule('', match('ip daddr', '10.0.0.0/8'), lookup('iifname . ip saddr', 'links4'), ACCEPT),
  rule('', lookup('iifname . ip6 daddr', 'links6'), match6('ip6 saddr', 'fd00::/64'), ACCEPT),
  rule('', { kind: 'vmap', field: 'iifname . ip saddr', map: 'linkmap' }),
  rule('', lookup('oifname', 'links'), not(lookup('iifname . oifname', 'pairs')), DROP),
  rule('', cameBy(PORT), match('ip saddr', '10.0.0.0/8'), ACCEPT),
  rule('', match6('ip6 saddr', 'fd00::/64'), not(cameBy(PORT)), DROP),
];

/** Rules of a table of family bridge. */
export const BRIDGE_RULES: readonly Rule[] = [
  rule('', lookup('iifname', 'links'), not(lookup('iifname . ether saddr', 'macs')), DROP),
  rule('', lookup('iifname', 'links'), not(lookup('iifname . arp saddr ether', 'macs')), DROP),
  rule('', lookup('iifname', 'links'), not(lookup('iifname . ip saddr', 'links4')), DROP),
  rule('', lookup('iifname', 'links'), not(lookup('iifname . arp saddr ip', 'links4')), DROP),
  rule('pods', lookup('iifname', 'links'), not(lookup('iifname . ip6 saddr', 'links6')), DROP),
  rule('', lookup('ether saddr', 'stations'), match('ip saddr', '10.0.0.0/8'), ACCEPT),
  rule('', match('ip saddr', '10.0.0.0/12'), match('ip daddr', '10.0.0.1'), ACCEPT),
  rule('', lookup('arp saddr ether', 'stations'), lookup('iifname . arp saddr ip', 'links4'), DROP),
  rule('', match6('ip6 daddr', 'fd00::1'), lookup('ether saddr', 'stations'), DROP),
  rule('', { kind: 'vmap', field: 'iifname', map: 'linkmap' }),
  rule('', not(cameBy(PORT)), lookup('ether saddr', 'stations'), DROP),
];

const dnat = (family: 4 | 6, field: LookupField, map: string): Statement => ({
  kind: 'dnat',
  family,
  field,
  map,
});

/** Rules of a chain of type nat that sees packets before they are routed. */
export const PORT_RULES: readonly Rule[] = [
  rule('', { kind: 'local' }, { kind: 'mark', bits: 0x2000, on: true }),
  rule('', dnat(4, 'ip daddr . meta l4proto . th dport', 'hostports4')),
  rule('', dnat(6, 'ip6 daddr . meta l4proto . th dport', 'hostports6')),
  rule('ports', dnat(4, 'meta l4proto . th dport', 'ports4')),
  rule('', { kind: 'local' }, dnat(6, 'meta l4proto . th dport', 'ports6')),
  rule('', { kind: 'marked', bits: 0x2000 }, match('ip saddr', '10.0.0.0/8'), ACCEPT),
  rule('', { kind: 'mark', bits: 0x2000, on: false }),
];

/** Rules of a chain of type nat. */
export const NAT_RULES: readonly Rule[] = [
  rule('', { kind: 'masquerade' }),
  rule('out', match('ip saddr', '10.1.0.5'), not(match('ip daddr', '224.0.0.0/4')), {
    kind: 'masquerade',
  }),
];

const POD_MAC = parseMac('4e:20:00:00:00:01');
const key = (mac: Mac | Ip): SetKey => `${PORT} . ${mac}`;
const addSet = (ref: TableRef, set: string, keyType: SetKeyType): NftCommand => ({
  ...ref,
  do: 'add set',
  set,
  keyType,
  holds: set.includes('map') ? 'verdict' : 'nothing',
});
const addElement = (ref: TableRef, set: string, of: SetKey, comment = ''): NftCommand => ({
  ...ref,
  do: 'add element',
  set,
  element: { key: of, verdict: set.includes('map') ? { verdict: 'drop' } : null, comment },
});

/** Sets whose keys begin with a link, which tables of both families have. */
const LINK_SETS: readonly NftCommand[] = [TABLE, BRIDGE_TABLE].flatMap((ref) => [
  addSet(ref, 'links', 'ifname'),
  addSet(ref, 'links4', 'ifname . ipv4_addr'),
  addSet(ref, 'links6', 'ifname . ipv6_addr'),
  addElement(ref, 'links', PORT, 'pod'),
  addElement(ref, 'links', parseIfname('veth-of-15-byte')),
  addElement(ref, 'links4', key(parseIp('10.0.0.1')), 'pod'),
  addElement(ref, 'links6', key(parseIp('fd00::1'))),
]);

const TO4 = 'ipv4_addr . inet_service';
const TO6 = 'ipv6_addr . inet_service';
const [IP4, IP6] = [parseIp('10.0.0.2'), parseIp('fd00::2')];

/** Maps from ports to where their packets go. */
const PORT_MAPS: readonly NftCommand[] = [
  { ...TABLE, do: 'add set', set: 'ports4', keyType: 'inet_proto . inet_service', holds: TO4 },
  { ...TABLE, do: 'add set', set: 'ports6', keyType: 'inet_proto . inet_service', holds: TO6 },
  {
    ...TABLE,
    do: 'add set',
    set: 'hostports4',
    keyType: 'ipv4_addr . inet_proto . inet_service',
    holds: TO4,
  },
  {
    ...TABLE,
    do: 'add set',
    set: 'hostports6',
    keyType: 'ipv6_addr . inet_proto . inet_service',
    holds: TO6,
  },
  ...(
    [
      ['ports4', 'tcp . 8080', `${IP4} . 80`, 'pod'],
      ['ports4', 'sctp . 65535', `${IP4} . 1`, ''],
      ['ports6', 'udp . 53', `${IP6} . 5353`, 'pod'],
      ['hostports4', `${IP4} . tcp . 443`, `${IP4} . 8443`, 'pod'],
      ['hostports6', `${IP6} . udp . 443`, `${IP6} . 8443`, ''],
    ] as const
  ).map(([set, port, target, comment]): NftCommand => ({
    ...TABLE,
    do: 'add element',
    set,
    element: { key: port, verdict: null, target, comment },
  })),
];

/** A batch with every kind of command that adds. */
export const BATCH: readonly NftCommand[] = [
  { ...TABLE, do: 'add table' },
  { ...TABLE, do: 'add chain', chain: 'target', hook: null },
  { ...TABLE, do: 'add chain', chain: 'rules', hook: null },
  {
    ...TABLE,
    do: 'add chain',
    chain: 'nat',
    hook: { type: 'nat', hook: 'postrouting', priority: 100, policy: 'accept' },
  },
  {
    ...TABLE,
    do: 'add chain',
    chain: 'filter',
    hook: { type: 'filter', hook: 'forward', priority: -10, policy: 'drop' },
  },
  { ...TABLE, do: 'add set', set: 's4', keyType: 'ipv4_addr', holds: 'nothing' },
  { ...TABLE, do: 'add set', set: 's6', keyType: 'ipv6_addr', holds: 'nothing' },
  { ...TABLE, do: 'add set', set: 'm4', keyType: 'ipv4_addr', holds: 'verdict' },
  { ...TABLE, do: 'add set', set: 'm6', keyType: 'ipv6_addr', holds: 'verdict' },
  {
    ...TABLE,
    do: 'add element',
    set: 's4',
    element: { key: parseIp('10.0.0.1'), verdict: null, comment: 'hi' },
  },
  {
    ...TABLE,
    do: 'add element',
    set: 's4',
    element: { key: parseIp('10.0.0.2'), verdict: null, comment: '' },
  },
  {
    ...TABLE,
    do: 'add element',
    set: 's6',
    element: { key: parseIp('fd00::1'), verdict: null, comment: '' },
  },
  {
    ...TABLE,
    do: 'add element',
    set: 'm4',
    element: {
      key: parseIp('10.0.0.3'),
      verdict: { verdict: 'jump', chain: 'target' },
      comment: 'pod x',
    },
  },
  {
    ...TABLE,
    do: 'add element',
    set: 'm6',
    element: { key: parseIp('fd00::3'), verdict: { verdict: 'accept' }, comment: 'pod y' },
  },
  {
    ...TABLE,
    do: 'add chain',
    chain: 'ports',
    hook: { type: 'nat', hook: 'prerouting', priority: -100, policy: 'accept' },
  },
  ...PORT_MAPS,
  { ...BRIDGE_TABLE, do: 'add table' },
  {
    ...BRIDGE_TABLE,
    do: 'add chain',
    chain: 'frames',
    hook: { type: 'filter', hook: 'prerouting', priority: -300, policy: 'accept' },
  },
  ...LINK_SETS,
  addSet(TABLE, 'linkmap', 'ifname . ipv4_addr'),
  addElement(TABLE, 'linkmap', key(parseIp('10.0.0.1')), 'pod'),
  addSet(TABLE, 'pairs', 'ifname . ifname'),
  addElement(TABLE, 'pairs', `${PORT} . ${PEER}`),
  addSet(BRIDGE_TABLE, 'stations', 'ether_addr'),
  addSet(BRIDGE_TABLE, 'macs', 'ifname . ether_addr'),
  addSet(BRIDGE_TABLE, 'linkmap', 'ifname'),
  addSet(BRIDGE_TABLE, 'ethermap', 'ether_addr'),
  addElement(BRIDGE_TABLE, 'stations', POD_MAC),
  addElement(BRIDGE_TABLE, 'macs', key(POD_MAC), 'pod'),
  addElement(BRIDGE_TABLE, 'linkmap', PORT, 'pod'),
  addElement(BRIDGE_TABLE, 'ethermap', POD_MAC),
  ...BRIDGE_RULES.map((each): NftCommand => ({
    ...BRIDGE_TABLE,
    do: 'add rule',
    chain: 'frames',
    rule: each,
  })),
  ...RULES.map((each): NftCommand => ({ ...TABLE, do: 'add rule', chain: 'rules', rule: each })),
  ...PORT_RULES.map((each): NftCommand => ({
    ...TABLE,
    do: 'add rule',
    chain: 'ports',
    rule: each,
  })),
  ...NAT_RULES.map((each): NftCommand => ({ ...TABLE, do: 'add rule', chain: 'nat', rule: each })),
];

/** A batch with every kind of command that removes. */
export const REMOVAL_BATCH: readonly NftCommand[] = [
  { ...TABLE, do: 'flush chain', chain: 'rules' },
  { ...TABLE, do: 'delete element', set: 's4', key: parseIp('10.0.0.1') },
  { ...TABLE, do: 'delete set', set: 's6' },
  { ...TABLE, do: 'delete chain', chain: 'filter' },
  { ...TABLE, do: 'delete element', set: 'links', key: PORT },
  { ...TABLE, do: 'delete table' },
  { ...BRIDGE_TABLE, do: 'delete element', set: 'macs', key: key(POD_MAC) },
  { ...BRIDGE_TABLE, do: 'delete element', set: 'stations', key: POD_MAC },
  { ...BRIDGE_TABLE, do: 'delete table' },
];
