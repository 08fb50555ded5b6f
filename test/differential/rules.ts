/**
 * When each rule of docs/kernel-rules.md was at work in one operation, told from the hosts around it and the errno alone:
 * not from which code ran, so that a rule whose code is reached without an effect does not count.
 */
import { findByAnyName } from '../../model/altname.ts';
import { hasCarrier } from '../../model/carrier.ts';
import type { Errno } from '../../model/errno.ts';
import { ownMacs } from '../../model/fdb.ts';
import { type Host, type NetnsName, findLink } from '../../model/host.ts';
import type { Ifname } from '../../model/ifname.ts';
import { type Ip, familyOf } from '../../model/ip.ts';
import type { Link, LinkRef } from '../../model/link.ts';
import type { Op, OpName, OpOf } from '../../model/op.ts';
import { PROTOCOL_KERNEL, type Route, routeFamily } from '../../model/route.ts';

/** One operation on both sides, which agree about it. */
export interface Step {
  readonly op: Op;
  readonly before: Host;
  /** The same as before where the kernel refused. */
  readonly after: Host;
  readonly errno: Errno | undefined;
}

interface LinkChange {
  readonly ref: LinkRef;
  readonly was: Link | undefined;
  readonly is: Link | undefined;
}

/** What of the hosts around an operation differs. */
interface Change extends Step {
  readonly links: readonly LinkChange[];
  readonly came: readonly Route[];
  readonly gone: readonly Route[];
}

function refsOf(host: Host): LinkRef[] {
  return Object.entries(host.netns).flatMap(([netns, { links }]) =>
    Object.values(links).map(({ ifname }) => ({ netns, ifname })),
  );
}

/** Most operations leave the links of most netns alone. */
function changedLinks(before: Host, after: Host): LinkChange[] {
  const names = new Set([...Object.keys(before.netns), ...Object.keys(after.netns)]);
  return [...names].flatMap((netns) => {
    const [was, is] = [before.netns[netns]?.links ?? {}, after.netns[netns]?.links ?? {}];
    if (was === is) return [];
    return [...new Set([...Object.keys(was), ...Object.keys(is)])]
      .filter((name) => was[name] !== is[name])
      .map((name) => ({ ref: { netns, ifname: name as Ifname }, was: was[name], is: is[name] }));
  });
}

/** The routes of `one` that `other` has not, of netns that both have. */
function routesOnlyIn(one: Host, other: Host): Route[] {
  return Object.entries(one.netns).flatMap(([name, netns]) => {
    const there = other.netns[name]?.routes ?? [];
    return netns.routes === there ? [] : netns.routes.filter((route) => !there.includes(route));
  });
}

function changeOf(step: Step): Change {
  const { before, after } = step;
  if (before === after) return { ...step, links: [], came: [], gone: [] };
  return {
    ...step,
    links: changedLinks(before, after),
    came: routesOnlyIn(after, before),
    gone: routesOnlyIn(before, after),
  };
}

type Effect = (change: Change) => boolean;

/** An effect of one kind of operation. */
function of<K extends OpName>(kind: K, acts: (op: OpOf<K>, change: Change) => boolean): Effect {
  return (change) => change.op.op === kind && acts(change.op as OpOf<K>, change);
}

function any(...effects: readonly Effect[]): Effect {
  return (change) => effects.some((acts) => acts(change));
}

function setsOwn(op: Op, { netns, ifname }: LinkRef, attribute: string): boolean {
  return op.op === 'link.set' && op.netns === netns && op.ifname === ifname && attribute in op.set;
}

function isDown({ was, is }: LinkChange): boolean {
  return was?.up === true && is?.up === false;
}

function isUp({ was, is }: LinkChange): boolean {
  return was?.up !== true && is?.up === true;
}

function isAboutMacvlan({ op, before }: Step): boolean {
  return 'ifname' in op && findLink(before, op)?.kind === 'macvlan';
}

function carrierChanges({ before, after, links }: Change, kind: Link['kind']): boolean {
  const refs = links.some(({ was, is }) => was?.up !== is?.up || was?.port !== is?.port)
    ? refsOf(after)
    : [];
  return refs.some(
    (ref) =>
      findLink(after, ref)?.kind === kind &&
      findLink(before, ref)?.up === true &&
      findLink(after, ref)?.up === true &&
      hasCarrier(before, ref) !== hasCarrier(after, ref),
  );
}

