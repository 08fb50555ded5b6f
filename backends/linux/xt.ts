/** Matches and targets of iptables in rules of nf_tables, as the structures that the kernel gives back (net/netfilter/nft_compat.c). */
import { type Ip, ipFromBytes } from '../../model/ip.ts';
import {
  type Masked,
  type NatRange,
  type XtMatch,
  type XtTarget,
  toHex,
} from '../../model/nft-expression.ts';
import { type Reader, makeReader } from './attribute.ts';

type Decode<T> = (info: Reader, revision: number, isIpv6: boolean) => T | undefined;

function u16({ view }: Reader, at: number): number {
  return view.getUint16(at, true);
}

function u32({ view }: Reader, at: number): number {
  return view.getUint32(at, true);
}

function u8({ bytes }: Reader, at: number): number {
  return bytes[at] ?? 0;
}

/** struct xt_conntrack_mtinfo3; earlier ones have another layout, and no kernel of today gives them. */
const conntrack: Decode<XtMatch> = (info, revision, isIpv6) => {
  if (revision !== 3) return undefined;
  // Four pairs of an address and its mask, each with room for IPv6.
  const masked = (index: number): Masked => {
    const at = index * 32;
    const size = isIpv6 ? 16 : 4;
    return {
      value: toHex(info.bytes.subarray(at, at + size)),
      mask: toHex(info.bytes.subarray(at + 16, at + 16 + size)),
    };
  };
  return {
    match: 'conntrack',
    asks: u16(info, 146),
    inverts: u16(info, 148),
    states: u16(info, 150),
    statuses: u16(info, 152),
    protocol: u16(info, 136),
    original: { source: masked(0), destination: masked(1) },
    reply: { source: masked(2), destination: masked(3) },
    ports: [0, 1, 2, 3].map((i) => [u16(info, 138 + i * 2), u16(info, 154 + i * 2)] as const),
  };
};

const addrtype: Decode<XtMatch> = (info, revision) =>
  revision === 1
    ? { match: 'addrtype', source: u16(info, 0), destination: u16(info, 2), flags: u32(info, 4) }
    : undefined;

const mark: Decode<XtMatch> = (info, revision) =>
  revision === 1
    ? { match: 'mark', mark: u32(info, 0), mask: u32(info, 4), invert: u8(info, 8) !== 0 }
    : undefined;

const MULTIPORT_MAX = 15;
const MULTIPORT_OF = ['source', 'destination', 'either'] as const;

/** struct xt_multiport_v1: a port whose flag is set begins a range that the next one ends. */
const multiport: Decode<XtMatch> = (info, revision) => {
  const of = MULTIPORT_OF[u8(info, 0)];
  const count = u8(info, 1);
  if (revision !== 1 || of === undefined || count > MULTIPORT_MAX) return undefined;
  const ports: (readonly [number, number])[] = [];
  for (let i = 0; i < count; i += 1) {
    const first = u16(info, 2 + i * 2);
    const isRange = u8(info, 32 + i) !== 0;
    if (isRange) i += 1;
    ports.push([first, u16(info, 2 + i * 2)]);
  }
  return { match: 'multiport', of, ports, invert: u8(info, 47) !== 0 };
};

/** struct xt_statistic_info. */
const statistic: Decode<XtMatch> = (info) => {
  const mode = u16(info, 0);
  if (mode > 1) return undefined;
  const isRandom = mode === 0;
  return {
    match: 'statistic',
    mode: isRandom ? 'random' : 'nth',
    probability: isRandom ? u32(info, 4) : 0,
    every: isRandom ? 0 : u32(info, 4),
    packet: isRandom ? 0 : u32(info, 8),
    invert: (u16(info, 2) & 1) !== 0,
  };
};

const icmp: Decode<XtMatch> = (info) => ({
  match: 'icmp',
  type: u8(info, 0),
  codes: [u8(info, 1), u8(info, 2)],
  invert: u8(info, 3) !== 0,
});

/** struct xt_tcp; one that asks for an option of TCP is not understood. */
const tcp: Decode<XtMatch> = (info) =>
  u8(info, 8) === 0
    ? {
        match: 'tcp',
        source: [u16(info, 0), u16(info, 2)],
        destination: [u16(info, 4), u16(info, 6)],
        flagsMask: u8(info, 9),
        flags: u8(info, 10),
        inverts: u8(info, 11),
      }
    : undefined;

const udp: Decode<XtMatch> = (info) => ({
  match: 'udp',
  source: [u16(info, 0), u16(info, 2)],
  destination: [u16(info, 4), u16(info, 6)],
  flagsMask: 0,
  flags: 0,
  inverts: u8(info, 8),
});

const MATCHES: Readonly<Record<string, Decode<XtMatch> | undefined>> = {
  conntrack,
  addrtype,
  mark,
  multiport,
  statistic,
  icmp,
  icmp6: icmp,
  tcp,
  udp,
};

