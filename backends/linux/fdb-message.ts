/** The forwarding databases of bridges over rtnetlink (net/core/rtnetlink.c, rtnl_fdb_add; net/bridge/br_fdb.c). */
import type { FdbEntry } from '../../model/fdb.ts';
import { ipBytes, ipFromBytes } from '../../model/ip.ts';
import { type Mac, macBytes, macFromBytes } from '../../model/mac.ts';
import type { Remote } from '../../model/vxlan.ts';
import { type Writer, findBytes, findU16, findU32, putBytes, readAttributes } from './attribute.ts';
import { AF_BRIDGE } from './family.ts';
import {
  type Message,
  NLM_F_ACK,
  NLM_F_APPEND,
  NLM_F_CREATE,
  NLM_F_DUMP,
  NLM_F_EXCL,
  encodeMessage,
} from './message.ts';
import {
  NDA_DST,
  NDA_LLADDR,
  NDMSG_BYTES,
  NDM_IFINDEX,
  NDM_STATE,
  NUD_PERMANENT,
  RTM_DELNEIGH,
  RTM_GETNEIGH,
  RTM_NEWNEIGH,
} from './neighbour-message.ts';

/** Of struct ndmsg: which of the tables of a link is meant. */
const NDM_FLAGS = 10;

const NDA_VLAN = 5;
const NDA_MASTER = 9;

const NUD_NOARP = 0x40;
const NTF_SELF = 0x02;
const NTF_MASTER = 0x04;
const NTF_EXT_LEARNED = 0x10;

/** An entry of the link with an ifindex, which is a port, or with `self` a bridge. */
export interface FdbMessage {
  readonly ifindex: number;
  readonly self: boolean;
  readonly mac: Mac;
}

function putEntry(writer: Writer, fixed: number, entry: FdbMessage, state: number): void {
  writer.bytes[fixed] = AF_BRIDGE;
  writer.view.setInt32(fixed + NDM_IFINDEX, entry.ifindex, true);
  writer.view.setUint16(fixed + NDM_STATE, state, true);
  writer.bytes[fixed + NDM_FLAGS] = entry.self ? NTF_SELF : NTF_MASTER;
  putBytes(writer, NDA_LLADDR, macBytes(entry.mac));
}

/** Makes an entry: EEXIST when there is one for the address, learned ones included. */
export function encodeFdbAdd(entry: FdbMessage, state: FdbEntry['state']): Uint8Array {
  return encodeMessage(
    RTM_NEWNEIGH,
    NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL,
    NDMSG_BYTES,
    (writer, fixed) =>
      putEntry(writer, fixed, entry, state === 'local' ? NUD_PERMANENT : NUD_NOARP),
  );
}

/** Takes an entry away: ENOENT without one for this link. */
export function encodeFdbDel(entry: FdbMessage): Uint8Array {
  return encodeMessage(RTM_DELNEIGH, NLM_F_ACK, NDMSG_BYTES, (writer, fixed) =>
    putEntry(writer, fixed, entry, 0),
  );
}

/** Asks for the entries of all links. */
export function encodeFdbDump(): Uint8Array {
  return encodeMessage(RTM_GETNEIGH, NLM_F_DUMP, NDMSG_BYTES, (writer, fixed) => {
    writer.bytes[fixed] = AF_BRIDGE;
  });
}

/** An entry of a bridge; `ifindex` is that of the port, or of the bridge itself. */
export interface FdbRecord extends Pick<FdbEntry, 'mac' | 'state'> {
  readonly ifindex: number;
  readonly masterIndex: number;
}

/** An entry that is there for good in the database of a bridge, without its twins in VLANs; undefined for all others. */
export function decodeFdb(message: Message): FdbRecord | undefined {
  const { bytes, start, view } = message;
  if (message.type !== RTM_NEWNEIGH || bytes[start] !== AF_BRIDGE) return undefined;
  const state = view.getUint16(start + NDM_STATE, true);
  const isKept = (state & (NUD_PERMANENT | NUD_NOARP)) !== 0;
  const attributes = readAttributes(message, start + NDMSG_BYTES, message.end);
  const masterIndex = findU32(attributes, NDA_MASTER);
  const mac = findBytes(attributes, NDA_LLADDR);
  if (!isKept || masterIndex === undefined || mac?.length !== 6) return undefined;
  const isLearned = ((bytes[start + NDM_FLAGS] ?? 0) & NTF_EXT_LEARNED) !== 0;
  if (isLearned || findU16(attributes, NDA_VLAN) !== undefined) return undefined;
  return {
    ifindex: view.getInt32(start + NDM_IFINDEX, true),
    masterIndex,
    mac: macFromBytes(mac),
    state: (state & NUD_PERMANENT) === 0 ? 'static' : 'local',
  };
}

function putRemote(writer: Writer, fixed: number, ifindex: number, { mac, ip }: Remote): void {
  putEntry(writer, fixed, { ifindex, self: true, mac }, NUD_PERMANENT);
  putBytes(writer, NDA_DST, ipBytes(ip));
}

/** Says where a vxlan sends the frames for a MAC, or with `append` where else (drivers/net/vxlan/vxlan_core.c, vxlan_fdb_add). */
export function encodeRemoteAdd(ifindex: number, remote: Remote, append: boolean): Uint8Array {
  const flags = NLM_F_ACK | NLM_F_CREATE | (append ? NLM_F_APPEND : NLM_F_EXCL);
  return encodeMessage(RTM_NEWNEIGH, flags, NDMSG_BYTES, (writer, fixed) =>
    putRemote(writer, fixed, ifindex, remote),
  );
}

/** Takes one of the places of a MAC away. */
export function encodeRemoteDel(ifindex: number, remote: Remote): Uint8Array {
  return encodeMessage(RTM_DELNEIGH, NLM_F_ACK, NDMSG_BYTES, (writer, fixed) =>
    putRemote(writer, fixed, ifindex, remote),
  );
}

/** A place that a vxlan was told, and its ifindex. */
export interface RemoteRecord {
  readonly ifindex: number;
  readonly remote: Remote;
}

/** One of the places that a vxlan was told of for good; undefined for what it learned, and for all else. */
export function decodeRemote(message: Message): RemoteRecord | undefined {
  const { bytes, start, view } = message;
  if (message.type !== RTM_NEWNEIGH || bytes[start] !== AF_BRIDGE) return undefined;
  const isKept = (view.getUint16(start + NDM_STATE, true) & NUD_PERMANENT) !== 0;
  const attributes = readAttributes(message, start + NDMSG_BYTES, message.end);
  const ip = findBytes(attributes, NDA_DST);
  const mac = findBytes(attributes, NDA_LLADDR);
  if (!isKept || !ip || mac?.length !== 6) return undefined;
  return {
    ifindex: view.getInt32(start + NDM_IFINDEX, true),
    remote: { mac: macFromBytes(mac), ip: ipFromBytes(ip) },
  };
}
