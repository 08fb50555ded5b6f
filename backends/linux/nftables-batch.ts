/** Changes to a ruleset as one batch: all of it or nothing (net/netfilter/nfnetlink.c, nfnetlink_rcv_batch). */
import { layoutBytes } from '../../model/nft-key.ts';
import {
  type NftCommand,
  type NftSet,
  type SetElement,
  type SetKeyType,
  holdsTargets,
  fieldTypesOf,
} from '../../model/nftables.ts';
import {
  type Writer,
  closeNest,
  makeWriter,
  openNest,
  putBe32,
  putBytes,
  putText,
  written,
} from './attribute.ts';
import {
  NLMSG_HDRLEN,
  NLM_F_ACK,
  NLM_F_APPEND,
  NLM_F_CREATE,
  closeMessage,
  openMessage,
} from './message.ts';
import { putData, putStatements } from './nftables-encode.ts';
import { encodeKey, encodeTarget, typeNumber } from './nftables-key.ts';
import {
  DATA_VERDICT,
  HOOKS,
  NFGENMSG_BYTES,
  NFNL_SUBSYS_NFTABLES,
  NFPROTO,
  NFT_MSG,
  NFT_SET_MAP,
  encodeComment,
  putVerdict,
} from './nftables-number.ts';

const NFNL_MSG_BATCH_BEGIN = 0x10;
const NFNL_MSG_BATCH_END = 0x11;
const NFNL_BATCH_GENID = 1;

/** The table's name is attribute 1 of every kind of object; where there is a second name it is attribute 2. */
const TABLE = 1;
const NAME = 2;

const NFTA_TABLE_FLAGS = 2;
const NFTA_CHAIN_NAME = 3;
const NFTA_CHAIN_HOOK = 4;
const NFTA_CHAIN_POLICY = 5;
const NFTA_CHAIN_TYPE = 7;
const NFTA_HOOK_HOOKNUM = 1;
const NFTA_HOOK_PRIORITY = 2;
const NFTA_RULE_HANDLE = 3;
const NFTA_RULE_EXPRESSIONS = 4;
const NFTA_RULE_POSITION = 6;
const NFTA_RULE_USERDATA = 7;
const NFTA_SET_FLAGS = 3;
const NFTA_SET_KEY_TYPE = 4;
const NFTA_SET_KEY_LEN = 5;
const NFTA_SET_DATA_TYPE = 6;
const NFTA_SET_DATA_LEN = 7;
const NFTA_SET_ID = 10;
const NFTA_SET_USERDATA = 13;
const NFTA_SET_ELEM_LIST_ELEMENTS = 3;
const NFTA_LIST_ELEM = 1;
const NFTA_SET_ELEM_KEY = 1;
const NFTA_SET_ELEM_DATA = 2;
const NFTA_SET_ELEM_USERDATA = 6;

const NF_DROP = 0;
const NF_ACCEPT = 1;

/** nft's notes on a set (NFTNL_UDATA_SET_*): type and length in a byte each, the value. */
const UDATA_KEY_BYTE_ORDER = 0;
const UDATA_DATA_BYTE_ORDER = 1;
const UDATA_KEY_TYPEOF = 3;
const UDATA_DATA_TYPEOF = 4;
const UDATA_DATA_INTERVAL = 6;

/** nftables: include/datatype.h, enum byteorder. */
const BYTE_ORDERS = { none: 0, host: 1, network: 2 } as const;

/** A number in the byte order of the machine. */
function noteNumber(type: number, value: number): number[] {
  return [type, 4, value, 0, 0, 0];
}

/** What nft notes of a concatenation: that it is one (EXPR_CONCAT), and nothing of its parts, which the type says. */
function noteConcatenation(type: number): number[] {
  return [type, 8, ...noteNumber(0, 13), 1, 0];
}