const RANGE_IPS = 1;
const RANGE_PORTS = 2;

/** Up to the ports; nf_nat_range2 has more behind them. */
const NAT_RANGE_BYTES = 40;

/** struct nf_nat_range and nf_nat_range2; undefined for what is shorter. */
function natRange(info: Reader, isIpv6: boolean): NatRange | undefined {
  if (info.bytes.length < NAT_RANGE_BYTES) return undefined;
  const flags = u32(info, 0);
  const ip: Ip = ipFromBytes(info.bytes.slice(4, isIpv6 ? 20 : 8));
  return {
    ip: (flags & RANGE_IPS) === 0 ? null : ip,
    port: (flags & RANGE_PORTS) === 0 ? null : info.view.getUint16(36),
  };
}

/** struct nf_nat_ipv4_multi_range_compat, of one range. */
function oldRange(info: Reader): NatRange {
  const flags = u32(info, 4);
  return {
    ip: (flags & RANGE_IPS) === 0 ? null : ipFromBytes(info.bytes.slice(8, 12)),
    port: (flags & RANGE_PORTS) === 0 ? null : info.view.getUint16(16),
  };
}

function rangeOf(info: Reader, revision: number, isIpv6: boolean): NatRange | undefined {
  return revision === 0 && !isIpv6 ? oldRange(info) : natRange(info, isIpv6);
}

/** enum ipt_reject_with, and ip6t_reject_with. */
const REJECT4: readonly (string | undefined)[] = [
  'icmp net-unreachable',
  'icmp host-unreachable',
  'icmp proto-unreachable',
  'icmp port-unreachable',
  undefined,
  'icmp net-prohibited',
  'icmp host-prohibited',
  'tcp reset',
  'icmp admin-prohibited',
];
const REJECT6: readonly (string | undefined)[] = [
  'icmpv6 no-route',
  'icmpv6 admin-prohibited',
  undefined,
  'icmpv6 addr-unreachable',
  'icmpv6 port-unreachable',
  undefined,
  'tcp reset',
  'icmpv6 policy-fail',
  'icmpv6 reject-route',
];

const TARGETS: Readonly<Record<string, Decode<XtTarget> | undefined>> = {
  DNAT: (info, revision, isIpv6) => {
    const found = rangeOf(info, revision, isIpv6);
    return found && { target: 'DNAT', ...found };
  },
  SNAT: (info, revision, isIpv6) => {
    const found = rangeOf(info, revision, isIpv6);
    return found && { target: 'SNAT', ...found };
  },
  MASQUERADE: () => ({ target: 'MASQUERADE' }),
  REDIRECT: (info, revision, isIpv6) => {
    const found = rangeOf(info, revision, isIpv6);
    return found && { target: 'REDIRECT', port: found.port };
  },
  REJECT: (info, _revision, isIpv6) => {
    const answer = (isIpv6 ? REJECT6 : REJECT4)[u32(info, 0)];
    return answer === undefined ? undefined : { target: 'REJECT', answer };
  },
  MARK: (info, revision) =>
    revision === 2 ? { target: 'MARK', mark: u32(info, 0), mask: u32(info, 4) } : undefined,
  // XT_CT_NOTRACK; what else it can say, of zones and helpers, is not understood.
  CT: (info) => ((u16(info, 0) & 1) === 0 ? undefined : { target: 'NOTRACK' }),
};

/** How many bytes are read of each; what is shorter is none of it. */
const INFO_BYTES: Readonly<Record<string, number>> = {
  conntrack: 162,
  addrtype: 8,
  mark: 9,
  multiport: 48,
  statistic: 12,
  icmp: 4,
  icmp6: 4,
  tcp: 12,
  udp: 9,
  DNAT: 20,
  SNAT: 20,
  REDIRECT: 20,
  REJECT: 4,
  MARK: 8,
  CT: 2,
};

function decode<T>(
  kinds: Readonly<Record<string, Decode<T> | undefined>>,
  name: string,
  info: Uint8Array,
  revision: number,
  isIpv6: boolean,
): T | undefined {
  const kind = Object.hasOwn(kinds, name) ? kinds[name] : undefined;
  return info.length < (INFO_BYTES[name] ?? 0)
    ? undefined
    : kind?.(makeReader(info), revision, isIpv6);
}

/** What a match of iptables asks, by its name, revision and structure; undefined for one that is not known. */
export function decodeXtMatch(
  name: string,
  info: Uint8Array,
  revision: number,
  isIpv6: boolean,
): XtMatch | undefined {
  return decode(MATCHES, name, info, revision, isIpv6);
}

/** What a target of iptables does; undefined for one that is not known. */
export function decodeXtTarget(
  name: string,
  info: Uint8Array,
  revision: number,
  isIpv6: boolean,
): XtTarget | undefined {
  return decode(TARGETS, name, info, revision, isIpv6);
}
