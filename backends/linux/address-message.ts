/** Addresses over rtnetlink (include/uapi/linux/if_addr.h; net/ipv4/devinet.c, net/ipv6/addrconf.c). */
import type { Address } from '../../model/address.ts';
import { type Ipv4, familyOf, ipBytes, ipFromBytes } from '../../model/ip.ts';
import { type Writer, findBytes, findU32, putBytes, putU32, readAttributes } from './attribute.ts';
import { AF_INET, AF_INET6, decodeScope, encodeScope } from './family.ts';
import {
  type Message,
  NLM_F_ACK,
  NLM_F_CREATE,
  NLM_F_DUMP,
  NLM_F_EXCL,
  encodeMessage,
} from './message.ts';

const RTM_NEWADDR = 20;
const RTM_DELADDR = 21;
const RTM_GETADDR = 22;

/** struct ifaddrmsg: family, prefix length, flags, scope, index 32. */
const IFADDRMSG_BYTES = 8;
const IFA_INDEX = 4;

const IFA_ADDRESS = 1;
const IFA_LOCAL = 2;
const IFA_BROADCAST = 4;
const IFA_FLAGS = 8;

const IFA_F_SECONDARY = 0x01;
const IFA_F_NODAD = 0x02;
const IFA_F_DADFAILED = 0x08;
const IFA_F_TENTATIVE = 0x40;
const IFA_F_NOPREFIXROUTE = 0x200;

function putAddress(writer: Writer, fixed: number, ifindex: number, address: Address): void {
  const local = ipBytes(address.ip);
  writer.bytes[fixed] = local.length === 4 ? AF_INET : AF_INET6;
  writer.bytes[fixed + 1] = address.prefixLength;
  writer.bytes[fixed + 3] = encodeScope(address.scope);
  writer.view.setUint32(fixed + IFA_INDEX, ifindex, true);
  putBytes(writer, IFA_LOCAL, local);
  putBytes(writer, IFA_ADDRESS, address.peer === null ? local : ipBytes(address.peer));
}

/** Gives the link with this ifindex an address; EEXIST when it has it. */
export function encodeAddressAdd(ifindex: number, address: Address): Uint8Array {
  return encodeMessage(
    RTM_NEWADDR,
    NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL,
    IFADDRMSG_BYTES,
    (writer, fixed) => {
      putAddress(writer, fixed, ifindex, address);
      if (address.broadcast !== null) putBytes(writer, IFA_BROADCAST, ipBytes(address.broadcast));
      const flags =
        (address.noDad ? IFA_F_NODAD : 0) | (address.noPrefixRoute ? IFA_F_NOPREFIXROUTE : 0);
      if (flags !== 0) putU32(writer, IFA_FLAGS, flags);
    },
  );
}

/** Takes an address from the link; EADDRNOTAVAIL when it has none that is the same in ip, length and peer. */
export function encodeAddressDel(ifindex: number, address: Address): Uint8Array {
  return encodeMessage(RTM_DELADDR, NLM_F_ACK, IFADDRMSG_BYTES, (writer, fixed) => {
    putAddress(writer, fixed, ifindex, address);
  });
}

/** Asks for the addresses of one link, or with 0 of all (the kernel filters since 4.20, before that the caller has to). */
export function encodeAddressDump(ifindex: number): Uint8Array {
  return encodeMessage(RTM_GETADDR, NLM_F_DUMP, IFADDRMSG_BYTES, (writer, fixed) => {
    writer.view.setUint32(fixed + IFA_INDEX, ifindex, true);
  });
}

/** An address and the ifindex of its link. */
export interface AddressRecord {
  readonly ifindex: number;
  readonly address: Address;
}

/** An address in an answer, undefined for another message or family. */
export function decodeAddress(message: Message): AddressRecord | undefined {
  const family = message.bytes[message.start];
  if (message.type !== RTM_NEWADDR || (family !== AF_INET && family !== AF_INET6)) return undefined;
  const attributes = readAttributes(message, message.start + IFADDRMSG_BYTES, message.end);
  const far = findBytes(attributes, IFA_ADDRESS);
  // IPv6 tells the local address apart only when there is a peer.
  const local = findBytes(attributes, IFA_LOCAL) ?? far;
  if (!local) return undefined;
  const ip = ipFromBytes(local);
  const other = far ? ipFromBytes(far) : ip;
  const broadcast = findBytes(attributes, IFA_BROADCAST);
  const flags = findU32(attributes, IFA_FLAGS) ?? message.bytes[message.start + 2] ?? 0;
  return {
    ifindex: message.view.getUint32(message.start + IFA_INDEX, true),
    address: {
      ip,
      prefixLength: message.bytes[message.start + 1] ?? 0,
      peer: other === ip ? null : other,
      broadcast: broadcast ? (ipFromBytes(broadcast) as Ipv4) : null,
      scope: decodeScope(message.bytes[message.start + 3] ?? 0),
      // In IPv6 the same bit says "temporary".
      secondary: familyOf(ip) === 4 && (flags & IFA_F_SECONDARY) !== 0,
      noPrefixRoute: (flags & IFA_F_NOPREFIXROUTE) !== 0,
      noDad: (flags & IFA_F_NODAD) !== 0,
      tentative: (flags & (IFA_F_TENTATIVE | IFA_F_DADFAILED)) !== 0,
    },
  };
}
