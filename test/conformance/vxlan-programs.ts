/** Programs on vxlans (K-9.1 to K-9.3). */
import { parseIfname } from '../../model/ifname.ts';
import { parseIp } from '../../model/ip.ts';
import { ZERO_MAC, parseMac } from '../../model/mac.ts';
import type { Op, OpOf } from '../../model/op.ts';
import type { NewLink } from '../../model/ops/link-add.ts';
import { BR0, ETH0, GONE, LO, NETNS, PAIR, type Program, V0, linkOf } from './program.ts';

const X0 = parseIfname('x0');
const X1 = parseIfname('x1');
const MAC = parseMac('02:00:00:00:00:e0');
const [HERE, THERE, ELSEWHERE, THERE6] = ['10.1.0.1', '192.0.2.1', '192.0.2.2', '2001:db8::1'].map(
  parseIp,
) as [
  ReturnType<typeof parseIp>,
  ReturnType<typeof parseIp>,
  ReturnType<typeof parseIp>,
  ReturnType<typeof parseIp>,
];

const vxlan = (changes: Partial<NewLink & { kind: 'vxlan' }> = {}): OpOf<'link.add'> => ({
  op: 'link.add',
  netns: 'one',
  link: {
    kind: 'vxlan',
    ifname: X0,
    mac: MAC,
    mtuBytes: 1300,
    up: true,
    vni: 7,
    udpPort: 4789,
    local: HERE,
    lower: V0,
    learning: false,
    ...changes,
  },
});

const place = (
  changes: Partial<OpOf<'remote.add'>> & {
    readonly mac?: typeof MAC;
    readonly ip?: typeof HERE;
  } = {},
): OpOf<'remote.add'> => {
  const { mac = MAC, ip = THERE, ...rest } = changes;
  return {
    op: 'remote.add',
    netns: 'one',
    ifname: X0,
    remote: { mac, ip },
    append: false,
    ...rest,
  };
};

const takeAway = (ip = THERE, mac = MAC): OpOf<'remote.del'> => ({
  op: 'remote.del',
  netns: 'one',
  ifname: X0,
  remote: { mac, ip },
});

const mtu = (ifname: typeof X0, mtuBytes: number): Op => ({
  op: 'link.set',
  netns: 'one',
  ifname,
  set: { mtuBytes },
});

const remotes = (host: Parameters<ReturnType<typeof linkOf>>[0]): unknown => {
  const link = linkOf('one', X0)(host);
  return link?.kind === 'vxlan' ? (link.remotes ?? []).map(({ mac, ip }) => [mac, ip]) : link;
};

/** Of `link.add`. */
export const VXLAN_LINK_ADD: readonly Program[] = [
  {
    name: 'of a vxlan over a link, as large as that lets it be',
    given: PAIR,
    op: vxlan({ mtuBytes: 1500 }),
    outcome: {
      see: (host) => {
        const link = linkOf('one', X0)(host);
        return link?.kind === 'vxlan'
          ? [
              link.mtuBytes,
              link.vni,
              link.udpPort,
              link.local,
              link.lower,
              link.underlay,
              link.learning,
            ]
          : link;
      },
      is: [1350, 7, 4789, HERE, V0, 'one', false],
    },
  },
  {
    name: 'of a vxlan over nothing, with IPv6',
    given: NETNS,
    op: vxlan({ lower: null, local: THERE6, mtuBytes: 9000, learning: true }),
    outcome: {
      see: (host) => {
        const link = linkOf('one', X0)(host);
        return link?.kind === 'vxlan'
          ? [link.mtuBytes, link.local, link.lower, link.learning]
          : link;
      },
      is: [9000, THERE6, null, true],
    },
  },
  {
    name: 'of a vxlan of a network that its netns has on the port',
    given: [...PAIR, vxlan()],
    op: vxlan({ ifname: X1, lower: null }),
    outcome: 'EEXIST',
  },
  {
    name: 'of a vxlan of a network that its netns has on another port',
    given: [...PAIR, vxlan()],
    op: vxlan({ ifname: X1, udpPort: 4790 }),
    outcome: { see: (host) => linkOf('one', X1)(host)?.kind, is: 'vxlan' },
  },
  {
    name: 'of a vxlan of a network that its netns has with the other family',
    given: [...PAIR, vxlan()],
    op: vxlan({ ifname: X1, local: THERE6 }),
    outcome: { see: (host) => linkOf('one', X1)(host)?.kind, is: 'vxlan' },
  },
  {
    name: 'of a vxlan of a network that a vxlan has which left its netns',
    given: [...PAIR, vxlan(), { op: 'link.move', netns: 'one', ifname: X0, toNetns: 'two' }],
    op: vxlan({ ifname: X1 }),
    outcome: 'EEXIST',
  },
  {
    name: 'of a vxlan over a link that is missing',
    given: PAIR,
    op: vxlan({ lower: GONE }),
    outcome: 'ENODEV',
  },
  {
    name: 'of a vxlan that is too small',
    given: PAIR,
    op: vxlan({ mtuBytes: 67 }),
    outcome: 'EINVAL',
  },
];

