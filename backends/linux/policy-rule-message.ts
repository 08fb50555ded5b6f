/** Policy rules over rtnetlink (include/uapi/linux/fib_rules.h; net/core/fib_rules.c). */
import type { Ifname } from '../../model/ifname.ts';
import { type Family, ADDRESS_BITS, ipBytes, ipFromBytes } from '../../model/ip.ts';
import type { PolicyAction, PolicyRule } from '../../model/policy-rule.ts';
import { type Prefix, prefixIp, prefixLengthOf, prefixOf } from '../../model/prefix.ts';
import {
  type Attributes,
  type Writer,
  findBytes,
  findText,
  findU32,
  putBytes,
  putText,
  putU32,
  putU8,
  readAttributes,
} from './attribute.ts';
import { AF_INET, AF_INET6 } from './family.ts';
import {
  type Message,
  NLM_F_ACK,
  NLM_F_CREATE,
  NLM_F_DUMP,
  NLM_F_EXCL,
  encodeMessage,
} from './message.ts';

const RTM_NEWRULE = 32;
const RTM_DELRULE = 33;
const RTM_GETRULE = 34;

/** struct fib_rule_hdr: family, dst_len, src_len, tos, table, 2 of padding, action, flags 32. */
const FIB_RULE_HDR_BYTES = 12;
const AT = {
  family: 0,
  dstLength: 1,
  srcLength: 2,
  tos: 3,
  table: 4,
  action: 7,
  flags: 8,
} as const;

const FRA_DST = 1;
const FRA_SRC = 2;
const FRA_IIFNAME = 3;
const FRA_GOTO = 4;
const FRA_PRIORITY = 6;
const FRA_FWMARK = 10;
const FRA_SUPPRESS_IFGROUP = 13;
const FRA_SUPPRESS_PREFIXLEN = 14;
const FRA_TABLE = 15;
const FRA_FWMASK = 16;
const FRA_OIFNAME = 17;
const FRA_UID_RANGE = 20;
const FRA_PROTOCOL = 21;
const FRA_IP_PROTO = 22;
const FRA_SPORT_RANGE = 23;
const FRA_DPORT_RANGE = 24;

/** IPPROTO_*, by iproute2's words. */
const PROTOCOLS: Readonly<Record<number, string>> = {
  1: 'icmp',
  6: 'tcp',
  17: 'udp',
  58: 'ipv6-icmp',
  132: 'sctp',
};

/** Not suppressed: what the kernel always says of these two. */
const NONE = 0xffff_ffff;

/** What a rule may ask for and is not heeded, by iproute2's words; masks, which have numbers of their own, only come with it. */
const UNHEEDED: ReadonlyMap<number, string> = new Map([
  [12, 'tun_id'],
  [19, 'l3mdev'],
  [FRA_UID_RANGE, 'uidrange'],
  [FRA_IP_PROTO, 'ipproto'],
  [FRA_SPORT_RANGE, 'sport'],
  [FRA_DPORT_RANGE, 'dport'],
  [25, 'dscp'],
  [26, 'flowlabel'],
]);

/** FIB_RULE_INVERT. */
const FIB_RULE_INVERT = 2;

const ACTIONS: Readonly<Record<PolicyAction, number>> = {
  lookup: 1,
  blackhole: 6,
  unreachable: 7,
  prohibit: 8,
  goto: 2,
  nop: 3,
};

/** Tables beyond a byte are said in an attribute alone. */
const TABLE_BYTE_MAX = 255;

function putPrefix(writer: Writer, at: number, type: number, prefix: Prefix | null): void {
  if (prefix === null) return;
  writer.bytes[at] = prefixLengthOf(prefix);
  putBytes(writer, type, ipBytes(prefixIp(prefix)));
}

function putRule(writer: Writer, fixed: number, rule: PolicyRule): void {
  const table = rule.table ?? 0;
  writer.bytes[fixed + AT.family] = rule.family === 4 ? AF_INET : AF_INET6;
  writer.bytes[fixed + AT.table] = table <= TABLE_BYTE_MAX ? table : 0;
  writer.bytes[fixed + AT.action] = ACTIONS[rule.action];
  if (rule.inverted) writer.view.setUint32(fixed + AT.flags, FIB_RULE_INVERT, true);
  putPrefix(writer, fixed + AT.srcLength, FRA_SRC, rule.source);
  putPrefix(writer, fixed + AT.dstLength, FRA_DST, rule.destination);
  putU32(writer, FRA_PRIORITY, rule.priority);
  putU32(writer, FRA_TABLE, table);
  putU8(writer, FRA_PROTOCOL, rule.protocol);
  if (rule.iif !== null) putText(writer, FRA_IIFNAME, rule.iif);
  if (rule.oif !== null) putText(writer, FRA_OIFNAME, rule.oif);
  if (rule.mark !== null) {
    putU32(writer, FRA_FWMARK, rule.mark.value);
    putU32(writer, FRA_FWMASK, rule.mark.mask);
  }
  if (rule.target !== undefined) putU32(writer, FRA_GOTO, rule.target);
  if (rule.suppressPrefixLength !== undefined)
    putU32(writer, FRA_SUPPRESS_PREFIXLEN, rule.suppressPrefixLength);
}

