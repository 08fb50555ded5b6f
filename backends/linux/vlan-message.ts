/** VLANs of bridges and their ports over rtnetlink (include/uapi/linux/if_bridge.h; net/bridge/br_netlink.c, br_vlan.c). */
import type { VlanRange } from '../../model/vlan.ts';
import {
  type Writer,
  closeNest,
  eachAttribute,
  findBytes,
  findU16,
  openNest,
  putBytes,
  putU16,
  readAttributes,
} from './attribute.ts';
import { type Message, NLM_F_ACK, NLM_F_DUMP, encodeMessage } from './message.ts';

const AF_BRIDGE = 7;

const RTM_DELLINK = 17;
const RTM_SETLINK = 19;
const RTM_NEWVLAN = 112;
const RTM_GETVLAN = 114;

/** struct ifinfomsg: family, pad, type 16, index 32, flags 32, change 32. */
const IFINFOMSG_BYTES = 16;
const IFI_INDEX = 4;
const IFLA_AF_SPEC = 26;
const IFLA_BRIDGE_FLAGS = 0;
const IFLA_BRIDGE_VLAN_INFO = 2;
const BRIDGE_FLAGS_SELF = 2;

const VLAN_INFO_PVID = 1 << 1;
const VLAN_INFO_UNTAGGED = 1 << 2;
const VLAN_INFO_RANGE_BEGIN = 1 << 3;
const VLAN_INFO_RANGE_END = 1 << 4;

/** struct br_vlan_msg: family, reserved, reserved 16, ifindex 32. */
const BR_VLAN_MSG_BYTES = 8;
const BVM_IFINDEX = 4;
const BRIDGE_VLANDB_ENTRY = 1;
const ENTRY_INFO = 1;
const ENTRY_RANGE = 2;

/** struct bridge_vlan_info: flags 16, id 16. */
function putVlan(writer: Writer, flags: number, id: number): void {
  const bytes = new Uint8Array(4);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, flags, true);
  view.setUint16(2, id, true);
  putBytes(writer, IFLA_BRIDGE_VLAN_INFO, bytes);
}

function encodeVlans(
  type: number,
  ifindex: number,
  self: boolean,
  { first, last, pvid, untagged }: VlanRange,
): Uint8Array {
  const flags = (pvid ? VLAN_INFO_PVID : 0) | (untagged ? VLAN_INFO_UNTAGGED : 0);
  return encodeMessage(type, NLM_F_ACK, IFINFOMSG_BYTES, (writer, fixed) => {
    writer.bytes[fixed] = AF_BRIDGE;
    writer.view.setInt32(fixed + IFI_INDEX, ifindex, true);
    const spec = openNest(writer, IFLA_AF_SPEC);
    if (self) putU16(writer, IFLA_BRIDGE_FLAGS, BRIDGE_FLAGS_SELF);
    if (first === last) putVlan(writer, flags, first);
    else {
      putVlan(writer, flags | VLAN_INFO_RANGE_BEGIN, first);
      putVlan(writer, flags | VLAN_INFO_RANGE_END, last);
    }
    closeNest(writer, spec);
  });
}

/** Makes a port a member of VLANs, or with `self` a bridge itself: EOPNOTSUPP of other links, and where bridges know no VLANs. */
export function encodeVlanAdd(ifindex: number, self: boolean, vlan: VlanRange): Uint8Array {
  return encodeVlans(RTM_SETLINK, ifindex, self, vlan);
}

/** Takes a port out of VLANs, or with `self` a bridge itself. */
export function encodeVlanDel(
  ifindex: number,
  self: boolean,
  first: number,
  last: number,
): Uint8Array {
  return encodeVlans(RTM_DELLINK, ifindex, self, { first, last, pvid: false, untagged: false });
}

/** Asks for the VLANs of a port or a bridge, 0: of all (Linux 5.6); EOPNOTSUPP where bridges know none. */
export function encodeVlanDump(ifindex: number): Uint8Array {
  return encodeMessage(RTM_GETVLAN, NLM_F_DUMP, BR_VLAN_MSG_BYTES, (writer, fixed) => {
    writer.bytes[fixed] = AF_BRIDGE;
    writer.view.setUint32(fixed + BVM_IFINDEX, ifindex, true);
  });
}

/** The VLANs in an answer, of one link: undefined for any other message. */
export function decodeVlans(message: Message): readonly VlanRange[] | undefined {
  if (message.type !== RTM_NEWVLAN) return undefined;
  const ranges: VlanRange[] = [];
  eachAttribute(message, message.start + BR_VLAN_MSG_BYTES, message.end, (type, start, end) => {
    if (type !== BRIDGE_VLANDB_ENTRY) return;
    const entry = readAttributes(message, start, end);
    const info = findBytes(entry, ENTRY_INFO);
    if (info?.length !== 4) return;
    const view = new DataView(info.buffer, info.byteOffset);
    const flags = view.getUint16(0, true);
    const first = view.getUint16(2, true);
    ranges.push({
      first,
      last: findU16(entry, ENTRY_RANGE) ?? first,
      pvid: (flags & VLAN_INFO_PVID) !== 0,
      untagged: (flags & VLAN_INFO_UNTAGGED) !== 0,
    });
  });
  return ranges;
}
