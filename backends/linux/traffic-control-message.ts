/** Traffic control over rtnetlink (include/uapi/linux/pkt_sched.h, pkt_cls.h; net/sched/sch_api.c, cls_api.c). */
import type { NewQdisc } from '../../model/ops/qdisc-add.ts';
import type { QdiscDel } from '../../model/ops/qdisc-del.ts';
import { type TokenBucket, burstTicks, bytesInTicks } from '../../model/traffic-control.ts';
import {
  type Attributes,
  closeNest,
  findBytes,
  findNest,
  findText,
  openNest,
  putBytes,
  putText,
  readAttributes,
} from './attribute.ts';
import {
  type Message,
  NLM_F_ACK,
  NLM_F_CREATE,
  NLM_F_DUMP,
  NLM_F_ECHO,
  NLM_F_EXCL,
  encodeMessage,
} from './message.ts';

const RTM_NEWQDISC = 36;
const RTM_DELQDISC = 37;
const RTM_GETQDISC = 38;
const RTM_NEWTFILTER = 44;
const RTM_DELTFILTER = 45;
const RTM_GETTFILTER = 46;

/** struct tcmsg: family, pad 8, pad 16, ifindex 32, handle 32, parent 32, info 32. */
const TCMSG_BYTES = 20;
const TCM_IFINDEX = 4;
const TCM_HANDLE = 8;
const TCM_PARENT = 12;
const TCM_INFO = 16;

const TC_H_ROOT = 0xffff_ffff;
const TC_H_CLSACT = 0xffff_fff1;
/** The filters of a clsact, or an ingress qdisc, that look at what comes in. */
const TC_H_MIN_INGRESS = 0xffff_fff2;

/** Where a qdisc is by the model's names, and the handle that ours have there. */
const PARENT: Readonly<Record<QdiscDel['at'], number>> = { root: TC_H_ROOT, ingress: TC_H_CLSACT };
const ROOT_HANDLE = 0x0001_0000;
const CLSACT_HANDLE = 0xffff_0000;

const TCA_KIND = 1;
const TCA_OPTIONS = 2;
const TCA_TBF_PARMS = 1;
const TCA_TBF_RATE64 = 4;
const TCA_U32_SEL = 5;
const TCA_U32_ACT = 7;
const TCA_ACT_KIND = 1;
const TCA_ACT_OPTIONS = 2;
const TCA_MIRRED_PARMS = 2;

const TC_LINKLAYER_ETHERNET = 1;
const TC_ACT_STOLEN = 4;
const TCA_EGRESS_REDIR = 1;
const TC_U32_TERMINAL = 1;

/** The first preference, and all protocols (ETH_P_ALL) in network order. */
const FILTER_INFO = (1 << 16) | 0x0300;
/** Node 1 of the first hash table, `800::1`: named, so that there are not two. */
const FILTER_HANDLE = 0x8000_0001;

interface Header {
  readonly ifindex: number;
  readonly handle: number;
  readonly parent: number;
  readonly info: number;
}

function putHeader(view: DataView, fixed: number, header: Header): void {
  view.setInt32(fixed + TCM_IFINDEX, header.ifindex, true);
  view.setUint32(fixed + TCM_HANDLE, header.handle, true);
  view.setUint32(fixed + TCM_PARENT, header.parent, true);
  view.setUint32(fixed + TCM_INFO, header.info, true);
}

/** struct tc_tbf_qopt: struct tc_ratespec rate and peakrate, of 12 bytes each; limit, buffer and mtu, of 32 bits. */
const TBF_BYTES = 36;
const TBF_LINKLAYER = 1;
const TBF_RATE = 8;
const TBF_LIMIT = 24;
const TBF_BUFFER = 28;
const U32_MAX = 0xffff_ffff;

function bucketBytes(bucket: TokenBucket): Uint8Array {
  const bytes = new Uint8Array(TBF_BYTES);
  const view = new DataView(bytes.buffer);
  bytes[TBF_LINKLAYER] = TC_LINKLAYER_ETHERNET;
  view.setUint32(TBF_RATE, Math.min(bucket.rateBytes, U32_MAX), true);
  view.setUint32(TBF_LIMIT, bucket.limitBytes, true);
  view.setUint32(TBF_BUFFER, burstTicks(bucket), true);
  return bytes;
}

