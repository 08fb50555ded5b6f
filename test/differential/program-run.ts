/** Runs one program on the model and on the kernel, and says where they part. */
import type { NetnsScope } from '../../backends/backend.ts';
import { executeOp } from '../../backends/linux/executors.ts';
import { missingFeatures } from '../../backends/linux/features.ts';
import { Kernel } from '../../backends/linux/kernel.ts';
import { observeHost } from '../../backends/linux/observe.ts';
import { readRelease } from '../../backends/linux/release.ts';
import type { Errno, Fault } from '../../model/errno.ts';
import type { Host, NetnsName } from '../../model/host.ts';
import type { KernelProfile } from '../../model/kernel-profile.ts';
import type { Link } from '../../model/link.ts';
import type { Op } from '../../model/op.ts';
import { applyOp } from '../../model/ops.ts';
import { type KnownDivergence, type Parting, explains, suspectsOf } from './divergences.ts';
import { readByCommands } from './iproute.ts';
import { type Places, makePlaces, placeOp, unplaceHost } from './place.ts';
import { compareRows, rowsOf } from './rows.ts';
import { rulesOf } from './rules.ts';
import { calm, forgetLearned, settle, settleCarriers } from './settle.ts';

/** What one operation came to on the kernel: undefined is success. */
export type Answer = Errno | undefined;

/** Where the model and the kernel part. */
export interface Divergence {
  /** The operation by its number when an answer differs; undefined: the states at the end do. */
  readonly at: number | undefined;
  readonly lines: readonly string[];
  /** What is alike in divergences of one cause, so that shrinking does not end at another. */
  readonly signatures: readonly string[];
  /** The id of the known divergence that it is (divergences.ts). */
  readonly known: string | undefined;
}

/** What came of a program. */
export interface ProgramRun {
  readonly answers: readonly Answer[];
  /** What the kernel held at the end; undefined when the answers parted before. */
  readonly observed: Host | undefined;
  readonly divergence: Divergence | undefined;
  /** Where both sides refuse with one errno but with other words: reported, never a failure. */
  readonly texts: readonly string[];
  /** What was at work, for each operation that both sides agree about. */
  readonly rules: readonly (readonly string[])[];
}

/** Who reads the kernel's state at the end: our own decoder, or iproute2 and nft as well. */
export type Readers = 'backend' | 'backend and commands';

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

