/** Numbers of nf_tables (include/uapi/linux/netfilter/nf_tables.h) for the words of the model. */
import type { ChainHook, NftFamily, Verdict } from '../../model/nftables.ts';
import {
  type Attributes,
  type Writer,
  closeNest,
  findBe32,
  findText,
  openNest,
  putBe32,
  putText,
} from './attribute.ts';

/** NFNL_SUBSYS_NFTABLES: the upper byte of a message's type, and the res_id of a batch. */
export const NFNL_SUBSYS_NFTABLES = 10;

/** NFT_MSG_*. */
export const NFT_MSG = {
  newTable: 0,
  getTable: 1,
  delTable: 2,
  newChain: 3,
  getChain: 4,
  delChain: 5,
  newRule: 6,
  getRule: 7,
  delRule: 8,
  newSet: 9,
  getSet: 10,
  delSet: 11,
  newSetElem: 12,
  getSetElem: 13,
  delSetElem: 14,
  newGen: 15,
  getGen: 16,
} as const;

/** struct nfgenmsg: family, version, res_id in network byte order. */
export const NFGENMSG_BYTES = 4;

export const NFPROTO: Readonly<Record<NftFamily, number>> = {
  inet: 1,
  ip: 2,
  bridge: 7,
  ip6: 10,
};

const FAMILIES: readonly NftFamily[] = ['inet', 'ip', 'ip6', 'bridge'];

/** The family with this number, undefined for those that the model lacks (netdev, arp). */
export function findFamily(value: number | undefined): NftFamily | undefined {
  for (const family of FAMILIES) if (NFPROTO[family] === value) return family;
  return undefined;
}

/** NF_INET_* in the order of their numbers, which are those of NF_BR_* too (include/uapi/linux/netfilter_bridge.h). */
export const HOOKS: readonly ChainHook['hook'][] = [
  'prerouting',
  'input',
  'forward',
  'output',
  'postrouting',
];

/** NFT_DATA_VERDICT: the data of a map is a verdict. */
export const DATA_VERDICT = 0xffffff00;

export const NFT_SET_MAP = 0x8;

const VERDICTS: Readonly<Record<Verdict['verdict'], number>> = {
  drop: 0,
  accept: 1,
  continue: -1,
  jump: -3,
  goto: -4,
  return: -5,
};

const PLAIN_VERDICTS: readonly Verdict[] = [
  { verdict: 'accept' },
  { verdict: 'drop' },
  { verdict: 'return' },
  { verdict: 'continue' },
];

const NFTA_DATA_VERDICT = 2;
const NFTA_VERDICT_CODE = 1;
const NFTA_VERDICT_CHAIN = 2;

/** Puts a verdict as data under the attribute `type`. */
export function putVerdict(writer: Writer, type: number, verdict: Verdict): void {
  const data = openNest(writer, type);
  const nest = openNest(writer, NFTA_DATA_VERDICT);
  putBe32(writer, NFTA_VERDICT_CODE, VERDICTS[verdict.verdict]);
  if ('chain' in verdict) putText(writer, NFTA_VERDICT_CHAIN, verdict.chain);
  closeNest(writer, nest);
  closeNest(writer, data);
}

/** The verdict in NFTA_DATA_VERDICT, undefined for one that the model lacks (queue). */
export function decodeVerdict(attributes: Attributes): Verdict | undefined {
  const code = findBe32(attributes, NFTA_VERDICT_CODE);
  const chain = findText(attributes, NFTA_VERDICT_CHAIN) ?? '';
  if (code === VERDICTS.jump) return { verdict: 'jump', chain };
  if (code === VERDICTS.goto) return { verdict: 'goto', chain };
  for (const each of PLAIN_VERDICTS) if (VERDICTS[each.verdict] === code) return each;
  return undefined;
}

/** nft's own attributes in the user data of rules and elements: type and length in a byte each, the value. */
const UDATA_COMMENT = 0;

/** A comment as nft keeps it in user data (NFTNL_UDATA_RULE_COMMENT and _SET_ELEM_COMMENT): with a NUL byte. */
export function encodeComment(comment: string): Uint8Array {
  const text = new TextEncoder().encode(comment);
  const data = new Uint8Array(text.length + 3);
  data[0] = UDATA_COMMENT;
  data[1] = text.length + 1;
  data.set(text, 2);
  return data;
}

/** The comment in user data, '' without one. */
export function decodeComment(data: Uint8Array | undefined): string {
  if (!data) return '';
  for (let at = 0; at + 2 <= data.length; at += 2 + (data[at + 1] ?? 0)) {
    if (data[at] !== UDATA_COMMENT) continue;
    const value = data.subarray(at + 2, at + 2 + (data[at + 1] ?? 0));
    const nul = value.indexOf(0);
    return new TextDecoder().decode(nul < 0 ? value : value.subarray(0, nul));
  }
  return '';
}
