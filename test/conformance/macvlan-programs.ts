/** Programs on macvlans (K-1.18, K-1.19). */
import type { Host } from '../../model/host.ts';
import { parseIfname } from '../../model/ifname.ts';
import { parseMac } from '../../model/mac.ts';
import type { Op } from '../../model/op.ts';
import type { NewLink } from '../../model/ops/link-add.ts';
import type { LinkAttribute } from '../../model/ops/link-set.ts';
import { BR0, GONE, LO, NETNS, type Program, V0, V0_MAC, bridge, linkOf, veth } from './program.ts';

const M0 = parseIfname('m0');
const M1 = parseIfname('m1');
const MAC = parseMac('02:00:00:00:00:f0');
const OTHER_MAC = parseMac('02:00:00:00:00:f1');

const macvlan = (changes: Partial<NewLink & { kind: 'macvlan' }> = {}): Op => ({
  op: 'link.add',
  netns: 'one',
  link: {
    kind: 'macvlan',
    ifname: M0,
    mac: MAC,
    mtuBytes: 1300,
    up: true,
    mode: 'bridge',
    lower: V0,
    ...changes,
  },
});

const set = (ifname: typeof M0, attribute: LinkAttribute): Op => ({
  op: 'link.set',
  netns: 'one',
  ifname,
  set: attribute,
});

const move = (ifname: typeof M0): Op => ({ op: 'link.move', netns: 'one', ifname, toNetns: 'two' });

/** A veth from `one` to `two`, of no bridge. */
const APART: readonly Op[] = [...NETNS, veth()];

/** The netns and name of what the macvlan is on. */
const below =
  (ifname: typeof M0, netns = 'one') =>
  (host: Host): unknown => {
    const link = linkOf(netns, ifname)(host);
    return link?.kind === 'macvlan' ? link.lower : link;
  };

const mtuOf = (ifname: typeof M0) => (host: Host) => linkOf('one', ifname)(host)?.mtuBytes;

/** Of `link.add`. */
export const MACVLAN_LINK_ADD: readonly Program[] = [
  {
    name: 'of a macvlan on a link',
    given: APART,
    op: macvlan({ mode: 'private' }),
    outcome: {
      see: (host) => {
        const link = linkOf('one', M0)(host);
        const uppers = linkOf('one', V0)(host)?.uppers?.map(({ ifname }) => ifname);
        return link?.kind === 'macvlan' ? [link.mode, link.mac, link.lower?.ifname, uppers] : link;
      },
      is: ['private', MAC, V0, [M0]],
    },
  },
  {
    name: 'of a macvlan on a macvlan, which is then on what that is on',
    given: [...APART, macvlan()],
    op: macvlan({ ifname: M1, mac: OTHER_MAC, lower: M0, mtuBytes: 1400 }),
    outcome: {
      see: (host) => {
        const link = linkOf('one', M1)(host);
        return link?.kind === 'macvlan' ? link.lower?.ifname : link;
      },
      is: V0,
    },
  },
  {
    name: 'of a macvlan that is larger than what it is on',
    given: APART,
    op: macvlan({ mtuBytes: 1401 }),
    outcome: 'EINVAL',
  },
  {
    name: 'of a macvlan that is too small',
    given: APART,
    op: macvlan({ mtuBytes: 67 }),
    outcome: 'EINVAL',
  },
  {
    name: 'of a macvlan on the loopback',
    given: APART,
    op: macvlan({ lower: LO }),
    outcome: 'EINVAL',
  },
  {
    name: 'of a macvlan on a link that is missing',
    given: APART,
    op: macvlan({ lower: GONE }),
    outcome: 'ENODEV',
  },
  {
    name: 'of a macvlan on a port',
    given: [...NETNS, bridge(), veth({ master: BR0 })],
    op: macvlan(),
    outcome: 'EBUSY',
  },
  {
    name: 'of a macvlan that is to be up with the MAC of what it is on',
    given: APART,
    op: macvlan({ mac: V0_MAC }),
    outcome: 'EADDRINUSE',
  },
  {
    name: 'of a macvlan that is down, with the MAC of what it is on',
    given: APART,
    op: macvlan({ mac: V0_MAC, up: false }),
    outcome: { see: (host) => linkOf('one', M0)(host)?.mac, is: V0_MAC },
  },
  {
    name: 'of a macvlan that is to be up with the MAC of another that is',
    given: [...APART, macvlan()],
    op: macvlan({ ifname: M1 }),
    outcome: 'EADDRINUSE',
  },
  {
    name: 'of a macvlan that is to be up with the MAC of another that is down',
    given: [...APART, macvlan({ up: false })],
    op: macvlan({ ifname: M1 }),
    outcome: { see: (host) => linkOf('one', M1)(host)?.up, is: true },
  },
];

