/** The kernel's expressions as a rule's statements (nftables: src/netlink_delinearize.c). */
import { ADDRESS_BITS, type Family, ipFromBytes } from '../../model/ip.ts';
import type { Field, NftFamily, Statement } from '../../model/nftables.ts';
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
  NFT_META_NFPROTO,
  NFT_PAYLOAD_NETWORK_HEADER,
  NFT_CMP_EQ,
  NFT_CMP_NEQ,
  NFT_LOOKUP_F_INV,
  NFT_REG_VERDICT,
  NFT_REG_1,
  NFT_REG32_00,
  findField,
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
  const register = findBe32(attributes, type);
  return register === NFT_REG_1 || register === NFT_REG32_00;
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
  readonly count: number;
}

function decodeLookup(field: Field, data: Attributes): Statement | undefined {
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

/** A field's load with what is done to it: `payload [bitwise] cmp` or `payload lookup`. */
function decodeField(
  expressions: readonly Expression[],
  at: number,
  family: Family,
): Decoded | undefined {
  const load = expressions[at];
  const next = expressions[at + 1];
  if (
    load?.name !== 'payload' ||
    !next ||
    findBe32(load.data, NFTA_PAYLOAD_BASE) !== NFT_PAYLOAD_NETWORK_HEADER
  )
    return undefined;
  const field = findField(family, findBe32(load.data, NFTA_PAYLOAD_OFFSET) ?? -1);
  const length = findBe32(load.data, NFTA_PAYLOAD_LEN) ?? 0;
  const fullBytes = ADDRESS_BITS[family] / 8;
  if (!field || !isRegister1(load.data, NFTA_PAYLOAD_DREG) || length < 1 || length > fullBytes)
    return undefined;
  if (next.name === 'lookup') {
    const statement = length === fullBytes ? decodeLookup(field, next.data) : undefined;
    return statement && { statement, count: 2 };
  }
  let prefixLength = length * 8;
  let compareAt = at + 1;
  if (next.name === 'bitwise') {
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

/** The IP family that `meta nfproto` and a comparison ask for, undefined when the expressions say something else. */
function decodeProtocol(expressions: readonly Expression[], at: number): Family | undefined {
  const meta = expressions[at];
  if (meta?.name !== 'meta' || findBe32(meta.data, NFTA_META_KEY) !== NFT_META_NFPROTO)
    return undefined;
  const compare = decodeCompare(expressions[at + 1]);
  if (!compare || compare.negate || compare.bytes.length !== 1) return undefined;
  return compare.bytes[0] === NFPROTO.ip ? 4 : compare.bytes[0] === NFPROTO.ip6 ? 6 : undefined;
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
  let family: Family | undefined = table === 'inet' ? undefined : table === 'ip' ? 4 : 6;
  let at = 0;
  while (at < expressions.length) {
    const asked: Family | undefined = decodeProtocol(expressions, at);
    // Only a condition of the field behind it: by itself it would be a statement of its own.
    const field = decodeField(expressions, asked ? at + 2 : at, asked ?? family ?? 4);
    if (field && (asked ?? family) !== undefined) {
      statements.push(field.statement);
      family = asked ?? family;
      at += field.count + (asked ? 2 : 0);
    } else {
      statements.push(decodeSingle(expressions[at] as Expression));
      at += 1;
    }
  }
  return statements;
}
