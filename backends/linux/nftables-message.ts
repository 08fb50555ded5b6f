/** Reading a ruleset (net/netfilter/nf_tables_api.c, nf_tables_get* and nf_tables_dump_*). */
import type { RawElement, RawSet } from '../../model/nft-expression.ts';
import {
  type Chain,
  type ChainHook,
  type NftFamily,
  type NftSet,
  type Rule,
  type SetElement,
  type SetKey,
  type TableRef,
  type TargetType,
  holdsTargets,
} from '../../model/nftables.ts';
import {
  type Attributes,
  eachAttribute,
  findBe32,
  findBytes,
  findNest,
  findSpan,
  findText,
  putText,
  readAttributes,
} from './attribute.ts';
import { type Message, NLM_F_DUMP, encodeMessage } from './message.ts';
import { putElement } from './nftables-batch.ts';
import { type DetailOf, decodeStatements, findXtComment } from './nftables-decode.ts';
import { decodeKey, decodeTarget, findKeyType, findTargetType } from './nftables-key.ts';
import {
  DATA_VERDICT,
  HOOKS,
  NFGENMSG_BYTES,
  NFNL_SUBSYS_NFTABLES,
  NFPROTO,
  NFT_MSG,
  NFT_SET_MAP,
  decodeComment,
  decodeVerdict,
  findFamily,
} from './nftables-number.ts';

const NFTA_TABLE_NAME = 1;
const NFTA_CHAIN_TABLE = 1;
const NFTA_CHAIN_NAME = 3;
const NFTA_CHAIN_HOOK = 4;
const NFTA_CHAIN_POLICY = 5;
const NFTA_CHAIN_TYPE = 7;
const NFTA_HOOK_HOOKNUM = 1;
const NFTA_HOOK_PRIORITY = 2;
const NFTA_RULE_TABLE = 1;
const NFTA_RULE_CHAIN = 2;
const NFTA_RULE_HANDLE = 3;
const NFTA_RULE_EXPRESSIONS = 4;
const NFTA_RULE_USERDATA = 7;
const NFTA_SET_TABLE = 1;
const NFTA_SET_NAME = 2;
const NFTA_SET_FLAGS = 3;
const NFTA_SET_KEY_TYPE = 4;
const NFTA_SET_DATA_TYPE = 6;
const NFTA_SET_ELEM_LIST_TABLE = 1;
const NFTA_SET_ELEM_LIST_SET = 2;
const NFTA_SET_ELEM_LIST_ELEMENTS = 3;
const NFTA_SET_ELEM_KEY = 1;
const NFTA_SET_ELEM_DATA = 2;
const NFTA_SET_ELEM_FLAGS = 3;
const NFTA_SET_ELEM_USERDATA = 6;
const NFTA_DATA_VALUE = 1;
const NFTA_DATA_VERDICT = 2;
const NFTA_GEN_ID = 1;

const NF_DROP = 0;

function question(
  message: number,
  flags: number,
  family: NftFamily | undefined,
  names: readonly string[],
): Uint8Array {
  return encodeMessage(
    (NFNL_SUBSYS_NFTABLES << 8) | message,
    flags,
    NFGENMSG_BYTES,
    (writer, fixed) => {
      writer.bytes[fixed] = family ? NFPROTO[family] : 0;
      // The names are the attributes 1 and 2 of what is asked for here.
      for (const [index, name] of names.entries()) putText(writer, index + 1, name);
    },
  );
}

/** Asks for the number of the present ruleset, which every change makes another. */
export function encodeGenerationGet(): Uint8Array {
  return question(NFT_MSG.getGen, 0, undefined, []);
}

/** Asks for all tables. */
export function encodeTableDump(): Uint8Array {
  return question(NFT_MSG.getTable, NLM_F_DUMP, undefined, []);
}

/** Asks for one table: ENOENT without it. */
export function encodeTableGet({ family, table }: TableRef): Uint8Array {
  return question(NFT_MSG.getTable, 0, family, [table]);
}

/** Asks for the chains of all tables of a family, or of all families: the kernel cannot narrow this down. */
export function encodeChainDump(family: NftFamily | undefined): Uint8Array {
  return question(NFT_MSG.getChain, NLM_F_DUMP, family, []);
}

/** Asks for the rules of a table. */
export function encodeRuleDump({ family, table }: TableRef): Uint8Array {
  return question(NFT_MSG.getRule, NLM_F_DUMP, family, [table]);
}

/** Asks for the rules of one chain. */
export function encodeChainRuleDump({ family, table }: TableRef, chain: string): Uint8Array {
  return question(NFT_MSG.getRule, NLM_F_DUMP, family, [table, chain]);
}

/** Asks for the sets and maps of a table. */
export function encodeSetDump({ family, table }: TableRef): Uint8Array {
  return question(NFT_MSG.getSet, NLM_F_DUMP, family, [table]);
}