/** Adds a rule; EEXIST when one that says the same is there. */
export function encodePolicyRuleAdd(rule: PolicyRule): Uint8Array {
  const flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
  return encodeMessage(RTM_NEWRULE, flags, FIB_RULE_HDR_BYTES, (writer, fixed) => {
    putRule(writer, fixed, rule);
  });
}

/** Deletes the first rule that fits what is said; ENOENT without one. */
export function encodePolicyRuleDel(rule: PolicyRule): Uint8Array {
  return encodeMessage(RTM_DELRULE, NLM_F_ACK, FIB_RULE_HDR_BYTES, (writer, fixed) => {
    putRule(writer, fixed, rule);
  });
}

/** Asks for the rules of all families, those of one together and in the order in which they are asked. */
export function encodePolicyRuleDump(): Uint8Array {
  return encodeMessage(RTM_GETRULE, NLM_F_DUMP, FIB_RULE_HDR_BYTES, () => undefined);
}

function prefixIn(
  family: Family,
  attributes: Attributes,
  type: number,
  length: number,
): Prefix | null {
  const bytes = findBytes(attributes, type);
  if (!bytes) return null;
  return bytes.length * 8 === ADDRESS_BITS[family] ? prefixOf(ipFromBytes(bytes), length) : null;
}

/** The value of a condition behind its word; nothing where it has one that is not read. */
function valueText(type: number, bytes: Uint8Array): string {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  if (type === FRA_IP_PROTO) return ` ${PROTOCOLS[bytes[0] ?? 0] ?? bytes[0]}`;
  if (type === FRA_UID_RANGE && bytes.length === 8)
    return ` ${view.getUint32(0, true)}-${view.getUint32(4, true)}`;
  if ((type === FRA_SPORT_RANGE || type === FRA_DPORT_RANGE) && bytes.length === 4) {
    const [from, to] = [view.getUint16(0, true), view.getUint16(2, true)];
    return from === to ? ` ${from}` : ` ${from}-${to}`;
  }
  return '';
}

/** The conditions that are not heeded, in the words of `ip rule` as far as they are known. */
function unheededIn(attributes: Attributes, tos: number): string[] {
  const group = findU32(attributes, FRA_SUPPRESS_IFGROUP) ?? NONE;
  return [
    ...(tos === 0 ? [] : [`tos 0x${tos.toString(16)}`]),
    ...[...UNHEEDED].flatMap(([type, word]) => {
      const bytes = findBytes(attributes, type);
      return bytes === undefined ? [] : [`${word}${valueText(type, bytes)}`];
    }),
    ...(group === NONE ? [] : [`suppress_ifgroup ${group}`]),
  ];
}

/** What a rule says that most do not. */
function furtherIn(
  attributes: Attributes,
  { flags, tos }: { readonly flags: number; readonly tos: number },
): Partial<PolicyRule> {
  const target = findU32(attributes, FRA_GOTO);
  const suppressed = findU32(attributes, FRA_SUPPRESS_PREFIXLEN) ?? NONE;
  const unheeded = unheededIn(attributes, tos);
  return {
    ...((flags & FIB_RULE_INVERT) === 0 ? {} : { inverted: true as const }),
    ...(target === undefined ? {} : { target }),
    ...(suppressed === NONE ? {} : { suppressPrefixLength: suppressed }),
    ...(unheeded.length === 0 ? {} : { isPartlyRead: true as const, unheeded }),
  };
}

/** A rule in an answer; undefined for other messages and other families. */
export function decodePolicyRule(message: Message): PolicyRule | undefined {
  const { bytes, start, view } = message;
  const at = (offset: number): number => bytes[start + offset] ?? 0;
  const number = at(AT.family);
  if (message.type !== RTM_NEWRULE || (number !== AF_INET && number !== AF_INET6)) return undefined;
  const family = number === AF_INET ? 4 : 6;
  const attributes = readAttributes(message, start + FIB_RULE_HDR_BYTES, message.end);
  const action = (Object.keys(ACTIONS) as PolicyAction[]).find(
    (each) => ACTIONS[each] === at(AT.action),
  );
  const mark = findU32(attributes, FRA_FWMARK);
  const mask = findU32(attributes, FRA_FWMASK);
  const flags = view.getUint32(start + AT.flags, true);
  return {
    family,
    priority: findU32(attributes, FRA_PRIORITY) ?? 0,
    source: prefixIn(family, attributes, FRA_SRC, at(AT.srcLength)),
    destination: prefixIn(family, attributes, FRA_DST, at(AT.dstLength)),
    iif: (findText(attributes, FRA_IIFNAME) as Ifname | undefined) ?? null,
    oif: (findText(attributes, FRA_OIFNAME) as Ifname | undefined) ?? null,
    mark: mark === undefined && mask === undefined ? null : { value: mark ?? 0, mask: mask ?? 0 },
    action: action ?? 'lookup',
    table: action === 'lookup' ? (findU32(attributes, FRA_TABLE) ?? at(AT.table)) : null,
    protocol: findBytes(attributes, FRA_PROTOCOL)?.[0] ?? 0,
    // An action that is not known may be anything.
    ...(action === undefined
      ? { isPartlyRead: true as const }
      : furtherIn(attributes, { flags, tos: at(AT.tos) })),
  };
}