function ownRoutes(routes: readonly Route[], family: 4 | 6): Route[] {
  return routes.filter((r) => r.protocol === PROTOCOL_KERNEL && routeFamily(r) === family);
}

function handMade(routes: readonly Route[], family: 4 | 6): Route[] {
  return routes.filter((r) => r.protocol !== PROTOCOL_KERNEL && routeFamily(r) === family);
}

/** What bridges have of their own MACs and those of their ports, in words. */
function ownEntries(host: Host): string {
  return Object.entries(host.netns)
    .flatMap(([name, netns]) =>
      Object.values(netns.links).flatMap((link) =>
        link.kind === 'bridge'
          ? [`${name}/${link.ifname} ${[...ownMacs(netns, link)].toSorted().join()}`]
          : [],
      ),
    )
    .join('; ');
}

function ipsOf(link: Link | undefined, family: 4 | 6): Ip[] {
  return (link?.addresses ?? []).map(({ ip }) => ip).filter((ip) => familyOf(ip) === family);
}

function losesIps({ was, is }: LinkChange, family: 4 | 6): boolean {
  const left = ipsOf(is, family);
  return ipsOf(was, family).some((ip) => !left.includes(ip));
}

function gainsIps(change: LinkChange, family: 4 | 6): boolean {
  return losesIps({ ...change, was: change.is, is: change.was }, family);
}

function primaries(link: Link | undefined): Ip[] {
  return (link?.addresses ?? [])
    .filter((a) => familyOf(a.ip) === 4 && !a.secondary)
    .map((a) => a.ip);
}

function changedKeys({ before, after, op }: Change): string[] {
  const [was, is] = [before, after].map((host) => host.netns[op.netns]?.sysctls ?? {});
  return Object.keys(is ?? {}).filter((key) => is?.[key] !== was?.[key]);
}

/** Is it nobody's address to come from: multicast, or everybody's? */
function isNobodys(ip: Ip | null): boolean {
  return (
    ip !== null && (/^2(2[4-9]|3\d)\./.test(ip) || ip === '255.255.255.255' || ip === '0.0.0.0')
  );
}

function isNamedOtherwise(host: Host, netns: NetnsName, ifname: Ifname): boolean {
  return findLink(host, { netns, ifname }) === undefined;
}

function crosses({ was, is }: LinkChange, mtuBytes: number): boolean {
  return (
    was !== undefined && is !== undefined && was.mtuBytes < mtuBytes !== is.mtuBytes < mtuBytes
  );
}

