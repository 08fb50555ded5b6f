/** How values read that rules compare, in the words of nft (nftables: src/datatype.c), by the bytes that lie in registers. */
import { ipFromBytes } from '../../model/ip.ts';
import { type Hex, fromHex } from '../../model/nft-expression.ts';

/** A type of values. */
export interface ValueType {
  /** A value in words. */
  readonly text: (value: Hex) => string;
  /** All from one value to another where that is written in another way than `a-b`; undefined where it is not. */
  readonly between?: (first: Hex, last: Hex) => string | undefined;
  /** What is shorter is the beginning of a value. */
  readonly hasBeginning?: true;
  /** What has the same first bits is written by them and their number. */
  readonly isAddress?: true;
  /** Each bit has a meaning of its own. */
  readonly flags?: (value: Hex) => readonly string[];
  /** As numbers in the order of the machine they are not in the order of their bytes. */
  readonly isHostOrder?: true;
}

/** A number in network byte order. */
export function network(value: Hex): bigint {
  return value === '' ? 0n : BigInt(`0x${value}`);
}

/** Bytes in the opposite order. */
export function turned(value: Hex): Hex {
  return (value.match(/../g) ?? []).toReversed().join('');
}

/** A number in the byte order of the machine. */
function host(value: Hex): bigint {
  return network(turned(value));
}

function hexadecimal(number: bigint): string {
  return `0x${number.toString(16)}`;
}

/** Numbers by their names, others as numbers. */
function named(
  names: Readonly<Record<number, string>>,
  number: (value: Hex) => bigint,
): (value: Hex) => string {
  return (value) => names[Number(number(value))] ?? number(value).toString();
}

const ADDRESS_BYTES = [4, 16] as const;

function addressText(value: Hex): string {
  const bytes = fromHex(value);
  return ADDRESS_BYTES.some((length) => length === bytes.length)
    ? ipFromBytes(bytes)
    : hexadecimal(network(value));
}

/** The length of the prefix that is all from one value to another; undefined where it is none. */
function prefixBits(first: Hex, last: Hex): number | undefined {
  const differs = network(first) ^ network(last);
  const isPrefix =
    (differs & (differs + 1n)) === 0n && (network(first) & differs) === 0n && differs !== 0n;
  return isPrefix ? first.length * 4 - differs.toString(2).length : undefined;
}

/** Of an address; one that is shorter is the beginning of one, in whole bytes. */
export function addressType(fullBytes: 4 | 16): ValueType {
  return {
    isAddress: true,
    hasBeginning: true,
    text: (value) => {
      const length = value.length / 2;
      const text = addressText(value.padEnd(fullBytes * 2, '0'));
      return length < fullBytes ? `${text}/${length * 8}` : text;
    },
    between: (first, last) => {
      const bits = prefixBits(first, last);
      return bits === undefined ? undefined : `${addressText(first)}/${bits}`;
    },
  };
}

/** Of an address of either family, by its length. */
export const ADDRESS: ValueType = {
  isAddress: true,
  text: addressText,
  between: (first, last) => addressType(first.length === 8 ? 4 : 16).between?.(first, last),
};

function nameUpTo(bytes: Uint8Array): string {
  const nul = bytes.indexOf(0);
  return new TextDecoder().decode(nul < 0 ? bytes : bytes.subarray(0, nul));
}

const IFNAME_BYTES = 16;

/** The name of a link; what is shorter than one, or has all that begin so, ends in a star. */
export const IFNAME: ValueType = {
  hasBeginning: true,
  text: (value) => {
    const bytes = fromHex(value);
    const isBeginning = bytes.indexOf(0) < 0 && bytes.length < IFNAME_BYTES;
    return `"${nameUpTo(bytes)}${isBeginning ? '*' : ''}"`;
  },
  between: (first, last) => {
    const name = nameUpTo(fromHex(first));
    const beginning = first.slice(0, name.length * 2);
    return last === beginning.padEnd(IFNAME_BYTES * 2, 'f') ? `"${name}*"` : undefined;
  },
};

/** Numbers of the network. */
export const NETWORK: ValueType = { text: (value) => network(value).toString() };

/** Numbers of the machine. */
export const HOST: ValueType = { text: (value) => host(value).toString(), isHostOrder: true };

/** Marks: all digits, as bits count. */
export const MARK: ValueType = {
  text: (value) => `0x${turned(value)}`,
  isHostOrder: true,
};

/** Of a link's address. */
export const MAC: ValueType = { text: (value) => (value.match(/../g) ?? []).join(':') };

/** What nobody gave a type. */
export const INTEGER: ValueType = { text: (value) => hexadecimal(network(value)) };

/** Links by their numbers; the loopback has the same everywhere (include/net/net_namespace.h, LOOPBACK_IFINDEX). */
export function ifindexType(ifindexes: Readonly<Record<string, number>> = {}): ValueType {
  const names = Object.entries(ifindexes).map(([name, ifindex]) => [ifindex, `"${name}"`]);
  return {
    text: named({ 1: '"lo"', ...(Object.fromEntries(names) as Record<number, string>) }, host),
    isHostOrder: true,
  };
}

/** The same numbers with their bytes in the opposite order. */
export function turnedType(type: ValueType): ValueType {
  const { flags, between } = type;
  return {
    text: (value) => type.text(turned(value)),
    ...(between ? { between: (first, last) => between(turned(first), turned(last)) } : {}),
    ...(flags ? { flags: (value) => flags(turned(value)) } : {}),
  };
}

