/** What every backend answers about traffic control. */
import { parseIfname } from '../../model/ifname.ts';
import { parseMac } from '../../model/mac.ts';
import type { Op } from '../../model/op.ts';
import { tokenBucket } from '../../model/traffic-control.ts';
import { BR0, GONE, LO, NETNS, PAIR, type Program, V0, bridge, linkOf, veth } from './program.ts';

const IFB0 = parseIfname('ifb0');
const IFB_MAC = parseMac('02:00:00:00:00:0f');
const BUCKET = tokenBucket(1_000_000, 100_000);

const addIfb = (changes: { mtuBytes?: number; ifname?: typeof IFB0 } = {}): Op => ({
  op: 'link.add',
  netns: 'one',
  link: { kind: 'ifb', ifname: IFB0, mac: IFB_MAC, mtuBytes: 1500, up: true, ...changes },
});

const limit = (ifname = V0, bucket = BUCKET): Op => ({
  op: 'qdisc.add',
  netns: 'one',
  ifname,
  qdisc: { kind: 'tbf', ...bucket },
});

const clsact = (ifname = V0): Op => ({
  op: 'qdisc.add',
  netns: 'one',
  ifname,
  qdisc: { kind: 'clsact' },
});

const remove = (at: 'root' | 'ingress', ifname = V0): Op => ({
  op: 'qdisc.del',
  netns: 'one',
  ifname,
  at,
});

const redirect = (ifname = V0, to = IFB0): Op => ({
  op: 'filter.add',
  netns: 'one',
  ifname,
  redirect: to,
});

const keep = (ifname = V0): Op => ({ op: 'filter.del', netns: 'one', ifname });

const SHAPED = [...PAIR, addIfb(), clsact()];
const ofV0 = (host: Parameters<ReturnType<typeof linkOf>>[0]): unknown =>
  linkOf('one', V0)(host)?.trafficControl;

/** An ifb is made as other links are. */
export const IFB_LINK_ADD: readonly Program[] = [
  {
    name: 'makes an ifb that is up',
    given: NETNS,
    op: addIfb(),
    outcome: {
      see: (host) => {
        const { kind, up, mac, mtuBytes, txQueueLength } = linkOf('one', IFB0)(host) ?? {};
        return { kind, up, mac, mtuBytes, txQueueLength };
      },
      is: { kind: 'ifb', up: true, mac: IFB_MAC, mtuBytes: 1500, txQueueLength: 32 },
    },
  },
  {
    name: 'makes an ifb with an MTU that no Ethernet has',
    given: NETNS,
    op: addIfb({ mtuBytes: 70_000 }),
    outcome: { see: (host) => linkOf('one', IFB0)(host)?.mtuBytes, is: 70_000 },
  },
  { name: 'an ifb with a taken name', given: PAIR, op: addIfb({ ifname: V0 }), outcome: 'EEXIST' },
];

export const QDISC_ADD: readonly Program[] = [
  {
    name: 'limits what leaves',
    given: PAIR,
    op: limit(),
    outcome: { see: ofV0, is: { root: { kind: 'tbf', ...BUCKET } } },
  },
  {
    name: 'limits to more bytes a second than 32 bits hold',
    given: PAIR,
    op: limit(V0, tokenBucket(5_000_000_000, 1_000_000)),
    outcome: { see: ofV0, is: { root: { kind: 'tbf', ...tokenBucket(5_000_000_000, 1_000_000) } } },
  },
  {
    name: 'limits with a burst that lasts longer than the kernel counts',
    given: PAIR,
    op: limit(V0, tokenBucket(1000, 536_870_911)),
    outcome: { see: ofV0, is: { root: { kind: 'tbf', ...tokenBucket(1000, 536_870_911) } } },
  },
  {
    name: 'limits a loopback',
    given: NETNS,
    op: limit(LO),
    outcome: {
      see: (host) => linkOf('one', LO)(host)?.trafficControl,
      is: { root: { kind: 'tbf', ...BUCKET } },
    },
  },
  {
    name: 'makes a place for filters beside a limit',
    given: [...PAIR, limit()],
    op: clsact(),
    outcome: { see: ofV0, is: { root: { kind: 'tbf', ...BUCKET }, ingress: { kind: 'clsact' } } },
  },
  { name: 'a second limit', given: [...PAIR, limit()], op: limit(), outcome: 'EEXIST' },
  { name: 'a second place', given: [...PAIR, clsact()], op: clsact(), outcome: 'EEXIST' },
  {
    name: 'a burst of nothing',
    given: PAIR,
    op: limit(V0, { ...BUCKET, burstBytes: 0 }),
    outcome: 'EINVAL',
  },
  { name: 'a limit of no link', given: NETNS, op: limit(GONE), outcome: 'ENODEV' },
];

