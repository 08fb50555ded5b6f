/** The kernel's expressions as a rule's statements (nftables: src/netlink_delinearize.c). */
import { ipFromBytes } from '../../model/ip.ts';
import {
  type AddressField,
  FIELD_BYTES,
  FIELD_TYPES,
  type Field,
  type LookupField,
  type NftFamily,
  type Statement,
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
  NFTA_LOOKUP_SET,
  NFTA_LOOKUP_SREG,
  NFTA_LOOKUP_DREG,
  NFTA_LOOKUP_FLAGS,
  NFTA_IMMEDIATE_DREG,
  NFTA_IMMEDIATE_DATA,
  NFT_META_IIFNAME,
  NFT_META_NFPROTO,
  NFT_META_PROTOCOL,
  NFT_PAYLOAD_LL_HEADER,
  NFT_CMP_EQ,
  NFT_CMP_NEQ,
  NFT_LOOKUP_F_INV,
  NFT_REG_VERDICT,
  NFT_REG_1,
  NFT_REG_2,
  ETHER_TYPES,
  ETHER_TYPE_PLACE,
  PLACES,
  type Protocol,
  findField,
  isRegister,
} from './nftables-expression.ts';
import { NFPROTO, decodeVerdict } from './nftables-number.ts';

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
  return isRegister(NFT_REG_1, findBe32(attributes, type));
}

function findData(attributes: Attributes, type: number): Uint8Array | undefined {
  const data = findNest(attributes, type);
  return data && findBytes(data, NFTA_DATA_VALUE);
}

function isZero(bytes: Uint8Array = new Uint8Array(0)): boolean {
  for (let i = 0; i < bytes.length; i += 1) if (bytes[i] !== 0) return false;
  return true;
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

/** What an expression loads to a register, of a packet of this protocol. */
function decodeLoad(
  expression: Expression | undefined,
  register: number,
  table: NftFamily,
  protocol: Protocol | undefined,
): Load | undefined {
  if (expression?.name === 'meta') {
    const isThere = isRegister(register, findBe32(expression.data, NFTA_META_DREG));
    return isThere && findBe32(expression.data, NFTA_META_KEY) === NFT_META_IIFNAME
      ? { field: 'iifname', bytes: FIELD_BYTES.ifname }
      : undefined;
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
  return field !== 'iifname' && (PLACES[field].protocol ?? 'arp') !== 'arp';
}

function decodeMatch(
  expressions: readonly Expression[],
  at: number,
  { field, bytes: length }: Load,
): Omit<Decoded, 'protocol'> | undefined {
  if (!isAddressField(field)) return undefined;
  const fullBytes = FIELD_BYTES[FIELD_TYPES[field]];
  const next = expressions[at + 1];
  let prefixLength = length * 8;
  let compareAt = at + 1;
  if (next?.name === 'bitwise') {
    const mask = findData(next.data, NFTA_BITWISE_MASK);
    const ones = mask?.length === fullBytes && length === fullBytes ? maskLength(mask) : undefined;
    const flips = !isZero(findData(next.data, NFTA_BITWISE_XOR));
    if (ones === undefined || flips || (findBe32(next.data, NFTA_BITWISE_OP) ?? 0) !== 0)
      return undefined;
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

/** A field's load with what is done to it: `load [load] lookup` or `load [bitwise] cmp`. */
function decodeField(
  expressions: readonly Expression[],
  at: number,
  table: NftFamily,
  protocol: Protocol | undefined,
): Decoded | undefined {
  const first = decodeLoad(expressions[at], NFT_REG_1, table, protocol);
  if (!first) return undefined;
  const second =
    first.field === 'iifname'
      ? decodeLoad(expressions[at + 1], NFT_REG_2, table, protocol)
      : undefined;
  const last = second ?? first;
  const needed = last.field === 'iifname' ? undefined : PLACES[last.field].protocol;
  const lookup = expressions[at + (second ? 2 : 1)];
  if (lookup?.name !== 'lookup') {
    const match = second ? undefined : decodeMatch(expressions, at, first);
    return match && { ...match, protocol: needed };
  }
  if (last.bytes !== FIELD_BYTES[FIELD_TYPES[last.field]]) return undefined;
  const field = (second ? `iifname . ${second.field}` : first.field) as LookupField;
  const statement = decodeLookup(field, lookup.data);
  return statement && { statement, protocol: needed, count: second ? 3 : 2 };
}

function decodeSingle({ name, data }: Expression): Statement {
  if (name === 'masq' && data.starts.length === 0) return { kind: 'masquerade' };
  if (name === 'immediate' && findBe32(data, NFTA_IMMEDIATE_DREG) === NFT_REG_VERDICT) {
    const value = findNest(data, NFTA_IMMEDIATE_DATA);
    const nest = value && findNest(value, NFTA_DATA_VERDICT);
    const verdict = nest && decodeVerdict(nest);
    if (verdict) return { kind: 'verdict', ...verdict };
  }
  return { kind: 'opaque', expression: name };
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

/** The statements in the attribute `type` of a rule: what is not understood is opaque, one statement per expression. */
export function decodeStatements(
  attributes: Attributes,
  type: number,
  table: NftFamily,
): Statement[] {
  const span = findSpan(attributes, type);
  const expressions = span ? readExpressions(attributes, span.start, span.end) : [];
  const statements: Statement[] = [];
  let protocol: Protocol | undefined = table === 'ip' || table === 'ip6' ? table : undefined;
  let at = 0;
  while (at < expressions.length) {
    const asked = decodeProtocol(expressions, at, table);
    const field = decodeField(expressions, asked ? at + 2 : at, table, asked ?? protocol);
    // Only a condition of the field behind it: by itself, or before another, it would be a statement of its own.
    if (field && (asked === undefined || field.protocol === asked)) {
      statements.push(field.statement);
      protocol = asked ?? protocol;
      at += field.count + (asked ? 2 : 0);
    } else {
      statements.push(decodeSingle(expressions[at] as Expression));
      at += 1;
    }
  }
  return statements;
}
