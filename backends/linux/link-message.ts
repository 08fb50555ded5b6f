/** Links over rtnetlink (include/uapi/linux/if_link.h; net/core/rtnetlink.c). */
import type { Ifname } from '../../model/ifname.ts';
import { familyOf, ipBytes, ipFromBytes } from '../../model/ip.ts';
import { TX_QUEUE_LENGTH } from '../../model/link.ts';
import { type Mac, macBytes, macFromBytes } from '../../model/mac.ts';
import { MACVLAN_MODES, type MacvlanMode } from '../../model/macvlan.ts';
import type { NewEnd } from '../../model/ops/link-add.ts';
import type { PortFlag } from '../../model/ops/port-set.ts';
import type { BridgeVlans } from '../../model/vlan.ts';
import type { VxlanTunnel } from '../../model/vxlan.ts';
import {
  type Attributes,
  type Writer,
  closeNest,
  eachAttribute,
  findBytes,
  findNest,
  findSpan,
  findText,
  findU16,
  findU32,
  findU8,
  openNest,
  putBytes,
  putText,
  putU32,
  putU8,
  readAttributes,
  reserve,
  textOf,
} from './attribute.ts';
import {
  type Message,
  NLM_F_ACK,
  NLM_F_CREATE,
  NLM_F_DUMP,
  NLM_F_EXCL,
  encodeMessage,
} from './message.ts';

const RTM_NEWLINK = 16;
const RTM_DELLINK = 17;
const RTM_GETLINK = 18;
const RTM_NEWNSID = 88;
const RTM_NEWLINKPROP = 108;
const RTM_DELLINKPROP = 109;
const RTM_GETNSID = 90;

/** struct ifinfomsg: family, pad, type 16, index 32, flags 32, change 32. */
const IFINFOMSG_BYTES = 16;
const IFI_INDEX = 4;
const IFI_FLAGS = 8;
const IFI_CHANGE = 12;

const IFLA_ADDRESS = 1;
const IFLA_IFNAME = 3;
const IFLA_MTU = 4;
const IFLA_LINK = 5;
const IFLA_MASTER = 10;
const IFLA_TXQLEN = 13;
const IFLA_OPERSTATE = 16;
const IFLA_LINKINFO = 18;
const IFLA_IFALIAS = 20;
const IFLA_GROUP = 27;
const IFLA_NET_NS_FD = 28;
const IFLA_EXT_MASK = 29;
const IFLA_CARRIER = 33;
const IFLA_LINK_NETNSID = 37;
const IFLA_TARGET_NETNSID = 46;
const IFLA_PROP_LIST = 52;
const IFLA_ALT_IFNAME = 53;

const IFLA_INFO_KIND = 1;
const IFLA_INFO_DATA = 2;
const IFLA_INFO_SLAVE_KIND = 4;
const IFLA_INFO_SLAVE_DATA = 5;
const VETH_INFO_PEER = 1;
const IFLA_BRPORT_STATE = 1;
const IFLA_MACVLAN_MODE = 1;
const IFLA_VXLAN_ID = 1;
const IFLA_VXLAN_LINK = 3;
const IFLA_VXLAN_LOCAL = 4;
const IFLA_VXLAN_LEARNING = 7;
const IFLA_VXLAN_PORT = 15;
const IFLA_VXLAN_LOCAL6 = 17;
const IFLA_BR_VLAN_FILTERING = 7;
const IFLA_BR_VLAN_DEFAULT_PVID = 39;

/** Leaves the statistics out of an answer: most of its length. */
const RTEXT_FILTER_SKIP_STATS = 8;

export const IFF_UP = 0x1;
export const IFF_PROMISC = 0x100;
export const IFF_ALLMULTI = 0x200;
export const ARPHRD_LOOPBACK = 772;

/** The attributes of a bridge port by the model's names (IFLA_BRPORT_*). */
const BRPORT: Readonly<Record<PortFlag, number>> = {
  hairpin: 4,
  learning: 8,
  flood: 9,
  isolated: 33,
};

function putFlags(writer: Writer, fixed: number, flags: number, change: number): void {
  writer.view.setUint32(fixed + IFI_FLAGS, flags, true);
  writer.view.setUint32(fixed + IFI_CHANGE, change, true);
}

