/**
 * What others have in the ruleset, as far as the simulator can follow it: expressions one by one, and sets by the bytes of
 * their keys (net/netfilter/nft_*.c). Only who reads a whole host needs it.
 */
import {
  type Comparison,
  type CtKey,
  type Expression,
  type Hex,
  type MetaKey,
  type RawElement,
  type RawSet,
  toHex,
} from '../../model/nft-expression.ts';
import type { NftFamily } from '../../model/nftables.ts';
import {
  type Attributes,
  eachAttribute,
  findBe32,
  findBytes,
  findNest,
  findSpan,
  findText,
  findU8,
  readAttributes,
} from './attribute.ts';
import { NFTA_DATA_VALUE, NFTA_DATA_VERDICT, NFT_REG_VERDICT } from './nftables-expression.ts';
import type { ForeignDecoder } from './nftables-message.ts';
import { decodeVerdict } from './nftables-number.ts';
import { decodeXtMatch, decodeXtTarget } from './xt.ts';

/** What one expression says in a table of a family; undefined for what is not understood. */
type Decode = (data: Attributes, table: NftFamily) => Expression | undefined;

/** NFT_REG_1 to NFT_REG_4 have 16 bytes, those from NFT_REG32_00 on four. */
const NFT_REG32_00 = 8;

function findRegister(data: Attributes, type: number): number | undefined {
  const value = findBe32(data, type);
  if (value === undefined || value < 1) return undefined;
  return value >= NFT_REG32_00 ? value - NFT_REG32_00 : (value - 1) * 4;
}

function findValue(data: Attributes, type: number): Hex | undefined {
  const nest = findNest(data, type);
  const bytes = nest && findBytes(nest, NFTA_DATA_VALUE);
  return bytes && toHex(bytes);
}

const META_KEYS: Readonly<Record<number, MetaKey>> = {
  0: 'length',
  1: 'protocol',
  3: 'mark',
  4: 'iif',
  5: 'oif',
  6: 'iifname',
  7: 'oifname',
  15: 'nfproto',
  16: 'l4proto',
  19: 'pkttype',
  24: 'random',
};

const meta: Decode = (data) => {
  const key = META_KEYS[findBe32(data, 2) ?? -1];
  const to = findRegister(data, 1);
  const from = findRegister(data, 3);
  if (key === undefined) return undefined;
  if (to !== undefined) return { name: 'meta', key, to };
  return key === 'mark' && from !== undefined ? { name: 'meta set', key, from } : undefined;
};

const CT_KEYS: Readonly<Record<number, CtKey>> = {
  0: 'state',
  1: 'direction',
  2: 'status',
  7: 'l3protocol',
  8: 'saddr',
  9: 'daddr',
  10: 'protocol',
  11: 'proto-src',
  12: 'proto-dst',
  19: 'saddr',
  20: 'daddr',
  21: 'saddr',
  22: 'daddr',
};
const DIRECTIONS = ['original', 'reply'] as const;

const ct: Decode = (data) => {
  const key = CT_KEYS[findBe32(data, 2) ?? -1];
  const to = findRegister(data, 1);
  if (key === undefined || to === undefined) return undefined;
  return { name: 'ct', key, direction: DIRECTIONS[findU8(data, 3) ?? -1] ?? null, to };
};

const HEADERS = { 1: 'network', 2: 'transport' } as const;

const payload: Decode = (data) => {
  const header = HEADERS[findBe32(data, 2) as keyof typeof HEADERS];
  const to = findRegister(data, 1);
  const bytes = findBe32(data, 4);
  if (header === undefined || to === undefined || bytes === undefined) return undefined;
  return { name: 'payload', header, offset: findBe32(data, 3) ?? 0, bytes, to };
};

const COMPARISONS: readonly Comparison[] = ['eq', 'neq', 'lt', 'lte', 'gt', 'gte'];

const cmp: Decode = (data) => {
  const comparison = COMPARISONS[findBe32(data, 2) ?? -1];
  const from = findRegister(data, 1);
  const value = findValue(data, 3);
  if (comparison === undefined || from === undefined || value === undefined) return undefined;
  return { name: 'cmp', from, comparison, value };
};

const range: Decode = (data) => {
  const from = findRegister(data, 1);
  const low = findValue(data, 3);
  const high = findValue(data, 4);
  if (from === undefined || low === undefined || high === undefined) return undefined;
  return { name: 'range', from, low, high, negate: findBe32(data, 2) === 1 };
};

