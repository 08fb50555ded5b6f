/** The kernel's expressions as a rule's statements (nftables: src/netlink_delinearize.c). */
import { type Family, ipFromBytes } from '../../model/ip.ts';
import type { Expression as Detail } from '../../model/nft-expression.ts';
import {
  type AddressField,
  FIELD_BYTES,
  FIELD_TYPES,
  type Field,
  type LinkField,
  type LookupField,
  type NftFamily,
  type Statement,
  isLinkField,
} from '../../model/nftables.ts';
import { prefixOf } from '../../model/prefix.ts';
import {
  type Attributes,
  eachAttribute,
  findBe32,
  findBytes,
  findNest,
  findSpan,
  findText,
  readAttributes,
} from './attribute.ts';
import {
  NFTA_EXPR_NAME,
  NFTA_EXPR_DATA,
  NFTA_DATA_VALUE,
  NFTA_DATA_VERDICT,
  NFTA_META_DREG,
  NFTA_META_KEY,
  NFTA_CMP_SREG,
  NFTA_CMP_OP,
  NFTA_CMP_DATA,
  NFTA_PAYLOAD_DREG,
  NFTA_PAYLOAD_BASE,
  NFTA_PAYLOAD_OFFSET,
  NFTA_PAYLOAD_LEN,
  NFTA_BITWISE_MASK,
  NFTA_BITWISE_XOR,
  NFTA_BITWISE_OP,
  NFT_BITWISE_MASK_XOR,
  NFTA_LOOKUP_SET,
  NFTA_LOOKUP_SREG,
  NFTA_LOOKUP_DREG,
  NFTA_LOOKUP_FLAGS,
  NFTA_IMMEDIATE_DREG,
  NFTA_IMMEDIATE_DATA,
  NFTA_FIB_DREG,
  NFTA_FIB_RESULT,
  NFTA_FIB_FLAGS,
  NFTA_FIB_F_DADDR,
  NFTA_NAT_TYPE,
  NFTA_NAT_FAMILY,
  NFTA_NAT_REG_ADDR_MIN,
  NFTA_NAT_REG_PROTO_MIN,
  NFTA_META_SREG,
  NFT_FIB_RESULT_ADDRTYPE,
  NFT_META_MARK,
  NFT_NAT_DNAT,
  RTN_LOCAL,
  NFT_META_NFPROTO,
  NFT_META_PROTOCOL,
  NFT_PAYLOAD_LL_HEADER,
  NFT_CMP_EQ,
  NFT_CMP_NEQ,
  NFT_LOOKUP_F_INV,
  NFT_REG_VERDICT,
  REGISTER_BYTES,
  ETHER_TYPES,
  ETHER_TYPE_PLACE,
  META_FIELDS,
  type MetaField,
  PLACES,
  isMetaField,
  type Protocol,
  findField,
  isRegister,
} from './nftables-expression.ts';
import { decodeIfname } from './nftables-key.ts';
import { NFPROTO, decodeVerdict, findFamily } from './nftables-number.ts';

interface Expression {
  readonly name: string;
  readonly data: Attributes;
}

function readExpressions(list: Attributes, start: number, end: number): Expression[] {
  const found: Expression[] = [];
  eachAttribute(list, start, end, (_type, from, to) => {
    const attributes = readAttributes(list, from, to);
    const data = findNest(attributes, NFTA_EXPR_DATA) ?? readAttributes(list, to, to);
    found.push({ name: findText(attributes, NFTA_EXPR_NAME) ?? '', data });
  });
  return found;
}

function isRegister1(attributes: Attributes, type: number): boolean {
  return isRegister(0, findBe32(attributes, type));
}

function findData(attributes: Attributes, type: number): Uint8Array | undefined {
  const data = findNest(attributes, type);
  return data && findBytes(data, NFTA_DATA_VALUE);
}

function isZero(bytes: Uint8Array = new Uint8Array(0)): boolean {
  for (let i = 0; i < bytes.length; i += 1) if (bytes[i] !== 0) return false;
  return true;
}

function isMaskXor(data: Attributes): boolean {
  return (findBe32(data, NFTA_BITWISE_OP) ?? NFT_BITWISE_MASK_XOR) === NFT_BITWISE_MASK_XOR;
}