function putEnd(writer: Writer, fixed: number, end: NewEnd): void {
  if (end.up) putFlags(writer, fixed, IFF_UP, IFF_UP);
  putText(writer, IFLA_IFNAME, end.ifname);
  putBytes(writer, IFLA_ADDRESS, macBytes(end.mac));
  putU32(writer, IFLA_MTU, end.mtuBytes);
  if (end.group !== undefined) putU32(writer, IFLA_GROUP, end.group);
}

function putKind(writer: Writer, kind: string): number {
  const info = openNest(writer, IFLA_LINKINFO);
  putText(writer, IFLA_INFO_KIND, kind);
  return info;
}

function putVlanFiltering(writer: Writer, filtering: boolean): void {
  const data = openNest(writer, IFLA_INFO_DATA);
  putU8(writer, IFLA_BR_VLAN_FILTERING, filtering ? 1 : 0);
  closeNest(writer, data);
}

/** Makes a link of one end; an EEXIST says that the name is taken. */
function encodeLinkAdd(
  end: NewEnd,
  kind: string,
  putData: (writer: Writer) => void,
  lowerIndex?: number,
): Uint8Array {
  const flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
  return encodeMessage(RTM_NEWLINK, flags, IFINFOMSG_BYTES, (writer, fixed) => {
    putEnd(writer, fixed, end);
    if (lowerIndex !== undefined) putU32(writer, IFLA_LINK, lowerIndex);
    const info = putKind(writer, kind);
    putData(writer);
    closeNest(writer, info);
  });
}

/**
 * Makes a bridge; an EOPNOTSUPP says that it is to filter VLANs and the kernel cannot (net/bridge/br_private.h,
 * br_vlan_filter_toggle).
 */
export function encodeBridgeAdd(bridge: NewEnd, vlanFiltering = false): Uint8Array {
  return encodeLinkAdd(bridge, 'bridge', (writer) => {
    if (vlanFiltering) putVlanFiltering(writer, true);
  });
}

/** Makes an ifb. */
export function encodeIfbAdd(ifb: NewEnd): Uint8Array {
  return encodeLinkAdd(ifb, 'ifb', () => undefined);
}

/** Makes a vxlan over the link with an ifindex, or over none: EEXIST also when its underlay has the network and port. */
export function encodeVxlanAdd(
  end: NewEnd,
  { vni, udpPort, local, learning }: VxlanTunnel,
  lowerIndex: number | undefined,
): Uint8Array {
  return encodeLinkAdd(end, 'vxlan', (writer) => {
    const data = openNest(writer, IFLA_INFO_DATA);
    putU32(writer, IFLA_VXLAN_ID, vni);
    // The number is in network byte order.
    putBytes(writer, IFLA_VXLAN_PORT, Uint8Array.of(udpPort >> 8, udpPort & 0xff));
    putU8(writer, IFLA_VXLAN_LEARNING, learning ? 1 : 0);
    if (lowerIndex !== undefined) putU32(writer, IFLA_VXLAN_LINK, lowerIndex);
    if (local !== null)
      putBytes(
        writer,
        familyOf(local) === 4 ? IFLA_VXLAN_LOCAL : IFLA_VXLAN_LOCAL6,
        ipBytes(local),
      );
    closeNest(writer, data);
  });
}

/** MACVLAN_MODE_*. */
const MACVLAN_MODE_VALUE: Readonly<Record<MacvlanMode, number>> = {
  private: 1,
  vepa: 2,
  bridge: 4,
};

/** Makes a macvlan on the link with an ifindex: EADDRINUSE when it is to be up with that one's MAC, or that of another on it. */
export function encodeMacvlanAdd(end: NewEnd, mode: MacvlanMode, lowerIndex: number): Uint8Array {
  return encodeLinkAdd(
    end,
    'macvlan',
    (writer) => {
      const data = openNest(writer, IFLA_INFO_DATA);
      putU32(writer, IFLA_MACVLAN_MODE, MACVLAN_MODE_VALUE[mode]);
      closeNest(writer, data);
    },
    lowerIndex,
  );
}

