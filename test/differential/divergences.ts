/**
 * Where the model is known to answer otherwise than the kernel, each with the smallest program that shows it. A test runs
 * them and fails when one does not part the two any more, or parts them otherwise. docs/divergences.md tells the same in words.
 */
import { makeAddress } from '../../model/address.ts';
import { findByAnyName } from '../../model/altname.ts';
import type { Host } from '../../model/host.ts';
import type { Ifname } from '../../model/ifname.ts';
import { familyOf, parseIp } from '../../model/ip.ts';
import type { Link } from '../../model/link.ts';
import { MTU_MIN_BYTES, TX_QUEUE_LENGTH } from '../../model/link.ts';
import { ZERO_MAC, parseMac } from '../../model/mac.ts';
import type { Op } from '../../model/op.ts';
import { applyOp } from '../../model/ops.ts';
import { parsePrefix, parsePrefixedIp } from '../../model/prefix.ts';
import { TABLE_LOCAL, makeRoute, routeFamily } from '../../model/route.ts';
import { LINK_LOCAL_PINS, PINS, universeOps } from '../arbitraries/sysctl-op.ts';
import { compareRows, rowsOf } from './rows.ts';
import type { Step } from './rules.ts';

/** One way in which the two are known to part. */
export interface KnownDivergence {
  readonly id: string;
  readonly rule: string;
  /** The smallest program, with what makes its netns. */
  readonly ops: readonly Op[];
  /** What is alike in all divergences of this kind: of the first answer that differs, or of each line in which the states do. */
  readonly signatures: readonly string[];
  /**
   * The operation that brings it about, as the model sees it: the states are compared at once after it, and a random
   * program ends there. Absent: it shows later, so random programs keep away from it.
   */
  readonly cause?: (step: Step) => boolean;
  /** The operation that the kernel has carried out by then: its state is the model's after this one, in everything. */
  readonly instead?: (op: Op) => Op;
  /** Why the model does not do it. */
  readonly reason: string;
  readonly since: string;
}

const NETNS = 'one';
const MAC = parseMac('02:00:00:00:00:01');
const PEER_MAC = parseMac('02:00:00:00:00:02');
const V0 = 'v0' as Ifname;
const V1 = 'v1' as Ifname;
const BR0 = 'br0' as Ifname;
const I0 = 'i0' as Ifname;
const LO = 'lo' as Ifname;

function veth(master: Ifname | null, peerUp: boolean): Op {
  const end = { mac: MAC, mtuBytes: 1500, up: true };
  const peer = { ...end, netns: NETNS, ifname: V1, mac: PEER_MAC, up: peerUp };
  return { op: 'link.add', netns: NETNS, link: { kind: 'veth', ifname: V0, ...end, master, peer } };
}

function single(kind: 'bridge' | 'ifb', ifname: Ifname): Op {
  return {
    op: 'link.add',
    netns: NETNS,
    link: { kind, ifname, mac: MAC, mtuBytes: 1500, up: true },
  };
}

function address(op: 'address.add' | 'address.del', ifname: Ifname, text: string): Op {
  return { op, netns: NETNS, ifname, address: makeAddress(parsePrefixedIp(text)) };
}

function set(ifname: Ifname, attribute: (Op & { op: 'link.set' })['set']): Op {
  return { op: 'link.set', netns: NETNS, ifname, set: attribute };
}

function plain(...ops: readonly Op[]): readonly Op[] {
  return [...universeOps([NETNS], PINS), ...ops];
}

function withLinkLocals(...ops: readonly Op[]): readonly Op[] {
  return [...universeOps([NETNS], LINK_LOCAL_PINS), ...ops];
}

function linkOf({ op, before }: Step): Link | undefined {
  return 'ifname' in op ? findByAnyName(before, op) : undefined;
}

const TABLE = { family: 'inet', table: 'fuzz' } as const;

