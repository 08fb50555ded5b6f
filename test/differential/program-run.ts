/** Runs one program on the model and on the kernel, and says where they part. */
import type { NetnsScope } from '../../backends/backend.ts';
import { makeLinuxBackend } from '../../backends/linux/linux.ts';
import type { Errno, Fault } from '../../model/errno.ts';
import type { Host, Netns, NetnsName } from '../../model/host.ts';
import type { Ifname } from '../../model/ifname.ts';
import type { KernelProfile } from '../../model/kernel-profile.ts';
import type { Link } from '../../model/link.ts';
import type { Op } from '../../model/op.ts';
import { applyOp } from '../../model/ops.ts';
import { routeFamily } from '../../model/route.ts';
import { readByCommands } from './iproute.ts';
import { type Places, makePlaces, placeOp, unplaceHost } from './place.ts';
import { compareRows, rowsOf } from './rows.ts';

/** What one operation came to on the kernel: undefined is success. */
export type Answer = Errno | undefined;

/** Where the model and the kernel part. */
export interface Divergence {
  /** The operation by its number when an answer differs; undefined: the states at the end do. */
  readonly at: number | undefined;
  readonly lines: readonly string[];
  /** What is alike in divergences of one cause, so that shrinking does not end at another. */
  readonly signatures: readonly string[];
}

/** What came of a program. */
export interface ProgramRun {
  readonly answers: readonly Answer[];
  /** What the kernel held at the end; undefined when the answers parted before. */
  readonly observed: Host | undefined;
  readonly divergence: Divergence | undefined;
  /** Where both sides refuse with one errno but with other words: reported, never a failure. */
  readonly texts: readonly string[];
}

/** Who reads the kernel's state at the end: our own decoder, or iproute2 and nft as well. */
export type Readers = 'backend' | 'backend and commands';

type Linux = ReturnType<typeof makeLinuxBackend>;

/** A question about one link makes the kernel carry out its pending carrier change first (net/core/rtnetlink.c, rtnl_getlink). */
const ASKED_AT_ONCE = 8;
/** The far ends of a veth and a netns that goes are taken away by a work queue (K-2.4). */
const TEARDOWN_MS = 5000;
/** What waits for nothing but its turn is done sooner than this. */
const WORK_MS = 2000;

const ALL: NetnsScope = {
  links: 'all',
  policyRules: true,
  routes: 'all',
  sysctls: [],
  nftables: 'all',
  vlans: true,
  fdb: true,
  trafficControl: true,
};

function linkScope(links: readonly Ifname[]): NetnsScope {
  return { links, routes: 'none', sysctls: [], nftables: [] };
}

function localRoutes(netns: Netns | undefined): string[] {
  return (netns?.routes ?? [])
    .filter((r) => r.type === 'local' && routeFamily(r) === 6)
    .map((r) => `${r.destination} ${r.device}`);
}

/** The route to an IPv6 address of the machine is added by a work queue too, even without DAD (addrconf_dad_work). */
function settleLocalRoutes(linux: Linux, places: Places, host: Host, before: Host): void {
  for (const [name, netns] of Object.entries(host.netns)) {
    const old = localRoutes(before.netns[name]);
    const fresh = localRoutes(netns).filter((route) => !old.includes(route));
    const place = places.real(name);
    const there = (): readonly string[] =>
      localRoutes(linux.observe({ [place]: { ...ALL, nftables: [] } }).netns[place]);
    const deadline = performance.now() + WORK_MS;
    while (
      fresh.length > 0 &&
      !fresh.every((route) => there().includes(route)) &&
      performance.now() < deadline
    )
      Bun.sleepSync(0.2);
  }
}

/**
 * Waits for what the kernel does later by rule. Carrier changes lag by up to a second (K-1.9), but asking about a
 * link brings them about; ports before bridges, since a bridge follows its ports. Links that the model says
 * are gone with a netns are waited for (K-2.4).
 */
function settle(linux: Linux, places: Places, host: Host, before: Host): void {
  for (const pass of ['veth', 'ifb', 'bridge', 'veth'] as const) {
    for (const [netns, state] of Object.entries(host.netns)) {
      const names = Object.values(state.links)
        .filter((link) => link.kind === pass)
        .map((link) => link.ifname);
      for (let i = 0; i < names.length; i += ASKED_AT_ONCE)
        linux.observe({ [places.real(netns)]: linkScope(names.slice(i, i + ASKED_AT_ONCE)) });
    }
  }
  settleLocalRoutes(linux, places, host, before);
  const removedNetns = Object.keys(before.netns).some((n) => !Object.hasOwn(host.netns, n));
  if (!removedNetns) return;
  const gone = Object.entries(host.netns).flatMap(([netns, state]) =>
    Object.keys(before.netns[netns]?.links ?? {})
      .filter((name) => !Object.hasOwn(state.links, name))
      .map((name) => [places.real(netns), name as Ifname] as const),
  );
  const deadline = performance.now() + TEARDOWN_MS;
  for (const [netns, name] of gone) {
    while (
      Object.keys(linux.observe({ [netns]: linkScope([name]) }).netns[netns]?.links ?? {}).length >
        0 &&
      performance.now() < deadline
    )
      Bun.sleepSync(2);
  }
}