/** Asks for all elements of a set. */
export function encodeElementDump({ family, table }: TableRef, set: string): Uint8Array {
  return question(NFT_MSG.getSetElem, NLM_F_DUMP, family, [table, set]);
}

/** Asks for the element with a key: ENOENT without it. */
export function encodeElementGet(
  { family, table }: TableRef,
  set: string,
  key: SetKey,
): Uint8Array {
  return encodeMessage(
    (NFNL_SUBSYS_NFTABLES << 8) | NFT_MSG.getSetElem,
    0,
    NFGENMSG_BYTES,
    (writer, fixed) => {
      writer.bytes[fixed] = NFPROTO[family];
      putText(writer, NFTA_SET_ELEM_LIST_TABLE, table);
      putElement(writer, set, { key });
    },
  );
}

/** The attributes of an answer of one kind; undefined for other messages. */
function attributesOf(message: Message, kind: number): Attributes | undefined {
  if (message.type !== ((NFNL_SUBSYS_NFTABLES << 8) | kind)) return undefined;
  return readAttributes(message, message.start + NFGENMSG_BYTES, message.end);
}

/** The number of the ruleset in an answer. */
export function decodeGeneration(message: Message): { readonly generation: number } | undefined {
  const attributes = attributesOf(message, NFT_MSG.newGen);
  return attributes && { generation: findBe32(attributes, NFTA_GEN_ID) ?? 0 };
}

/** A table in an answer; undefined for other messages and for families that the model lacks. */
export function decodeTable(message: Message): TableRef | undefined {
  const attributes = attributesOf(message, NFT_MSG.newTable);
  const family = findFamily(message.bytes[message.start]);
  const table = attributes && findText(attributes, NFTA_TABLE_NAME);
  return family && table !== undefined ? { family, table } : undefined;
}

function decodeHook(attributes: Attributes): ChainHook | null {
  const nest = findNest(attributes, NFTA_CHAIN_HOOK);
  const hook = nest && HOOKS[findBe32(nest, NFTA_HOOK_HOOKNUM) ?? -1];
  const type = findText(attributes, NFTA_CHAIN_TYPE);
  if (!nest || !hook || (type !== 'filter' && type !== 'nat' && type !== 'route')) return null;
  const policy = findBe32(attributes, NFTA_CHAIN_POLICY) === NF_DROP ? 'drop' : 'accept';
  return { type, hook, priority: findBe32(nest, NFTA_HOOK_PRIORITY) ?? 0, policy };
}

/** A chain, without its rules, and its table. */
export interface ChainRecord {
  readonly table: string;
  readonly chain: Pick<Chain, 'name' | 'hook'>;
}

/** A chain in an answer; one that hangs on a hook the model lacks (ingress) reads like one without a hook. */
export function decodeChain(message: Message): ChainRecord | undefined {
  const attributes = attributesOf(message, NFT_MSG.newChain);
  if (!attributes) return undefined;
  const name = findText(attributes, NFTA_CHAIN_NAME) ?? '';
  return {
    table: findText(attributes, NFTA_CHAIN_TABLE) ?? '',
    chain: { name, hook: decodeHook(attributes) },
  };
}

/** A base chain in an answer, with its table; undefined for other chains. */
export function decodeBaseChain(
  message: Message,
): (TableRef & { readonly chain: string; readonly hook: ChainHook }) | undefined {
  const record = decodeChain(message);
  const family = findFamily(message.bytes[message.start]);
  if (!family || !record?.chain.hook) return undefined;
  return { family, table: record.table, chain: record.chain.name, hook: record.chain.hook };
}

/** Reads what the model leaves out of the ruleset, for who wants that too. */
export interface ForeignDecoder {
  readonly expression: DetailOf;
  readonly set: (attributes: Attributes) => {
    readonly table: string;
    readonly set: Omit<RawSet, 'elements'>;
  };
  readonly element: (attributes: Attributes) => RawElement;
  readonly whole: (set: Omit<RawSet, 'elements'>, elements: readonly RawElement[]) => RawSet;
}

/** A rule with its chain and table. */
export interface RuleRecord {
  readonly table: string;
  readonly chain: string;
  readonly rule: Rule;
}

/** A rule in an answer. */
export function decodeRule(message: Message, detailOf?: DetailOf): RuleRecord | undefined {
  const attributes = attributesOf(message, NFT_MSG.newRule);
  const family = findFamily(message.bytes[message.start]);
  if (!attributes || !family) return undefined;
  return {
    table: findText(attributes, NFTA_RULE_TABLE) ?? '',
    chain: findText(attributes, NFTA_RULE_CHAIN) ?? '',
    rule: {
      statements: decodeStatements(attributes, NFTA_RULE_EXPRESSIONS, family, detailOf),
      comment:
        decodeComment(findBytes(attributes, NFTA_RULE_USERDATA)) ||
        findXtComment(attributes, NFTA_RULE_EXPRESSIONS),
    },
  };
}