/** The two ends of a veth and where they belong; kernel numbers are resolved by the caller. */
export interface VethPair {
  readonly end: NewEnd;
  /** Undefined: no port of a bridge. */
  readonly masterIndex: number | undefined;
  readonly peer: NewEnd;
  /** A file descriptor of the peer's netns; undefined: the same netns. */
  readonly peerNetnsFd: number | undefined;
}

/**
 * Makes both ends of a veth in one message, each with all of its attributes (drivers/net/veth.c, veth_newlink).
 * With `peer.up` the kernel answers ENOTCONN.
 */
export function encodeVethAdd({ end, masterIndex, peer, peerNetnsFd }: VethPair): Uint8Array {
  return encodeMessage(
    RTM_NEWLINK,
    NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL,
    IFINFOMSG_BYTES,
    (writer, fixed) => {
      putEnd(writer, fixed, end);
      if (masterIndex !== undefined) putU32(writer, IFLA_MASTER, masterIndex);
      const info = putKind(writer, 'veth');
      const data = openNest(writer, IFLA_INFO_DATA);
      const nest = openNest(writer, VETH_INFO_PEER);
      putEnd(writer, reserve(writer, IFINFOMSG_BYTES), peer);
      if (peerNetnsFd !== undefined) putU32(writer, IFLA_NET_NS_FD, peerNetnsFd);
      closeNest(writer, nest);
      closeNest(writer, data);
      closeNest(writer, info);
    },
  );
}

/** Removes a link by its name: ENODEV without one. */
export function encodeLinkDel(ifname: Ifname): Uint8Array {
  return encodeMessage(RTM_DELLINK, NLM_F_ACK, IFINFOMSG_BYTES, (writer) => {
    putText(writer, IFLA_IFNAME, ifname);
  });
}

/** Removes all links of a group: ENODEV where it has none. */
export function encodeGroupDel(group: number): Uint8Array {
  return encodeMessage(RTM_DELLINK, NLM_F_ACK, IFINFOMSG_BYTES, (writer) => {
    putU32(writer, IFLA_GROUP, group);
  });
}

/** `LinkAttribute` with the master as an ifindex, 0 for none. */
export type LinkChange =
  | { readonly up: boolean }
  | { readonly mtuBytes: number }
  | { readonly mac: Mac }
  | { readonly promiscuous: boolean }
  | { readonly allMulticast: boolean }
  | { readonly txQueueLength: number }
  | { readonly group: number }
  | { readonly alias: string }
  | { readonly masterIndex: number }
  | { readonly vlanFiltering: boolean };

/** Changes one attribute of the link with this name: ENODEV without one, since nothing is created without NLM_F_CREATE. */
export function encodeLinkSet(ifname: Ifname, set: LinkChange): Uint8Array {
  return encodeMessage(RTM_NEWLINK, NLM_F_ACK, IFINFOMSG_BYTES, (writer, fixed) => {
    putText(writer, IFLA_IFNAME, ifname);
    if ('up' in set) putFlags(writer, fixed, set.up ? IFF_UP : 0, IFF_UP);
    else if ('promiscuous' in set)
      putFlags(writer, fixed, set.promiscuous ? IFF_PROMISC : 0, IFF_PROMISC);
    else if ('allMulticast' in set)
      putFlags(writer, fixed, set.allMulticast ? IFF_ALLMULTI : 0, IFF_ALLMULTI);
    else if ('group' in set) putU32(writer, IFLA_GROUP, set.group);
    else if ('txQueueLength' in set) putU32(writer, IFLA_TXQLEN, set.txQueueLength);
    else if ('mtuBytes' in set) putU32(writer, IFLA_MTU, set.mtuBytes);
    else if ('mac' in set) putBytes(writer, IFLA_ADDRESS, macBytes(set.mac));
    else if ('masterIndex' in set) putU32(writer, IFLA_MASTER, set.masterIndex);
    else if ('vlanFiltering' in set) {
      const info = putKind(writer, 'bridge');
      putVlanFiltering(writer, set.vlanFiltering);
      closeNest(writer, info);
    }
    // Without a NUL byte: the kernel stores all bytes, and none at all takes the alias away (dev_set_alias).
    else putBytes(writer, IFLA_IFALIAS, new TextEncoder().encode(set.alias));
  });
}