/** The number of leading ones of a mask, undefined when there are ones behind a zero. */
function maskLength(mask: Uint8Array): number | undefined {
  let length = 0;
  for (let i = 0; i < mask.length * 8; i += 1) {
    const isOne = (((mask[i >> 3] ?? 0) << (i & 7)) & 0x80) !== 0;
    if (isOne && length < i) return undefined;
    if (isOne) length = i + 1;
  }
  return length;
}

/** What a comparison says: is it equality, and with which bytes; undefined for other comparisons. */
function decodeCompare(
  expression: Expression | undefined,
): { readonly negate: boolean; readonly bytes: Uint8Array } | undefined {
  if (expression?.name !== 'cmp' || !isRegister1(expression.data, NFTA_CMP_SREG)) return undefined;
  const op = findBe32(expression.data, NFTA_CMP_OP);
  const bytes = findData(expression.data, NFTA_CMP_DATA);
  return bytes && (op === NFT_CMP_EQ || op === NFT_CMP_NEQ)
    ? { negate: op === NFT_CMP_NEQ, bytes }
    : undefined;
}

/** A statement and how many expressions it took. */
interface Decoded {
  readonly statement: Statement;
  /** What the packet has to be for that. */
  readonly protocol: Protocol | undefined;
  readonly count: number;
}

function decodeLookup(field: LookupField, data: Attributes): Statement | undefined {
  const set = findText(data, NFTA_LOOKUP_SET);
  if (set === undefined || !isRegister1(data, NFTA_LOOKUP_SREG)) return undefined;
  const target = findBe32(data, NFTA_LOOKUP_DREG);
  if (target === NFT_REG_VERDICT) return { kind: 'vmap', field, map: set };
  if (target !== undefined) return undefined;
  return {
    kind: 'lookup',
    field,
    negate: ((findBe32(data, NFTA_LOOKUP_FLAGS) ?? 0) & NFT_LOOKUP_F_INV) !== 0,
    set,
  };
}

/** A field that is loaded, or the first bytes of it. */
interface Load {
  readonly field: Field;
  readonly bytes: number;
}

const META_NAMES = Object.keys(META_FIELDS) as MetaField[];

/** What an expression loads to a register, of a packet of this protocol. */
function decodeLoad(
  expression: Expression | undefined,
  register: number,
  table: NftFamily,
  protocol: Protocol | undefined,
): Load | undefined {
  if (expression?.name === 'meta') {
    const key = findBe32(expression.data, NFTA_META_KEY);
    const field = META_NAMES.find((name) => META_FIELDS[name] === key);
    const isThere = isRegister(register, findBe32(expression.data, NFTA_META_DREG));
    return field && isThere ? { field, bytes: FIELD_BYTES[FIELD_TYPES[field]] } : undefined;
  }
  if (expression?.name !== 'payload') return undefined;
  const { data } = expression;
  const header = findBe32(data, NFTA_PAYLOAD_BASE);
  const field = findField(header, findBe32(data, NFTA_PAYLOAD_OFFSET), protocol);
  const bytes = findBe32(data, NFTA_PAYLOAD_LEN) ?? 0;
  if (!field || !isRegister(register, findBe32(data, NFTA_PAYLOAD_DREG))) return undefined;
  // In other tables it depends on the link whether there is such a header.
  if (header === NFT_PAYLOAD_LL_HEADER && table !== 'bridge') return undefined;
  return bytes >= 1 && bytes <= FIELD_BYTES[FIELD_TYPES[field]] ? { field, bytes } : undefined;
}

function isAddressField(field: Field): field is AddressField {
  return !isMetaField(field) && (PLACES[field].protocol ?? 'arp') !== 'arp';
}

/** The name of a link that a packet passes, compared with a whole name. */
function decodeIfnameMatch(
  expressions: readonly Expression[],
  at: number,
  field: LinkField,
): Omit<Decoded, 'protocol'> | undefined {
  const compare = decodeCompare(expressions[at + 1]);
  const value = compare && decodeIfname(compare.bytes);
  if (!compare || value === undefined) return undefined;
  return {
    statement: { kind: 'match', field, negate: compare.negate, value },
    count: 2,
  };
}

