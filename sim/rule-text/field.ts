/** What expressions load, in the words of nft (nftables: src/payload.c, meta.c, ct.c, proto.c). */
import type { Netns } from '../../model/host.ts';
import type { CtKey, Load, MetaKey } from '../../model/nft-expression.ts';
import { FIELD_BYTES, FIELD_TYPES, type Field, type NftFamily } from '../../model/nftables.ts';
import {
  CT_STATE,
  CT_STATUS,
  DIRECTION,
  ETHER_TYPE,
  FAMILY,
  HOST,
  ICMPV6_CODE,
  ICMPV6_TYPE,
  ICMP_CODE,
  ICMP_TYPE,
  IFNAME,
  INTEGER,
  MAC,
  MARK,
  NETWORK,
  PACKET_TYPE,
  PROTOCOL,
  TCP_FLAGS,
  type ValueType,
  addressType,
  ifindexType,
} from './value.ts';

/** What a rule has asked for so far: by it the same bytes have other names. */
export interface Protocols {
  readonly network: string | undefined;
  readonly transport: string | undefined;
}

/** A header of a packet of IP. */
export type Header = 'network' | 'transport';

/** What is loaded. */
export interface LoadedField {
  readonly words: string;
  readonly type: ValueType;
  readonly bytes: number;
  /** The header that it lies in. */
  readonly header?: Header;
  /** What it says which protocol has the header of that kind. */
  readonly tells?: Header;
}

/** What a packet of a table of this family is at least. */
export function protocolsOf(family: NftFamily): Protocols {
  const network = family === 'ip' || family === 'ip6' ? family : undefined;
  return { network, transport: undefined };
}

/** Which protocol a value of a field tells of, by its name in front of other fields. */
const TOLD: Readonly<Record<string, string>> = {
  ipv4: 'ip',
  ipv6: 'ip6',
  'ipv6-icmp': 'icmpv6',
};

/** The name that a protocol has in front of its fields, by its name as a value. */
export function protocolTold(value: string): string {
  return TOLD[value] ?? value;
}

type Place = readonly [name: string, offset: number, bytes: number, type: ValueType];

const PORTS: readonly Place[] = [
  ['sport', 0, 2, NETWORK],
  ['dport', 2, 2, NETWORK],
];

/** Fields of whole bytes, by the name of the header. */
const PLACES: Readonly<Record<string, readonly Place[]>> = {
  ip: [
    ['length', 2, 2, NETWORK],
    ['id', 4, 2, NETWORK],
    ['ttl', 8, 1, NETWORK],
    ['protocol', 9, 1, PROTOCOL],
    ['checksum', 10, 2, NETWORK],
    ['saddr', 12, 4, addressType(4)],
    ['daddr', 16, 4, addressType(4)],
  ],
  ip6: [
    ['length', 4, 2, NETWORK],
    ['nexthdr', 6, 1, PROTOCOL],
    ['hoplimit', 7, 1, NETWORK],
    ['saddr', 8, 16, addressType(16)],
    ['daddr', 24, 16, addressType(16)],
  ],
  tcp: [
    ...PORTS,
    ['sequence', 4, 4, NETWORK],
    ['ackseq', 8, 4, NETWORK],
    ['flags', 13, 1, TCP_FLAGS],
    ['window', 14, 2, NETWORK],
    ['checksum', 16, 2, NETWORK],
    ['urgptr', 18, 2, NETWORK],
  ],
  udp: [...PORTS, ['length', 4, 2, NETWORK], ['checksum', 6, 2, NETWORK]],
  udplite: [...PORTS, ['checksum', 6, 2, NETWORK]],
  sctp: PORTS,
  dccp: PORTS,
  icmp: [
    ['type', 0, 1, ICMP_TYPE],
    ['code', 1, 1, ICMP_CODE],
    ['checksum', 2, 2, NETWORK],
  ],
  icmpv6: [
    ['type', 0, 1, ICMPV6_TYPE],
    ['code', 1, 1, ICMPV6_CODE],
    ['checksum', 2, 2, NETWORK],
  ],
  th: PORTS,
};

const ADDRESS_NAMES: ReadonlySet<string> = new Set(['saddr', 'daddr']);

/** The protocol of the header, as it stands in front of its fields. */
function headerName(header: Header, { network, transport }: Protocols): string {
  return header === 'network' ? (network ?? '') : (transport ?? 'th');
}

/** A field of a header, by the protocols that were asked for; where that is not known by its place. */
export function payloadField(
  { header, offset, bytes }: Load & { readonly name: 'payload' },
  protocols: Protocols,
): LoadedField {
  const protocol = headerName(header, protocols);
  // Of addresses also the beginning is compared.
  const place = (PLACES[protocol] ?? []).find(
    ([name, at, size]) =>
      at === offset && (size === bytes || (ADDRESS_NAMES.has(name) && bytes < size)),
  );
  if (!place) {
    const base = header === 'network' ? 'nh' : 'th';
    return { words: `@${base},${offset * 8},${bytes * 8}`, type: INTEGER, bytes, header };
  }
  const [name, , , type] = place;
  const tells = name === 'protocol' || name === 'nexthdr' ? ({ tells: 'transport' } as const) : {};
  return { words: `${protocol} ${name}`, type, bytes, header, ...tells };
}

