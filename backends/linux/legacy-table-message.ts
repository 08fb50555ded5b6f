/**
 * What the kernel tells of a table of iptables-legacy, ip6tables-legacy or arptables-legacy as options of a socket
 * (net/ipv4/netfilter/ip_tables.c, get_info and get_entries; ip6_tables.c and arp_tables.c do the same). Numbers are in the byte
 * order of the machine, which here is always little-endian.
 */
import type { ChainHook } from '../../model/nftables.ts';
import { makeReader } from './attribute.ts';
import { cString } from './libc.ts';

type HookName = ChainHook['hook'];

/** A chain that the kernel calls at a hook. */
export interface LegacyChain {
  readonly hook: HookName;
  /** How many rules it has. */
  readonly rules: number;
  /** What becomes of packets that come to its end. */
  readonly policy: 'accept' | 'drop';
}

/** What tells the tables of one program from those of another. */
export interface LegacyLayout {
  /** By the numbers of its hooks: enum nf_inet_hooks, or NF_ARP_IN and so on. */
  readonly hooks: readonly HookName[];
  /** Where in an entry it says where its target begins; two bytes further it says where the next entry does. */
  readonly targetOffsetAt: number;
}

const INET_HOOKS = ['prerouting', 'input', 'forward', 'output', 'postrouting'] as const;

/** struct ipt_entry, struct ip6t_entry and struct arpt_entry (include/uapi/linux/netfilter_ipv4/ip_tables.h and its siblings). */
export const LAYOUTS = {
  ip: { hooks: INET_HOOKS, targetOffsetAt: 88 },
  ip6: { hooks: INET_HOOKS, targetOffsetAt: 140 },
  arp: { hooks: ['input', 'output', 'forward'], targetOffsetAt: 164 },
} as const satisfies Record<string, LegacyLayout>;

/** XT_TABLE_MAXNAMELEN, with the NUL byte: every question and every answer begins with the table's name. */
const NAME_BYTES = 32;

/** struct ipt_get_entries before its entries, which hold 64-bit counters. */
const ENTRIES_AT = 40;

/** struct xt_standard_target before its verdict. */
const VERDICT_AT = 32;

/** How a target says NF_DROP (0) and NF_ACCEPT (1): minus what they are, minus one. */
const POLICIES: Readonly<Record<number, LegacyChain['policy'] | undefined>> = {
  [-1]: 'drop',
  [-2]: 'accept',
};

/** Where a chain begins among the entries, and where its last one is, which is its policy. */
interface Span {
  readonly hook: HookName;
  readonly from: number;
  readonly policyAt: number;
}

/** What is told of a table without its entries. */
export interface LegacyInfo {
  readonly spans: readonly Span[];
  /** How long all entries are. */
  readonly entriesBytes: number;
}

/** A buffer for struct ipt_getinfo of a table: name, valid hooks, two offsets per hook, number and size of the entries. */
export function infoQuestion(table: string, { hooks }: LegacyLayout): Uint8Array {
  const buffer = new Uint8Array(NAME_BYTES + 4 + 8 * hooks.length + 8);
  buffer.set(cString(table).subarray(0, NAME_BYTES));
  return buffer;
}

/** Reads what the kernel wrote into such a buffer. */
export function decodeInfo(answer: Uint8Array, { hooks }: LegacyLayout): LegacyInfo {
  const { view } = makeReader(answer);
  const validHooks = view.getUint32(NAME_BYTES, true);
  const entriesFrom = NAME_BYTES + 4;
  const policiesFrom = entriesFrom + 4 * hooks.length;
  const spans = hooks.flatMap((hook, number) => {
    const from = view.getUint32(entriesFrom + 4 * number, true);
    const policyAt = view.getUint32(policiesFrom + 4 * number, true);
    return (validHooks & (1 << number)) === 0 ? [] : [{ hook, from, policyAt }];
  });
  return { spans, entriesBytes: view.getUint32(policiesFrom + 4 * hooks.length + 4, true) };
}

/** A buffer for struct ipt_get_entries of a table, which the kernel fills only if it is as long as they are. */
export function entriesQuestion(table: string, { entriesBytes }: LegacyInfo): Uint8Array {
  const buffer = new Uint8Array(ENTRIES_AT + entriesBytes);
  buffer.set(cString(table).subarray(0, NAME_BYTES));
  makeReader(buffer).view.setUint32(NAME_BYTES, entriesBytes, true);
  return buffer;
}

/** The chain between two places among the entries; undefined where it is not whole. */
function decodeChain(
  entries: DataView,
  { hook, from, policyAt }: Span,
  { targetOffsetAt }: LegacyLayout,
): LegacyChain | undefined {
  const shortBytes = targetOffsetAt + 4;
  let [at, rules] = [from, 0];
  while (at < policyAt && at + shortBytes <= entries.byteLength) {
    const nextOffset = entries.getUint16(at + targetOffsetAt + 2, true);
    if (nextOffset === 0) return undefined;
    at += nextOffset;
    rules += 1;
  }
  if (at !== policyAt || at + shortBytes > entries.byteLength) return undefined;
  const verdictAt = at + entries.getUint16(at + targetOffsetAt, true) + VERDICT_AT;
  if (verdictAt + 4 > entries.byteLength) return undefined;
  const policy = POLICIES[entries.getInt32(verdictAt, true)];
  return policy && { hook, rules, policy };
}

/** The chains with hooks of a table by what was told of it; undefined where the entries are not of that table. */
export function decodeEntries(
  answer: Uint8Array,
  { spans }: LegacyInfo,
  layout: LegacyLayout,
): readonly LegacyChain[] | undefined {
  const { view } = makeReader(answer.subarray(ENTRIES_AT));
  const chains = spans.flatMap((span) => decodeChain(view, span, layout) ?? []);
  return chains.length === spans.length ? chains : undefined;
}