/** The byte order of a set's keys and data, and that elements of a map need not be merged. */
function setUserdata(keyType: SetKeyType, holds: NftSet['holds']): Uint8Array {
  const isMap = holds !== 'nothing';
  const isJoined = keyType.includes(' . ');
  const order = isJoined ? 'none' : keyType === 'ifname' ? 'host' : 'network';
  return Uint8Array.from([
    ...noteNumber(UDATA_KEY_BYTE_ORDER, BYTE_ORDERS[order]),
    ...(isMap ? noteNumber(UDATA_DATA_BYTE_ORDER, BYTE_ORDERS.none) : []),
    ...(isJoined ? noteConcatenation(UDATA_KEY_TYPEOF) : []),
    ...(holdsTargets(holds) ? noteConcatenation(UDATA_DATA_TYPEOF) : []),
    ...(isMap ? noteNumber(UDATA_DATA_INTERVAL, 0) : []),
  ]);
}

/** The message type of each command. */
const MESSAGES: Readonly<Record<NftCommand['do'], number>> = {
  'add table': NFT_MSG.newTable,
  'delete table': NFT_MSG.delTable,
  'add chain': NFT_MSG.newChain,
  'delete chain': NFT_MSG.delChain,
  // Deleting rules of a chain without naming one deletes all.
  'flush chain': NFT_MSG.delRule,
  'add rule': NFT_MSG.newRule,
  'insert rule': NFT_MSG.newRule,
  'delete rule': NFT_MSG.delRule,
  'add set': NFT_MSG.newSet,
  'delete set': NFT_MSG.delSet,
  'add element': NFT_MSG.newSetElem,
  'delete element': NFT_MSG.delSetElem,
};

function putChain(writer: Writer, command: NftCommand & { do: 'add chain' }): void {
  putText(writer, NFTA_CHAIN_NAME, command.chain);
  if (command.hook === null) return;
  putText(writer, NFTA_CHAIN_TYPE, command.hook.type);
  putBe32(writer, NFTA_CHAIN_POLICY, command.hook.policy === 'accept' ? NF_ACCEPT : NF_DROP);
  const hook = openNest(writer, NFTA_CHAIN_HOOK);
  putBe32(writer, NFTA_HOOK_HOOKNUM, HOOKS.indexOf(command.hook.hook));
  putBe32(writer, NFTA_HOOK_PRIORITY, command.hook.priority);
  closeNest(writer, hook);
}

type RuleCommand = NftCommand & { readonly do: 'add rule' | 'insert rule' | 'delete rule' };

/** `handle`: the rule that goes, or the one before which another is inserted. */
function putRule(writer: Writer, command: RuleCommand, handle: Uint8Array | undefined): void {
  putText(writer, NAME, command.chain);
  if (command.do !== 'add rule' && !handle)
    throw new Error(`to ${command.do} the number of a rule is needed`);
  if (command.do === 'delete rule' && handle) {
    putBytes(writer, NFTA_RULE_HANDLE, handle);
    return;
  }
  if (handle) putBytes(writer, NFTA_RULE_POSITION, handle);
  const list = openNest(writer, NFTA_RULE_EXPRESSIONS);
  putStatements(writer, command.family, command.rule.statements);
  closeNest(writer, list);
  if (command.rule.comment !== '')
    putBytes(writer, NFTA_RULE_USERDATA, encodeComment(command.rule.comment));
}

/** `id` has to be unlike those of the other new sets of the batch; rules and elements find the set by its name. */
function putSet(writer: Writer, command: NftCommand & { do: 'add set' }, id: number): void {
  const { keyType, holds } = command;
  putText(writer, NAME, command.set);
  putBe32(writer, NFTA_SET_FLAGS, holds === 'nothing' ? 0 : NFT_SET_MAP);
  putBe32(writer, NFTA_SET_KEY_TYPE, typeNumber(keyType));
  putBe32(writer, NFTA_SET_KEY_LEN, layoutBytes(fieldTypesOf(keyType)));
  if (holds !== 'nothing') {
    const targets = holdsTargets(holds);
    putBe32(writer, NFTA_SET_DATA_TYPE, targets ? typeNumber(holds) : DATA_VERDICT);
    putBe32(writer, NFTA_SET_DATA_LEN, targets ? layoutBytes(fieldTypesOf(holds)) : 0);
  }
  putBe32(writer, NFTA_SET_ID, id);
  putBytes(writer, NFTA_SET_USERDATA, setUserdata(keyType, holds));
}