/** Of `link.set`. */
export const MACVLAN_LINK_SET: readonly Program[] = [
  {
    name: 'up a macvlan with a MAC that another has meanwhile',
    given: [...APART, macvlan({ up: false }), macvlan({ ifname: M1 })],
    op: set(M0, { up: true }),
    outcome: 'EADDRINUSE',
  },
  {
    name: 'the MAC of a macvlan that is down to that of what it is on',
    given: [...APART, macvlan({ up: false })],
    op: set(M0, { mac: V0_MAC }),
    outcome: 'EADDRINUSE',
  },
  {
    name: 'the MAC of a macvlan to one that another has which is down',
    given: [...APART, macvlan(), macvlan({ ifname: M1, mac: OTHER_MAC, up: false })],
    op: set(M0, { mac: OTHER_MAC }),
    outcome: { see: (host) => linkOf('one', M0)(host)?.mac, is: OTHER_MAC },
  },
  {
    name: 'the MAC of what a macvlan is on to that of the macvlan',
    given: [...APART, macvlan()],
    op: set(V0, { mac: MAC }),
    outcome: { see: (host) => linkOf('one', V0)(host)?.mac, is: MAC },
  },
  {
    name: 'the MTU of a macvlan, more than that of what it is on',
    given: [...APART, macvlan()],
    op: set(M0, { mtuBytes: 1401 }),
    outcome: 'EINVAL',
  },
  {
    name: 'the MTU of what a macvlan is on, which follows down',
    given: [...APART, macvlan()],
    op: set(V0, { mtuBytes: 1280 }),
    outcome: { see: mtuOf(M0), is: 1280 },
  },
  {
    name: 'the MTU of what a macvlan is on, which does not follow up',
    given: [...APART, macvlan()],
    op: set(V0, { mtuBytes: 1500 }),
    outcome: { see: mtuOf(M0), is: 1300 },
  },
  {
    name: 'master of a link that macvlans are on',
    given: [...APART, bridge(), macvlan()],
    op: set(V0, { master: BR0 }),
    outcome: 'EBUSY',
  },
  {
    name: 'master of a macvlan that is on that bridge',
    given: [...NETNS, bridge(), macvlan({ lower: BR0 })],
    op: set(M0, { master: BR0 }),
    outcome: 'EBUSY',
  },
  {
    name: 'master of a macvlan',
    given: [...APART, bridge(), macvlan()],
    op: set(M0, { master: BR0 }),
    outcome: { see: (host) => linkOf('one', M0)(host)?.port?.master, is: BR0 },
  },
];

/** Of `link.del`. */
export const MACVLAN_LINK_DEL: readonly Program[] = [
  {
    name: 'of what a macvlan is on takes it along, wherever it is',
    given: [...APART, macvlan(), move(M0)],
    op: { op: 'link.del', netns: 'one', ifname: V0 },
    outcome: { see: linkOf('two', M0), is: undefined },
  },
  {
    name: 'of a macvlan leaves what it is on',
    given: [...APART, macvlan()],
    op: { op: 'link.del', netns: 'one', ifname: M0 },
    outcome: { see: (host) => linkOf('one', V0)(host)?.uppers, is: undefined },
  },
];

/** Of `link.rename`. */
export const MACVLAN_LINK_RENAME: readonly Program[] = [
  {
    name: 'of what a macvlan is on',
    given: [...APART, macvlan(), set(V0, { up: false })],
    op: { op: 'link.rename', netns: 'one', ifname: V0, name: M1 },
    outcome: {
      see: (host) => [
        (below(M0)(host) as { ifname: string }).ifname,
        linkOf('one', M1)(host)?.uppers?.length,
      ],
      is: [M1, 1],
    },
  },
];

/** Of `link.move`. */
export const MACVLAN_LINK_MOVE: readonly Program[] = [
  {
    name: 'of what a macvlan is on, which stays',
    given: [...APART, macvlan()],
    op: { op: 'link.move', netns: 'one', ifname: V0, toNetns: 'two' },
    outcome: {
      see: (host) => [
        linkOf('one', M0)(host)?.up,
        (below(M0)(host) as { ifname: string }).ifname,
        linkOf('two', V0)(host)?.uppers?.map(({ ifname }) => ifname),
      ],
      is: [true, V0, [M0]],
    },
  },
  {
    name: 'of a macvlan, whose frames still come in by what it is on',
    given: [...APART, macvlan()],
    op: move(M0),
    outcome: {
      see: (host) => [
        linkOf('two', M0)(host)?.up,
        (below(M0, 'two')(host) as { ifname: string }).ifname,
        linkOf('one', V0)(host)?.uppers?.map(({ ifname }) => ifname),
      ],
      is: [false, V0, [M0]],
    },
  },
];

/** Of `netns.del`. */
export const MACVLAN_NETNS_DEL: readonly Program[] = [
  {
    name: 'of one with a macvlan, of which nothing is left',
    given: [...NETNS, bridge(), macvlan({ lower: BR0 }), move(M0)],
    op: { op: 'netns.del', netns: 'two' },
    outcome: { see: (host) => linkOf('one', BR0)(host)?.uppers, is: undefined },
  },
];