function observeAll(
  kernel: Kernel,
  places: Places,
  host: Host,
  universe: readonly NetnsName[],
): Host {
  const scope = universe.map((name): [NetnsName, NetnsScope] => [
    places.real(name),
    { ...ALL, sysctls: Object.keys(host.netns[name]?.sysctls ?? {}) },
  ]);
  return unplaceHost(observeHost(kernel, Object.fromEntries(scope)), places);
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

function profileOf(kernel: Kernel): KernelProfile {
  return {
    ...readRelease(),
    bridgeVlans: missingFeatures(kernel, { vlans: true }).length === 0,
  };
}

/** What of this machine's kernel the model has to know. */
export function kernelProfile(): KernelProfile {
  const kernel = new Kernel();
  const profile = profileOf(kernel);
  kernel.close();
  return profile;
}

/** A line without the names and texts in it. */
function signatureOf(line: string): string {
  return line.replace(/ in (one|two):.*/, '').replaceAll(/".*?"/g, '');
}

function divergenceOf(
  at: number | undefined,
  lines: readonly string[],
  parting: Parting,
  suspects: readonly KnownDivergence[],
): Divergence {
  const known = suspects.find((each) => explains(each, parting))?.id;
  return { at, lines, signatures: parting.signatures, known };
}

/** Takes netns away in which nothing goes round any more: several at once in hardly more time than one. */
export function clearNetns(names: Iterable<NetnsName>): void {
  const kernel = new Kernel();
  for (const netns of names) executeOp(kernel, { op: 'netns.del', netns });
  kernel.close();
}

/** Takes netns away as somebody has left them. */
export function clearRuins(names: Iterable<NetnsName>): void {
  const scope = [...names].map((name) => [name, { ...ALL, nftables: [] }] as const);
  const kernel = new Kernel();
  calm(
    kernel,
    { real: (name) => name, logical: (name) => name },
    observeHost(kernel, Object.fromEntries(scope)),
  );
  kernel.close();
  clearNetns(scope.map(([name]) => name));
}

/**
 * Carries out the operations on both sides until their answers differ, then compares the states. Leaves nothing behind, but
 * for netns by the names that it adds to `leftovers`, for the caller to clear.
 */
export function runOnBoth(
  ops: readonly Op[],
  readers: Readers,
  leftovers?: Set<NetnsName>,
): ProgramRun {
  const universe = netnsNamesOf(ops);
  const places = makePlaces(universe);
  const kernel = new Kernel();
  let host: Host = { netns: {}, kernel: profileOf(kernel) };
  let observed: Host | undefined;
  const answers: Answer[] = [];
  const texts: string[] = [];
  const rules: string[][] = [];
  const end = (divergence: Divergence | undefined): ProgramRun => ({
    answers,
    observed,
    divergence,
    texts,
    rules,
  });
  const observe = (like: Host): Host => observeAll(kernel, places, like, universe);
  const compare = (): string[] => {
    settleCarriers(kernel, places, host);
    observed = observe(host);
    return compareRows(rowsOf(host), rowsOf(observed), ['model', 'kernel']);
  };
  try {
    for (const [at, op] of ops.entries()) {
      const outcome = applyOp(host, op);
      const expected = outcome.ok ? undefined : outcome.fault;
      if (op.op === 'fdb.add' || op.op === 'fdb.del') forgetLearned(places, host, op);
      if (op.op === 'netns.del') calm(kernel, places, host, [op.netns]);
      const fault = executeOp(kernel, placeOp(op, places));
      answers.push(fault?.errno);
      const before = host;
      if (outcome.ok) host = outcome.host;
      const step = { op, before, after: host, errno: expected?.errno };
      const suspects = suspectsOf(step);
      if (fault?.errno !== expected?.errno) {
        const line = `${JSON.stringify(op)}: model ${describeAnswer(expected)}, kernel ${describeAnswer(fault)}`;
        const signature = `${op.op} ${expected?.errno ?? 'done'} ${fault?.errno ?? 'done'}`;
        const parting = { step, signatures: [signature] };
        return end(divergenceOf(at, [line], parting, suspects));
      }
      if (op.op !== 'nft.batch' && words(fault) !== words(expected))
        texts.push(`${op.op}: ${describeAnswer(fault)}, model ${describeAnswer(expected)}`);
      rules.push(rulesOf(step));
      settle(kernel, places, before, host);
      const lines = suspects.length > 0 ? compare() : [];
      if (lines.length > 0) {
        const parting = { step, signatures: lines.map(signatureOf), observe };
        return end(divergenceOf(undefined, lines, parting, suspects));
      }
    }
    const lines = compare();
    if (lines.length === 0 && observed && readers === 'backend and commands')
      lines.push(...compareCommands(host, observed, places));
    const signatures = lines.map(signatureOf);
    const parted = { at: undefined, lines, signatures, known: undefined };
    return end(lines.length > 0 ? parted : undefined);
  } finally {
    calm(kernel, places, host);
    kernel.close();
    const names = universe.map(places.real);
    if (leftovers) for (const name of names) leftovers.add(name);
    else clearNetns(names);
  }
}

/** A link as who knows of its own netns only sees it. */
function asSeenIn(netns: NetnsName, { uppers: _above, ...link }: Link): Link {
  if (link.kind === 'veth' && link.peer?.netns !== netns) return { ...link, peer: null };
  if (link.kind === 'macvlan' && link.lower?.netns !== netns) return { ...link, lower: null };
  return link.kind === 'vxlan' && link.underlay !== netns
    ? { ...link, underlay: null, lower: null }
    : link;
}

/** Our decoder against iproute2's and nft's, where both say something: neither sysctls nor peers in another netns. */
function compareCommands(host: Host, observed: Host, places: Places): string[] {
  return Object.keys(host.netns).flatMap((name) => {
    const netns = observed.netns[name];
    if (!netns) return [`netns ${name} was not read`];
    const links = Object.entries(netns.links).map(([ifname, link]): [string, Link] => [
      ifname,
      asSeenIn(name, link),
    ]);
    const ours = { ...netns, links: Object.fromEntries(links), sysctls: {} };
    const theirs = readByCommands(places.real(name), name, netns);
    return compareRows(rowsOf({ netns: { [name]: ours } }), rowsOf({ netns: { [name]: theirs } }), [
      'backend',
      'commands',
    ]);
  });
}