function decodeMatch(
  expressions: readonly Expression[],
  at: number,
  { field, bytes: length }: Load,
): Omit<Decoded, 'protocol'> | undefined {
  if (isLinkField(field)) return decodeIfnameMatch(expressions, at, field);
  if (!isAddressField(field)) return undefined;
  const fullBytes = FIELD_BYTES[FIELD_TYPES[field]];
  const next = expressions[at + 1];
  let prefixLength = length * 8;
  let compareAt = at + 1;
  if (next?.name === 'bitwise') {
    const mask = findData(next.data, NFTA_BITWISE_MASK);
    const ones = mask?.length === fullBytes && length === fullBytes ? maskLength(mask) : undefined;
    const flips = !isZero(findData(next.data, NFTA_BITWISE_XOR));
    if (ones === undefined || flips || !isMaskXor(next.data)) return undefined;
    prefixLength = ones;
    compareAt += 1;
  }
  const compare = decodeCompare(expressions[compareAt]);
  if (compare?.bytes.length !== length) return undefined;
  const padded = new Uint8Array(fullBytes);
  padded.set(compare.bytes);
  const ip = ipFromBytes(padded);
  const value = prefixLength === fullBytes * 8 ? ip : prefixOf(ip, prefixLength);
  return {
    statement: { kind: 'match', field, negate: compare.negate, value },
    count: compareAt - at + 1,
  };
}

/** Fields that are looked up together. */
const JOINED: readonly LookupField[] = [
  'iifname . oifname',
  'iifname . ip saddr',
  'iifname . ip daddr',
  'iifname . ip6 saddr',
  'iifname . ip6 daddr',
  'iifname . ether saddr',
  'iifname . arp saddr ether',
  'iifname . arp saddr ip',
  'meta l4proto . th dport',
  'ip daddr . meta l4proto . th dport',
  'ip6 daddr . meta l4proto . th dport',
];

/** The loads that begin at an expression, each into the registers behind those of the one before. */
function decodeLoads(
  expressions: readonly Expression[],
  at: number,
  table: NftFamily,
  protocol: Protocol | undefined,
): Load[] {
  const loads: Load[] = [];
  for (let register = 0; ;) {
    const load = decodeLoad(expressions[at + loads.length], register, table, protocol);
    if (!load) return loads;
    loads.push(load);
    register += Math.ceil(load.bytes / REGISTER_BYTES);
  }
}

/** What sends packets where a lookup says: the family, undefined where the expression says something else. */
function decodeDnat(expression: Expression | undefined): Family | undefined {
  if (expression?.name !== 'nat') return undefined;
  const { data } = expression;
  const family = findFamily(findBe32(data, NFTA_NAT_FAMILY));
  if (family !== 'ip' && family !== 'ip6') return undefined;
  const port = family === 'ip' ? 1 : 4;
  return findBe32(data, NFTA_NAT_TYPE) === NFT_NAT_DNAT &&
    isRegister1(data, NFTA_NAT_REG_ADDR_MIN) &&
    isRegister(port, findBe32(data, NFTA_NAT_REG_PROTO_MIN))
    ? familyNumber(family)
    : undefined;
}

function familyNumber(family: 'ip' | 'ip6'): Family {
  return family === 'ip' ? 4 : 6;
}

/** Fields' loads with what is done to them: `load... lookup [nat]` or `load [bitwise] cmp`. */
function decodeField(
  expressions: readonly Expression[],
  at: number,
  table: NftFamily,
  protocol: Protocol | undefined,
): Decoded | undefined {
  const loads = decodeLoads(expressions, at, table, protocol);
  const [first] = loads;
  if (!first) return undefined;
  const headers = loads.map(({ field }) =>
    isMetaField(field) ? undefined : PLACES[field].protocol,
  );
  const needed = headers.find((each) => each !== undefined);
  const lookup = expressions[at + loads.length];
  if (lookup?.name !== 'lookup') {
    const match = loads.length > 1 ? undefined : decodeMatch(expressions, at, first);
    return match && { ...match, protocol: needed };
  }
  if (loads.some(({ field, bytes }) => bytes !== FIELD_BYTES[FIELD_TYPES[field]])) return undefined;
  const joined = loads.map(({ field }) => field).join(' . ');
  const field = loads.length > 1 ? JOINED.find((each) => each === joined) : loneField(first.field);
  if (!field) return undefined;
  const count = loads.length + 1;
  const family = decodeDnat(expressions[at + count]);
  const map = findText(lookup.data, NFTA_LOOKUP_SET);
  const isTarget =
    isRegister1(lookup.data, NFTA_LOOKUP_SREG) && isRegister1(lookup.data, NFTA_LOOKUP_DREG);
  if (family !== undefined && map !== undefined && isTarget)
    return { statement: { kind: 'dnat', family, field, map }, protocol: needed, count: count + 1 };
  const statement = decodeLookup(field, lookup.data);
  return statement && { statement, protocol: needed, count };
}