/** Gives the link with this ifindex another name: an ifindex beside a name asks for that (net/core/rtnetlink.c, do_setlink). */
export function encodeLinkRename(ifindex: number, name: Ifname): Uint8Array {
  return encodeMessage(RTM_NEWLINK, NLM_F_ACK, IFINFOMSG_BYTES, (writer, fixed) => {
    writer.view.setInt32(fixed + IFI_INDEX, ifindex, true);
    putText(writer, IFLA_IFNAME, name);
  });
}

/**
 * Puts the link with this ifindex into the netns that a file descriptor stands for. A name would be the one that it is to
 * have there if its own is taken, be it one of its alternative names (net/core/dev.c, __dev_change_net_namespace).
 */
export function encodeLinkMove(ifindex: number, netnsFd: number): Uint8Array {
  return encodeMessage(RTM_NEWLINK, NLM_F_ACK, IFINFOMSG_BYTES, (writer, fixed) => {
    writer.view.setInt32(fixed + IFI_INDEX, ifindex, true);
    putU32(writer, IFLA_NET_NS_FD, netnsFd);
  });
}

function encodeAltname(type: number, flags: number, ifname: Ifname, altname: string): Uint8Array {
  return encodeMessage(type, flags, IFINFOMSG_BYTES, (writer) => {
    putText(writer, IFLA_IFNAME, ifname);
    const list = openNest(writer, IFLA_PROP_LIST);
    putText(writer, IFLA_ALT_IFNAME, altname);
    closeNest(writer, list);
  });
}

/** Gives the link with this name another one beside it: EEXIST when it is taken. */
export function encodeAltnameAdd(ifname: Ifname, altname: string): Uint8Array {
  const flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
  return encodeAltname(RTM_NEWLINKPROP, flags, ifname, altname);
}

/** Takes another name from the link with this one: ENOENT when nobody has it, EINVAL when it is not its alternative name. */
export function encodeAltnameDel(ifname: Ifname, altname: string): Uint8Array {
  return encodeAltname(RTM_DELLINKPROP, NLM_F_ACK, ifname, altname);
}

/** Switches one attribute of a bridge port: EOPNOTSUPP when the link has no master (net/bridge/br_netlink.c, br_port_slave_changelink). */
export function encodePortSet(ifname: Ifname, flag: PortFlag, value: 0 | 1): Uint8Array {
  return encodeMessage(RTM_NEWLINK, NLM_F_ACK, IFINFOMSG_BYTES, (writer) => {
    putText(writer, IFLA_IFNAME, ifname);
    const info = openNest(writer, IFLA_LINKINFO);
    putText(writer, IFLA_INFO_SLAVE_KIND, 'bridge');
    const data = openNest(writer, IFLA_INFO_SLAVE_DATA);
    putU8(writer, BRPORT[flag], value);
    closeNest(writer, data);
    closeNest(writer, info);
  });
}