/** What shows that a rule was at work in an operation that was done. */
const EFFECTS: Readonly<Record<string, Effect>> = {
  'K-1.2': ({ op, before, errno }) =>
    errno === undefined &&
    'ifname' in op &&
    op.op !== 'address.announce' &&
    isNamedOtherwise(before, op.netns, op.ifname),
  'K-1.3': of('link.rename', (op, { links }) => links.some(({ ref }) => ref.ifname === op.name)),
  'K-1.5': ({ links }) =>
    links.some(
      ({ was, is, ref }) =>
        was?.kind === 'veth' &&
        !is &&
        links.some(({ was: far, is: left, ref: there }) => {
          const peer = was.peer;
          return (
            far &&
            !left &&
            peer?.ifname === there.ifname &&
            peer.netns === there.netns &&
            ref !== there
          );
        }),
    ),
  'K-1.6': (change) => carrierChanges(change, 'veth'),
  'K-1.7': (change) => carrierChanges(change, 'bridge'),
  'K-1.9': any(
    (change) => carrierChanges(change, 'veth'),
    (change) => carrierChanges(change, 'bridge'),
  ),
  'K-1.11': ({ op, links }) =>
    links.some(
      ({ ref, was, is }) =>
        was?.kind === 'bridge' &&
        is !== undefined &&
        was.mtuBytes !== is.mtuBytes &&
        !setsOwn(op, ref, 'mtuBytes'),
    ),
  'K-1.12': of('link.add', ({ link }) => link.kind === 'ifb' && link.mtuBytes > 65_535),
  'K-1.14': ({ op, links }) =>
    links.some(
      ({ was, is }) =>
        was?.port &&
        is &&
        (is.port ? is.port.master !== was.port.master : op.op !== 'link.set') &&
        op.op !== 'link.rename' &&
        op.op !== 'link.move',
    ),
  'K-1.17': of('group.del', (_op, { links }) => links.length > 1),
  'K-2.1': ({ links }) =>
    links.some((change) => change.is?.kind === 'loopback' && isUp(change) && gainsIps(change, 4)),
  'K-2.2': of('link.add', (_op, change) => changedKeys(change).length > 0),
  'K-2.3': of('link.move', (op, { before }) => {
    const link = findLink(before, op);
    return op.netns !== op.toNetns && (link?.up === true || (link?.addresses ?? []).length > 0);
  }),
  'K-2.4': of('netns.del', (op, { links }) => links.some(({ ref }) => ref.netns !== op.netns)),
  'K-3.1': ({ links, came, gone }) =>
    (links.some(isUp) && ownRoutes(came, 4).length > 0) ||
    (links.some(isDown) && ownRoutes(gone, 4).length > 0),
  'K-3.2': of('address.add', ({ address }, { came, errno }) => {
    if (errno !== undefined || familyOf(address.ip) !== 4) return false;
    const isOdd = address.prefixLength > 30 || address.prefixLength === 0;
    return (isOdd || address.noPrefixRoute || address.peer !== null) && came.length > 0;
  }),
  'K-3.3': of('address.add', ({ address }, { links }) =>
    links.some(({ is }) => is?.addresses.some((a) => a.ip === address.ip && a.secondary)),
  ),
  'K-3.4': of('address.del', ({ address }, { links }) =>
    links.some((change) => {
      const risen = primaries(change.is).filter((ip) => !primaries(change.was).includes(ip));
      const left = ipsOf(change.is, 4);
      const lost = ipsOf(change.was, 4).filter((ip) => !left.includes(ip));
      return familyOf(address.ip) === 4 && (risen.length > 0 || lost.length > 1);
    }),
  ),
  'K-3.5': of(
    'address.del',
    ({ address }, { gone }) => familyOf(address.ip) === 4 && handMade(gone, 4).length > 0,
  ),
  'K-3.6': of(
    'address.add',
    ({ address }, { errno }) => errno === undefined && isNobodys(address.ip),
  ),
  'K-4.1': ({ op, came, links }) =>
    op.op !== 'address.add' &&
    ownRoutes(came, 6).length > 0 &&
    links.some(({ was }) => was !== undefined),
  'K-4.2': ({ links, gone }) =>
    links.some((change) => isDown(change) && ipsOf(change.was, 6).length > 0) &&
    ownRoutes(gone, 6).length > 0,
  'K-4.3': of(
    'sysctl.set',
    ({ key }, { links }) =>
      key.endsWith('/disable_ipv6') && links.some((c) => losesIps(c, 6) || gainsIps(c, 6)),
  ),
  'K-4.4': ({ links }) => links.some((change) => crosses(change, 1280)),
  'K-4.5': of(
    'address.del',
    ({ address }, { gone }) => familyOf(address.ip) === 6 && gone.length > 0,
  ),
  'K-5': any(
    of('route.add', (_op, { errno }) => errno === undefined),
    of('route.del', ({ route }, { gone }) =>
      gone.some((r) => r.metric !== route.metric || r.gateway !== route.gateway),
    ),
  ),
  'K-5.1': of(
    'route.add',
    ({ route }, { errno }) => errno === undefined && route.gateway !== null && !route.onlink,
  ),
  'K-5.2': ({ links, gone }) =>
    links.some(isDown) && handMade(gone, 4).length + handMade(gone, 6).length > 0,
  'K-5.4': any(
    of('rule.add', (_op, { errno }) => errno === undefined),
    of('rule.del', (_op, { errno }) => errno === undefined),
  ),
  'K-6.1': ({ before, after }) => ownEntries(before) !== ownEntries(after),
  'K-6.5': any(
    of('fdb.add', (_op, { errno }) => errno === undefined),
    of('fdb.del', (_op, { errno }) => errno === undefined),
  ),
  'K-1.18': any(
    // It goes with what it is on, or follows its MTU.
    ({ op, links }) =>
      links.some(
        ({ was, is, ref }) =>
          was?.kind === 'macvlan' && !is && 'ifname' in op && op.ifname !== ref.ifname,
      ),
    ({ op, links }) =>
      links.some(
        ({ was, is, ref }) =>
          was?.kind === 'macvlan' &&
          is?.kind === 'macvlan' &&
          was.mtuBytes !== is.mtuBytes &&
          !setsOwn(op, ref, 'mtuBytes'),
      ),
    (change) => carrierChanges(change, 'macvlan'),
  ),
  'K-9.1': ({ op, links }) =>
    links.some(
      ({ was, is, ref }) =>
        was?.kind === 'vxlan' && !is && !('ifname' in op && op.ifname === ref.ifname),
    ),
  'K-9.2': of(
    'link.add',
    ({ link }, { links }) =>
      link.kind === 'vxlan' &&
      links.some(({ is }) => is?.kind === 'vxlan' && is.mtuBytes < link.mtuBytes),
  ),
  'K-9.3': of(
    'remote.add',
    (_op, { before, after, errno }) => errno === undefined && before === after,
  ),
  'K-6.6': any(
    of('vlan.add', (_op, { errno }) => errno === undefined),
    of('vlan.del', (_op, { errno }) => errno === undefined),
  ),
  'K-7.3': (change) =>
    change.op.op !== 'neighbour.del' &&
    change.links.some(
      ({ was, is }) => was && is && was.neighbours.some((n) => !is.neighbours.includes(n)),
    ),
  'K-7.6': of('sysctl.set', (_op, change) => changedKeys(change).length > 2),
  'K-8.6': of('nft.batch', (_op, { before, after }) => before !== after),
  'K-8.7': any(
    of('qdisc.del', (_op, { errno }) => errno === undefined),
    of('filter.add', (_op, { errno }) => errno === undefined),
    ({ links }) =>
      links.some(
        ({ was, is }) =>
          was?.trafficControl?.ingress?.redirect && is?.trafficControl?.ingress?.redirect === null,
      ),
  ),
};