function u64(value: number): Uint8Array {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(value), true);
  return bytes;
}

/** Puts a qdisc on a link: EEXIST where somebody has put one already. */
export function encodeQdiscAdd(ifindex: number, qdisc: NewQdisc): Uint8Array {
  const flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
  const isRoot = qdisc.kind === 'tbf';
  return encodeMessage(RTM_NEWQDISC, flags, TCMSG_BYTES, (writer, fixed) => {
    putHeader(writer.view, fixed, {
      ifindex,
      handle: isRoot ? ROOT_HANDLE : CLSACT_HANDLE,
      parent: PARENT[isRoot ? 'root' : 'ingress'],
      info: 0,
    });
    putText(writer, TCA_KIND, qdisc.kind);
    if (!isRoot) return;
    const options = openNest(writer, TCA_OPTIONS);
    putBytes(writer, TCA_TBF_PARMS, bucketBytes(qdisc));
    if (qdisc.rateBytes > U32_MAX) putBytes(writer, TCA_TBF_RATE64, u64(qdisc.rateBytes));
    closeNest(writer, options);
  });
}

/** Takes away what is there, whatever its handle: ENOENT when it is what the kernel gives every link. */
export function encodeQdiscDel(ifindex: number, at: QdiscDel['at']): Uint8Array {
  return encodeMessage(RTM_DELQDISC, NLM_F_ACK, TCMSG_BYTES, (writer, fixed) => {
    putHeader(writer.view, fixed, { ifindex, handle: 0, parent: PARENT[at], info: 0 });
  });
}

/** struct tc_u32_sel of 16 bytes with one key of 16: a mask of no bits, which every packet meets. */
function everyPacket(): Uint8Array {
  const bytes = new Uint8Array(32);
  bytes[0] = TC_U32_TERMINAL;
  bytes[2] = 1;
  return bytes;
}

/** struct tc_mirred: index, capabilities, action, refcnt, bindcnt, eaction, ifindex, of 32 bits each. */
const MIRRED_BYTES = 28;
const MIRRED_ACTION = 8;
const MIRRED_EACTION = 20;
const MIRRED_IFINDEX = 24;

function redirectBytes(ifindex: number): Uint8Array {
  const bytes = new Uint8Array(MIRRED_BYTES);
  const view = new DataView(bytes.buffer);
  view.setInt32(MIRRED_ACTION, TC_ACT_STOLEN, true);
  view.setInt32(MIRRED_EACTION, TCA_EGRESS_REDIR, true);
  view.setInt32(MIRRED_IFINDEX, ifindex, true);
  return bytes;
}

/** Sends everything that comes in by a link through another: EINVAL without a qdisc there, EEXIST when it is there. */
export function encodeFilterAdd(ifindex: number, redirectIndex: number): Uint8Array {
  const flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
  return encodeMessage(RTM_NEWTFILTER, flags, TCMSG_BYTES, (writer, fixed) => {
    const parent = TC_H_MIN_INGRESS;
    putHeader(writer.view, fixed, { ifindex, handle: FILTER_HANDLE, parent, info: FILTER_INFO });
    putText(writer, TCA_KIND, 'u32');
    const options = openNest(writer, TCA_OPTIONS);
    putBytes(writer, TCA_U32_SEL, everyPacket());
    const actions = openNest(writer, TCA_U32_ACT);
    const first = openNest(writer, 1);
    putText(writer, TCA_ACT_KIND, 'mirred');
    const action = openNest(writer, TCA_ACT_OPTIONS);
    putBytes(writer, TCA_MIRRED_PARMS, redirectBytes(redirectIndex));
    closeNest(writer, action);
    closeNest(writer, first);
    closeNest(writer, actions);
    closeNest(writer, options);
  });
}

/** Takes that filter away and no other: ENOENT without it. */
export function encodeFilterDel(ifindex: number): Uint8Array {
  return encodeMessage(RTM_DELTFILTER, NLM_F_ACK, TCMSG_BYTES, (writer, fixed) => {
    const parent = TC_H_MIN_INGRESS;
    putHeader(writer.view, fixed, { ifindex, handle: FILTER_HANDLE, parent, info: FILTER_INFO });
    putText(writer, TCA_KIND, 'u32');
  });
}

