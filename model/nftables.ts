import type { Ifname } from './ifname.ts';
import { type Family, type Ip, familyOf, findIp } from './ip.ts';
import { type Mac, findMac } from './mac.ts';
import type { Expression, RawSet } from './nft-expression.ts';
import type { Prefix } from './prefix.ts';

/** Table families: those of IP packets, and frames that pass a bridge (include/uapi/linux/netfilter.h, NFPROTO_*). */
export type NftFamily = 'ip' | 'ip6' | 'inet' | 'bridge';

/** What becomes of a packet, or where evaluation goes on. */
export type Verdict =
  | { readonly verdict: 'accept' | 'drop' | 'return' | 'continue' }
  | { readonly verdict: 'jump' | 'goto'; readonly chain: string };

/** A header field that holds an address of an IP packet. */
export type AddressField = 'ip saddr' | 'ip daddr' | 'ip6 saddr' | 'ip6 daddr';

/** A link that a packet passes. */
export type LinkField = 'iifname' | 'oifname';

/** What rules look at. The headers of Ethernet and ARP can be looked at in tables of family bridge only. */
export type Field =
  | AddressField
  | LinkField
  | 'ether saddr'
  | 'arp saddr ether'
  | 'arp saddr ip'
  | 'meta l4proto'
  | 'th dport';

/** What can be looked up without another field before or behind it. */
type LoneField = Exclude<Field, 'meta l4proto' | 'th dport'>;

/** The transport protocol with the port that a packet is for. */
type PortFields = 'meta l4proto . th dport';

/**
 * What is looked up in a set or map: a field; two of which the first is the link that a packet came in by; or the port
 * that it is for, alone or at its address.
 */
export type LookupField =
  | LoneField
  | `iifname . ${Exclude<LoneField, 'iifname'>}`
  | PortFields
  | `${'ip daddr' | 'ip6 daddr'} . ${PortFields}`;

/** One part of a rule; they are evaluated left to right, a match that fails ends the rule. */
export type Statement =
  | {
      readonly kind: 'match';
      readonly field: AddressField;
      readonly negate: boolean;
      readonly value: Ip | Prefix;
    }
  /** The link that a packet came in by, or leaves by; where there is none, that is another name than any. */
  | {
      readonly kind: 'match';
      readonly field: LinkField;
      readonly negate: boolean;
      readonly value: Ifname;
    }
  | {
      readonly kind: 'lookup';
      readonly field: LookupField;
      readonly negate: boolean;
      readonly set: string;
    }
  /** Takes the verdict that the map holds for the field; goes on when it holds none. */
  | { readonly kind: 'vmap'; readonly field: LookupField; readonly map: string }
  | { readonly kind: 'masquerade' }
  /** Counts packets, for people; how many is not looked at. */
  | { readonly kind: 'counter' }
  /** Sends the packet to the address and port that the map holds for the field, and ends; goes on when it holds none. */
  | {
      readonly kind: 'dnat';
      readonly family: Family;
      readonly field: LookupField;
      readonly map: string;
    }
  /** Only packets for an address of this host, a broadcast address not among them (fib_addr.c, RTN_LOCAL). */
  | { readonly kind: 'local' }
  /** Sets or clears bits of the packet's mark. */
  | { readonly kind: 'mark'; readonly bits: number; readonly on: boolean }
  /** Only packets whose mark has all of these bits. */
  | { readonly kind: 'marked'; readonly bits: number }
  | ({ readonly kind: 'verdict' } & Verdict)
  /** Something that no plan needs: kept by the kernel's expression names, never written. */
  | {
      readonly kind: 'opaque';
      readonly expression: string;
      /** What it says, where that was asked for and is known. */
      readonly detail?: Expression;
    };

/** A comparison of a field with a value. */
export type Match = Statement & { readonly kind: 'match' };

export interface Rule {
  readonly statements: readonly Statement[];
  /** '' when there is none. */
  readonly comment: string;
}