function observeAll(
  linux: Linux,
  places: Places,
  host: Host,
  universe: readonly NetnsName[],
): Host {
  const scope = universe.map((name): [NetnsName, NetnsScope] => [
    places.real(name),
    { ...ALL, sysctls: Object.keys(host.netns[name]?.sysctls ?? {}) },
  ]);
  return unplaceHost(linux.observe(Object.fromEntries(scope)), places);
}

function netnsNamesOf(ops: readonly Op[]): NetnsName[] {
  const names = ops.flatMap((op) => {
    if (op.op === 'link.move') return [op.netns, op.toNetns];
    return op.op === 'link.add' && op.link.kind === 'veth'
      ? [op.netns, op.link.peer.netns]
      : [op.netns];
  });
  return [...new Set(names)];
}

function describeAnswer(fault: Fault | undefined): string {
  return fault ? `${fault.errno}${fault.text === '' ? '' : ` "${fault.text}"`}` : 'done';
}

/** The kernel ends some of its texts with a full stop. */
function words(fault: Fault | undefined): string {
  return (fault?.text ?? '').replace(/\.$/, '').replaceAll(/cube-fz-\d+-\d+-/g, '');
}

function profileOf(linux: Linux): KernelProfile {
  return {
    ...linux.observe({}).kernel,
    bridgeVlans: linux.lacks({ vlans: true }).length === 0,
  };
}

/** What of this machine's kernel the model has to know. */
export function kernelProfile(): KernelProfile {
  const linux = makeLinuxBackend();
  const profile = profileOf(linux);
  linux.close();
  return profile;
}

/** Carries out the operations on both sides until their answers differ, then compares the states; leaves nothing behind. */
export function runOnBoth(ops: readonly Op[], readers: Readers): ProgramRun {
  const universe = netnsNamesOf(ops);
  const places = makePlaces(universe);
  const linux = makeLinuxBackend();
  let host: Host = { netns: {}, kernel: profileOf(linux) };
  let observed: Host | undefined;
  const answers: Answer[] = [];
  const texts: string[] = [];
  const end = (divergence: Divergence | undefined): ProgramRun => ({
    answers,
    observed,
    divergence,
    texts,
  });
  try {
    for (const [at, op] of ops.entries()) {
      const outcome = applyOp(host, op);
      const expected = outcome.ok ? undefined : outcome.fault;
      const fault = linux.execute(placeOp(op, places));
      answers.push(fault?.errno);
      if (fault?.errno !== expected?.errno) {
        const line = `${JSON.stringify(op)}: model ${describeAnswer(expected)}, kernel ${describeAnswer(fault)}`;
        const signature = `${op.op} ${expected?.errno ?? 'done'} ${fault?.errno ?? 'done'}`;
        return end({ at, lines: [line], signatures: [signature] });
      }
      if (op.op !== 'nft.batch' && words(fault) !== words(expected))
        texts.push(`${op.op}: ${describeAnswer(fault)}, model ${describeAnswer(expected)}`);
      const before = host;
      if (outcome.ok) host = outcome.host;
      settle(linux, places, host, before);
    }
    observed = observeAll(linux, places, host, universe);
    const lines = compareRows(rowsOf(host), rowsOf(observed), ['model', 'kernel']);
    if (lines.length === 0 && readers === 'backend and commands')
      lines.push(...compareCommands(host, observed, places));
    const signatures = lines.map((line) =>
      line.replace(/ in (one|two):.*/, '').replaceAll(/".*?"/g, ''),
    );
    return end(lines.length > 0 ? { at: undefined, lines, signatures } : undefined);
  } finally {
    for (const name of universe) linux.execute({ op: 'netns.del', netns: places.real(name) });
    linux.close();
  }
}

/** Our decoder against iproute2's and nft's, where both say something: neither sysctls nor peers in another netns. */
function compareCommands(host: Host, observed: Host, places: Places): string[] {
  return Object.keys(host.netns).flatMap((name) => {
    const netns = observed.netns[name];
    if (!netns) return [`netns ${name} was not read`];
    const links = Object.entries(netns.links).map(([ifname, link]): [string, Link] => [
      ifname,
      link.kind === 'veth' && link.peer?.netns !== name ? { ...link, peer: null } : link,
    ]);
    const ours = { ...netns, links: Object.fromEntries(links), sysctls: {} };
    const theirs = readByCommands(places.real(name), name, netns);
    return compareRows(rowsOf({ netns: { [name]: ours } }), rowsOf({ netns: { [name]: theirs } }), [
      'backend',
      'commands',
    ]);
  });
}
