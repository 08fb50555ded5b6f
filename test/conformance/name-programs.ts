/** Programs on the names of links and the netns that they are in (K-1.2, K-1.3, K-2.3). */
import { makeAddress } from '../../model/address.ts';
import type { Host } from '../../model/host.ts';
import { parseIfname } from '../../model/ifname.ts';
import { parseIp } from '../../model/ip.ts';
import type { LinkRef } from '../../model/link.ts';
import type { Op, OpOf } from '../../model/op.ts';
import { BR0, ETH0, GONE, LO, PAIR, type Program, V0, linkOf } from './program.ts';

const ALT0 = parseIfname('alt0');
const W0 = parseIfname('w0');

const rename = (name: typeof W0, ifname = V0): OpOf<'link.rename'> => ({
  op: 'link.rename',
  netns: 'one',
  ifname,
  name,
});

const addAltname = (altname: string = ALT0, ifname = V0, netns = 'one'): OpOf<'altname.add'> => ({
  op: 'altname.add',
  netns,
  ifname,
  altname,
});

const delAltname = (altname: string, ifname = V0): OpOf<'altname.del'> => ({
  op: 'altname.del',
  netns: 'one',
  ifname,
  altname,
});

const move = (ifname = ETH0, toNetns = 'one', netns = 'two'): OpOf<'link.move'> => ({
  op: 'link.move',
  netns,
  ifname,
  toNetns,
});

const peerOf =
  (netns: string, ifname: string) =>
  (host: Host): LinkRef | null | undefined => {
    const link = linkOf(netns, ifname)(host);
    return link?.kind === 'veth' ? link.peer : undefined;
  };

const ADDRESS: Op = {
  op: 'address.add',
  netns: 'two',
  ifname: ETH0,
  address: makeAddress({ ip: parseIp('10.1.0.2'), prefixLength: 24 }),
};

/** Of `link.rename`. */
export const LINK_RENAME: readonly Program[] = [
  {
    name: 'while it is up, and its peer knows it by the new name',
    given: PAIR,
    op: rename(W0),
    outcome: {
      see: (host) => [
        linkOf('one', W0)(host)?.port?.master,
        linkOf('one', W0)(host)?.up,
        linkOf('one', V0)(host),
        peerOf('two', ETH0)(host),
      ],
      is: [BR0, true, undefined, { netns: 'one', ifname: W0 }],
    },
    onLinux61: 'EBUSY',
  },
  {
    name: 'of a bridge, whose ports follow',
    given: PAIR,
    op: rename(W0, BR0),
    outcome: { see: (host) => linkOf('one', V0)(host)?.port?.master, is: W0 },
    onLinux61: 'EBUSY',
  },
  {
    name: 'takes its routes along',
    given: [...PAIR, ADDRESS],
    op: { op: 'link.rename', netns: 'two', ifname: ETH0, name: W0 },
    outcome: {
      see: (host) => [
        ...new Set(
          host.netns['two']?.routes
            .filter((route) => route.source === '10.1.0.2')
            .map(({ device }) => device),
        ),
      ],
      is: [W0],
    },
    onLinux61: 'EBUSY',
  },
  {
    name: 'to its own name',
    given: PAIR,
    op: rename(V0),
    outcome: { see: (host) => linkOf('one', V0)(host)?.kind, is: 'veth' },
    onLinux61: 'EBUSY',
  },
  {
    name: 'to a name that is taken',
    given: PAIR,
    op: rename(BR0),
    outcome: 'EEXIST',
    onLinux61: 'EBUSY',
  },
  {
    name: 'to another name of its own',
    given: [...PAIR, addAltname()],
    op: rename(ALT0),
    outcome: 'EEXIST',
    onLinux61: 'EBUSY',
  },
  {
    name: 'while it is down',
    given: [...PAIR, { op: 'link.set', netns: 'one', ifname: V0, set: { up: false } }],
    op: rename(W0),
    outcome: { see: (host) => linkOf('one', W0)(host)?.port?.master, is: BR0 },
  },
  { name: 'of a link that is missing', given: PAIR, op: rename(W0, GONE), outcome: 'ENODEV' },
];

