/** Neighbours over rtnetlink (include/uapi/linux/neighbour.h; net/core/neighbour.c). */
import { type Ip, ipBytes, ipFromBytes } from '../../model/ip.ts';
import type { Neighbour } from '../../model/link.ts';
import { macBytes, macFromBytes } from '../../model/mac.ts';
import { type Writer, findBytes, putBytes, putU32, readAttributes } from './attribute.ts';
import { AF_INET, AF_INET6 } from './family.ts';
import {
  type Message,
  NLM_F_ACK,
  NLM_F_CREATE,
  NLM_F_DUMP,
  NLM_F_EXCL,
  encodeMessage,
} from './message.ts';

export const RTM_NEWNEIGH = 28;
export const RTM_DELNEIGH = 29;
export const RTM_GETNEIGH = 30;

/** struct ndmsg: family, 3 of padding, ifindex 32, state 16, flags, type. */
export const NDMSG_BYTES = 12;
export const NDM_IFINDEX = 4;
export const NDM_STATE = 8;

export const NDA_DST = 1;
export const NDA_LLADDR = 2;
const NDA_IFINDEX = 8;

export const NUD_PERMANENT = 0x80;

function putNeighbour(writer: Writer, fixed: number, ifindex: number, ip: Ip, state: number): void {
  const address = ipBytes(ip);
  writer.bytes[fixed] = address.length === 4 ? AF_INET : AF_INET6;
  writer.view.setInt32(fixed + NDM_IFINDEX, ifindex, true);
  writer.view.setUint16(fixed + NDM_STATE, state, true);
  putBytes(writer, NDA_DST, address);
}

/** Sets a permanent entry; EEXIST when there is any for that address, learned ones included. */
export function encodeNeighbourAdd(ifindex: number, neighbour: Neighbour): Uint8Array {
  return encodeMessage(
    RTM_NEWNEIGH,
    NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL,
    NDMSG_BYTES,
    (writer, fixed) => {
      putNeighbour(writer, fixed, ifindex, neighbour.ip, NUD_PERMANENT);
      putBytes(writer, NDA_LLADDR, macBytes(neighbour.mac));
    },
  );
}

/** Removes an entry; ENOENT without one. */
export function encodeNeighbourDel(ifindex: number, ip: Ip): Uint8Array {
  return encodeMessage(RTM_DELNEIGH, NLM_F_ACK, NDMSG_BYTES, (writer, fixed) => {
    putNeighbour(writer, fixed, ifindex, ip, 0);
  });
}

/** Asks for the entries of one link, or with 0 of all. */
export function encodeNeighbourDump(ifindex: number): Uint8Array {
  return encodeMessage(RTM_GETNEIGH, NLM_F_DUMP, NDMSG_BYTES, (writer) => {
    if (ifindex !== 0) putU32(writer, NDA_IFINDEX, ifindex);
  });
}

/** A permanent neighbour and the ifindex of its link. */
export interface NeighbourRecord {
  readonly ifindex: number;
  readonly neighbour: Neighbour;
}

/** A permanent neighbour in an answer; undefined for those that the kernel learned, and for other families. */
export function decodeNeighbour(message: Message): NeighbourRecord | undefined {
  const { bytes, start, view } = message;
  const family = bytes[start];
  if (message.type !== RTM_NEWNEIGH || (family !== AF_INET && family !== AF_INET6))
    return undefined;
  if ((view.getUint16(start + NDM_STATE, true) & NUD_PERMANENT) === 0) return undefined;
  const attributes = readAttributes(message, start + NDMSG_BYTES, message.end);
  const address = findBytes(attributes, NDA_DST);
  const mac = findBytes(attributes, NDA_LLADDR);
  if (!address || mac?.length !== 6) return undefined;
  return {
    ifindex: view.getInt32(start + NDM_IFINDEX, true),
    neighbour: { ip: ipFromBytes(address), mac: macFromBytes(mac) },
  };
}