/** Puts a list with one element; a bare key stands for the element that has it. */
export function putElement(
  writer: Writer,
  set: string,
  element: Pick<SetElement, 'key'> & Partial<SetElement>,
): void {
  putText(writer, NAME, set);
  const list = openNest(writer, NFTA_SET_ELEM_LIST_ELEMENTS);
  const nest = openNest(writer, NFTA_LIST_ELEM);
  putData(writer, NFTA_SET_ELEM_KEY, encodeKey(element.key));
  if (element.verdict) putVerdict(writer, NFTA_SET_ELEM_DATA, element.verdict);
  if (element.target) putData(writer, NFTA_SET_ELEM_DATA, encodeTarget(element.target));
  if (element.comment) putBytes(writer, NFTA_SET_ELEM_USERDATA, encodeComment(element.comment));
  closeNest(writer, nest);
  closeNest(writer, list);
}

function putCommand(
  writer: Writer,
  command: NftCommand,
  setId: number,
  handle: Uint8Array | undefined,
): void {
  putText(writer, TABLE, command.table);
  switch (command.do) {
    case 'add table':
      return putBe32(writer, NFTA_TABLE_FLAGS, 0);
    case 'delete table':
      return undefined;
    case 'add chain':
      return putChain(writer, command);
    case 'delete chain':
      return putText(writer, NFTA_CHAIN_NAME, command.chain);
    case 'flush chain':
      return putText(writer, NAME, command.chain);
    case 'add rule':
    case 'insert rule':
    case 'delete rule':
      return putRule(writer, command, handle);
    case 'add set':
      return putSet(writer, command, setId);
    case 'delete set':
      return putText(writer, NAME, command.set);
    case 'add element':
      return putElement(writer, command.set, command.element);
    case 'delete element':
      return putElement(writer, command.set, { key: command.key });
  }
}

function flagsOf(command: NftCommand): number {
  if (command.do === 'add rule') return NLM_F_CREATE | NLM_F_APPEND;
  return command.do.startsWith('add') || command.do === 'insert rule' ? NLM_F_CREATE : 0;
}

/** `generation`: the ruleset that the batch is for; without, any (net/netfilter/nfnetlink.c, nfnetlink_rcv_batch). */
function putMarker(writer: Writer, type: number, generation?: number): void {
  const at = openMessage(writer, type, 0, NFGENMSG_BYTES);
  writer.view.setUint16(at + NLMSG_HDRLEN + 2, NFNL_SUBSYS_NFTABLES, false);
  if (generation !== undefined) putBe32(writer, NFNL_BATCH_GENID, generation);
  closeMessage(writer, at);
}

/** Where the rules are that commands insert others before, or delete. */
export interface Places {
  /** By the index of such a command, the number of the rule. */
  readonly handles: ReadonlyMap<number, Uint8Array>;
  /** The number of the ruleset in which the rules have these numbers: ERESTART when it is another by now. */
  readonly generation: number;
}

/**
 * The commands as one batch, command `i` as message `i + 1`. Only the last one asks for an ACK: refusals are
 * answered anyway, and that is how success shows. Throws for a rule that is only partly understood.
 */
export function encodeBatch(commands: readonly NftCommand[], places?: Places): Uint8Array {
  const writer = makeWriter(1024 + 512 * commands.length);
  putMarker(writer, NFNL_MSG_BATCH_BEGIN, places?.generation);
  let sets = 0;
  for (const [index, command] of commands.entries()) {
    if (command.do === 'add set') sets += 1;
    const ack = index === commands.length - 1 ? NLM_F_ACK : 0;
    const type = (NFNL_SUBSYS_NFTABLES << 8) | MESSAGES[command.do];
    const at = openMessage(writer, type, flagsOf(command) | ack, NFGENMSG_BYTES);
    writer.bytes[at + NLMSG_HDRLEN] = NFPROTO[command.family];
    putCommand(writer, command, sets, places?.handles.get(index));
    closeMessage(writer, at);
  }
  putMarker(writer, NFNL_MSG_BATCH_END);
  return written(writer);
}
