import { type Address, sameAddress } from './address.ts';
import { connectedPrefix } from './connected.ts';
import { desiredRuleset } from './desired-ruleset.ts';
import {
  type DesiredAttributes,
  type DesiredHost,
  type DesiredLink,
  type DesiredNetns,
  type DesiredVlans,
  isKernelAddress,
} from './desired.ts';
import { diffFdb, diffRemotes } from './fdb-diff.ts';
import { findLink, findNetns, getNetns, type Host, type Netns, type NetnsName } from './host.ts';
import type { Ifname } from './ifname.ts';
import { familyOf } from './ip.ts';
import { type Link, type LinkRef, TX_QUEUE_LENGTH } from './link.ts';
import { diffRulesets } from './nftables-diff.ts';
import type { StateOp } from './op.ts';
import { applyOp } from './ops.ts';
import { freshPort } from './ops/enslave.ts';
import type { NewEnd, NewLink } from './ops/link-add.ts';
import type { LinkAttribute } from './ops/link-set.ts';
import type { PortFlag } from './ops/port-set.ts';
import { diffPolicyRules, diffRoutes } from './route-diff.ts';
import { diffTrafficControl } from './traffic-control-diff.ts';
import { type VlanRange, findVlan, vlansOf, withoutVlans } from './vlan.ts';

/** The operations found so far, and the host as it is after those that make or remove links. */
interface Draft {
  host: Host;
  readonly ops: StateOp[];
}

/** Notes an operation that later comparisons build upon; one that would fail is noted all the same, for the plan to report. */
function perform(draft: Draft, op: StateOp): void {
  draft.ops.push(op);
  const outcome = applyOp(draft.host, op);
  if (outcome.ok) draft.host = outcome.host;
}

function wantedLinks(desired: DesiredHost): { ref: LinkRef; want: DesiredLink }[] {
  return Object.entries(desired).flatMap(([netns, want]) =>
    want === 'absent'
      ? []
      : Object.entries(want.links ?? {}).map(([ifname, link]) => ({
          ref: { netns, ifname: ifname as Ifname },
          want: link,
        })),
  );
}

/** Is the link the thing that is wanted, so that changing its attributes is enough? */
function isSameLink(link: Link, want: Exclude<DesiredLink, 'absent'>): boolean {
  if (want.kind === 'any') return true;
  if (link.kind !== want.kind) return false;
  if (want.kind === 'vxlan' && link.kind === 'vxlan')
    return (
      want.vni === link.vni &&
      want.udpPort === link.udpPort &&
      want.local === link.local &&
      want.lower === link.lower &&
      want.learning === link.learning
    );
  if (want.kind === 'macvlan' && link.kind === 'macvlan')
    return want.mode === link.mode && want.lower === link.lower?.ifname;
  // An ifb keeps the MAC address that it was made with (K-8.7).
  if (want.kind === 'ifb') return want.mac === undefined || want.mac === link.mac;
  return (
    want.kind !== 'veth' ||
    (link.kind === 'veth' &&
      link.peer?.netns === want.peer.netns &&
      link.peer.ifname === want.peer.ifname)
  );
}

/** Links that are to go together and to nobody's loss: the kernel waits once for all of a group. */
function removeGroups(draft: Draft, desired: DesiredHost): void {
  for (const [netns, want] of Object.entries(desired)) {
    if (want === 'absent') continue;
    const links = Object.values(findNetns(draft.host, netns)?.links ?? {});
    const groups = new Set(
      links.flatMap(({ ifname, group }) =>
        group !== undefined && want.links?.[ifname] === 'absent' ? [group] : [],
      ),
    );
    for (const group of groups) {
      const members = links.filter((link) => link.group === group);
      const ifnames = members.map(({ ifname }) => ifname);
      if (members.length > 1 && ifnames.every((name) => want.links?.[name] === 'absent'))
        perform(draft, { op: 'group.del', netns, group, ifnames });
    }
  }
}