/** Where a base chain is hooked in. */
export interface ChainHook {
  readonly type: 'filter' | 'nat' | 'route';
  readonly hook: 'prerouting' | 'input' | 'forward' | 'output' | 'postrouting';
  /** Lower runs first; NF_IP_PRI_* (include/uapi/linux/netfilter_ipv4.h). */
  readonly priority: number;
  readonly policy: 'accept' | 'drop';
}

export interface Chain {
  readonly name: string;
  /** Null: a chain that only jumps reach. */
  readonly hook: ChainHook | null;
  readonly rules: readonly Rule[];
}

/** The type of one field, as nft calls it. */
export type FieldType =
  | 'ipv4_addr'
  | 'ipv6_addr'
  | 'ether_addr'
  | 'ifname'
  | 'inet_proto'
  | 'inet_service';

/** The type of the keys of a set. */
export type SetKeyType =
  | Exclude<FieldType, 'inet_proto' | 'inet_service'>
  | `ifname . ${'ether_addr' | 'ipv4_addr' | 'ipv6_addr' | 'ifname'}`
  | 'inet_proto . inet_service'
  | `${'ipv4_addr' | 'ipv6_addr'} . inet_proto . inet_service`;

/** The type of what a map holds that is no verdict: where packets are sent. */
export type TargetType = 'ipv4_addr . inet_service' | 'ipv6_addr . inet_service';

/** Transport protocols, by their numbers (IANA, "Protocol Numbers"). */
export const TRANSPORTS = { tcp: 6, udp: 17, sctp: 132 } as const;
export type Transport = keyof typeof TRANSPORTS;

/** A port of a transport protocol, at any address or at one. */
export type PortKey = `${Transport} . ${number}` | `${Ip} . ${Transport} . ${number}`;

/** Where packets are sent: an address and a port. */
export type Target = `${Ip} . ${number}`;

/**
 * The key of an element in canonical text: `10.0.0.1`, `veth0`, `veth0 . 02:fc:00:00:00:01`, `tcp . 80`. A link's name that reads
 * like an IPv4 address can only stand in front of something else.
 */
export type SetKey = Ip | Mac | Ifname | `${Ifname} . ${Ip | Mac | Ifname}` | PortKey;

export interface SetElement {
  readonly key: SetKey;
  /** The verdict in a map of verdicts, else null. */
  readonly verdict: Verdict | null;
  /** In a map of targets. */
  readonly target?: Target;
  /** '' when there is none. */
  readonly comment: string;
}

/** A named set, or where it holds something a map. */
export interface NftSet {
  readonly name: string;
  readonly keyType: SetKeyType;
  readonly holds: 'nothing' | 'verdict' | TargetType;
  readonly elements: Readonly<Record<string, SetElement>>;
}

export interface Table {
  readonly family: NftFamily;
  readonly name: string;
  readonly chains: Readonly<Record<string, Chain>>;
  readonly sets: Readonly<Record<string, NftSet>>;
  /** Sets that no plan needs, where they were asked for. */
  readonly rawSets?: Readonly<Record<string, RawSet>>;
}

/** The tables of a netns by `tableKey`. */
export type Ruleset = Readonly<Record<string, Table>>;

/** Names a table within a netns. */
export interface TableRef {
  readonly family: NftFamily;
  readonly table: string;
}

export function tableKey({ family, table }: TableRef): string {
  return `${family} ${table}`;
}

/** One step of a batch, as `nft` says it. `add` is satisfied by an equal object; `delete` is not by a missing one. */
export type NftCommand = TableRef &
  (
    | { readonly do: 'add table' | 'delete table' }
    | { readonly do: 'add chain'; readonly chain: string; readonly hook: ChainHook | null }
    | { readonly do: 'delete chain' | 'flush chain'; readonly chain: string }
    | {
        /** `insert`: before the last rule of the chain. `delete`: the first one that reads so. */
        readonly do: 'add rule' | 'insert rule' | 'delete rule';
        readonly chain: string;
        readonly rule: Rule;
      }
    | {
        readonly do: 'add set';
        readonly set: string;
        readonly keyType: SetKeyType;
        readonly holds: NftSet['holds'];
      }
    | { readonly do: 'delete set'; readonly set: string }
    | { readonly do: 'add element'; readonly set: string; readonly element: SetElement }
    | { readonly do: 'delete element'; readonly set: string; readonly key: SetKey }
  );