function loneField(field: Field): LookupField | undefined {
  return field === 'meta l4proto' || field === 'th dport' ? undefined : field;
}

/** Four bytes in the byte order of the machine. */
function hostNumber(bytes: Uint8Array | undefined): number | undefined {
  if (bytes?.length !== 4) return undefined;
  return new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true);
}

/** Is the destination an address of this host? `fib cmp` */
function decodeLocal(expressions: readonly Expression[], at: number): Statement | undefined {
  const { name, data } = expressions[at] as Expression;
  if (name !== 'fib' || !isRegister1(data, NFTA_FIB_DREG)) return undefined;
  const compare = decodeCompare(expressions[at + 1]);
  return findBe32(data, NFTA_FIB_RESULT) === NFT_FIB_RESULT_ADDRTYPE &&
    findBe32(data, NFTA_FIB_FLAGS) === NFTA_FIB_F_DADDR &&
    compare?.negate === false &&
    hostNumber(compare.bytes) === RTN_LOCAL
    ? { kind: 'local' }
    : undefined;
}

/** Bits of the mark, set, cleared or asked for: `meta bitwise meta` or `meta bitwise cmp`. */
function decodeMark(expressions: readonly Expression[], at: number): Statement | undefined {
  const [load, change, end] = expressions.slice(at, at + 3) as [
    Expression,
    Expression?,
    Expression?,
  ];
  const loads =
    load.name === 'meta' &&
    findBe32(load.data, NFTA_META_KEY) === NFT_META_MARK &&
    isRegister1(load.data, NFTA_META_DREG);
  if (!loads || change?.name !== 'bitwise' || !isMaskXor(change.data)) return undefined;
  const mask = hostNumber(findData(change.data, NFTA_BITWISE_MASK));
  const flips = hostNumber(findData(change.data, NFTA_BITWISE_XOR));
  if (mask === undefined || flips === undefined) return undefined;
  const compare = decodeCompare(end);
  if (compare)
    return !compare.negate && flips === 0 && hostNumber(compare.bytes) === mask
      ? { kind: 'marked', bits: mask }
      : undefined;
  const bits = ~mask >>> 0;
  const sets =
    end?.name === 'meta' &&
    findBe32(end.data, NFTA_META_KEY) === NFT_META_MARK &&
    isRegister1(end.data, NFTA_META_SREG);
  if (!sets || bits === 0 || (flips !== 0 && flips !== bits)) return undefined;
  return { kind: 'mark', bits, on: flips !== 0 };
}

/** What an expression says, in a table of a family; undefined where that is not known. */
export type DetailOf = (name: string, data: Attributes, table: NftFamily) => Detail | undefined;

function decodeSingle(
  { name, data }: Expression,
  table: NftFamily,
  detailOf: DetailOf | undefined,
): Statement {
  if (name === 'counter') return { kind: 'counter' };
  if (name === 'masq' && data.starts.length === 0) return { kind: 'masquerade' };
  if (name === 'immediate' && findBe32(data, NFTA_IMMEDIATE_DREG) === NFT_REG_VERDICT) {
    const value = findNest(data, NFTA_IMMEDIATE_DATA);
    const nest = value && findNest(value, NFTA_DATA_VERDICT);
    const verdict = nest && decodeVerdict(nest);
    if (verdict) return { kind: 'verdict', ...verdict };
  }
  const detail = detailOf?.(name, data, table);
  return { kind: 'opaque', expression: nameOf(name, data), ...(detail ? { detail } : {}) };
}

/** An expression's name; where it is one of iptables (net/netfilter/nft_compat.c), with the name that it has there. */
function nameOf(name: string, data: Attributes): string {
  const inner =
    name === 'match' || name === 'target' ? findText(data, NFTA_COMPAT_NAME) : undefined;
  return inner === undefined ? name : `${name} ${inner}`;
}