/** Asks for one link by its name or its ifindex, in the netns that has an id here or in the own one: ENODEV without one. */
export function encodeLinkGet(which: Ifname | number, netnsId?: number): Uint8Array {
  return encodeMessage(RTM_GETLINK, 0, IFINFOMSG_BYTES, (writer, fixed) => {
    if (typeof which === 'number') writer.view.setInt32(fixed + IFI_INDEX, which, true);
    else putText(writer, IFLA_IFNAME, which);
    if (netnsId !== undefined) putU32(writer, IFLA_TARGET_NETNSID, netnsId);
    putU32(writer, IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
  });
}

/** Asks for all links of the netns. */
export function encodeLinkDump(): Uint8Array {
  return encodeMessage(RTM_GETLINK, NLM_F_DUMP, IFINFOMSG_BYTES, (writer) => {
    putU32(writer, IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
  });
}

/** A vxlan as the kernel tells it: the link below by its number. */
export interface VxlanRecord extends Omit<VxlanTunnel, 'lower'> {
  readonly lowerIndex: number | undefined;
}

/** A link as the kernel tells it: other links and netns are numbers that mean something in its netns only. */
export interface LinkRecord {
  readonly ifindex: number;
  readonly ifname: Ifname;
  /** Undefined where it has none. */
  readonly altnames: readonly string[] | undefined;
  /** ARPHRD_*. */
  readonly hardware: number;
  /** IFF_*; of IFF_PROMISC and IFF_ALLMULTI the part that user space asked for (net/core/dev.c, dev_get_flags). */
  readonly flags: number;
  readonly mac: Mac | null;
  readonly mtuBytes: number;
  readonly txQueueLength: number;
  readonly alias: string;
  /** 0 for none. */
  readonly group: number;
  readonly carrier: boolean;
  /** IF_OPER_*. */
  readonly operstate: number;
  /** IFLA_INFO_KIND, '' for hardware. */
  readonly kind: string;
  readonly masterIndex: number | undefined;
  /** Undefined unless it is a bridge, and where bridges know no VLANs. */
  readonly bridgeVlans: Pick<BridgeVlans, 'filtering' | 'defaultPvid'> | undefined;
  /** Undefined unless the master is a bridge. */
  readonly port: Readonly<Record<PortFlag, boolean>> | undefined;
  /** Undefined unless it is a vxlan; `lowerIndex` in the netns with the id `peerNetnsId`, undefined: in its own. */
  readonly vxlan: VxlanRecord | undefined;
  /** Undefined unless it is a macvlan, of a mode that is modelled. */
  readonly macvlanMode: MacvlanMode | undefined;
  /** The ifindex of a veth's peer, or of the link that a macvlan is on, in the netns with the id `peerNetnsId`, undefined: in its own. */
  readonly linkIndex: number | undefined;
  readonly peerNetnsId: number | undefined;
}

function decodePort(info: Attributes | undefined): LinkRecord['port'] {
  const data =
    info && findText(info, IFLA_INFO_SLAVE_KIND) === 'bridge'
      ? findNest(info, IFLA_INFO_SLAVE_DATA)
      : undefined;
  if (!data) return undefined;
  const on = (flag: PortFlag): boolean => findU8(data, BRPORT[flag]) === 1;
  return {
    hairpin: on('hairpin'),
    isolated: on('isolated'),
    learning: on('learning'),
    flood: on('flood'),
  };
}

function decodeAltnames(attributes: Attributes): readonly string[] | undefined {
  const list = findSpan(attributes, IFLA_PROP_LIST);
  if (!list) return undefined;
  const altnames: string[] = [];
  eachAttribute(attributes, list.start, list.end, (type, start, end) => {
    if (type === IFLA_ALT_IFNAME) altnames.push(textOf(attributes, { start, end }));
  });
  return altnames;
}

function decodeBridgeVlans(info: Attributes | undefined): LinkRecord['bridgeVlans'] {
  const data = info && findNest(info, IFLA_INFO_DATA);
  const defaultPvid = data && findU16(data, IFLA_BR_VLAN_DEFAULT_PVID);
  return defaultPvid === undefined
    ? undefined
    : { filtering: findU8(data as Attributes, IFLA_BR_VLAN_FILTERING) === 1, defaultPvid };
}

function decodeVxlan(info: Attributes | undefined): LinkRecord['vxlan'] {
  const data = info && findNest(info, IFLA_INFO_DATA);
  if (!data) return undefined;
  const port = findBytes(data, IFLA_VXLAN_PORT);
  const local = findBytes(data, IFLA_VXLAN_LOCAL) ?? findBytes(data, IFLA_VXLAN_LOCAL6);
  const lowerIndex = findU32(data, IFLA_VXLAN_LINK) ?? 0;
  return {
    vni: findU32(data, IFLA_VXLAN_ID) ?? 0,
    udpPort: ((port?.[0] ?? 0) << 8) | (port?.[1] ?? 0),
    local: local?.some((byte) => byte !== 0) ? ipFromBytes(local) : null,
    learning: findU8(data, IFLA_VXLAN_LEARNING) === 1,
    lowerIndex: lowerIndex === 0 ? undefined : lowerIndex,
  };
}

function decodeMacvlanMode(info: Attributes | undefined): MacvlanMode | undefined {
  const data = info && findNest(info, IFLA_INFO_DATA);
  const value = data && findU32(data, IFLA_MACVLAN_MODE);
  return MACVLAN_MODES.find((mode) => MACVLAN_MODE_VALUE[mode] === value);
}

/** A link in an answer, undefined for any other message; what else its attributes tell is for `note`, while they are there. */
export function decodeLink(
  message: Message,
  note?: (attributes: Attributes, ifname: Ifname) => void,
): LinkRecord | undefined {
  if (message.type !== RTM_NEWLINK) return undefined;
  const attributes = readAttributes(message, message.start + IFINFOMSG_BYTES, message.end);
  const ifname = (findText(attributes, IFLA_IFNAME) ?? '') as Ifname;
  note?.(attributes, ifname);
  const info = findNest(attributes, IFLA_LINKINFO);
  const address = findBytes(attributes, IFLA_ADDRESS);
  const kind = (info && findText(info, IFLA_INFO_KIND)) ?? '';
  return {
    ifindex: message.view.getInt32(message.start + IFI_INDEX, true),
    ifname,
    altnames: decodeAltnames(attributes),
    hardware: message.view.getUint16(message.start + 2, true),
    flags: message.view.getUint32(message.start + IFI_FLAGS, true),
    mac: address?.length === 6 ? macFromBytes(address) : null,
    mtuBytes: findU32(attributes, IFLA_MTU) ?? 0,
    txQueueLength: findU32(attributes, IFLA_TXQLEN) ?? TX_QUEUE_LENGTH,
    alias: findText(attributes, IFLA_IFALIAS) ?? '',
    group: findU32(attributes, IFLA_GROUP) ?? 0,
    carrier: findU8(attributes, IFLA_CARRIER) === 1,
    operstate: findU8(attributes, IFLA_OPERSTATE) ?? 0,
    kind,
    masterIndex: findU32(attributes, IFLA_MASTER),
    bridgeVlans: kind === 'bridge' ? decodeBridgeVlans(info) : undefined,
    port: decodePort(info),
    vxlan: kind === 'vxlan' ? decodeVxlan(info) : undefined,
    macvlanMode: kind === 'macvlan' ? decodeMacvlanMode(info) : undefined,
    linkIndex: findU32(attributes, IFLA_LINK),
    peerNetnsId: findU32(attributes, IFLA_LINK_NETNSID),
  };
}

/** Only the BR_STATE_* of a link in an answer, undefined when it is no port of a bridge. */
export function decodePortState(
  message: Message,
): { readonly state: number | undefined } | undefined {
  if (message.type !== RTM_NEWLINK) return undefined;
  const attributes = readAttributes(message, message.start + IFINFOMSG_BYTES, message.end);
  const info = findNest(attributes, IFLA_LINKINFO);
  const isPort = info !== undefined && findText(info, IFLA_INFO_SLAVE_KIND) === 'bridge';
  const data = isPort ? findNest(info, IFLA_INFO_SLAVE_DATA) : undefined;
  return { state: data && findU8(data, IFLA_BRPORT_STATE) };
}

/** Only the ifindex of a link in an answer. */
export function decodeIfindex(message: Message): { readonly ifindex: number } | undefined {
  return message.type === RTM_NEWLINK
    ? { ifindex: message.view.getInt32(message.start + IFI_INDEX, true) }
    : undefined;
}

/** struct rtgenmsg, padded. */
const RTGENMSG_BYTES = 4;
const NETNSA_NSID = 1;
const NETNSA_FD = 3;

/** Asks which id the socket's netns has for another one (net/core/net_namespace.c, rtnl_net_getid). */
export function encodeNetnsIdGet(netnsFd: number): Uint8Array {
  return encodeMessage(RTM_GETNSID, 0, RTGENMSG_BYTES, (writer) => {
    putU32(writer, NETNSA_FD, netnsFd);
  });
}

/** The id, below zero when there is none. */
export function decodeNetnsId(message: Message): { readonly id: number } | undefined {
  if (message.type !== RTM_NEWNSID) return undefined;
  const id = findU32(
    readAttributes(message, message.start + RTGENMSG_BYTES, message.end),
    NETNSA_NSID,
  );
  return { id: id === undefined ? -1 : id | 0 };
}