/** A name that is wanted for another link must be free when that is made. */
function removeAltnames(draft: Draft, desired: DesiredHost): void {
  for (const { ref, want } of wantedLinks(desired)) {
    const wanted = want === 'absent' ? undefined : want.altnames;
    for (const altname of findLink(draft.host, ref)?.altnames ?? [])
      if (wanted && !wanted.includes(altname))
        perform(draft, { op: 'altname.del', ...ref, altname });
  }
}

function removeLinks(draft: Draft, desired: DesiredHost): void {
  removeGroups(draft, desired);
  for (const { ref, want } of wantedLinks(desired)) {
    const link = findLink(draft.host, ref);
    if (link && (want === 'absent' || !isSameLink(link, want)))
      perform(draft, { op: 'link.del', ...ref });
  }
  for (const [name, want] of Object.entries(desired)) {
    if (want === 'absent' || want.otherLinks !== 'remove') continue;
    for (const ifname of Object.keys(findNetns(draft.host, name)?.links ?? {})) {
      const link = findLink(draft.host, { netns: name, ifname: ifname as Ifname });
      if (link && link.kind !== 'loopback' && !Object.hasOwn(want.links ?? {}, ifname)) {
        perform(draft, { op: 'link.del', netns: name, ifname: link.ifname });
      }
    }
  }
}

function newEnd(ref: LinkRef, want: DesiredAttributes): NewEnd {
  if (want.mac === undefined || want.mtuBytes === undefined) {
    throw new Error(
      `to make link "${ref.ifname}" in netns "${ref.netns}" its MAC address and MTU must be wanted`,
    );
  }
  const { mac, mtuBytes, group } = want;
  return {
    ifname: ref.ifname,
    mac,
    mtuBytes,
    up: false,
    ...(group ? { group } : {}),
  };
}

function addLinks(draft: Draft, desired: DesiredHost): void {
  const wanted = wantedLinks(desired);
  for (const { ref, want } of wanted) {
    if (want === 'absent' || findLink(draft.host, ref)) continue;
    if (want.kind === 'ifb')
      perform(draft, {
        op: 'link.add',
        netns: ref.netns,
        link: { kind: 'ifb', ...newEnd(ref, want) },
      });
    if (want.kind !== 'bridge') continue;
    perform(draft, {
      op: 'link.add',
      netns: ref.netns,
      link: {
        kind: 'bridge',
        ...newEnd(ref, want),
        ...(want.vlanFiltering ? { vlanFiltering: true as const } : {}),
      },
    });
  }
  // A veth is made from the end that is a port, so that it is one from its first moment.
  const ends = wanted.toSorted((a, b) => Number(isPort(b.want)) - Number(isPort(a.want)));
  for (const { ref, want } of ends) {
    if (want === 'absent' || want.kind !== 'veth' || findLink(draft.host, ref)) continue;
    const other = wanted.find(
      ({ ref: r }) => r.netns === want.peer.netns && r.ifname === want.peer.ifname,
    );
    if (!other || other.want === 'absent')
      throw new Error(`the peer of veth "${ref.ifname}" in netns "${ref.netns}" is not wanted`);
    const peer = { netns: want.peer.netns, ...newEnd(other.ref, other.want) };
    const link: NewLink = {
      kind: 'veth',
      ...newEnd(ref, want),
      master: want.port?.master ?? null,
      peer,
    };
    perform(draft, { op: 'link.add', netns: ref.netns, link });
  }
}

/** So deep can links be made over each other (include/linux/netdevice.h, MAX_NEST_DEV). */
const NEST_MAX = 8;

/** How many wanted links are below one that is made over another; 0 for all others. */
function depthOf(links: DesiredNetns['links'], ifname: Ifname | null, most = NEST_MAX): number {
  const want = ifname === null ? undefined : links?.[ifname];
  return want === undefined || want === 'absent' || !('lower' in want) || most === 0
    ? 0
    : 1 + depthOf(links, want.lower, most - 1);
}

/** What a link over `lower` may need of it: it is as large as it is to be, and a port no longer. */
function prepareLower(draft: Draft, lower: LinkRef, want: DesiredLink | undefined): void {
  const link = findLink(draft.host, lower);
  if (!link || want === undefined || want === 'absent') return;
  if (want.mtuBytes !== undefined && want.mtuBytes > link.mtuBytes)
    perform(draft, { op: 'link.set', ...lower, set: { mtuBytes: want.mtuBytes } });
  if (want.port === null && link.port !== null)
    perform(draft, { op: 'link.set', ...lower, set: { master: null } });
}

