/** A node on which a history happens, and what it is asked for again and again. */
import assert from 'node:assert/strict';
import { HOST_NETNS, type Host, type Netns, getNetns, withNetns } from '../../../model/host.ts';
import type { Ifname } from '../../../model/ifname.ts';
import { parseMac } from '../../../model/mac.ts';
import { applyOp } from '../../../model/ops.ts';
import { type Attachment, formatKey } from '../../../plugin/attachment.ts';
import { findings } from '../../../plugin/call/check.ts';
import type { RawConfig } from '../../arbitraries/configuration.ts';
import type { History } from '../../arbitraries/history.ts';
import { PLANNABLE } from '../../arbitraries/program.ts';
import { universeOps } from '../../arbitraries/sysctl-op.ts';
import { plainState } from '../../state.ts';
import { usedBefore } from '../lasting.ts';
import { type Machine, afterOps, makeMachine, plainHost } from '../machine.ts';
import { type Dice, diceOf } from './dice.ts';
import { type Entry, type Ledger, takenIn } from './ledger.ts';
import { type StateFile, makeStateFile } from './state-file.ts';
import type { Tally } from './tally.ts';

/** A node, what it is to be like, and what has happened on it. */
export interface Node {
  readonly networks: readonly RawConfig[];
  readonly file: StateFile;
  /** What a reboot leads to, but for what others had by then. */
  readonly initial: Host;
  /** A pod's netns before it has anything. */
  readonly fresh: Netns;
  readonly dice: Dice;
  readonly tally: Tally;
  readonly used: ReadonlySet<string>;
  /** How many containers each pod has been. */
  readonly generations: number[];
  readonly ledger: Ledger;
  /** When addresses were given back, by network and address. */
  readonly released: Map<string, number>;
  /** What has happened, a line each. */
  readonly log: string[];
  machine: Machine;
  shadow: Host;
}

/** Of how many attachments it is asked at once whether they are well. */
const LOOKED_AT = 16;

/** How many names a pod's containers take turns with. */
const CONTAINER_NAMES = 3;

/** The netns of a pod. */
export function podNetns(pod: number): string {
  return `/run/netns/pod${pod}`;
}

function initialHost({ networks, foreignBridge, tables }: History, pods: number): Host {
  const names = Array.from({ length: pods }, (_each, pod) => podNetns(pod));
  const settings = universeOps([HOST_NETNS, ...names], PLANNABLE.pins).filter(
    ({ op }) => op === 'sysctl.set',
  );
  const key = 'net/ipv6/conf/default/accept_ra';
  const plain = afterOps(plainHost('without link-local', names), [
    ...settings,
    { op: 'sysctl.set', netns: HOST_NETNS, key, value: '1' },
  ]);
  const host = withNetns(plain, HOST_NETNS, { ...getNetns(plain, HOST_NETNS), nftables: tables });
  if (!foreignBridge) return host;
  const bridge = {
    ifname: 'br0' as Ifname,
    mac: parseMac('02:00:00:00:0b:01'),
    mtuBytes: 1500,
    up: true,
  };
  const made = afterOps(host, [
    { op: 'link.add', netns: HOST_NETNS, link: { kind: 'bridge', ...bridge } },
  ]);
  return networks.filter((raw) => raw['bridge'] === 'br0').reduce(usedBefore, made);
}

/** A node as a history finds it. */
export function makeNode(history: History, pods: number, tally: Tally): Node {
  const isKept = history.steps.some((step) => step.do === 'reboot' && step.state === 'kept');
  const file = makeStateFile(isKept ? 'folder' : 'memory');
  const initial = initialHost(history, pods);
  return {
    networks: history.networks,
    file,
    initial,
    fresh: getNetns(initial, podNetns(0)),
    dice: diceOf(history.luck),
    tally,
    used: new Set(history.networks.map((raw) => String(raw['bridge']))),
    generations: Array.from({ length: pods }, () => 0),
    ledger: new Map(),
    released: new Map(),
    log: [],
    machine: makeMachine(initial, file.boot('kept')),
    shadow: initial,
  };
}

/** The configuration of a network, of which there may be fewer than numbers. */
export function rawOf(node: Node, network: number): RawConfig {
  return node.networks[network % node.networks.length] as RawConfig;
}

/** The id of the container that a pod is now. */
export function containerOf(node: Node, pod: number): string {
  return `c${pod}-${(node.generations[pod] ?? 0) % CONTAINER_NAMES}`;
}

/** A pod's attachments. */
export function entriesOf(node: Node, pod: number): Entry[] {
  return [...node.ledger.values()].filter((entry) => entry.pod === pod);
}

/** What is recorded of an attachment. */
export function attachmentOf(node: Node, entry: Entry): Attachment {
  const record = node.machine.state.find(entry.key);
  assert(record, `${formatKey(entry.key)} has no record`);
  return record.attachment;
}

/** Everything that the node's state file and kernel say, for comparison. */
export function whole(node: Node, host = node.machine.backend.host()): unknown {
  const { state } = node.machine;
  return {
    host: plainState(host),
    records: state.list().map(({ attachment, state: progress }) => ({ attachment, progress })),
    taken: node.networks.map((raw) => takenIn(state, String(raw['name']))),
  };
}

/** What the ledger says of an attachment after a call of it that did not simply succeed. */
export function settle(node: Node, entry: Entry): void {
  const name = formatKey(entry.key);
  const record = node.machine.state.find(entry.key);
  if (!record) node.ledger.delete(name);
  else
    node.ledger.set(name, {
      ...entry,
      state: record.state === 'finished' && entry.state === 'attached' ? 'attached' : 'unsure',
    });
}

/** The addresses of all networks that somebody has. */
export function addressesOf({ machine, networks }: Node): Set<string> {
  const names = networks.map((raw) => String(raw['name']));
  return new Set(
    names.flatMap((name) => takenIn(machine.state, name).map((ip) => `${name} ${ip}`)),
  );
}

/** Notes which of the addresses nobody has any more. */
export function noteReleased(node: Node, before: ReadonlySet<string>): void {
  const now = addressesOf(node);
  for (const each of before) if (!now.has(each)) node.released.set(each, node.machine.timeMs);
}

/** A pod becomes another container, with a netns of its own. */
export function renew(node: Node, pod: number): void {
  const netns = podNetns(pod);
  node.generations[pod] = (node.generations[pod] ?? 0) + 1;
  const { backend } = node.machine;
  const renewed = (host: Host): Host => {
    const outcome = applyOp(host, { op: 'netns.del', netns });
    return withNetns(outcome.ok ? outcome.host : host, netns, node.fresh);
  };
  backend.replace(renewed(backend.host()));
  node.shadow = renewed(node.shadow);
}

/** What CHECK finds of an attachment, as `NETNS TEXT`. */
export function linesOf(node: Node, entry: Entry): string[] {
  return findings(node.machine.start(), entry.key).map(({ netns, text }) => `${netns} ${text}`);
}

/** Attachments of which CHECK says nothing: all that there are, or a sample. */
export function untroubled(node: Node): Entry[] {
  const entries = [...node.ledger.values()];
  const first = node.dice(entries.length || 1);
  // Where there are many, those who stand together in the ledger stand for all.
  return [...entries.slice(first), ...entries.slice(0, first)]
    .slice(0, LOOKED_AT)
    .filter((entry) => entry.state === 'attached' && linesOf(node, entry).length === 0);
}