/** A refusal that a rule speaks of. */
interface Refusal {
  readonly rule: string;
  readonly errno: Errno;
  readonly when?: (step: Step) => boolean;
}

function linkOf({ op, before }: Step): Link | undefined {
  return 'ifname' in op ? findLink(before, op) : undefined;
}

function isFor(family: 4 | 6): (step: Step) => boolean {
  return ({ op }) => {
    if (op.op === 'route.add' || op.op === 'route.del') return routeFamily(op.route) === family;
    if (op.op === 'address.add' || op.op === 'address.del')
      return familyOf(op.address.ip) === family;
    return op.op === 'neighbour.add' && familyOf(op.neighbour.ip) === family;
  };
}

function sets(attribute: string): (step: Step) => boolean {
  return ({ op }) => op.op === 'link.set' && attribute in op.set;
}

function hasSmallMtu(step: Step): boolean {
  const { op, before } = step;
  const link =
    op.op === 'route.add' && op.route.device !== null
      ? findLink(before, { netns: op.netns, ifname: op.route.device })
      : linkOf(step);
  return link !== undefined && link.mtuBytes < 1280;
}

function not(condition: (step: Step) => boolean): (step: Step) => boolean {
  return (step) => !condition(step);
}

function both(...conditions: readonly ((step: Step) => boolean)[]): (step: Step) => boolean {
  return (step) => conditions.every((holds) => holds(step));
}

function refusal(rule: string, errno: Errno, when?: (step: Step) => boolean): Refusal {
  return { rule, errno, ...(when ? { when } : {}) };
}

function refusals(rule: string, ...errnos: readonly Errno[]): Refusal[] {
  return errnos.map((errno) => refusal(rule, errno));
}

