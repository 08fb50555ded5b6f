/**
 * Netfilter: what the chains, the connections and the translations of a netns make of a packet at each hook, in the order
 * of their priorities (K-8.1; net/netfilter/core.c, nf_hook_slow).
 */
import type { Netns, NetnsName } from '../model/host.ts';
import type { Ifname } from '../model/ifname.ts';
import type { Family, Ip } from '../model/ip.ts';
import type { LinkRef } from '../model/link.ts';
import { type BaseChain, type HookName, baseChainsOf, isOpen } from './base-chains.ts';
import {
  type Connection,
  type Track,
  confirm,
  isTracked,
  packetFamily,
  refresh,
  track,
} from './conntrack.ts';
import {
  type Arp,
  type ErrorKind,
  type Frame,
  type IpPacket,
  formatPacket,
  isLaterFragment,
} from './frame.ts';
import { sendIcmpError } from './icmp-error.ts';
import {
  type LegacyTable,
  isAt,
  isNat,
  legacyTablesOf,
  priorityOf,
  tablesAtLink,
} from './legacy-table.ts';
import {
  type Side,
  decide,
  masqueradeSource,
  redirectTarget,
  targetOf,
  translate,
  translateError,
} from './nat.ts';
import { gather } from './reassembly.ts';
import { oncePerWord } from './remembered.ts';
import { sendReset } from './reset.ts';
import { type ChainEnd, evaluateChain } from './ruleset.ts';
import { type Place, type Run, draw, drop, leave, netnsOf, note } from './run.ts';
import type { Seen } from './seen.ts';
import { noteUnread } from './unread.ts';

/** Where a packet is. */
export interface Passing {
  readonly hook: HookName;
  /** The link that it came in by. */
  readonly iif: Ifname | null;
  /** The link that it leaves by. */
  readonly oif: Ifname | null;
  /** Where it leaves: the neighbour that it goes to. */
  readonly nextHop?: Ip;
}

/** NF_IP_PRI_CONNTRACK_DEFRAG, NF_IP_PRI_CONNTRACK, NF_IP_PRI_NAT_DST and NF_IP_PRI_NAT_SRC. */
const DEFRAG_PRIORITY = -400;
const CONNTRACK_PRIORITY = -200;
const NAT_PRIORITY: Readonly<Partial<Record<HookName, number>>> = {
  prerouting: -100,
  output: -100,
  input: 100,
  postrouting: 100,
};

const SIDE: Readonly<Partial<Record<HookName, Side>>> = {
  prerouting: 'destination',
  output: 'destination',
  input: 'source',
  postrouting: 'source',
};

/** A packet at a hook: it goes on, or its end is noted. */
type Passed<P> = P | undefined;

function chainText({ table, chain }: BaseChain): string {
  return `chain ${table.family} ${table.name} ${chain.name}`;
}

/** What a packet has beside it, with another mark. */
function marked(packet: IpPacket, mark: number): IpPacket {
  if (mark === (packet.skb?.mark ?? 0)) return packet;
  return { ...packet, skb: { ...packet.skb, mark } };
}

function tracked(packet: IpPacket, found: Track): IpPacket {
  return { ...packet, skb: { mark: 0, ...packet.skb, track: found } };
}

/** Notes what a chain decided. Answers whether the packet goes on. */
function noteEnd(
  run: Run,
  at: Place,
  data: Frame | IpPacket,
  base: BaseChain,
  { end, by: decided, text }: ChainEnd,
): boolean {
  const { family, name: table } = base.table;
  const lookedUp = {
    kind: 'chain',
    family,
    table,
    chain: decided?.chain ?? base.chain.name,
    rule: decided?.rule ?? null,
  } as const;
  const by = text.startsWith('policy') ? `policy of ${chainText(base)}` : text;
  if (end === 'drop') {
    drop(run, at, 'netfilter', data, 'NETFILTER_DROP', `${base.hook.hook}: ${by}`, {
      rule: 'K-8.1',
      lookedUp,
    });
    return false;
  }
  if (end === 'unknown') {
    leave(run, at, 'netfilter', data, `${base.hook.hook}: ${by}`);
    return false;
  }
  note(run, at, 'netfilter', data, `${base.hook.hook}: goes on, ${by}`, {
    rule: 'K-8.1',
    lookedUp,
  });
  return true;
}

