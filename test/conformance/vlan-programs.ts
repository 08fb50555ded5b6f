/** What every backend answers about VLANs: where its kernel knows them, and where not. */
import type { Host } from '../../model/host.ts';
import type { Op } from '../../model/op.ts';
import { type VlanRange, vlan } from '../../model/vlan.ts';
import { BR0, BRIDGE_MAC, GONE, LO, NETNS, PAIR, type Program, V0, linkOf } from './program.ts';

const NATIVE = { pvid: true, untagged: true };

const add = (range: VlanRange, ifname = V0, self = false): Op => ({
  op: 'vlan.add',
  netns: 'one',
  ifname,
  self,
  vlan: range,
});

const del = (first: number, last = first, ifname = V0, self = false): Op => ({
  op: 'vlan.del',
  netns: 'one',
  ifname,
  self,
  first,
  last,
});

const range = (first: number, last: number, untagged = false): VlanRange => ({
  first,
  last,
  pvid: false,
  untagged,
});

function ofPort(host: Host): unknown {
  return linkOf('one', V0)(host)?.port?.vlans;
}

function ofBridge(host: Host): unknown {
  const link = linkOf('one', BR0)(host);
  return link?.kind === 'bridge' ? link.vlans : undefined;
}

/** What the kernel answers to both operations before it looks at VLANs. */
function refusals(make: (range: VlanRange, ifname?: typeof V0, self?: boolean) => Op): Program[] {
  return [
    { name: 'of no link', given: NETNS, op: make(vlan(5), GONE), outcome: 'ENODEV' },
    { name: 'of what is no port', given: PAIR, op: make(vlan(5), LO), outcome: 'EOPNOTSUPP' },
    { name: 'of a bridge as a port', given: PAIR, op: make(vlan(5), BR0), outcome: 'EOPNOTSUPP' },
    {
      name: 'of a port as a bridge',
      given: PAIR,
      op: make(vlan(5), V0, true),
      outcome: 'EOPNOTSUPP',
    },
    { name: 'VLAN 0', given: PAIR, op: make(vlan(0)), outcome: 'EINVAL' },
    { name: 'VLAN 4095', given: PAIR, op: make(vlan(4095)), outcome: 'EINVAL' },
    { name: 'a range backwards', given: PAIR, op: make(range(9, 5)), outcome: 'EINVAL' },
  ];
}

export const VLAN_ADD: readonly Program[] = [
  {
    name: 'puts a port in a VLAN, beside that of its bridge',
    given: PAIR,
    op: add(vlan(100)),
    outcome: { see: ofPort, is: [vlan(1, NATIVE), vlan(100)] },
    withoutVlans: 'EOPNOTSUPP',
  },
  {
    name: 'a new pvid takes the place of the old one',
    given: PAIR,
    op: add(vlan(100, NATIVE)),
    outcome: { see: ofPort, is: [vlan(1, { untagged: true }), vlan(100, NATIVE)] },
    withoutVlans: 'EOPNOTSUPP',
  },
  {
    name: 'a range',
    given: PAIR,
    op: add(range(100, 4094)),
    outcome: { see: ofPort, is: [vlan(1, NATIVE), range(100, 4094)] },
    withoutVlans: 'EOPNOTSUPP',
  },
  {
    name: 'again with other marks',
    needsVlans: true,
    given: [...PAIR, add(range(100, 110))],
    op: add(vlan(105, { untagged: true })),
    outcome: {
      see: ofPort,
      is: [vlan(1, NATIVE), range(100, 104), vlan(105, { untagged: true }), range(106, 110)],
    },
  },
  {
    name: 'a pvid that is no pvid any more',
    given: PAIR,
    op: add(vlan(1, { untagged: true })),
    outcome: { see: ofPort, is: [vlan(1, { untagged: true })] },
    withoutVlans: 'EOPNOTSUPP',
  },
  {
    name: 'puts the bridge itself in a VLAN',
    given: PAIR,
    op: add(vlan(100), BR0, true),
    outcome: {
      see: ofBridge,
      is: { filtering: false, defaultPvid: 1, own: [vlan(1, NATIVE), vlan(100)] },
    },
    withoutVlans: 'EOPNOTSUPP',
  },
  {
    name: 'a pvid that is a range',
    given: PAIR,
    op: add({ ...range(5, 6), pvid: true }),
    outcome: 'EINVAL',
  },
  ...refusals(add),
];

export const VLAN_DEL: readonly Program[] = [
  {
    name: 'takes a port out of the VLAN of its bridge',
    given: PAIR,
    op: del(1),
    outcome: { see: ofPort, is: [] },
    withoutVlans: { see: ofPort, is: undefined },
  },
  {
    name: 'cuts into ranges, and passes over what is not there',
    needsVlans: true,
    given: [...PAIR, add(range(100, 110)), add(range(112, 120))],
    op: del(108, 115),
    outcome: { see: ofPort, is: [vlan(1, NATIVE), range(100, 107), range(116, 120)] },
  },
  {
    name: 'takes the bridge itself out of a VLAN',
    given: PAIR,
    op: del(1, 1, BR0, true),
    outcome: { see: ofBridge, is: { filtering: false, defaultPvid: 1, own: [] } },
    withoutVlans: { see: ofBridge, is: undefined },
  },
  {
    name: 'of a port that leaves: the next bridge gives it its own',
    needsVlans: true,
    given: [
      ...PAIR,
      add(vlan(100)),
      { op: 'link.set', netns: 'one', ifname: V0, set: { master: null } },
      { op: 'link.set', netns: 'one', ifname: V0, set: { master: BR0 } },
    ],
    op: del(7),
    outcome: { see: ofPort, is: [vlan(1, NATIVE)] },
  },
  ...refusals(({ first, last }, ifname, self) => del(first, last, ifname, self)),
];

const filter = (vlanFiltering: boolean, ifname = BR0): Op => ({
  op: 'link.set',
  netns: 'one',
  ifname,
  set: { vlanFiltering },
});

export const VLAN_LINK_SET: readonly Program[] = [
  {
    name: 'makes a bridge filter VLANs',
    given: PAIR,
    op: filter(true),
    outcome: { see: ofBridge, is: { filtering: true, defaultPvid: 1, own: [vlan(1, NATIVE)] } },
    withoutVlans: 'EOPNOTSUPP',
  },
  { name: 'VLAN filtering of a veth', given: PAIR, op: filter(true, V0), outcome: 'EOPNOTSUPP' },
  {
    name: 'VLAN filtering of a loopback',
    given: PAIR,
    op: filter(true, LO),
    outcome: 'EOPNOTSUPP',
  },
  { name: 'VLAN filtering of no link', given: PAIR, op: filter(true, GONE), outcome: 'ENODEV' },
];

export const VLAN_LINK_ADD: readonly Program[] = [
  {
    name: 'a bridge that filters VLANs',
    given: NETNS,
    op: {
      op: 'link.add',
      netns: 'one',
      link: {
        kind: 'bridge',
        ifname: BR0,
        mac: BRIDGE_MAC,
        mtuBytes: 1450,
        up: true,
        vlanFiltering: true,
      },
    },
    outcome: { see: ofBridge, is: { filtering: true, defaultPvid: 1, own: [vlan(1, NATIVE)] } },
    withoutVlans: 'EOPNOTSUPP',
  },
];
