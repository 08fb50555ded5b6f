/** Attributes and values of nf_tables expressions (include/uapi/linux/netfilter/nf_tables.h), and where header fields lie. */
import type { Field } from '../../model/nftables.ts';

export const NFTA_LIST_ELEM = 1;
export const NFTA_EXPR_NAME = 1;
export const NFTA_EXPR_DATA = 2;
export const NFTA_DATA_VALUE = 1;
export const NFTA_DATA_VERDICT = 2;

export const NFTA_META_DREG = 1;
export const NFTA_META_SREG = 3;
export const NFTA_META_KEY = 2;
export const NFTA_CMP_SREG = 1;
export const NFTA_CMP_OP = 2;
export const NFTA_CMP_DATA = 3;
export const NFTA_PAYLOAD_DREG = 1;
export const NFTA_PAYLOAD_BASE = 2;
export const NFTA_PAYLOAD_OFFSET = 3;
export const NFTA_PAYLOAD_LEN = 4;
export const NFTA_BITWISE_SREG = 1;
export const NFTA_BITWISE_DREG = 2;
export const NFTA_BITWISE_LEN = 3;
export const NFTA_BITWISE_MASK = 4;
export const NFTA_BITWISE_XOR = 5;
export const NFTA_BITWISE_OP = 6;
/** What a bitwise expression does that says nothing else. */
export const NFT_BITWISE_MASK_XOR = 0;
export const NFTA_LOOKUP_SET = 1;
export const NFTA_LOOKUP_SREG = 2;
export const NFTA_LOOKUP_DREG = 3;
export const NFTA_LOOKUP_FLAGS = 5;
export const NFTA_FIB_DREG = 1;
export const NFTA_FIB_RESULT = 2;
export const NFTA_FIB_FLAGS = 3;
export const NFTA_NAT_TYPE = 1;
export const NFTA_NAT_FAMILY = 2;
export const NFTA_NAT_REG_ADDR_MIN = 3;
export const NFTA_NAT_REG_PROTO_MIN = 5;
export const NFTA_IMMEDIATE_DREG = 1;
export const NFTA_IMMEDIATE_DATA = 2;

export const NFT_META_PROTOCOL = 1;
export const NFT_META_MARK = 3;
const NFT_META_IIFNAME = 6;
const NFT_META_OIFNAME = 7;
export const NFT_META_NFPROTO = 15;
const NFT_META_L4PROTO = 16;
export const NFT_FIB_RESULT_ADDRTYPE = 3;
export const NFTA_FIB_F_DADDR = 2;
export const NFT_NAT_DNAT = 1;
/** include/uapi/linux/rtnetlink.h. */
export const RTN_LOCAL = 2;
export const NFT_PAYLOAD_LL_HEADER = 0;
const NFT_PAYLOAD_NETWORK_HEADER = 1;
const NFT_PAYLOAD_TRANSPORT_HEADER = 2;
export const NFT_CMP_EQ = 0;
export const NFT_CMP_NEQ = 1;
export const NFT_LOOKUP_F_INV = 1;
export const NFT_REG_VERDICT = 0;
/** The first register of 16 bytes, which also is the first of those of four bytes. */
export const NFT_REG_1 = 1;
const NFT_REG32_00 = 8;

/** NFT_REG32_SIZE: what a register holds. */
export const REGISTER_BYTES = 4;

/** nft's number of a register, counted in those of four bytes from 0: where one of 16 bytes begins, by that one's. */
export function registerNumber(index: number): number {
  return index % 4 === 0 ? NFT_REG_1 + index / 4 : NFT_REG32_00 + index;
}

/** Is it this register, by either of its numbers? */
export function isRegister(index: number, value: number | undefined): boolean {
  return value === registerNumber(index) || value === NFT_REG32_00 + index;
}

/** By what number an Ethernet frame says which protocol it carries (include/uapi/linux/if_ether.h, ETH_P_*). */
export const ETHER_TYPES = { ip: 0x0800, ip6: 0x86dd, arp: 0x0806 } as const;

/** What a packet has to be for a field to be where it is read. */
export type Protocol = keyof typeof ETHER_TYPES;

/** Where the type of a frame lies in its header. */
export const ETHER_TYPE_PLACE = { header: NFT_PAYLOAD_LL_HEADER, offset: 12, bytes: 2 } as const;

/** What is known of a packet without reading it, by the key that asks for it (NFT_META_*). */
export const META_FIELDS = {
  iifname: NFT_META_IIFNAME,
  oifname: NFT_META_OIFNAME,
  'meta l4proto': NFT_META_L4PROTO,
} as const;
export type MetaField = keyof typeof META_FIELDS;

/** Is the field none of a header's? */
export function isMetaField(field: Field): field is MetaField {
  return Object.hasOwn(META_FIELDS, field);
}

/** A field that lies in a header. */
export type HeaderField = Exclude<Field, MetaField>;

/** Where a field lies, and in packets of which protocol; undefined: in all. */
export interface HeaderPlace {
  readonly header: number;
  readonly offset: number;
  readonly protocol: Protocol | undefined;
}

const NETWORK = NFT_PAYLOAD_NETWORK_HEADER;

/** Where each field lies. */
export const PLACES: Readonly<Record<HeaderField, HeaderPlace>> = {
  'ip saddr': { header: NETWORK, offset: 12, protocol: 'ip' },
  'ip daddr': { header: NETWORK, offset: 16, protocol: 'ip' },
  'ip6 saddr': { header: NETWORK, offset: 8, protocol: 'ip6' },
  'ip6 daddr': { header: NETWORK, offset: 24, protocol: 'ip6' },
  'ether saddr': { header: NFT_PAYLOAD_LL_HEADER, offset: 6, protocol: undefined },
  'arp saddr ether': { header: NETWORK, offset: 8, protocol: 'arp' },
  'arp saddr ip': { header: NETWORK, offset: 14, protocol: 'arp' },
  'th dport': { header: NFT_PAYLOAD_TRANSPORT_HEADER, offset: 2, protocol: undefined },
};

const HEADER_FIELDS = Object.keys(PLACES) as HeaderField[];

/** The field at a place, undefined where the model has none. */
export function findField(
  header: number | undefined,
  offset: number | undefined,
  protocol: Protocol | undefined,
): HeaderField | undefined {
  for (const name of HEADER_FIELDS) {
    const place = PLACES[name];
    const isThere = place.header === header && place.offset === offset;
    if (isThere && (place.protocol ?? protocol) === protocol) return name;
  }
  return undefined;
}