/** What senders are told by a rule, by the words of nft behind the protocol. */
const REJECTIONS: Readonly<Record<string, ErrorKind | undefined>> = {
  'net-unreachable': 'net unreachable',
  'no-route': 'net unreachable',
  'host-unreachable': 'host unreachable',
  'addr-unreachable': 'host unreachable',
  'port-unreachable': 'port unreachable',
  'admin-prohibited': 'admin prohibited',
};

/** Tells the sender of a packet that a rule rejects; what of that is not simulated the trace leaves open. */
function reject(
  run: Run,
  { netns }: Place,
  packet: IpPacket,
  { hook, iif, oif }: Passing,
  answer: string,
): void {
  const ifname = iif ?? oif;
  const [answer4 = '', answer6 = answer4] = answer.split(' or ');
  const own = packetFamily(packet) === 4 ? answer4 : answer6;
  const error = REJECTIONS[own.split(' ')[1] ?? ''];
  // Of a first fragment it hangs on whether its link has checked the sum, of a later one nobody is told (nf_send_unreach, nf_send_unreach6).
  if (isLaterFragment(packet)) return;
  if (own === 'tcp reset') sendReset(run, netns, packet);
  else if (error === undefined || ifname === null || packet.fragment) run.isTold = 'unknown';
  else sendIcmpError(run, { netns, ifname }, packet, error, null, hook === 'forward');
}

function filter(
  run: Run,
  at: Place,
  packet: IpPacket,
  base: BaseChain,
  passing: Passing,
): Passed<IpPacket> {
  const { iif, oif } = passing;
  const netns = netnsOf(run, at.netns);
  const mark = packet.skb?.mark ?? 0;
  const seen: Seen = { netns, packet, frame: null, iif, oif, mark, draw: () => draw(run) };
  const end = evaluateChain(seen, base.table, base.chain);
  if (!noteEnd(run, at, packet, base, end)) {
    if (end.answer !== undefined) reject(run, at, packet, passing, end.answer);
    return undefined;
  }
  const passed = marked(packet, end.mark);
  if (!end.untracked) return passed;
  const joined = packet.skb?.joined;
  return { ...passed, skb: { mark: end.mark, untracked: true, ...(joined ? { joined } : {}) } };
}

/** The first packet of a connection asks the chains of type nat, until one says something (nf_nat_inet_fn). */
function askNat(
  run: Run,
  at: Place,
  packet: IpPacket,
  found: Track,
  chains: readonly BaseChain[],
  passing: Passing,
  side: Side,
): Passed<{ readonly connection: Connection; readonly mark: number }> {
  let mark = packet.skb?.mark ?? 0;
  const { netns: name } = at;
  const netns = netnsOf(run, name);
  const { iif, oif, nextHop } = passing;
  for (const base of chains) {
    const seen: Seen = { netns, packet, frame: null, iif, oif, mark, draw: () => draw(run) };
    const end = evaluateChain(seen, base.table, base.chain);
    if (!noteEnd(run, at, packet, base, end)) return undefined;
    ({ mark } = end);
    if (end.translation === null) continue;
    const target = targetOf(end.translation, {
      masquerade: () =>
        oif === null || nextHop === undefined
          ? null
          : masqueradeSource(netns, oif, nextHop, packet.destination),
      redirect: () => redirectTarget(netns, iif, packetFamily(packet)),
    });
    if (target === undefined) {
      const text = `${end.text}: ${name} has no address for it`;
      drop(run, at, 'netfilter', packet, 'NETFILTER_DROP', text, { rule: 'K-8.3' });
      return undefined;
    }
    return { connection: decide(run.world, name, found.connection, side, target), mark };
  }
  return { connection: decide(run.world, name, found.connection, side, null), mark };
}

/** Who may say how a connection is translated. */
interface NatRules {
  /** Those at the hook, in the order in which they are asked. */
  readonly chains: readonly BaseChain[];
  /** Tables that are not read, with a chain at the hook. */
  readonly unread: readonly LegacyTable[];
}