function newUpper(ref: LinkRef, want: DesiredLink): NewLink | undefined {
  if (want === 'absent') return undefined;
  if (want.kind === 'macvlan')
    return { kind: 'macvlan', ...newEnd(ref, want), mode: want.mode, lower: want.lower };
  if (want.kind !== 'vxlan') return undefined;
  const { vni, udpPort, local, lower, learning } = want;
  return { kind: 'vxlan', ...newEnd(ref, want), vni, udpPort, local, lower, learning };
}

/** Links that are made over others come when those are there. */
function addUppers(draft: Draft, desired: DesiredHost): void {
  for (const [netns, wanted] of Object.entries(desired)) {
    if (wanted === 'absent') continue;
    for (const [ifname, want] of lowersFirst(wanted.links)) {
      const ref = { netns, ifname };
      const link = findLink(draft.host, ref) ? undefined : newUpper(ref, want);
      if (!link || !('lower' in link)) continue;
      if (link.lower !== null)
        prepareLower(draft, { netns, ifname: link.lower }, wanted.links?.[link.lower]);
      perform(draft, { op: 'link.add', netns, link });
    }
  }
}

/** The wanted links of a netns, those that are made over others behind them. */
function lowersFirst(links: DesiredNetns['links']): [Ifname, DesiredLink][] {
  const entries = Object.entries(links ?? {}) as [Ifname, DesiredLink][];
  return entries.toSorted(([a], [b]) => depthOf(links, a) - depthOf(links, b));
}

function isPort(want: DesiredLink): boolean {
  return want !== 'absent' && want.port !== undefined && want.port !== null;
}

/** Those of `ranges` that `have` does not hold with the same marks. */
function missingVlans(have: readonly VlanRange[], ranges: readonly VlanRange[]): VlanRange[] {
  return ranges.filter((range) => {
    const found = findVlan(have, range.first);
    return !(
      found &&
      found.last >= range.last &&
      found.pvid === range.pvid &&
      found.untagged === range.untagged
    );
  });
}

/** From the VLANs that a port or a bridge has to those that are wanted. */
function diffVlans(
  on: LinkRef & { readonly self: boolean },
  have: readonly VlanRange[],
  { present, others }: DesiredVlans,
): StateOp[] {
  const wanted = vlansOf(present);
  const unwanted =
    others === 'keep'
      ? []
      : wanted.reduce((left, { first, last }) => withoutVlans(left, first, last), have);
  const kept = unwanted.reduce((left, { first, last }) => withoutVlans(left, first, last), have);
  return [
    ...unwanted.map(({ first, last }): StateOp => ({ op: 'vlan.del', ...on, first, last })),
    ...missingVlans(kept, wanted).map((vlan): StateOp => ({ op: 'vlan.add', ...on, vlan })),
  ];
}

/** What only bridges have. */
function diffBridge(ref: LinkRef, link: Link, want: Exclude<DesiredLink, 'absent'>): StateOp[] {
  if (want.kind !== 'bridge' || link.kind !== 'bridge') return [];
  const ops: StateOp[] = [];
  if (want.vlanFiltering !== undefined && want.vlanFiltering !== (link.vlans?.filtering ?? false))
    ops.push({ op: 'link.set', ...ref, set: { vlanFiltering: want.vlanFiltering } });
  if (want.vlans) ops.push(...diffVlans({ ...ref, self: true }, link.vlans?.own ?? [], want.vlans));
  if (want.fdb) ops.push(...diffFdb(ref, link, want.fdb));
  return ops;
}