/** By a mask and what is turned over; shifts are not understood. */
const bitwise: Decode = (data) => {
  const from = findRegister(data, 1);
  const to = findRegister(data, 2);
  const mask = findValue(data, 4);
  const xor = findValue(data, 5);
  if ((findBe32(data, 6) ?? 0) !== 0) return undefined;
  if (from === undefined || to === undefined || mask === undefined || xor === undefined)
    return undefined;
  return { name: 'bitwise', from, to, mask, xor };
};

const byteorder: Decode = (data) => {
  const from = findRegister(data, 1);
  const to = findRegister(data, 2);
  const bytes = findBe32(data, 4);
  const size = findBe32(data, 5);
  if (from === undefined || to === undefined || bytes === undefined || size === undefined)
    return undefined;
  return { name: 'byteorder', from, to, bytes, size };
};

const lookup: Decode = (data) => {
  const name = findText(data, 1);
  const from = findRegister(data, 2);
  if (name === undefined || from === undefined) return undefined;
  const target = findBe32(data, 3);
  const to = target === NFT_REG_VERDICT ? 'verdict' : (findRegister(data, 3) ?? null);
  return { name: 'lookup', set: name, from, to, negate: ((findBe32(data, 5) ?? 0) & 1) !== 0 };
};

const immediate: Decode = (data) => {
  const to = findRegister(data, 1);
  const value = findValue(data, 2);
  return to === undefined || value === undefined ? undefined : { name: 'immediate', to, value };
};

const NFPROTO_IPV4 = 2;
const NFPROTO_IPV6 = 10;

/** Each address by its own in another network (include/uapi/linux/netfilter/nf_nat.h), which is not understood. */
const NF_NAT_RANGE_NETMAP = 0x40;

const nat: Decode = (data) => {
  const family = findBe32(data, 2);
  if (family !== NFPROTO_IPV4 && family !== NFPROTO_IPV6) return undefined;
  if (((findBe32(data, 7) ?? 0) & NF_NAT_RANGE_NETMAP) !== 0) return undefined;
  return {
    name: 'nat',
    side: findBe32(data, 1) === 1 ? 'destination' : 'source',
    family: family === NFPROTO_IPV4 ? 4 : 6,
    ip: findRegister(data, 3) ?? null,
    port: findRegister(data, 5) ?? null,
  };
};

const NFT_FIB_RESULT_ADDRTYPE = 3;
/** By one address alone: which links count makes no difference. */
const FIB_OF = { 1: 'saddr', 2: 'daddr' } as const;

const fib: Decode = (data) => {
  const of = FIB_OF[findBe32(data, 3) as keyof typeof FIB_OF];
  const to = findRegister(data, 1);
  if (of === undefined || to === undefined || findBe32(data, 2) !== NFT_FIB_RESULT_ADDRTYPE)
    return undefined;
  return { name: 'fib', of, result: 'type', to };
};

const numgen: Decode = (data) => {
  const to = findRegister(data, 1);
  const modulus = findBe32(data, 2);
  if (to === undefined || modulus === undefined) return undefined;
  return {
    name: 'numgen',
    mode: findBe32(data, 3) === 1 ? 'random' : 'inc',
    modulus: modulus >>> 0,
    offset: findBe32(data, 4) ?? 0,
    to,
  };
};

/** Codes of unreachable (RFC 792, RFC 1812 §5.2.7.1, RFC 4443 §3.1), and NFT_REJECT_ICMPX_*. */
const UNREACHABLE4: Readonly<Record<number, string>> = {
  0: 'net-unreachable',
  1: 'host-unreachable',
  2: 'proto-unreachable',
  3: 'port-unreachable',
  9: 'net-prohibited',
  10: 'host-prohibited',
  13: 'admin-prohibited',
};
const UNREACHABLE6: Readonly<Record<number, string>> = {
  0: 'no-route',
  1: 'admin-prohibited',
  3: 'addr-unreachable',
  4: 'port-unreachable',
  5: 'policy-fail',
  6: 'reject-route',
};
const UNREACHABLE_ANY = [
  'no-route',
  'port-unreachable',
  'host-unreachable',
  'admin-prohibited',
] as const;

const reject: Decode = (data, table) => {
  const type = findBe32(data, 1);
  const code = findU8(data, 2) ?? 0;
  if (type === 1) return { name: 'reject', answer: 'tcp reset' };
  if (type === 2) return { name: 'reject', answer: `icmpx ${UNREACHABLE_ANY[code] ?? code}` };
  const answer4 = `icmp ${UNREACHABLE4[code] ?? code}`;
  const answer6 = `icmpv6 ${UNREACHABLE6[code] ?? code}`;
  if (table === 'ip' || table === 'ip6')
    return { name: 'reject', answer: table === 'ip' ? answer4 : answer6 };
  // The code is that of the packet's own protocol.
  return { name: 'reject', answer: `${answer4} or ${answer6}` };
};