/** A rule in an answer, with the kernel's number of it: 64 bits, in network byte order. */
export function decodeNumberedRule(
  message: Message,
): { readonly rule: Rule; readonly handle: Uint8Array } | undefined {
  const attributes = attributesOf(message, NFT_MSG.newRule);
  const handle = attributes && findBytes(attributes, NFTA_RULE_HANDLE);
  const record = decodeRule(message);
  return record && handle ? { rule: record.rule, handle: handle.slice() } : undefined;
}

/** A set, without its elements, and its table. */
export interface SetRecord {
  readonly table: string;
  readonly set: Omit<NftSet, 'elements'>;
}

/** What a set holds by its flags and the number of its data's type, undefined for what the model lacks. */
function decodeHolds(flags: number, dataType: number): NftSet['holds'] | undefined {
  if (flags === 0) return 'nothing';
  if (flags !== NFT_SET_MAP) return undefined;
  return dataType === DATA_VERDICT ? 'verdict' : findTargetType(dataType);
}

/** A set in an answer; undefined for those the model lacks: anonymous, with intervals or timeouts, of other types. */
export function decodeSet(message: Message): SetRecord | undefined {
  const attributes = attributesOf(message, NFT_MSG.newSet);
  if (!attributes) return undefined;
  const flags = findBe32(attributes, NFTA_SET_FLAGS) ?? 0;
  const keyType = findKeyType(findBe32(attributes, NFTA_SET_KEY_TYPE));
  const holds = decodeHolds(flags, (findBe32(attributes, NFTA_SET_DATA_TYPE) ?? 0) >>> 0);
  if (!keyType || !holds) return undefined;
  return {
    table: findText(attributes, NFTA_SET_TABLE) ?? '',
    set: {
      name: findText(attributes, NFTA_SET_NAME) ?? '',
      keyType,
      holds,
    },
  };
}

/** A set in an answer that the model lacks. */
export function decodeForeignSet(
  message: Message,
  foreign: ForeignDecoder,
): ReturnType<ForeignDecoder['set']> | undefined {
  const attributes = attributesOf(message, NFT_MSG.newSet);
  return attributes && !decodeSet(message) ? foreign.set(attributes) : undefined;
}

/** The elements in an answer, by the bytes of their keys. */
export function decodeForeignElements(
  message: Message,
  foreign: ForeignDecoder,
): readonly RawElement[] | undefined {
  const attributes = attributesOf(message, NFT_MSG.newSetElem);
  const span = attributes && findSpan(attributes, NFTA_SET_ELEM_LIST_ELEMENTS);
  if (!attributes || !span) return undefined;
  const elements: RawElement[] = [];
  eachAttribute(attributes, span.start, span.end, (_type, start, end) => {
    elements.push(foreign.element(readAttributes(attributes, start, end)));
  });
  return elements;
}

function decodeElement(
  element: Attributes,
  { keyType, holds }: Pick<NftSet, 'keyType' | 'holds'>,
): SetElement | undefined {
  const nest = findNest(element, NFTA_SET_ELEM_KEY);
  const bytes = nest && findBytes(nest, NFTA_DATA_VALUE);
  const key = bytes && decodeKey(keyType, bytes);
  if (key === undefined || (findBe32(element, NFTA_SET_ELEM_FLAGS) ?? 0) !== 0) return undefined;
  const data = findNest(element, NFTA_SET_ELEM_DATA);
  const verdict = data && findNest(data, NFTA_DATA_VERDICT);
  const value = data && holdsTargets(holds) ? findBytes(data, NFTA_DATA_VALUE) : undefined;
  const target = value && decodeTarget(holds as TargetType, value);
  return {
    key,
    verdict: (verdict && decodeVerdict(verdict)) ?? null,
    ...(target === undefined ? {} : { target }),
    comment: decodeComment(findBytes(element, NFTA_SET_ELEM_USERDATA)),
  };
}

/** Elements of one set. */
export interface ElementsRecord {
  readonly set: string;
  readonly elements: readonly SetElement[];
}

/** The elements in an answer, of a set of this shape; a dump tells those of one set in several. */
export function decodeElements(
  message: Message,
  shape: Pick<NftSet, 'keyType' | 'holds'>,
): ElementsRecord | undefined {
  const attributes = attributesOf(message, NFT_MSG.newSetElem);
  const span = attributes && findSpan(attributes, NFTA_SET_ELEM_LIST_ELEMENTS);
  if (!attributes || !span) return undefined;
  const elements: SetElement[] = [];
  eachAttribute(attributes, span.start, span.end, (_type, start, end) => {
    const element = decodeElement(readAttributes(attributes, start, end), shape);
    if (element) elements.push(element);
  });
  return { set: findText(attributes, NFTA_SET_ELEM_LIST_SET) ?? '', elements };
}