/** Of `link.move`. */
export const LINK_MOVE: readonly Program[] = [
  {
    name: 'leaves state, addresses and routes behind',
    given: [...PAIR, ADDRESS],
    op: move(),
    outcome: {
      see: (host) => {
        const link = linkOf('one', ETH0)(host);
        return [link?.up, link?.addresses, host.netns['two']?.routes, linkOf('two', ETH0)(host)];
      },
      is: [false, [], [], undefined],
    },
  },
  {
    name: 'of a port, which leaves its bridge, and whose peer knows where it is',
    given: PAIR,
    op: move(V0, 'two', 'one'),
    outcome: {
      see: (host) => [linkOf('two', V0)(host)?.port, peerOf('two', ETH0)(host)],
      is: [null, { netns: 'two', ifname: V0 }],
    },
  },
  {
    name: 'keeps its other names',
    given: [...PAIR, addAltname(ALT0, ETH0, 'two')],
    op: move(),
    outcome: { see: (host) => linkOf('one', ETH0)(host)?.altnames, is: [ALT0] },
  },
  {
    name: 'to where it is',
    given: PAIR,
    op: move(ETH0, 'two'),
    outcome: { see: (host) => linkOf('two', ETH0)(host)?.up, is: true },
  },
  {
    name: 'of a bridge to where it is',
    given: PAIR,
    op: move(BR0, 'one', 'one'),
    outcome: { see: (host) => linkOf('one', BR0)(host)?.up, is: true },
    onLinux61: 'EINVAL',
  },
  {
    name: 'to where its name is taken',
    given: [...PAIR, addAltname(ETH0)],
    op: move(),
    outcome: 'EEXIST',
  },
  {
    name: 'to where another of its names is taken',
    given: [...PAIR, addAltname(), addAltname(ALT0, ETH0, 'two')],
    op: move(),
    outcome: 'EEXIST',
  },
  { name: 'of a bridge', given: PAIR, op: move(BR0, 'two', 'one'), outcome: 'EINVAL' },
  { name: 'of the loopback', given: PAIR, op: move(LO), outcome: 'EINVAL' },
  { name: 'of a link that is missing', given: PAIR, op: move(GONE), outcome: 'ENODEV' },
  {
    name: 'to a netns that is missing',
    given: PAIR,
    op: move(ETH0, 'conform-none'),
    outcome: 'ENOENT',
  },
];

/** Of `altname.add`. */
export const ALTNAME_ADD: readonly Program[] = [
  {
    name: 'by which the link is found too',
    given: [...PAIR, addAltname()],
    op: { op: 'link.set', netns: 'one', ifname: ALT0, set: { mtuBytes: 1300 } },
    outcome: { see: (host) => linkOf('one', V0)(host)?.mtuBytes, is: 1300 },
  },
  {
    name: 'behind those that are there',
    given: [...PAIR, addAltname('b')],
    op: addAltname('a'.repeat(127)),
    outcome: {
      see: (host) => linkOf('one', V0)(host)?.altnames,
      is: ['b', 'a'.repeat(127)],
    },
  },
  { name: 'that is the name of a link', given: PAIR, op: addAltname(BR0), outcome: 'EEXIST' },
  {
    name: 'that another link has',
    given: [...PAIR, addAltname(ALT0, BR0)],
    op: addAltname(),
    outcome: 'EEXIST',
  },
  { name: 'that is too long', given: PAIR, op: addAltname('a'.repeat(128)), outcome: 'ERANGE' },
  { name: 'of a link that is missing', given: PAIR, op: addAltname(ALT0, GONE), outcome: 'ENODEV' },
];

/** Of `altname.del`. */
export const ALTNAME_DEL: readonly Program[] = [
  {
    name: 'leaves the others',
    given: [...PAIR, addAltname('b'), addAltname('c')],
    op: delAltname('b'),
    outcome: { see: (host) => linkOf('one', V0)(host)?.altnames, is: ['c'] },
  },
  { name: 'that nobody has', given: PAIR, op: delAltname('b'), outcome: 'ENOENT' },
  { name: 'that is its name', given: PAIR, op: delAltname(V0), outcome: 'EINVAL' },
  {
    name: 'that another link has',
    given: [...PAIR, addAltname('b', BR0)],
    op: delAltname('b'),
    outcome: 'EINVAL',
  },
  { name: 'of a link that is missing', given: PAIR, op: delAltname('b', GONE), outcome: 'ENODEV' },
];