function applyNat(
  run: Run,
  at: Place,
  packet: IpPacket,
  { chains, unread }: NatRules,
  passing: Passing,
): Passed<IpPacket> {
  const side = SIDE[passing.hook];
  const found = packet.skb?.track;
  if (side === undefined || found === undefined) return packet;
  // Copies of a flooded packet have their connection in common.
  const begun = found.isNew ? run.begun.get(found.connection.original) : undefined;
  let now = begun ? { ...found, connection: begun } : found;
  let asked = packet;
  if (now.isNew && !now.connection.decided[side]) {
    for (const table of unread) noteUnread(run, at, packet, passing.hook, table);
    const answer = askNat(run, at, packet, now, chains, passing, side);
    if (!answer) return undefined;
    now = { ...now, connection: answer.connection };
    run.begun.set(now.connection.original, now.connection);
    asked = marked(packet, answer.mark);
  }
  const translated = (asked.message.kind === 'error' ? translateError : translate)(
    asked,
    now,
    side,
  );
  const isSame = translated === asked || formatPacket(translated) === formatPacket(asked);
  if (!isSame)
    note(run, at, 'netfilter', translated, `${passing.hook}: its ${side} is translated`, {
      rule: 'K-8.3',
    });
  return tracked(isSame ? asked : translated, now);
}

/** A step of a hook: priority, and what it does with a packet. */
interface Step {
  readonly priority: number;
  readonly act: (run: Run, at: LinkRef, packet: IpPacket, passing: Passing) => Passed<IpPacket>;
}

function isNatChain({ hook }: BaseChain): boolean {
  return hook.type === 'nat';
}

/** What a packet passes at a hook, in the order of the priorities; `legacy` are the tables of the family that are not read. */
function stepsAt(
  netns: Netns,
  family: Family,
  hook: HookName,
  legacy: readonly LegacyTable[],
): readonly Step[] {
  const bases = baseChainsOf(netns, family);
  const here = bases.filter((base) => base.hook.hook === hook);
  const steps: Step[] = here
    .filter((base) => !isNatChain(base))
    .map((base) => ({
      priority: base.hook.priority,
      act: (run, at, packet, passing) => filter(run, at, packet, base, passing),
    }));
  const unread = legacy.filter((table) => isAt(table, hook));
  for (const table of unread) if (!isNat(table)) steps.push(unreadStep(table));
  // Whatever a rule of nat says, its target has connections tracked (xt_nat_checkentry).
  const hasLegacyNat = legacy.some(isNat);
  const isTracking = hasLegacyNat || isTracked(netns, family);
  if (isTracking && (hook === 'prerouting' || hook === 'output')) {
    steps.push({ priority: CONNTRACK_PRIORITY, act: trackIn });
    steps.push({ priority: DEFRAG_PRIORITY, act: joinIn });
  }
  const natPriority = NAT_PRIORITY[hook];
  if (natPriority !== undefined && (hasLegacyNat || bases.some(isNatChain))) {
    const rules = { chains: here.filter(isNatChain), unread: unread.filter(isNat) };
    steps.push({
      priority: natPriority,
      act: (run, at, packet, passing) => applyNat(run, at, packet, rules, passing),
    });
  }
  return steps.toSorted((a, b) => a.priority - b.priority);
}

const NO_LEGACY: readonly LegacyTable[] = [];

/** The steps of a netns in which all tables are read, as nearly always. */
const readSteps = oncePerWord(
  (netns: Netns, family: Family): Readonly<Record<HookName, readonly Step[]>> => {
    const at = (hook: HookName): readonly Step[] => stepsAt(netns, family, hook, NO_LEGACY);
    return {
      prerouting: at('prerouting'),
      input: at('input'),
      forward: at('forward'),
      output: at('output'),
      postrouting: at('postrouting'),
    };
  },
);

/** What a packet is after a hook; undefined where it does not go on, which is noted. */
export function passHook(
  run: Run,
  at: LinkRef,
  packet: IpPacket,
  passing: Passing,
): Passed<IpPacket> {
  const netns = netnsOf(run, at.netns);
  // Nearly always so.
  if (isOpen(netns) && run.world.legacyTables[at.netns] === undefined) return packet;
  const family = packetFamily(packet);
  const legacy = legacyTablesIn(run, at.netns, family);
  const isRead = legacy.length === 0;
  if (isRead && baseChainsOf(netns, family).length === 0) return packet;
  const { hook } = passing;
  const steps = isRead ? readSteps(netns, family)[hook] : stepsAt(netns, family, hook, legacy);
  let passed: Passed<IpPacket> = packet;
  for (const { act } of steps) {
    passed = act(run, at, passed, passing);
    if (!passed) return undefined;
  }
  return hook === 'postrouting' || hook === 'input' ? confirmed(run, at, passed) : passed;
}

function legacyTablesIn(run: Run, netns: NetnsName, family: Family): readonly LegacyTable[] {
  return legacyTablesOf(run.world.legacyTables, netns, family === 4 ? 'ip' : 'ip6');
}

