/** Policy rules over rtnetlink (include/uapi/linux/fib_rules.h; net/core/fib_rules.c). */
import type { Ifname } from '../../model/ifname.ts';
import { type Family, ADDRESS_BITS, ipBytes, ipFromBytes } from '../../model/ip.ts';
import type { PolicyAction, PolicyRule } from '../../model/policy-rule.ts';
import { type Prefix, prefixIp, prefixLengthOf, prefixOf } from '../../model/prefix.ts';
import {
  type Attributes,
  type Writer,
  findBytes,
  findSpan,
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
const FRA_PRIORITY = 6;
const FRA_FWMARK = 10;
const FRA_SUPPRESS_IFGROUP = 13;
const FRA_SUPPRESS_PREFIXLEN = 14;
const FRA_TABLE = 15;
const FRA_FWMASK = 16;
const FRA_OIFNAME = 17;
const FRA_PROTOCOL = 21;

/** Not suppressed: what the kernel always says of these two. */
const NONE = 0xffff_ffff;

/** What a rule may have and the model has no words for: goto, flow, tun id, l3mdev, uids, protocol, ports, DSCP and more. */
const OTHERS: readonly number[] = [4, 11, 12, 19, 20, 22, 23, 24, 25, 26, 27, 28, 29, 30];

/** FIB_RULE_INVERT. */
const FIB_RULE_INVERT = 2;

const ACTIONS: Readonly<Record<PolicyAction, number>> = {
  lookup: 1,
  blackhole: 6,
  unreachable: 7,
  prohibit: 8,
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

function isPartlyRead(attributes: Attributes, rest: { flags: number; tos: number }): boolean {
  return (
    (rest.flags & FIB_RULE_INVERT) !== 0 ||
    rest.tos !== 0 ||
    OTHERS.some((type) => findSpan(attributes, type) !== undefined) ||
    [FRA_SUPPRESS_IFGROUP, FRA_SUPPRESS_PREFIXLEN].some(
      (type) => (findU32(attributes, type) ?? NONE) !== NONE,
    )
  );
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
  const partly = action === undefined || isPartlyRead(attributes, { flags, tos: at(AT.tos) });
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
    ...(partly ? { isPartlyRead: true as const } : {}),
  };
}