/** Asks for the qdisc of a link at one place, with an ACK, since some are not told of (tc_qdisc_dump_ignore): ENOENT without one. */
export function encodeQdiscGet(ifindex: number, at: QdiscDel['at']): Uint8Array {
  const flags = NLM_F_ECHO | NLM_F_ACK;
  return encodeMessage(RTM_GETQDISC, flags, TCMSG_BYTES, (writer, fixed) => {
    putHeader(writer.view, fixed, { ifindex, handle: 0, parent: PARENT[at], info: 0 });
  });
}

/** Asks for all qdiscs of the netns. */
export function encodeQdiscDump(): Uint8Array {
  return encodeMessage(RTM_GETQDISC, NLM_F_DUMP, TCMSG_BYTES, () => undefined);
}

/** Asks for the filters that look at what comes in by a link. */
export function encodeFilterDump(ifindex: number): Uint8Array {
  return encodeMessage(RTM_GETTFILTER, NLM_F_DUMP, TCMSG_BYTES, (writer, fixed) => {
    putHeader(writer.view, fixed, { ifindex, handle: 0, parent: TC_H_MIN_INGRESS, info: 0 });
  });
}

/** A qdisc as the kernel tells it. */
export interface QdiscRecord {
  readonly ifindex: number;
  readonly kind: string;
  /** 0: the kernel has made it by itself. */
  readonly handle: number;
  /** Undefined: beneath another qdisc. */
  readonly at: QdiscDel['at'] | undefined;
  /** Of a `tbf`. */
  readonly bucket: TokenBucket | undefined;
}

function decodeBucket(options: Attributes | undefined): TokenBucket | undefined {
  const bytes = options && findBytes(options, TCA_TBF_PARMS);
  if (!bytes || bytes.length < TBF_BYTES) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const large = findBytes(options, TCA_TBF_RATE64);
  const rateBytes =
    large?.length === 8
      ? Number(new DataView(large.buffer, large.byteOffset, 8).getBigUint64(0, true))
      : view.getUint32(TBF_RATE, true);
  return {
    rateBytes,
    burstBytes: bytesInTicks(rateBytes, view.getUint32(TBF_BUFFER, true)),
    limitBytes: view.getUint32(TBF_LIMIT, true),
  };
}

function placeOf(parent: number): QdiscDel['at'] | undefined {
  if (parent === TC_H_ROOT) return 'root';
  return parent === TC_H_CLSACT ? 'ingress' : undefined;
}

/** A qdisc in an answer, undefined for any other message. */
export function decodeQdisc(message: Message): QdiscRecord | undefined {
  if (message.type !== RTM_NEWQDISC) return undefined;
  const { start, end, view } = message;
  const attributes = readAttributes(message, start + TCMSG_BYTES, end);
  const kind = findText(attributes, TCA_KIND) ?? '';
  return {
    ifindex: view.getInt32(start + TCM_IFINDEX, true),
    kind,
    handle: view.getUint32(start + TCM_HANDLE, true),
    at: placeOf(view.getUint32(start + TCM_PARENT, true)),
    bucket: kind === 'tbf' ? decodeBucket(findNest(attributes, TCA_OPTIONS)) : undefined,
  };
}

/** The ifindex to which the filter of ours in an answer redirects, 0 when that link is gone; undefined for any other. */
export function decodeRedirect(message: Message): { readonly ifindex: number } | undefined {
  if (message.type !== RTM_NEWTFILTER) return undefined;
  const { start, end, view } = message;
  const isOurs =
    view.getUint32(start + TCM_HANDLE, true) === FILTER_HANDLE &&
    view.getUint32(start + TCM_INFO, true) === FILTER_INFO;
  const attributes = readAttributes(message, start + TCMSG_BYTES, end);
  if (!isOurs || findText(attributes, TCA_KIND) !== 'u32') return undefined;
  const options = findNest(attributes, TCA_OPTIONS);
  const actions = options && findNest(options, TCA_U32_ACT);
  const first = actions && findNest(actions, 1);
  const action = first && findNest(first, TCA_ACT_OPTIONS);
  const bytes = action && findBytes(action, TCA_MIRRED_PARMS);
  if (!bytes || bytes.length < MIRRED_BYTES) return undefined;
  return { ifindex: new DataView(bytes.buffer, bytes.byteOffset).getInt32(MIRRED_IFINDEX, true) };
}