export const DIVERGENCES: readonly KnownDivergence[] = [
  {
    id: 'refused-master-releases',
    rule: 'K-1.13',
    ops: plain(single('bridge', BR0), veth(BR0, true), set(V0, { master: V1 })),
    signatures: ['master', 'hairpin', 'isolated', 'learning', 'flood'].map(
      (field) =>
        `port ${field}: model ${field === 'master' ? '' : field === 'learning' || field === 'flood'}, kernel nothing of link`,
    ),
    cause: (step) =>
      step.op.op === 'link.set' &&
      'master' in step.op.set &&
      (step.errno === 'EOPNOTSUPP' || step.errno === 'EBUSY') &&
      linkOf(step)?.port !== null,
    instead: (op) => (op.op === 'link.set' ? { ...op, set: { master: null } } : op),
    reason:
      'net/core/rtnetlink.c, do_set_master, takes the port from its bridge before it asks the new master; in the model an operation that is refused changes nothing, and plans never ask for such a master',
    since: '2026-11-27',
  },
  {
    id: 'small-mtu-ends-ipv4',
    rule: 'K-1.12',
    ops: plain(
      single('ifb', I0),
      address('address.add', I0, '10.0.0.1/24'),
      set(I0, { mtuBytes: 67 }),
    ),
    signatures: ['address', 'route', 'sysctl', 'neighbour'].map(
      (kind) => `only in the model: ${kind}`,
    ),
    cause: (step) =>
      step.op.op === 'link.set' &&
      'mtuBytes' in step.op.set &&
      step.op.set.mtuBytes < MTU_MIN_BYTES &&
      step.errno === undefined &&
      linkOf(step)?.mtuBytes !== step.op.set.mtuBytes,
    reason:
      'net/ipv4/devinet.c, inetdev_event, ends IPv4 below an MTU of 68 and begins it anew above, but not on a link that was made so; only loopbacks and ifbs can have such an MTU, and nobody gives them one',
    since: '2026-11-27',
  },
  {
    id: 'loopback-keeps-a-mac',
    rule: 'K-1.12',
    ops: plain(set(LO, { mac: MAC }), set(LO, { mac: ZERO_MAC })),
    signatures: ['link.set done EADDRNOTAVAIL'],
    reason: 'the model gives loopbacks no MAC; the kernel keeps one that nobody uses',
    since: '2026-11-27',
  },
  {
    id: 'loopback-neighbour-of-nobody',
    rule: 'K-7.3',
    ops: plain({
      op: 'neighbour.add',
      netns: NETNS,
      ifname: LO,
      neighbour: { ip: parseIp('10.0.0.2'), mac: MAC },
    }),
    signatures: ['ip: model , kernel  of neighbour'],
    cause: (step) =>
      step.op.op === 'neighbour.add' &&
      step.errno === undefined &&
      familyOf(step.op.neighbour.ip) === 4 &&
      linkOf(step)?.kind === 'loopback',
    instead: (op) =>
      op.op === 'neighbour.add'
        ? { ...op, neighbour: { ...op.neighbour, ip: parseIp('0.0.0.0') } }
        : op,
    reason:
      'net/ipv4/arp.c, arp_constructor, keeps what a loopback is told about IPv4 under 0.0.0.0; a loopback has no neighbours',
    since: '2026-11-27',
  },
  {
    id: 'refused-bucket-gives-a-queue',
    rule: 'K-8.7',
    ops: plain(veth(null, true), set(V0, { txQueueLength: 0 }), {
      op: 'qdisc.add',
      netns: NETNS,
      ifname: V0,
      qdisc: { kind: 'tbf', rateBytes: 1000, burstBytes: 0, limitBytes: 1000 },
    }),
    signatures: ['txQueueLength: model 0, kernel nothing of link'],
    cause: (step) =>
      step.op.op === 'qdisc.add' && step.errno === 'EINVAL' && linkOf(step)?.txQueueLength === 0,
    instead: (op) =>
      op.op === 'qdisc.add'
        ? {
            op: 'link.set',
            netns: op.netns,
            ifname: op.ifname,
            set: { txQueueLength: TX_QUEUE_LENGTH },
          }
        : op,
    reason:
      'net/sched/sch_api.c, qdisc_create, gives the link a queue before the qdisc looks at its parameters; in the model an operation that is refused changes nothing, and plans ask for no burst of nothing',
    since: '2026-11-27',
  },
  {
    id: 'table-local-outlives-its-addresses',
    rule: 'K-5',
    ops: plain(
      veth(null, true),
      address('address.add', V0, '10.0.0.1/24'),
      address('address.del', V0, '10.0.0.1/24'),
      {
        op: 'route.add',
        netns: NETNS,
        route: makeRoute({
          destination: parsePrefix('10.1.0.0/16'),
          device: V0,
          gateway: parseIp('10.9.0.1'),
          onlink: true,
        }),
      },
    ),
    signatures: ['route.add EINVAL done'],
    cause: ({ op, before }) =>
      op.op === 'route.add' &&
      op.route.onlink &&
      op.route.gateway !== null &&
      routeFamily(op.route) === 4 &&
      !before.netns[op.netns]?.routes.some((r) => r.table === TABLE_LOCAL && routeFamily(r) === 4),
    reason:
      'a netns that once had an IPv4 address keeps its table local, so that gateways on trust are not all broadcast any more; the model does not remember it, and nothing shows it',
    since: '2026-11-27',
  },
  {
    id: 'refused-address-leaves-a-route',
    rule: 'K-4.1',
    ops: plain(veth(null, false), address('address.add', V0, 'ff02::5/64')),
    signatures: ['only in the kernel: route'],
    cause: (step) =>
      step.op.op === 'address.add' && step.errno === 'EADDRNOTAVAIL' && linkOf(step)?.up === true,
    reason:
      'net/ipv6/addrconf.c, addrconf_add_dev, adds the multicast route before the address is looked at; in the model an operation that is refused changes nothing',
    since: '2026-11-27',
  },
  {
    id: 'link-local-is-made-once',
    rule: 'K-4.1',
    ops: withLinkLocals(
      veth(null, true),
      address('address.del', V0, 'fe80::ff:fe00:1/64'),
      set(V1, { up: false }),
      set(V1, { up: true }),
    ),
    signatures: ['only in the model: address', 'only in the model: route'],
    reason:
      'the kernel makes the link-local address when IPv6 begins on a link (IF_READY), not whenever carrier comes back; the model does not remember whether it has begun, and nobody takes that address away',
    since: '2026-11-27',
  },
  {
    id: 'elements-are-bytes',
    rule: 'K-8.6',
    ops: plain(
      {
        op: 'nft.batch',
        netns: NETNS,
        commands: [
          { ...TABLE, do: 'add table' },
          { ...TABLE, do: 'add set', set: 'links', keyType: 'ifname', holds: 'nothing' },
        ],
      },
      {
        op: 'nft.batch',
        netns: NETNS,
        commands: [
          {
            ...TABLE,
            do: 'add element',
            set: 'links',
            element: { key: parseIp('fd00::1'), verdict: null, comment: '' },
          },
        ],
      },
    ),
    signatures: ['nft.batch EINVAL done'],
    reason:
      'the kernel knows the length of a key, not its type, and takes an address for the name of a link; the model refuses it, since nobody means that',
    since: '2026-11-27',
  },
];

/** The known divergences that an operation can bring about. */
export function suspectsOf(step: Step): readonly KnownDivergence[] {
  return DIVERGENCES.filter((each) => each.cause?.(step) === true);
}

/** How the two have parted after an operation. */
export interface Parting {
  readonly step: Step;
  readonly signatures: readonly string[];
  /** What the kernel holds, read where a host like this one would have something; absent where the answers part. */
  readonly observe?: (like: Host) => Host;
}

/** Is a divergence of this kind, to its last line? */
export function explains(
  { instead, signatures: known }: KnownDivergence,
  { step, signatures, observe }: Parting,
): boolean {
  if (!instead || !observe) return signatures.every((signature) => known.includes(signature));
  const outcome = applyOp(step.before, instead(step.op));
  const host = outcome.ok ? outcome.host : step.before;
  return compareRows(rowsOf(host), rowsOf(observe(host)), ['model', 'kernel']).length === 0;
}
