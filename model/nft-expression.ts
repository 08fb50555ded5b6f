/**
 * What rules of others are made of: the kernel's expressions, which load what a packet has into registers and compare it
 * there (include/uapi/linux/netfilter/nf_tables.h), and iptables' own matches and targets among them (net/netfilter/x_tables.c).
 * Registers are counted in those of four bytes, from 0; bytes are hexadecimal, as they lie in the registers.
 */
import type { Family, Ip } from './ip.ts';
import type { Verdict } from './nftables.ts';

/** Bytes, two digits each. */
export type Hex = string;

/** What two digits each stand for. */
export function fromHex(hex: Hex): Uint8Array {
  return Uint8Array.from({ length: hex.length >> 1 }, (_, i) =>
    Number.parseInt(hex.slice(i * 2, i * 2 + 2), 16),
  );
}

/** Bytes as two digits each. */
export function toHex(bytes: Iterable<number>): Hex {
  let text = '';
  for (const byte of bytes) text += byte.toString(16).padStart(2, '0');
  return text;
}

/** What is known of a packet beside its bytes (NFT_META_*). */
export type MetaKey =
  | 'length'
  | 'protocol'
  | 'mark'
  | 'iif'
  | 'oif'
  | 'iifname'
  | 'oifname'
  | 'nfproto'
  | 'l4proto'
  | 'pkttype'
  | 'random';

/** What is known of its connection (NFT_CT_*). */
export type CtKey =
  | 'state'
  | 'direction'
  | 'status'
  | 'l3protocol'
  | 'protocol'
  | 'saddr'
  | 'daddr'
  | 'proto-src'
  | 'proto-dst';

/** The order of two values. */
export type Comparison = 'eq' | 'neq' | 'lt' | 'lte' | 'gt' | 'gte';

/** A match of iptables, with what it compares (include/uapi/linux/netfilter/xt_*.h). */
export type XtMatch =
  | {
      readonly match: 'conntrack';
      /** XT_CONNTRACK_*: what is asked, and what of it has to be otherwise. */
      readonly asks: number;
      readonly inverts: number;
      readonly states: number;
      readonly statuses: number;
      readonly protocol: number;
      readonly original: { readonly source: Masked; readonly destination: Masked };
      readonly reply: { readonly source: Masked; readonly destination: Masked };
      /** First and last, in the order of the flags: original source and destination, reply source and destination. */
      readonly ports: readonly (readonly [number, number])[];
    }
  | {
      readonly match: 'addrtype';
      /** Bits by RTN_*; 0: not asked. */
      readonly source: number;
      readonly destination: number;
      readonly flags: number;
    }
  | {
      readonly match: 'mark';
      readonly mark: number;
      readonly mask: number;
      readonly invert: boolean;
    }
  | {
      readonly match: 'multiport';
      readonly of: 'source' | 'destination' | 'either';
      readonly ports: readonly (readonly [number, number])[];
      readonly invert: boolean;
    }
  | {
      readonly match: 'statistic';
      /** At random, so many of 2^31; or one of so many, counted. */
      readonly mode: 'random' | 'nth';
      readonly probability: number;
      readonly every: number;
      readonly packet: number;
      readonly invert: boolean;
    }
  | {
      readonly match: 'icmp';
      /** 255: any. */
      readonly type: number;
      readonly codes: readonly [number, number];
      readonly invert: boolean;
    }
  | {
      readonly match: 'tcp' | 'udp';
      readonly source: readonly [number, number];
      readonly destination: readonly [number, number];
      /** Flags of TCP that are looked at, and those of them that have to be set. */
      readonly flagsMask: number;
      readonly flags: number;
      /** XT_TCP_INV_*. */
      readonly inverts: number;
    };

/** An address, and which of its bits count. */
export interface Masked {
  readonly value: Hex;
  readonly mask: Hex;
}

/** Where packets are sent, or whom they come from: the first of the addresses and ports that may be taken; null: as it is. */
export interface NatRange {
  readonly ip: Ip | null;
  readonly port: number | null;
}

