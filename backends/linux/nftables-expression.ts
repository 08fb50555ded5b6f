/** Attributes and values of nf_tables expressions (include/uapi/linux/netfilter/nf_tables.h), and where header fields lie. */
import type { Family } from '../../model/ip.ts';
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

export const NFT_META_NFPROTO = 15;
export const NFT_PAYLOAD_NETWORK_HEADER = 1;
export const NFT_CMP_EQ = 0;
export const NFT_CMP_NEQ = 1;
export const NFT_LOOKUP_F_INV = 1;
export const NFT_REG_VERDICT = 0;
/** The first register of 16 bytes; the kernel may call it by the name of its first four bytes. */
export const NFT_REG_1 = 1;
export const NFT_REG32_00 = 8;

/** Where a field lies in its header. */
export const FIELDS: Readonly<Record<Field, { readonly family: Family; readonly offset: number }>> =
  {
    'ip saddr': { family: 4, offset: 12 },
    'ip daddr': { family: 4, offset: 16 },
    'ip6 saddr': { family: 6, offset: 8 },
    'ip6 daddr': { family: 6, offset: 24 },
  };

/** The field at an offset of the network header, undefined where the model has none. */
export function findField(family: Family, offset: number): Field | undefined {
  const names: readonly Field[] =
    family === 4 ? ['ip saddr', 'ip daddr'] : ['ip6 saddr', 'ip6 daddr'];
  for (const name of names) if (FIELDS[name].offset === offset) return name;
  return undefined;
}