/** The fields that lie next to each other in what is loaded, as nft joins comparisons with them; undefined where it is none or one. */
export function coveredFields(
  load: Load & { readonly name: 'payload' },
  protocols: Protocols,
): readonly LoadedField[] | undefined {
  const { header, offset, bytes } = load;
  const places = PLACES[headerName(header, protocols)] ?? [];
  const end = offset + bytes;
  const fields: LoadedField[] = [];
  for (let at = offset; at < end;) {
    const [, , size = 0] = places.find(([, start]) => start === at) ?? [];
    if (size === 0) return undefined;
    const here = { ...load, offset: at, bytes: Math.min(size, end - at) };
    const field = payloadField(here, protocols);
    if (field.words.startsWith('@')) return undefined;
    fields.push(field);
    at += size;
  }
  return fields.length > 1 ? fields : undefined;
}

const META: Readonly<
  Record<Exclude<MetaKey, 'iif' | 'oif'>, readonly [bytes: number, type: ValueType]>
> = {
  length: [4, HOST],
  protocol: [2, ETHER_TYPE],
  mark: [4, MARK],
  iifname: [16, IFNAME],
  oifname: [16, IFNAME],
  nfproto: [1, FAMILY],
  l4proto: [1, PROTOCOL],
  pkttype: [1, PACKET_TYPE],
  random: [4, NETWORK],
};

/** Those that stand alone. */
const BARE: ReadonlySet<MetaKey> = new Set(['iifname', 'oifname']);

const META_TELLS: Readonly<Partial<Record<MetaKey, Header>>> = {
  nfproto: 'network',
  protocol: 'network',
  l4proto: 'transport',
};

/** What is known of the packet beside its bytes; links by the names that are known of them. */
export function metaField(
  key: MetaKey,
  { family, ifindexes }: { readonly family: NftFamily } & Pick<Netns, 'ifindexes'>,
): LoadedField {
  if (key === 'iif' || key === 'oif') return { words: key, type: ifindexType(ifindexes), bytes: 4 };
  const [bytes, type] = META[key];
  // Where packets are of IP anyway it is said, whatever follows: nft leaves it unsaid in front of some fields.
  const tells = key === 'protocol' && family !== 'bridge' ? undefined : META_TELLS[key];
  return { words: BARE.has(key) ? key : `meta ${key}`, type, bytes, ...(tells ? { tells } : {}) };
}

const CT: Readonly<Record<CtKey, readonly [name: string, bytes: number, type: ValueType]>> = {
  state: ['state', 4, CT_STATE],
  status: ['status', 4, CT_STATUS],
  direction: ['direction', 1, DIRECTION],
  l3protocol: ['l3proto', 1, FAMILY],
  protocol: ['protocol', 1, PROTOCOL],
  saddr: ['saddr', 0, INTEGER],
  daddr: ['daddr', 0, INTEGER],
  'proto-src': ['proto-src', 2, NETWORK],
  'proto-dst': ['proto-dst', 2, NETWORK],
};

/** What is known of the connection; of an address that may be one of either family the length is not known, and 0. */
export function ctField(
  { key, direction }: Load & { readonly name: 'ct' },
  addressBytes: 4 | 16 | undefined,
): LoadedField {
  const [name, bytes, type] = CT[key];
  const of = direction === null ? '' : `${direction} `;
  if (!ADDRESS_NAMES.has(name)) return { words: `ct ${of}${name}`, type, bytes };
  if (addressBytes === undefined) return { words: `ct ${of}${name}`, type: INTEGER, bytes: 0 };
  const family = addressBytes === 4 ? 'ip' : 'ip6';
  return {
    words: `ct ${of}${family} ${name}`,
    type: addressType(addressBytes),
    bytes: addressBytes,
  };
}

const MODEL_TYPES = {
  ipv4_addr: addressType(4),
  ipv6_addr: addressType(16),
  ether_addr: MAC,
  ifname: IFNAME,
  inet_proto: PROTOCOL,
  inet_service: NETWORK,
} as const;

/** A field that the model knows. */
export function modelField(field: Field, { transport }: Protocols): LoadedField {
  const type = FIELD_TYPES[field];
  const known = { type: MODEL_TYPES[type], bytes: FIELD_BYTES[type] };
  if (field === 'th dport')
    return { ...known, words: `${transport ?? 'th'} dport`, header: 'transport' };
  return /^(ip6?|arp) /.test(field)
    ? { ...known, words: field, header: 'network' }
    : { ...known, words: field };
}