/** A target of iptables. */
export type XtTarget =
  | ({ readonly target: 'DNAT' | 'SNAT' } & NatRange)
  | { readonly target: 'MASQUERADE' | 'NOTRACK' }
  | { readonly target: 'REDIRECT'; readonly port: number | null }
  /** What the sender is told: `icmp port-unreachable`, `tcp reset`. */
  | { readonly target: 'REJECT'; readonly answer: string }
  /** The mark without the bits of the mask, and these turned over. */
  | { readonly target: 'MARK'; readonly mark: number; readonly mask: number };

/** One that only loads registers. */
export type Load =
  | { readonly name: 'meta'; readonly key: MetaKey; readonly to: number }
  | {
      readonly name: 'ct';
      readonly key: CtKey;
      readonly direction: 'original' | 'reply' | null;
      readonly to: number;
    }
  | {
      readonly name: 'payload';
      readonly header: 'network' | 'transport';
      readonly offset: number;
      readonly bytes: number;
      readonly to: number;
    }
  | {
      readonly name: 'fib';
      readonly of: 'saddr' | 'daddr';
      readonly result: 'type';
      readonly to: number;
    }
  | {
      readonly name: 'numgen';
      readonly mode: 'random' | 'inc';
      readonly modulus: number;
      readonly offset: number;
      readonly to: number;
    }
  | { readonly name: 'immediate'; readonly to: number; readonly value: Hex }
  | {
      readonly name: 'bitwise';
      readonly from: number;
      readonly to: number;
      readonly mask: Hex;
      readonly xor: Hex;
    }
  /** Turns numbers of so many bytes each over. */
  | {
      readonly name: 'byteorder';
      readonly from: number;
      readonly to: number;
      readonly bytes: number;
      readonly size: number;
    };

/** One that asks something, or does something. */
export type Action =
  | { readonly name: 'meta set'; readonly key: 'mark'; readonly from: number }
  | {
      readonly name: 'cmp';
      readonly from: number;
      readonly comparison: Comparison;
      readonly value: Hex;
    }
  | {
      readonly name: 'range';
      readonly from: number;
      readonly low: Hex;
      readonly high: Hex;
      readonly negate: boolean;
    }
  | {
      readonly name: 'lookup';
      readonly set: string;
      readonly from: number;
      /** Where what the map holds goes; null: it is only asked whether it is there. */
      readonly to: number | 'verdict' | null;
      readonly negate: boolean;
    }
  | {
      readonly name: 'nat';
      readonly side: 'source' | 'destination';
      readonly family: Family;
      /** Registers; null: as it is. */
      readonly ip: number | null;
      readonly port: number | null;
    }
  | { readonly name: 'masq' }
  | { readonly name: 'redir'; readonly port: number | null }
  | { readonly name: 'notrack' }
  | { readonly name: 'reject'; readonly answer: string }
  | ({ readonly name: 'match' } & XtMatch)
  | ({ readonly name: 'target' } & XtTarget);

/** One expression of the kernel. */
export type Expression = Load | Action;

const LOADS: ReadonlySet<string> = new Set<Load['name']>([
  'meta',
  'ct',
  'payload',
  'fib',
  'numgen',
  'immediate',
  'bitwise',
  'byteorder',
]);

/** Does it only load registers? */
export function isLoad(expression: Expression): expression is Load {
  return LOADS.has(expression.name);
}

/** An element of a set that only rules of others use. */
export interface RawElement {
  readonly key: Hex;
  /** The last key of a range; absent: the key alone, or in `hasIntervals` all up to the next element. */
  readonly last?: Hex;
  /** What comes from this key on is not in the set. */
  readonly isEnd?: true;
  readonly verdict?: Verdict;
  readonly data?: Hex;
}

/** A set of others whose keys the model knows as bytes only. */
export interface RawSet {
  readonly name: string;
  readonly hasIntervals: boolean;
  /** How many bytes each joined field has; of one that is not joined alone. */
  readonly fieldBytes: readonly number[];
  /** In the order of their keys. */
  readonly elements: readonly RawElement[];
}