function unreadStep(table: LegacyTable): Step {
  return {
    priority: priorityOf(table),
    act: (run, at, packet, { hook }) => {
      noteUnread(run, at, packet, hook, table);
      return packet;
    },
  };
}

/** Connections are told by whole packets: fragments wait for each other (nf_defrag_ipv4.c, nf_defrag_ipv6_hooks.c). */
function joinIn(run: Run, at: LinkRef, packet: IpPacket): Passed<IpPacket> {
  // It came by the loopback, and is known already.
  if (packet.skb?.track || packet.skb?.untracked) return packet;
  return gather(run, at, packet, 'netfilter');
}

function trackIn(run: Run, { netns }: Place, packet: IpPacket): IpPacket {
  // It came by the loopback, and was seen when it was sent (nf_conntrack_in).
  if (packet.skb?.track || packet.skb?.untracked) return packet;
  const found = track(run.world, netns, packet);
  run.world = refresh(run.world, netns, packet);
  return found ? tracked(packet, found) : packet;
}

function confirmed(run: Run, { netns }: Place, packet: IpPacket): IpPacket {
  const found = packet.skb?.track;
  if (!found?.isNew) return packet;
  run.world = confirm(run.world, netns, found.connection, packet);
  return tracked(packet, { ...found, isNew: false });
}

/** What a packet is after several hooks in turn. */
export function passHooks(
  run: Run,
  at: LinkRef,
  packet: IpPacket,
  passings: readonly Passing[],
): Passed<IpPacket> {
  let passed: Passed<IpPacket> = packet;
  for (const passing of passings) {
    if (!passed) return undefined;
    passed = passHook(run, at, passed, passing);
  }
  return passed;
}

/** The hooks of a packet that the netns sends by a link without routing it. */
export function unrouted(oif: Ifname): readonly Passing[] {
  return [
    { hook: 'output', iif: null, oif },
    { hook: 'postrouting', iif: null, oif },
  ];
}

/** Notes what sees a frame as it comes to a link, or leaves: only tables that are not read (nf_hook_ingress, nf_hook_egress). */
export function passLinkHook(
  run: Run,
  at: LinkRef,
  frame: Frame,
  hook: 'ingress' | 'egress',
): void {
  // Nearly always so.
  if (run.world.legacyTables[at.netns] === undefined) return;
  for (const table of tablesAtLink(run.world.legacyTables, at.netns, hook, at.ifname))
    noteUnread(run, at, frame, hook, table);
}

/** Notes what sees a packet of ARP at a hook: only tables that are not read. Chains of nf_tables for ARP are not in the model. */
export function passArpHook(run: Run, at: LinkRef, packet: Arp, hook: 'input' | 'output'): void {
  const tables = legacyTablesOf(run.world.legacyTables, at.netns, 'arp');
  for (const table of tables) if (isAt(table, hook)) noteUnread(run, at, packet, hook, table);
}

/** Does a frame go on after the chains of family bridge at a hook (net/bridge/netfilter/nf_tables_bridge.c)? */
export function passBridgeHook(
  run: Run,
  at: LinkRef,
  frame: Frame,
  { hook, iif, oif }: Passing,
): boolean {
  const netns = netnsOf(run, at.netns);
  const bases = baseChainsOf(netns, 'bridge');
  // Nearly always so.
  if (bases.length === 0) return true;
  const { packet } = frame;
  const mark = packet.kind === 'ip' ? (packet.skb?.mark ?? 0) : 0;
  return bases.every((base) => {
    if (base.hook.hook !== hook) return true;
    const seen: Seen = { netns, packet, frame, iif, oif, mark, draw: () => draw(run) };
    return noteEnd(run, at, frame, base, evaluateChain(seen, base.table, base.chain));
  });
}

/** Does a netns's IP look at what its bridges forward (br_netfilter; K-8.4)? */
export function looksAtBridged(netns: Netns, family: Family): boolean {
  const name = family === 4 ? 'iptables' : 'ip6tables';
  return netns.sysctls[`net/bridge/bridge-nf-call-${name}`] === '1';
}

/** Would the frame, which a bridge forwards, pass the chains of its packet's family (K-8.4)? */
export function passesBridgeNetfilter(run: Run, at: LinkRef, { packet }: Frame): boolean {
  if (packet.kind !== 'ip') return false;
  const netns = netnsOf(run, at.netns);
  const family = packetFamily(packet);
  return (
    looksAtBridged(netns, family) &&
    (baseChainsOf(netns, family).length > 0 || legacyTablesIn(run, at.netns, family).length > 0)
  );
}