/** Names of bits, those that have none as a number. */
function flagsType(
  names: readonly (readonly [bit: bigint, name: string])[],
  number: (value: Hex) => bigint,
): ValueType {
  const flags = (value: Hex): readonly string[] => {
    const all = number(value);
    const set = names.filter(([bit]) => (all & bit) !== 0n);
    const rest = set.reduce((left, [bit]) => left & ~bit, all);
    return [
      ...set.map(([, name]) => name),
      ...(rest !== 0n || all === 0n ? [hexadecimal(rest)] : []),
    ];
  };
  return { text: (value) => flags(value).join(' | '), flags };
}

/** NF_CT_STATE_*. */
export const CT_STATE = flagsType(
  [
    [1n, 'invalid'],
    [2n, 'established'],
    [4n, 'related'],
    [8n, 'new'],
    [64n, 'untracked'],
  ],
  host,
);

/** IPS_*. */
export const CT_STATUS = flagsType(
  [
    [1n, 'expected'],
    [2n, 'seen-reply'],
    [4n, 'assured'],
    [8n, 'confirmed'],
    [16n, 'snat'],
    [32n, 'dnat'],
    [512n, 'dying'],
  ],
  host,
);

/** RFC 9293 §3.1. */
export const TCP_FLAGS = flagsType(
  [
    [1n, 'fin'],
    [2n, 'syn'],
    [4n, 'rst'],
    [8n, 'psh'],
    [16n, 'ack'],
    [32n, 'urg'],
    [64n, 'ecn'],
    [128n, 'cwr'],
  ],
  network,
);

/** Protocols above IP, as /etc/protocols has them (IANA, "Protocol Numbers"). */
export const PROTOCOL: ValueType = {
  text: named(
    {
      1: 'icmp',
      2: 'igmp',
      6: 'tcp',
      17: 'udp',
      33: 'dccp',
      41: 'ipv6',
      47: 'gre',
      50: 'esp',
      51: 'ah',
      58: 'ipv6-icmp',
      132: 'sctp',
      136: 'udplite',
    },
    network,
  ),
};

/** NFPROTO_*. */
export const FAMILY: ValueType = { text: named({ 2: 'ipv4', 10: 'ipv6' }, network) };

/** ETH_P_*. */
export const ETHER_TYPE: ValueType = {
  text: named({ 0x0800: 'ip', 0x86dd: 'ip6', 0x0806: 'arp', 0x8100: 'vlan' }, network),
};

/** PACKET_*. */
export const PACKET_TYPE: ValueType = {
  text: named({ 0: 'host', 1: 'broadcast', 2: 'multicast', 3: 'other' }, network),
};

/** IP_CT_DIR_*. */
export const DIRECTION: ValueType = { text: named({ 0: 'original', 1: 'reply' }, network) };

/** RTN_*. */
export const ADDRESS_TYPES = {
  0: 'unspec',
  1: 'unicast',
  2: 'local',
  3: 'broadcast',
  4: 'anycast',
  5: 'multicast',
  6: 'blackhole',
  7: 'unreachable',
  8: 'prohibit',
} as const;

/** Of addresses, by whom they belong to. */
export const ADDRESS_TYPE: ValueType = { text: named(ADDRESS_TYPES, host), isHostOrder: true };

/** Types of ICMP (RFC 792). */
export const ICMP_TYPE: ValueType = {
  text: named(
    {
      0: 'echo-reply',
      3: 'destination-unreachable',
      4: 'source-quench',
      5: 'redirect',
      8: 'echo-request',
      9: 'router-advertisement',
      10: 'router-solicitation',
      11: 'time-exceeded',
      12: 'parameter-problem',
      13: 'timestamp-request',
      14: 'timestamp-reply',
      15: 'info-request',
      16: 'info-reply',
      17: 'address-mask-request',
      18: 'address-mask-reply',
    },
    network,
  ),
};

/** Codes of its unreachable (RFC 792, RFC 1812 §5.2.7.1). */
export const ICMP_CODE: ValueType = {
  text: named(
    {
      0: 'net-unreachable',
      1: 'host-unreachable',
      2: 'prot-unreachable',
      3: 'port-unreachable',
      4: 'frag-needed',
      9: 'net-prohibited',
      10: 'host-prohibited',
      13: 'admin-prohibited',
    },
    network,
  ),
};

/** Types of ICMPv6 (RFC 4443, RFC 4861). */
export const ICMPV6_TYPE: ValueType = {
  text: named(
    {
      1: 'destination-unreachable',
      2: 'packet-too-big',
      3: 'time-exceeded',
      4: 'parameter-problem',
      128: 'echo-request',
      129: 'echo-reply',
      130: 'mld-listener-query',
      131: 'mld-listener-report',
      132: 'mld-listener-done',
      133: 'nd-router-solicit',
      134: 'nd-router-advert',
      135: 'nd-neighbor-solicit',
      136: 'nd-neighbor-advert',
      137: 'nd-redirect',
      138: 'router-renumbering',
      141: 'ind-neighbor-solicit',
      142: 'ind-neighbor-advert',
      143: 'mld2-listener-report',
    },
    network,
  ),
};

/** Codes of its unreachable (RFC 4443 §3.1). */
export const ICMPV6_CODE: ValueType = {
  text: named(
    {
      0: 'no-route',
      1: 'admin-prohibited',
      3: 'addr-unreachable',
      4: 'port-unreachable',
      5: 'policy-fail',
      6: 'reject-route',
    },
    network,
  ),
};

/** All from one value to another in words. */
export function rangeText(type: ValueType, first: Hex, last: Hex): string {
  if (first === last) return type.text(first);
  return type.between?.(first, last) ?? `${type.text(first)}-${type.text(last)}`;
}