/** Of `link.set`. */
export const VXLAN_LINK_SET: readonly Program[] = [
  {
    name: 'the MTU of a vxlan, as far as the link below has room',
    given: [...PAIR, vxlan()],
    op: mtu(X0, 1350),
    outcome: { see: (host) => linkOf('one', X0)(host)?.mtuBytes, is: 1350 },
  },
  {
    name: 'the MTU of a vxlan, more than the link below has room for',
    given: [...PAIR, vxlan()],
    op: mtu(X0, 1351),
    outcome: 'EINVAL',
  },
  {
    name: 'the MTU of what a vxlan is over, which does not follow',
    given: [...PAIR, vxlan()],
    op: mtu(V0, 1000),
    outcome: { see: (host) => linkOf('one', X0)(host)?.mtuBytes, is: 1300 },
  },
];

/** Of `link.del`. */
export const VXLAN_LINK_DEL: readonly Program[] = [
  {
    name: 'of what a vxlan is over takes it along',
    given: [...PAIR, vxlan()],
    op: { op: 'link.del', netns: 'one', ifname: V0 },
    outcome: { see: linkOf('one', X0), is: undefined },
  },
];

/** Of `link.move`. */
export const VXLAN_LINK_MOVE: readonly Program[] = [
  {
    name: 'of a vxlan, whose packets stay',
    given: [...PAIR, vxlan(), place()],
    op: { op: 'link.move', netns: 'one', ifname: X0, toNetns: 'two' },
    outcome: {
      see: (host) => {
        const link = linkOf('two', X0)(host);
        return link?.kind === 'vxlan' ? [link.underlay, link.lower, link.remotes] : link;
      },
      is: ['one', V0, [{ mac: MAC, ip: THERE }]],
    },
  },
  {
    name: 'of what a vxlan is over takes that away',
    given: [...PAIR, vxlan()],
    op: { op: 'link.move', netns: 'one', ifname: V0, toNetns: 'two' },
    outcome: { see: linkOf('one', X0), is: undefined },
  },
];

/** Of `remote.add`. */
export const REMOTE_ADD: readonly Program[] = [
  {
    name: 'of a MAC',
    given: [...PAIR, vxlan()],
    op: place(),
    outcome: { see: remotes, is: [[MAC, THERE]] },
  },
  {
    name: 'of a MAC that has one',
    given: [...PAIR, vxlan(), place()],
    op: place({ ip: ELSEWHERE }),
    outcome: 'EEXIST',
  },
  {
    name: 'of a MAC that has one, beside it: nothing happens',
    given: [...PAIR, vxlan(), place()],
    op: place({ ip: ELSEWHERE, append: true }),
    outcome: { see: remotes, is: [[MAC, THERE]] },
  },
  {
    name: 'of all MACs that are not known, beside another',
    given: [...PAIR, vxlan(), place({ mac: ZERO_MAC })],
    op: place({ mac: ZERO_MAC, ip: ELSEWHERE, append: true }),
    outcome: {
      see: remotes,
      is: [
        [ZERO_MAC, THERE],
        [ZERO_MAC, ELSEWHERE],
      ],
    },
  },
  {
    name: 'of the other family',
    given: [...PAIR, vxlan()],
    op: place({ ip: THERE6 }),
    outcome: 'EAFNOSUPPORT',
  },
  {
    name: 'of a link that is none',
    given: PAIR,
    op: place({ ifname: BR0 }),
    outcome: 'EOPNOTSUPP',
  },
  { name: 'of the loopback', given: PAIR, op: place({ ifname: LO }), outcome: 'EINVAL' },
  {
    name: 'of a link that is missing',
    given: PAIR,
    op: place({ netns: 'two', ifname: X0 }),
    outcome: 'ENODEV',
  },
];

/** Of `remote.del`. */
export const REMOTE_DEL: readonly Program[] = [
  {
    name: 'leaves the others',
    given: [
      ...PAIR,
      vxlan(),
      place({ mac: ZERO_MAC }),
      place({ mac: ZERO_MAC, ip: ELSEWHERE, append: true }),
    ],
    op: takeAway(THERE, ZERO_MAC),
    outcome: { see: remotes, is: [[ZERO_MAC, ELSEWHERE]] },
  },
  {
    name: 'of a MAC that is elsewhere: nothing happens',
    given: [...PAIR, vxlan(), place()],
    op: takeAway(ELSEWHERE),
    outcome: { see: remotes, is: [[MAC, THERE]] },
  },
  { name: 'of a MAC that has none', given: [...PAIR, vxlan()], op: takeAway(), outcome: 'ENOENT' },
  {
    name: 'of a link that is none',
    given: PAIR,
    op: { ...takeAway(), netns: 'two', ifname: ETH0 },
    outcome: 'EOPNOTSUPP',
  },
];