/** An expression of nft_compat: name, revision and the structure. */
function compat(data: Attributes): readonly [string, Uint8Array, number] {
  return [findText(data, 1) ?? '', findBytes(data, 3) ?? new Uint8Array(0), findBe32(data, 2) ?? 0];
}

const match: Decode = (data, table) => {
  const found = decodeXtMatch(...compat(data), table === 'ip6');
  return found && { name: 'match', ...found };
};

const target: Decode = (data, table) => {
  const found = decodeXtTarget(...compat(data), table === 'ip6');
  return found && { name: 'target', ...found };
};

const EXPRESSIONS: Readonly<Record<string, Decode | undefined>> = {
  meta,
  ct,
  payload,
  cmp,
  range,
  bitwise,
  byteorder,
  lookup,
  immediate,
  nat,
  masq: () => ({ name: 'masq' }),
  redir: (data) => ({ name: 'redir', port: findRegister(data, 1) ?? null }),
  fib,
  numgen,
  reject,
  notrack: () => ({ name: 'notrack' }),
  match,
  target,
};

const NFTA_SET_TABLE = 1;
const NFTA_SET_NAME = 2;
const NFTA_SET_FLAGS = 3;
const NFTA_SET_KEY_LEN = 5;
const NFTA_SET_DESC = 9;
const NFTA_SET_DESC_CONCAT = 2;
const NFTA_SET_FIELD_LEN = 1;
const NFT_SET_INTERVAL = 0x4;

function fieldBytesOf(attributes: Attributes): number[] {
  const description = findNest(attributes, NFTA_SET_DESC);
  const span = description && findSpan(description, NFTA_SET_DESC_CONCAT);
  const fields: number[] = [];
  if (description && span)
    eachAttribute(description, span.start, span.end, (_type, start, end) => {
      const field = readAttributes(description, start, end);
      fields.push(findBe32(field, NFTA_SET_FIELD_LEN) ?? 0);
    });
  return fields.length > 1 ? fields : [findBe32(attributes, NFTA_SET_KEY_LEN) ?? 0];
}

function set(attributes: Attributes): ReturnType<ForeignDecoder['set']> {
  return {
    table: findText(attributes, NFTA_SET_TABLE) ?? '',
    set: {
      name: findText(attributes, NFTA_SET_NAME) ?? '',
      hasIntervals: ((findBe32(attributes, NFTA_SET_FLAGS) ?? 0) & NFT_SET_INTERVAL) !== 0,
      fieldBytes: fieldBytesOf(attributes),
    },
  };
}

const NFTA_SET_ELEM_KEY = 1;
const NFTA_SET_ELEM_DATA = 2;
const NFTA_SET_ELEM_FLAGS = 3;
const NFTA_SET_ELEM_KEY_END = 10;
const NFT_SET_ELEM_INTERVAL_END = 1;

/** An element; one without a key is what a map holds for all others. */
function element(attributes: Attributes): RawElement {
  const last = findValue(attributes, NFTA_SET_ELEM_KEY_END);
  const isEnd =
    ((findBe32(attributes, NFTA_SET_ELEM_FLAGS) ?? 0) & NFT_SET_ELEM_INTERVAL_END) !== 0;
  const held = findNest(attributes, NFTA_SET_ELEM_DATA);
  const nest = held && findNest(held, NFTA_DATA_VERDICT);
  const verdict = nest && decodeVerdict(nest);
  const data = findValue(attributes, NFTA_SET_ELEM_DATA);
  return {
    key: findValue(attributes, NFTA_SET_ELEM_KEY) ?? '',
    ...(last === undefined ? {} : { last }),
    ...(isEnd ? { isEnd } : {}),
    ...(verdict ? { verdict } : {}),
    ...(data === undefined ? {} : { data }),
  };
}

/** Elements in the order of their keys, the end of a range before the beginning of another. */
function sorted(elements: readonly RawElement[]): RawElement[] {
  return elements.toSorted((a, b) =>
    a.key === b.key ? Number(b.isEnd ?? false) - Number(a.isEnd ?? false) : a.key < b.key ? -1 : 1,
  );
}

/** Reads what others have in the ruleset. */
export const FOREIGN: ForeignDecoder = {
  expression: (name, data, table) =>
    Object.hasOwn(EXPRESSIONS, name) ? EXPRESSIONS[name]?.(data, table) : undefined,
  set,
  element,
  whole: (bare: Omit<RawSet, 'elements'>, elements: readonly RawElement[]): RawSet => ({
    ...bare,
    elements: sorted(elements),
  }),
};