/** The protocols that a comparison with what the expression loads can ask for, in the form of a table of this family. */
function protocolsIn(expression: Expression, table: NftFamily): readonly Protocol[] {
  const { name, data } = expression;
  const meta = name === 'meta' ? findBe32(data, NFTA_META_KEY) : undefined;
  if (table === 'inet') return meta === NFT_META_NFPROTO ? ['ip', 'ip6'] : [];
  if (table !== 'bridge') return [];
  if (meta === NFT_META_PROTOCOL) return ['ip', 'ip6'];
  const { header, offset, bytes } = ETHER_TYPE_PLACE;
  const isType =
    name === 'payload' &&
    findBe32(data, NFTA_PAYLOAD_BASE) === header &&
    findBe32(data, NFTA_PAYLOAD_OFFSET) === offset &&
    findBe32(data, NFTA_PAYLOAD_LEN) === bytes;
  return isType ? ['arp'] : [];
}

/** The protocol that a load and a comparison ask for, undefined when the expressions say something else. */
function decodeProtocol(
  expressions: readonly Expression[],
  at: number,
  table: NftFamily,
): Protocol | undefined {
  const candidates = protocolsIn(expressions[at] as Expression, table);
  const compare = candidates.length > 0 ? decodeCompare(expressions[at + 1]) : undefined;
  if (!compare || compare.negate) return undefined;
  let value = 0;
  for (const byte of compare.bytes) value = value * 256 + byte;
  for (const each of candidates) {
    const wanted = table === 'inet' ? NFPROTO[each as 'ip' | 'ip6'] : ETHER_TYPES[each];
    if (value === wanted && compare.bytes.length === (table === 'inet' ? 1 : 2)) return each;
  }
  return undefined;
}

/** NFTA_MATCH_NAME, NFTA_TARGET_NAME. */
const NFTA_COMPAT_NAME = 1;
const NFTA_MATCH_INFO = 3;

/** The text of iptables' own comments, which it writes as a match that every packet meets (include/uapi/linux/netfilter/xt_comment.h). */
function decodeXtComment({ name, data }: Expression): string | undefined {
  if (name !== 'match' || findText(data, NFTA_COMPAT_NAME) !== 'comment') return undefined;
  const info = findBytes(data, NFTA_MATCH_INFO) ?? new Uint8Array(0);
  const nul = info.indexOf(0);
  return new TextDecoder().decode(nul < 0 ? info : info.subarray(0, nul));
}

/** The comment that iptables has put among the expressions of a rule, '' without one. */
export function findXtComment(attributes: Attributes, type: number): string {
  const span = findSpan(attributes, type);
  const expressions = span ? readExpressions(attributes, span.start, span.end) : [];
  for (const expression of expressions) {
    const comment = decodeXtComment(expression);
    if (comment !== undefined) return comment;
  }
  return '';
}

/** The statements in the attribute `type` of a rule: what is not understood is opaque, one statement per expression. */
export function decodeStatements(
  attributes: Attributes,
  type: number,
  table: NftFamily,
  detailOf?: DetailOf,
): Statement[] {
  const span = findSpan(attributes, type);
  const expressions = (span ? readExpressions(attributes, span.start, span.end) : []).filter(
    (each) => decodeXtComment(each) === undefined,
  );
  const statements: Statement[] = [];
  let protocol: Protocol | undefined = table === 'ip' || table === 'ip6' ? table : undefined;
  let at = 0;
  while (at < expressions.length) {
    const local = decodeLocal(expressions, at);
    const mark = decodeMark(expressions, at);
    if (local || mark) {
      statements.push((local ?? mark) as Statement);
      at += local ? 2 : 3;
      continue;
    }
    const asked = decodeProtocol(expressions, at, table);
    const field = decodeField(expressions, asked ? at + 2 : at, table, asked ?? protocol);
    // Only a condition of the field behind it: by itself, or before another, it would be a statement of its own.
    if (field && (asked === undefined || field.protocol === asked)) {
      statements.push(field.statement);
      protocol = asked ?? protocol;
      at += field.count + (asked ? 2 : 0);
    } else {
      statements.push(decodeSingle(expressions[at] as Expression, table, detailOf));
      at += 1;
    }
  }
  return statements;
}