function diffAttributes(
  ref: LinkRef,
  link: Link,
  want: DesiredAttributes,
  masterOf: (ifname: Ifname) => Link | undefined,
): StateOp[] {
  const set = (attribute: LinkAttribute): StateOp => ({ op: 'link.set', ...ref, set: attribute });
  const ops: StateOp[] = [];
  if (want.mtuBytes !== undefined && want.mtuBytes !== link.mtuBytes)
    ops.push(set({ mtuBytes: want.mtuBytes }));
  if (want.mac !== undefined && want.mac !== link.mac) ops.push(set({ mac: want.mac }));
  if (want.group !== undefined && want.group !== (link.group ?? 0))
    ops.push(set({ group: want.group }));
  if (want.alias !== undefined && want.alias !== link.alias) ops.push(set({ alias: want.alias }));
  if (want.promiscuous !== undefined && want.promiscuous !== link.promiscuous)
    ops.push(set({ promiscuous: want.promiscuous }));
  if (want.allMulticast !== undefined && want.allMulticast !== (link.allMulticast === true))
    ops.push(set({ allMulticast: want.allMulticast }));
  if (
    want.txQueueLength !== undefined &&
    want.txQueueLength !== (link.txQueueLength ?? TX_QUEUE_LENGTH)
  )
    ops.push(set({ txQueueLength: want.txQueueLength }));
  if (want.port === null && link.port !== null) ops.push(set({ master: null }));
  if (want.port) {
    const { master, vlans, ...flags } = want.port;
    if (link.port?.master !== master) ops.push(set({ master }));
    const bridge = masterOf(master);
    const port =
      link.port?.master === master
        ? link.port
        : freshPort(master, bridge?.kind === 'bridge' ? bridge : {});
    for (const [flag, on] of Object.entries(flags) as [PortFlag, boolean][]) {
      if (port[flag] !== on) ops.push({ op: 'port.set', ...ref, flag, on });
    }
    if (vlans) ops.push(...diffVlans({ ...ref, self: false }, port.vlans ?? [], vlans));
  }
  if (want.up !== undefined && want.up !== link.up) ops.push(set({ up: want.up }));
  return ops;
}

/** Does the kernel hold the address just as it is wanted? What it finds out by itself does not count. */
function isSameAddress(have: Address, want: Address): boolean {
  return (
    sameAddress(have, want) &&
    have.scope === want.scope &&
    have.noPrefixRoute === want.noPrefixRoute &&
    have.secondary === want.secondary &&
    (familyOf(want.ip) === 6 || have.broadcast === want.broadcast)
  );
}

/** Wanted addresses as the kernel would mark them when they are added in their order. */
function asAdded(wanted: readonly Address[]): Address[] {
  return wanted.map((address, i) => ({
    ...address,
    secondary:
      familyOf(address.ip) === 4 &&
      wanted
        .slice(0, i)
        .some(
          (a) =>
            a.prefixLength === address.prefixLength &&
            connectedPrefix(a) === connectedPrefix(address),
        ),
  }));
}

/** Is there an address, now and not wanted, that makes this one secondary? Then nothing is wrong with it. */
function followsForeign(link: Link, wanted: readonly Address[], have: Address): boolean {
  return link.addresses.some(
    (a) =>
      !a.secondary &&
      a !== have &&
      a.prefixLength === have.prefixLength &&
      connectedPrefix(a) === connectedPrefix(have) &&
      !wanted.some((w) => sameAddress(w, a)),
  );
}

function diffAddresses(
  ref: LinkRef,
  link: Link,
  want: NonNullable<DesiredAttributes['addresses']>,
): StateOp[] {
  const ops: StateOp[] = [];
  const wanted = asAdded(want.present);
  // A primary address takes its secondaries along when it goes (K-3.4): those go first.
  for (const have of link.addresses.toSorted((a, b) => Number(b.secondary) - Number(a.secondary))) {
    const match = wanted.find((w) =>
      familyOf(w.ip) === 6 ? w.ip === have.ip : sameAddress(w, have),
    );
    if (
      match &&
      (isSameAddress(have, match) ||
        (want.others === 'keep' &&
          isSameAddress({ ...have, secondary: match.secondary }, match) &&
          followsForeign(link, wanted, have)))
    )
      continue;
    const unwanted =
      want.absent?.some((a) => sameAddress(a, have)) ||
      (want.others === 'remove' && !isKernelAddress(link, have));
    if (match || unwanted) ops.push({ op: 'address.del', ...ref, address: have });
  }
  const kept = link.addresses.filter(
    (a) => !ops.some((op) => op.op === 'address.del' && op.address === a),
  );
  for (const address of wanted) {
    if (!kept.some((a) => (familyOf(a.ip) === 6 ? a.ip === address.ip : sameAddress(a, address)))) {
      ops.push({ op: 'address.add', ...ref, address: { ...address, secondary: false } });
    }
  }
  return ops;
}