/** What is refused because of a rule; what is about names that are nobody's (ENODEV, ENOENT) is of none. */
const REFUSALS: Readonly<Partial<Record<OpName, readonly Refusal[]>>> = {
  'link.add': [
    ...refusals('K-1.2', 'EEXIST'),
    refusal('K-1.5', 'EEXIST', ({ op }) => op.op === 'link.add' && op.link.kind === 'veth'),
    ...refusals('K-1.12', 'EINVAL', 'EADDRNOTAVAIL'),
    refusal('K-1.14', 'EOPNOTSUPP', ({ op }) => op.op === 'link.add' && op.link.kind === 'veth'),
    refusal('K-6.6', 'EOPNOTSUPP', ({ op }) => op.op === 'link.add' && op.link.kind === 'bridge'),
    refusal(
      'K-9.1',
      'EEXIST',
      ({ op, before }) =>
        op.op === 'link.add' &&
        op.link.kind === 'vxlan' &&
        !findByAnyName(before, { netns: op.netns, ifname: op.link.ifname }),
    ),
    refusal('K-9.1', 'EPERM'),
    refusal('K-1.18', 'EINVAL', ({ op }) => op.op === 'link.add' && op.link.kind === 'macvlan'),
    ...refusals('K-1.18', 'EBUSY'),
    ...refusals('K-1.19', 'EADDRINUSE'),
  ],
  'link.rename': [...refusals('K-1.2', 'EEXIST'), ...refusals('K-1.3', 'EBUSY')],
  'altname.add': refusals('K-1.2', 'EEXIST', 'ERANGE'),
  'altname.del': refusals('K-1.2', 'ENOENT', 'EINVAL', 'ERANGE'),
  'link.move': refusals('K-2.3', 'EINVAL', 'EEXIST'),
  'link.set': [
    refusal('K-1.12', 'EINVAL', sets('mtuBytes')),
    refusal('K-1.12', 'EADDRNOTAVAIL'),
    refusal('K-1.12', 'EOPNOTSUPP', sets('mac')),
    ...refusals('K-1.14', 'ELOOP', 'EBUSY'),
    refusal('K-1.14', 'EINVAL', sets('master')),
    refusal('K-1.14', 'EOPNOTSUPP', sets('master')),
    refusal('K-1.15', 'ERANGE'),
    refusal('K-1.18', 'EINVAL', (change) => sets('mtuBytes')(change) && isAboutMacvlan(change)),
    ...refusals('K-1.19', 'EADDRINUSE'),
    refusal('K-6.6', 'EOPNOTSUPP', sets('vlanFiltering')),
  ],
  'link.del': refusals('K-1.15', 'EOPNOTSUPP'),
  'port.set': refusals('K-1.15', 'EOPNOTSUPP'),
  'group.del': refusals('K-1.17', 'ENODEV', 'EPERM', 'EOPNOTSUPP'),
  'remote.add': refusals('K-9.3', 'EEXIST', 'EAFNOSUPPORT'),
  'remote.del': refusals('K-9.3', 'ENOENT'),
  'fdb.add': refusals('K-6.5', 'EEXIST', 'EINVAL', 'EOPNOTSUPP'),
  'fdb.del': refusals('K-6.5', 'ENOENT', 'EOPNOTSUPP'),
  'vlan.add': refusals('K-6.6', 'EOPNOTSUPP', 'EINVAL'),
  'vlan.del': refusals('K-6.6', 'EOPNOTSUPP', 'EINVAL'),
  'address.add': [
    refusal('K-3.3', 'EEXIST', isFor(4)),
    refusal('K-3.3', 'EINVAL', isFor(4)),
    refusal('K-4.3', 'EACCES'),
    refusal('K-4.4', 'EINVAL', isFor(6)),
    refusal('K-4.5', 'EEXIST', isFor(6)),
    refusal('K-4.5', 'EADDRNOTAVAIL'),
  ],
  'address.del': [
    refusal('K-4.4', 'ENXIO'),
    refusal('K-4.5', 'EADDRNOTAVAIL', isFor(6)),
    refusal('K-3.3', 'EADDRNOTAVAIL', isFor(4)),
  ],
  'route.add': [
    refusal('K-3.6', 'EINVAL', ({ op }) => op.op === 'route.add' && isNobodys(op.route.source)),
    refusal('K-4.3', 'EACCES', isFor(6)),
    refusal('K-4.4', 'ENODEV', both(isFor(6), hasSmallMtu)),
    refusal('K-5.4', 'EACCES', isFor(4)),
    ...refusals('K-5', 'EINVAL', 'ENETDOWN', 'ENETUNREACH', 'EHOSTUNREACH', 'EEXIST'),
  ],
  'route.del': refusals('K-5', 'ESRCH'),
  'rule.add': refusals('K-5.4', 'EEXIST'),
  'rule.del': refusals('K-5.4', 'ENOENT'),
  'neighbour.add': [
    refusal('K-4.3', 'EINVAL', not(hasSmallMtu)),
    refusal('K-4.4', 'EINVAL', hasSmallMtu),
    refusal('K-7.3', 'EEXIST'),
  ],
  'neighbour.del': refusals('K-7.3', 'ENOENT'),
  'sysctl.set': [
    refusal(
      'K-4.4',
      'ENOENT',
      ({ op }) => op.op === 'sysctl.set' && op.key.startsWith('net/ipv6/'),
    ),
    refusal('K-7.6', 'EINVAL'),
  ],
  'nft.batch': refusals(
    'K-8.6',
    'ENOENT',
    'EBUSY',
    'EEXIST',
    'EOPNOTSUPP',
    'EMLINK',
    'ENODATA',
    'EINVAL',
  ),
  'qdisc.add': refusals('K-8.7', 'EEXIST', 'EINVAL'),
  'qdisc.del': refusals('K-8.7', 'ENOENT'),
  'filter.add': refusals('K-8.7', 'EINVAL', 'EEXIST'),
  'filter.del': refusals('K-8.7', 'EINVAL', 'ENOENT'),
};