export const QDISC_DEL: readonly Program[] = [
  {
    name: 'takes a limit away',
    given: [...PAIR, limit()],
    op: remove('root'),
    outcome: { see: ofV0, is: undefined },
  },
  {
    name: 'takes the place away with its filters',
    given: [...SHAPED, redirect(), limit()],
    op: remove('ingress'),
    outcome: { see: ofV0, is: { root: { kind: 'tbf', ...BUCKET } } },
  },
  { name: 'a limit that is not there', given: PAIR, op: remove('root'), outcome: 'ENOENT' },
  { name: 'a place that is not there', given: PAIR, op: remove('ingress'), outcome: 'ENOENT' },
  {
    name: 'a place that is not there any more',
    given: [...PAIR, clsact(), remove('ingress')],
    op: remove('ingress'),
    outcome: 'ENOENT',
  },
  { name: 'of no link', given: NETNS, op: remove('root', GONE), outcome: 'ENODEV' },
];

export const FILTER_ADD: readonly Program[] = [
  {
    name: 'redirects what comes in',
    given: SHAPED,
    op: redirect(),
    outcome: { see: ofV0, is: { ingress: { kind: 'clsact', redirect: IFB0 } } },
  },
  {
    name: 'leads nowhere when the link is gone',
    given: [...SHAPED, redirect()],
    op: { op: 'link.del', netns: 'one', ifname: IFB0 },
    outcome: { see: ofV0, is: { ingress: { kind: 'clsact', redirect: null } } },
  },
  { name: 'a second time', given: [...SHAPED, redirect()], op: redirect(), outcome: 'EEXIST' },
  { name: 'without a qdisc', given: [...PAIR, addIfb()], op: redirect(), outcome: 'EINVAL' },
  { name: 'to no link', given: SHAPED, op: redirect(V0, GONE), outcome: 'ENODEV' },
  { name: 'of no link', given: SHAPED, op: redirect(GONE), outcome: 'ENODEV' },
];

export const FILTER_DEL: readonly Program[] = [
  {
    name: 'no longer redirects',
    given: [...SHAPED, redirect()],
    op: keep(),
    outcome: { see: ofV0, is: { ingress: { kind: 'clsact' } } },
  },
  {
    name: 'makes room for another',
    given: [...SHAPED, redirect(), keep()],
    op: redirect(V0, BR0),
    outcome: { see: ofV0, is: { ingress: { kind: 'clsact', redirect: BR0 } } },
  },
  { name: 'what is not there', given: SHAPED, op: keep(), outcome: 'ENOENT' },
  { name: 'without a qdisc', given: PAIR, op: keep(), outcome: 'EINVAL' },
  { name: 'of no link', given: NETNS, op: keep(GONE), outcome: 'ENODEV' },
];

const GROUP = 0x4000_0001;
const inGroup = (op: Op): Op =>
  op.op === 'link.add' ? { ...op, link: { ...op.link, group: GROUP } } : op;
const dissolve = (group = GROUP): Op => ({
  op: 'group.del',
  netns: 'one',
  group,
  ifnames: [V0, IFB0],
});

export const GROUP_DEL: readonly Program[] = [
  {
    name: 'takes all links of the group, and no other',
    given: [...NETNS, bridge(), inGroup(veth({ master: BR0 })), inGroup(addIfb())],
    op: dissolve(),
    outcome: {
      see: (host) =>
        ['one', 'two'].map((netns) => Object.keys(host.netns[netns]?.links ?? {}).toSorted()),
      is: [['br0', 'lo'], ['lo']],
    },
  },
  {
    name: 'with both ends of a veth',
    given: [
      ...NETNS,
      {
        op: 'link.add',
        netns: 'one',
        link: {
          kind: 'veth',
          ifname: V0,
          mac: IFB_MAC,
          mtuBytes: 1500,
          up: true,
          group: GROUP,
          master: null,
          peer: {
            ifname: GONE,
            netns: 'one',
            mac: IFB_MAC,
            mtuBytes: 1500,
            up: true,
            group: GROUP,
          },
        },
      },
    ],
    op: dissolve(),
    outcome: { see: (host) => Object.keys(host.netns['one']?.links ?? {}), is: ['lo'] },
  },
  { name: 'that has no link', given: PAIR, op: dissolve(), outcome: 'ENODEV' },
];