/** The type of what each field holds. */
export const FIELD_TYPES: Readonly<Record<Field, FieldType>> = {
  'ip saddr': 'ipv4_addr',
  'ip daddr': 'ipv4_addr',
  'ip6 saddr': 'ipv6_addr',
  'ip6 daddr': 'ipv6_addr',
  iifname: 'ifname',
  oifname: 'ifname',
  'ether saddr': 'ether_addr',
  'arp saddr ether': 'ether_addr',
  'arp saddr ip': 'ipv4_addr',
  'meta l4proto': 'inet_proto',
  'th dport': 'inet_service',
};

/** How many bytes a value of each type has; a link's name is followed by zeros (IFNAMSIZ). */
export const FIELD_BYTES: Readonly<Record<FieldType, number>> = {
  ipv4_addr: 4,
  ipv6_addr: 16,
  ether_addr: 6,
  ifname: 16,
  inet_proto: 1,
  inet_service: 2,
};

const AND = ' . ';

/** The fields that a lookup joins. */
export function fieldsOf(field: LookupField): Field[] {
  return field.split(AND) as Field[];
}

/** The types that a key type, or that of a target, joins. */
export function fieldTypesOf(type: SetKeyType | TargetType | FieldType): FieldType[] {
  return type.split(AND) as FieldType[];
}

/** The parts that a key or a target joins. */
export function keyPartsOf(key: SetKey | Target): string[] {
  return key.split(AND);
}

function partTypeOf(part: string): FieldType {
  if (findMac(part) !== undefined) return 'ether_addr';
  if (findIp(part) === undefined) return 'ifname';
  return familyOf(part) === 4 ? 'ipv4_addr' : 'ipv6_addr';
}

/** The type of the set that can hold a key. */
export function keyTypeOf(key: SetKey): SetKeyType {
  const [first = '', second, third] = keyPartsOf(key);
  if (third !== undefined)
    return `${familyOf(first) === 4 ? 'ipv4_addr' : 'ipv6_addr'} . inet_proto . inet_service`;
  if (second !== undefined && /^\d+$/.test(second)) return 'inet_proto . inet_service';
  const type = partTypeOf(second ?? first);
  return (second === undefined ? type : `ifname${AND}${type}`) as SetKeyType;
}

/** The type of the map that can hold a target. */
export function targetTypeOf(target: Target): TargetType {
  const [ip = ''] = keyPartsOf(target);
  return familyOf(ip) === 4 ? 'ipv4_addr . inet_service' : 'ipv6_addr . inet_service';
}

/** Does a set hold targets? */
export function holdsTargets(holds: NftSet['holds']): holds is TargetType {
  return holds !== 'nothing' && holds !== 'verdict';
}

/** Is it a chain that decides about packets which are forwarded? */
export function filtersForwarded(family: NftFamily, { type, hook }: ChainHook): boolean {
  return family !== 'bridge' && type === 'filter' && hook === 'forward';
}

/** Expressions after which every packet goes on; `target` is one of iptables, by name. */
const LETS_ALL_ON: ReadonlySet<string> = new Set(['log', 'target LOG', 'target NFLOG']);

/** Expressions that let no packet go on. */
const STOPS_ALL: ReadonlySet<string> = new Set(['reject', 'target REJECT', 'target DROP']);

/** Does a rule drop, reject or accept every packet that comes to it? */
export function endsAll({ statements }: Rule): boolean {
  const [end, ...more] = statements.filter(
    (each) =>
      each.kind !== 'counter' && !(each.kind === 'opaque' && LETS_ALL_ON.has(each.expression)),
  );
  if (!end || more.length > 0) return false;
  return end.kind === 'opaque'
    ? STOPS_ALL.has(end.expression)
    : end.kind === 'verdict' && (end.verdict === 'drop' || end.verdict === 'accept');
}

/** The sets and maps that a rule names. */
export function setsOfRule({ statements }: Rule): string[] {
  return statements.flatMap((s) =>
    s.kind === 'vmap' || s.kind === 'dnat' ? [s.map] : s.kind === 'lookup' ? [s.set] : [],
  );
}

