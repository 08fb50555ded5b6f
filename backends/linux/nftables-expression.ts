/** Attributes and values of nf_tables expressions (include/uapi/linux/netfilter/nf_tables.h), and where header fields lie. */
import type { Field } from '../../model/nftables.ts';

export const NFTA_LIST_ELEM = 1;
export const NFTA_EXPR_NAME = 1;
export const NFTA_EXPR_DATA = 2;
export const NFTA_DATA_VALUE = 1;
export const NFTA_DATA_VERDICT = 2;

export const NFTA_META_DREG = 1;
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
export const NFTA_LOOKUP_SET = 1;
export const NFTA_LOOKUP_SREG = 2;
export const NFTA_LOOKUP_DREG = 3;
export const NFTA_LOOKUP_FLAGS = 5;
export const NFTA_IMMEDIATE_DREG = 1;
export const NFTA_IMMEDIATE_DATA = 2;

export const NFT_META_PROTOCOL = 1;
export const NFT_META_IIFNAME = 6;
export const NFT_META_NFPROTO = 15;
export const NFT_PAYLOAD_LL_HEADER = 0;
const NFT_PAYLOAD_NETWORK_HEADER = 1;
export const NFT_CMP_EQ = 0;
export const NFT_CMP_NEQ = 1;
export const NFT_LOOKUP_F_INV = 1;
export const NFT_REG_VERDICT = 0;
/** The first and second register of 16 bytes; they may be called by the number of their first four bytes. */
export const NFT_REG_1 = 1;
export const NFT_REG_2 = 2;
const NFT_REG32_00 = 8;

/** Is it this register of 16 bytes, by either of its numbers? */
export function isRegister(register: number, value: number | undefined): boolean {
  return value === register || value === NFT_REG32_00 + 4 * (register - NFT_REG_1);
}

/** By what number an Ethernet frame says which protocol it carries (include/uapi/linux/if_ether.h, ETH_P_*). */
export const ETHER_TYPES = { ip: 0x0800, ip6: 0x86dd, arp: 0x0806 } as const;

/** What a packet has to be for a field to be where it is read. */
export type Protocol = keyof typeof ETHER_TYPES;

/** Where the type of a frame lies in its header. */
export const ETHER_TYPE_PLACE = { header: NFT_PAYLOAD_LL_HEADER, offset: 12, bytes: 2 } as const;

/** A field that lies in a header. */
export type HeaderField = Exclude<Field, 'iifname'>;

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