/** The rules that no program of operations can put to work, or that leave nothing to observe, and why. */
export const OUT_OF_REACH: Readonly<Record<string, string>> = {
  'K-1.1': 'names are parsed before they become operations',
  'K-1.10': 'operations make bridges with a MAC, which is chosen then',
  'K-1.13': 'every operation carries one attribute',
  'K-1.16': 'programs send no packets',
  'K-2.5': 'nobody else is in the netns of a program',
  'K-3': 'the heading of K-3.1 to K-3.6',
  'K-3.7': 'programs send no packets',
  'K-4': 'the heading of K-4.1 to K-4.5',
  'K-5.5': 'programs send no packets',
  'K-6.2': 'programs send no packets',
  'K-6.3': 'programs send no packets',
  'K-6.4': 'programs send no packets',
  'K-7.1': 'programs send no packets',
  'K-7.2': 'programs send no packets',
  'K-7.4': 'programs send no packets',
  'K-7.5': 'programs send no packets',
  'K-7.7': 'programs send no packets',
  'K-7.9': 'programs send no packets',
  'K-7.10': 'programs send no packets',
  'K-7.11': 'programs send no packets',
  'K-8.1': 'programs send no packets',
  'K-8.2': 'programs send no packets',
  'K-8.3': 'programs send no packets',
  'K-8.4': 'programs send no packets',
  'K-8.5': 'programs send no packets',
  'K-9.4': 'programs send no packets',
};

/** What can be seen at work: a rule by an effect (`K-1.5`), and by an errno (`K-1.5 EEXIST`). */
export function reachableRules(): string[] {
  const refused = Object.values(REFUSALS).flatMap((list) =>
    list.map(({ rule, errno }) => `${rule} ${errno}`),
  );
  return [...new Set([...Object.keys(EFFECTS), ...refused])];
}

/** The rules that were at work in an operation, in the words of `reachableRules`. */
export function rulesOf(step: Step): string[] {
  const { errno, op } = step;
  if (errno !== undefined)
    return (REFUSALS[op.op] ?? [])
      .filter((each) => each.errno === errno && (each.when?.(step) ?? true))
      .map(({ rule }) => `${rule} ${errno}`);
  const change = changeOf(step);
  return Object.entries(EFFECTS)
    .filter(([, acts]) => acts(change))
    .map(([rule]) => rule);
}