function formatVerdict(verdict: Verdict): string {
  return 'chain' in verdict ? `${verdict.verdict} ${verdict.chain}` : verdict.verdict;
}

/** A mark as nft prints it. */
function formatBits(bits: number): string {
  return `0x${(bits >>> 0).toString(16).padStart(8, '0')}`;
}

/** Is the field the name of a link? */
export function isLinkField(field: Field): field is LinkField {
  return field === 'iifname' || field === 'oifname';
}

function formatMatch({ field, negate, value }: Match): string {
  return `${field} ${negate ? '!= ' : ''}${isLinkField(field) ? `"${value}"` : value}`;
}

/** A statement as `nft list ruleset` prints it. */
export function formatStatement(statement: Statement): string {
  switch (statement.kind) {
    case 'match':
      return formatMatch(statement);
    case 'lookup':
      return `${statement.field} ${statement.negate ? '!= ' : ''}@${statement.set}`;
    case 'vmap':
      return `${statement.field} vmap @${statement.map}`;
    case 'masquerade':
    case 'counter':
      return statement.kind;
    case 'dnat': {
      const family = statement.family === 4 ? 'ip' : 'ip6';
      return `dnat ${family} to ${statement.field} map @${statement.map}`;
    }
    case 'local':
      return 'fib daddr type local';
    case 'mark':
      return `meta mark set meta mark ${statement.on ? `| ${formatBits(statement.bits)}` : `& ${formatBits(~statement.bits)}`}`;
    case 'marked':
      return `meta mark & ${formatBits(statement.bits)} == ${formatBits(statement.bits)}`;
    case 'verdict':
      return formatVerdict(statement);
    case 'opaque':
      return `(${statement.expression})`;
  }
}

function formatComment(comment: string): string {
  return comment === '' ? '' : ` comment "${comment}"`;
}

/** A rule as `nft list ruleset` prints it. */
export function formatRule(rule: Rule): string {
  return rule.statements.map(formatStatement).join(' ') + formatComment(rule.comment);
}

/** A key as nft reads it: names of links are in quotes. */
function formatKey(key: SetKey): string {
  const types = fieldTypesOf(keyTypeOf(key));
  return keyPartsOf(key)
    .map((part, i) => (types[i] === 'ifname' ? `"${part}"` : part))
    .join(AND);
}

/** An element as it stands between the braces of `nft add element`. */
export function formatElement(element: SetElement): string {
  const { key, verdict, target, comment } = element;
  const held = verdict === null ? target : formatVerdict(verdict);
  return `${formatKey(key)}${formatComment(comment)}${held === undefined ? '' : ` : ${held}`}`;
}

function formatHook({ type, hook, priority, policy }: ChainHook): string {
  return ` { type ${type} hook ${hook} priority ${priority}; policy ${policy}; }`;
}

/** One command of a batch, as a line that `nft -f` reads, but for rules that are inserted or deleted: nft wants the number of a rule there. */
export function formatCommand(command: NftCommand): string {
  const table = `${command.family} ${command.table}`;
  switch (command.do) {
    case 'add table':
    case 'delete table':
      return `${command.do} ${table}`;
    case 'add chain':
      return `add chain ${table} ${command.chain}${command.hook ? formatHook(command.hook) : ''}`;
    case 'delete chain':
    case 'flush chain':
      return `${command.do} ${table} ${command.chain}`;
    case 'add rule':
    case 'insert rule':
    case 'delete rule':
      return `${command.do} ${table} ${command.chain} ${formatRule(command.rule)}`;
    case 'add set': {
      const { keyType, holds } = command;
      const kind = holds === 'nothing' ? 'set' : 'map';
      const type = holds === 'nothing' ? keyType : `${keyType} : ${holds}`;
      return `add ${kind} ${table} ${command.set} { type ${type}; }`;
    }
    case 'delete set':
      return `delete set ${table} ${command.set}`;
    case 'add element':
      return `add element ${table} ${command.set} { ${formatElement(command.element)} }`;
    case 'delete element':
      return `delete element ${table} ${command.set} { ${formatKey(command.key)} }`;
  }
}
