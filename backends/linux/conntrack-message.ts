/**
 * Tracked connections over ctnetlink (include/uapi/linux/netfilter/nfnetlink_conntrack.h;
 * net/netfilter/nf_conntrack_netlink.c).
 */
import {
  type Attributes,
  closeNest,
  findBe32,
  findBytes,
  findNest,
  findSpan,
  findU8,
  openNest,
  putBytes,
  putU32,
  readAttributes,
  reserve,
} from './attribute.ts';
import { AF_INET, AF_INET6 } from './family.ts';
import { type Message, NLM_F_ACK, NLM_F_DUMP, encodeMessage } from './message.ts';
import { NFGENMSG_BYTES } from './nftables-number.ts';

/** NFNL_SUBSYS_CTNETLINK in the upper byte of a message's type. */
const CTNETLINK = 1 << 8;
const IPCTNL_MSG_CT_NEW = CTNETLINK | 0;
const IPCTNL_MSG_CT_GET = CTNETLINK | 1;
const IPCTNL_MSG_CT_DELETE = CTNETLINK | 2;
const IPCTNL_MSG_CT_GET_STATS = CTNETLINK | 5;

const CTA_TUPLE_ORIG = 1;
const CTA_TUPLE_REPLY = 2;
const CTA_ID = 12;
const CTA_ZONE = 18;
const CTA_FILTER = 25;
const CTA_TUPLE_IP = 1;
const CTA_TUPLE_PROTO = 2;
const CTA_PROTO_NUM = 1;
const CTA_PROTO_DST_PORT = 3;
/** CTA_IP_V4_SRC or CTA_IP_V6_SRC; the destination's follows. */
const CTA_IP_SRC = { 4: 1, 16: 3 } as const;
const CTA_FILTER_ORIG_FLAGS = 1;
const CTA_FILTER_REPLY_FLAGS = 2;
const CTA_STATS_GLOBAL_ENTRIES = 1;

const NLA_HDRLEN = 4;

/** One of the four addresses of a connection. */
export interface FlowField {
  readonly tuple: 'original' | 'reply';
  readonly end: 'source' | 'destination';
}

const TUPLES = {
  original: { tuple: CTA_TUPLE_ORIG, flags: CTA_FILTER_ORIG_FLAGS },
  reply: { tuple: CTA_TUPLE_REPLY, flags: CTA_FILTER_REPLY_FLAGS },
} as const;

/** How far behind the source's number, and the bit of a filter (net/netfilter/nf_internals.h, CTA_FILTER_F_CTA_IP_*). */
const ENDS = { source: { offset: 0, flag: 1 }, destination: { offset: 1, flag: 2 } } as const;

/** The number of an address attribute of the address's family. */
function ipAttribute(address: Uint8Array, end: FlowField['end']): number {
  return CTA_IP_SRC[address.length === 4 ? 4 : 16] + ENDS[end].offset;
}

function familyNumber(address: Uint8Array): number {
  return address.length === 4 ? AF_INET : AF_INET6;
}

/** Asks how many connections the netns tracks. EINVAL or EOPNOTSUPP from a kernel without ctnetlink (nfnetlink_rcv_msg). */
export function encodeFlowCountGet(): Uint8Array {
  return encodeMessage(IPCTNL_MSG_CT_GET_STATS, 0, NFGENMSG_BYTES, () => undefined);
}

/** How many there are, of all families. */
export function decodeFlowCount(message: Message): { readonly count: number } | undefined {
  if (message.type !== IPCTNL_MSG_CT_GET_STATS) return undefined;
  const attributes = readAttributes(message, message.start + NFGENMSG_BYTES, message.end);
  return { count: findBe32(attributes, CTA_STATS_GLOBAL_ENTRIES) ?? 0 };
}

/** Asks for all connections of the family of an address (4 or 16 bytes). */
export function encodeFlowDump(address: Uint8Array): Uint8Array {
  return encodeMessage(IPCTNL_MSG_CT_GET, NLM_F_DUMP, NFGENMSG_BYTES, (writer, fixed) => {
    writer.bytes[fixed] = familyNumber(address);
  });
}

/**
 * Asks for the connections with this IPv4 address in one place (CTA_FILTER). A kernel before 5.8 answers with all of
 * the family, and up to 6.18 at least an IPv6 address would bring all but what is asked for, since there the filter
 * takes "equal" for "different" (ctnetlink_filter_match_tuple).
 */