function diffNeighbours(
  ref: LinkRef,
  link: Link,
  want: NonNullable<DesiredAttributes['neighbours']>,
): StateOp[] {
  const ops: StateOp[] = [];
  for (const have of link.neighbours) {
    const match = want.present.find((n) => n.ip === have.ip);
    if (match ? match.mac !== have.mac : want.others === 'remove')
      ops.push({ op: 'neighbour.del', ...ref, ip: have.ip });
  }
  for (const neighbour of want.present) {
    if (!link.neighbours.some((n) => n.ip === neighbour.ip && n.mac === neighbour.mac))
      ops.push({ op: 'neighbour.add', ...ref, neighbour });
  }
  return ops;
}

function diffSysctls(name: NetnsName, netns: Netns, want: DesiredNetns): StateOp[] {
  return Object.entries(want.sysctls ?? {})
    .filter(([key, value]) => netns.sysctls[key] !== value)
    .map(([key, value]) => ({ op: 'sysctl.set', netns: name, key, value }));
}

function diffNetns(host: Host, name: NetnsName, want: DesiredNetns): StateOp[] {
  const netns = getNetns(host, name);
  const ops: StateOp[] = diffSysctls(name, netns, want);
  for (const [ifname, wish] of lowersFirst(want.links)) {
    const link = netns.links[ifname];
    if (wish === 'absent') continue;
    const ref: LinkRef = { netns: name, ifname };
    // A link that is wanted but cannot be made: its first change says so.
    if (!link) {
      ops.push({ op: 'link.set', ...ref, set: { up: wish.up ?? true } });
      continue;
    }
    ops.push(...diffBridge(ref, link, wish));
    if (wish.kind === 'vxlan' && link.kind === 'vxlan' && wish.remotes)
      ops.push(...diffRemotes(ref, link, wish.remotes));
    if (wish.trafficControl)
      ops.push(...diffTrafficControl(ref, link.trafficControl, wish.trafficControl));
    ops.push(...diffAttributes(ref, link, wish, (master) => netns.links[master]));
    for (const altname of wish.altnames ?? [])
      if (!link.altnames?.includes(altname)) ops.push({ op: 'altname.add', ...ref, altname });
    if (wish.addresses) ops.push(...diffAddresses(ref, link, wish.addresses));
    if (wish.neighbours) ops.push(...diffNeighbours(ref, link, wish.neighbours));
  }
  ops.push(...diffRoutes(name, netns, want), ...diffPolicyRules(name, netns, want));
  const commands =
    want.tables || want.otherTables
      ? diffRulesets(netns.nftables, desiredRuleset(netns.nftables, want))
      : [];
  if (commands.length > 0) ops.push({ op: 'nft.batch', netns: name, commands });
  return ops;
}

/**
 * The operations that lie between a host and what is wanted of it, in no particular order. What the
 * kernel takes along with some of them is not foreseen here: `planTo` looks again.
 */
export function diff(observed: Host, desired: DesiredHost): StateOp[] {
  const draft: Draft = { host: observed, ops: [] };
  for (const [name, want] of Object.entries(desired)) {
    const exists = findNetns(draft.host, name) !== undefined;
    if (want === 'absent' && exists) perform(draft, { op: 'netns.del', netns: name });
    if (want !== 'absent' && !exists) perform(draft, { op: 'netns.add', netns: name });
  }
  removeAltnames(draft, desired);
  removeLinks(draft, desired);
  addLinks(draft, desired);
  addUppers(draft, desired);
  for (const [name, want] of Object.entries(desired)) {
    if (want !== 'absent') draft.ops.push(...diffNetns(draft.host, name, want));
  }
  return draft.ops;
}