export function encodeFlowSearch(address: Uint8Array, { tuple, end }: FlowField): Uint8Array {
  const numbers = TUPLES[tuple];
  return encodeMessage(IPCTNL_MSG_CT_GET, NLM_F_DUMP, NFGENMSG_BYTES, (writer, fixed) => {
    writer.bytes[fixed] = familyNumber(address);
    const nest = openNest(writer, numbers.tuple);
    const addresses = openNest(writer, CTA_TUPLE_IP);
    putBytes(writer, ipAttribute(address, end), address);
    closeNest(writer, addresses);
    closeNest(writer, nest);
    const filter = openNest(writer, CTA_FILTER);
    putU32(writer, numbers.flags, ENDS[end].flag);
    closeNest(writer, filter);
  });
}

/** A connection by what a deletion names it with: its attributes "tuple as it began", zone and id, as they came. */
export interface Flow {
  readonly key: Uint8Array;
}

function hasAt(attributes: Attributes, type: number, address: Uint8Array): boolean {
  const span = findSpan(attributes, type);
  if (!span || span.end - span.start !== address.length) return false;
  for (let i = 0; i < address.length; i += 1)
    if (attributes.bytes[span.start + i] !== address[i]) return false;
  return true;
}

function involves(attributes: Attributes, tuple: number, address: Uint8Array): boolean {
  const nest = findNest(attributes, tuple);
  const ips = nest && findNest(nest, CTA_TUPLE_IP);
  return (
    ips !== undefined &&
    (hasAt(ips, ipAttribute(address, 'source'), address) ||
      hasAt(ips, ipAttribute(address, 'destination'), address))
  );
}

/** A connection in an answer that has the address in any place; undefined for another, and another message. */
export function decodeFlowOf(message: Message, address: Uint8Array): Flow | undefined {
  if (message.type !== IPCTNL_MSG_CT_NEW) return undefined;
  const attributes = readAttributes(message, message.start + NFGENMSG_BYTES, message.end);
  if (
    !involves(attributes, CTA_TUPLE_ORIG, address) &&
    !involves(attributes, CTA_TUPLE_REPLY, address)
  )
    return undefined;
  return flowIn(message, attributes);
}

/** A connection in an answer that was begun to one of these ports, by `portNumber`; undefined for another, and another message. */
export function decodeFlowTo(message: Message, ports: ReadonlySet<number>): Flow | undefined {
  if (message.type !== IPCTNL_MSG_CT_NEW) return undefined;
  const attributes = readAttributes(message, message.start + NFGENMSG_BYTES, message.end);
  const tuple = findNest(attributes, CTA_TUPLE_ORIG);
  const transport = tuple && findNest(tuple, CTA_TUPLE_PROTO);
  const protocol = transport && findU8(transport, CTA_PROTO_NUM);
  const bytes = transport && findBytes(transport, CTA_PROTO_DST_PORT);
  if (protocol === undefined || bytes?.length !== 2) return undefined;
  const port = ((bytes[0] ?? 0) << 8) | (bytes[1] ?? 0);
  return ports.has(portNumber(protocol, port)) ? flowIn(message, attributes) : undefined;
}

/** One number for a port of a transport protocol. */
export function portNumber(protocol: number, port: number): number {
  return protocol * 65_536 + port;
}

function flowIn(message: Message, attributes: Attributes): Flow {
  const parts = [CTA_TUPLE_ORIG, CTA_ZONE, CTA_ID].flatMap((type) => {
    const span = findSpan(attributes, type);
    // Headers and payloads are copied together, with the padding behind them.
    return span
      ? [
          message.bytes.slice(
            span.start - NLA_HDRLEN,
            span.start + ((span.end - span.start + 3) & ~3),
          ),
        ]
      : [];
  });
  const key = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    key.set(part, at);
    at += part.length;
  }
  return { key };
}

/** Forgets a connection of the address's family; ENOENT when it has ended, or another has taken its place. */
export function encodeFlowDel(address: Uint8Array, { key }: Flow): Uint8Array {
  return encodeMessage(IPCTNL_MSG_CT_DELETE, NLM_F_ACK, NFGENMSG_BYTES, (writer, fixed) => {
    writer.bytes[fixed] = familyNumber(address);
    const at = reserve(writer, key.length);
    writer.bytes.set(key, at);
  });
}
