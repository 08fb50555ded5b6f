/** What the kernel's expressions make of a packet, with registers as it has them (net/netfilter/nf_tables_core.c, nft_do_chain). */
import { type Ip, familyOf, ipBytes as addressBytes, ipFromBytes } from '../model/ip.ts';
import { type Expression, type Load, fromHex, isLoad, toHex } from '../model/nft-expression.ts';
import type { Table, Verdict } from '../model/nftables.ts';
import type { Tuple } from './conntrack.ts';
import { packetBytes } from './frame.ts';
import { l4Protocol, networkBytes, transportLoad } from './packet-bytes.ts';
import { oncePer } from './remembered.ts';
import {
  type Seen,
  type Translation,
  addressType,
  connectionState,
  connectionStatus,
  isOfFamily,
} from './seen.ts';
import { findRaw, findRawSet, keyBytes } from './sets.ts';
import { meetsMatch } from './xt.ts';

/** What a statement comes to: the rule goes on or ends, or more is decided; unknown: it hangs on what is not known. */
export type Step =
  | { readonly kind: 'on' | 'past' | 'unknown' | 'untracked' }
  /** The packet is dropped, and its sender told so. */
  | { readonly kind: 'reject'; readonly answer: string }
  | { readonly kind: 'verdict'; readonly verdict: Verdict }
  | { readonly kind: 'mark'; readonly mark: number }
  | { readonly kind: 'translation'; readonly translation: Translation };

const ON: Step = { kind: 'on' };
const PAST: Step = { kind: 'past' };
const UNKNOWN: Step = { kind: 'unknown' };

/** NFT_REG32_SIZE. */
const REGISTER_BYTES = 4;

/** What rules have loaded so far; undefined where nothing was, or nothing that is known. */
export class Registers {
  readonly #bytes: (number | undefined)[] = [];

  /** Nothing is known of any. */
  forget(): void {
    this.#bytes.length = 0;
  }

  /** Bytes into registers from one on, the last filled up with zeros; undefined: they are not known. */
  load(register: number, bytes: Uint8Array | undefined, length = REGISTER_BYTES): void {
    const at = register * REGISTER_BYTES;
    const size = Math.ceil((bytes?.length ?? length) / REGISTER_BYTES) * REGISTER_BYTES;
    for (let i = 0; i < size; i += 1) this.#bytes[at + i] = bytes ? (bytes[i] ?? 0) : undefined;
  }

  /** So many bytes from a register on; undefined where one is not known. */
  read(register: number, length: number): Uint8Array | undefined {
    const bytes = new Uint8Array(length);
    for (let i = 0; i < length; i += 1) {
      const byte = this.#bytes[register * REGISTER_BYTES + i];
      if (byte === undefined) return undefined;
      bytes[i] = byte;
    }
    return bytes;
  }
}

/** A number in the byte order of the machine. */
function hostOrder(value: number): Uint8Array {
  return Uint8Array.of(value, value >>> 8, value >>> 16, value >>> 24);
}

function networkOrder16(value: number): Uint8Array {
  return Uint8Array.of(value >>> 8, value);
}

const UTF8 = new TextEncoder();

function nameBytes(ifname: string | null): Uint8Array {
  const bytes = new Uint8Array(16);
  UTF8.encodeInto(ifname ?? '', bytes);
  return bytes;
}

/** The number of a link; of a loopback it is known to be 1 (include/net/net_namespace.h, LOOPBACK_IFINDEX). */
function linkNumber({ netns }: Seen, ifname: string | null): Uint8Array | undefined {
  if (ifname === null) return hostOrder(0);
  const known = netns.ifindexes?.[ifname];
  if (known !== undefined) return hostOrder(known);
  return netns.links[ifname]?.kind === 'loopback' ? hostOrder(1) : undefined;
}

const NFPROTO = { 4: 2, 6: 10 } as const;
const ETHER_TYPES = { 4: 0x0800, 6: 0x86dd } as const;
const ETHER_TYPE_ARP = 0x0806;
/** PACKET_HOST, PACKET_BROADCAST, PACKET_MULTICAST (include/uapi/linux/if_packet.h). */
const PACKET_TYPES = { unicast: 0, broadcast: 1, multicast: 2 } as const;

function packetType({ packet, netns }: Seen): number {
  if (packet.kind !== 'ip') return PACKET_TYPES.broadcast;
  const type = addressType(netns, packet.destination);
  return type === 3 ? PACKET_TYPES.broadcast : type === 5 ? PACKET_TYPES.multicast : 0;
}

/** Undefined: not known; null: the packet has none, so that the rule ends. */
function metaBytes(
  seen: Seen,
  { key }: Expression & { readonly name: 'meta' },
): Uint8Array | undefined | null {
  const family = seen.packet.kind === 'ip' ? familyOf(seen.packet.destination) : null;
  switch (key) {
    case 'length':
      return hostOrder(packetBytes(seen.packet));
    case 'protocol':
      return networkOrder16(family === null ? ETHER_TYPE_ARP : ETHER_TYPES[family]);
    case 'mark':
      return hostOrder(seen.mark);
    case 'iif':
      return linkNumber(seen, seen.iif);
    case 'oif':
      return linkNumber(seen, seen.oif);
    case 'iifname':
      return nameBytes(seen.iif);
    case 'oifname':
      return nameBytes(seen.oif);
    case 'nfproto':
      return family === null ? null : Uint8Array.of(NFPROTO[family]);
    case 'l4proto': {
      const protocol = l4Protocol(seen);
      return protocol === undefined ? null : Uint8Array.of(protocol);
    }
    case 'pkttype':
      return Uint8Array.of(packetType(seen));
    case 'random':
      return hostOrder(Math.floor(seen.draw() * 2 ** 32));
  }
}

const PROTOCOLS = { icmp: { 4: 1, 6: 58 }, tcp: { 4: 6, 6: 6 }, udp: { 4: 17, 6: 17 } } as const;
/** NF_CT_STATE_UNTRACKED_BIT. */
const NFT_UNTRACKED = 0x40;

function tupleBytes(
  tuple: Tuple,
  key: (Expression & { readonly name: 'ct' })['key'],
): Uint8Array | undefined {
  const family = familyOf(tuple.source);
  switch (key) {
    case 'saddr':
      return addressBytes(tuple.source);
    case 'daddr':
      return addressBytes(tuple.destination);
    case 'proto-src':
      return networkOrder16(tuple.sourcePort);
    case 'proto-dst':
      return networkOrder16(tuple.destinationPort);
    case 'protocol':
      return Uint8Array.of(PROTOCOLS[tuple.protocol][family]);
    case 'l3protocol':
      return Uint8Array.of(NFPROTO[family]);
    case 'state':
    case 'direction':
    case 'status':
      return undefined;
  }
}

function ctBytes(
  seen: Seen,
  { key, direction }: Expression & { readonly name: 'ct' },
): Uint8Array | undefined | null {
  if (key === 'state') return hostOrder(connectionState(seen, NFT_UNTRACKED));
  const track = seen.packet.kind === 'ip' ? seen.packet.skb?.track : undefined;
  // Without a connection nothing else can be asked (net/netfilter/nft_ct.c, nft_ct_get_eval).
  if (!track) return null;
  if (key === 'status') return hostOrder(connectionStatus(seen) ?? 0);
  if (key === 'direction') return Uint8Array.of(track.direction === 'reply' ? 1 : 0);
  return tupleBytes(track.connection[direction ?? 'original'], key);
}

function payloadBytes(
  seen: Seen,
  { header, offset, bytes }: Expression & { readonly name: 'payload' },
): Uint8Array | null {
  if (header === 'transport') return transportLoad(seen, offset, bytes) ?? null;
  const all = networkBytes(seen);
  return all && offset + bytes <= all.length ? all.slice(offset, offset + bytes) : null;
}

/** -1, 0 or 1, as the bytes are in order (memcmp). */
function order(a: Uint8Array, b: Uint8Array): number {
  for (let i = 0; i < a.length; i += 1) {
    const [own = 0, other = 0] = [a[i], b[i]];
    if (own !== other) return own < other ? -1 : 1;
  }
  return 0;
}

function compares({ comparison }: Expression & { readonly name: 'cmp' }, sign: number): boolean {
  switch (comparison) {
    case 'eq':
      return sign === 0;
    case 'neq':
      return sign !== 0;
    case 'lt':
      return sign < 0;
    case 'lte':
      return sign <= 0;
    case 'gt':
      return sign > 0;
    case 'gte':
      return sign >= 0;
  }
}

function numberAt(bytes: Uint8Array | undefined): number | undefined {
  return bytes && ((bytes[0] ?? 0) << 8) | (bytes[1] ?? 0);
}

/** Turns each number of `size` bytes over. */
function swapped(bytes: Uint8Array, size: number): Uint8Array {
  return bytes.map((_byte, i) => bytes[i - (i % size) + (size - 1 - (i % size))] ?? 0);
}

function lookup(
  registers: Registers,
  table: Table,
  { set: name, from, to, negate }: Expression & { readonly name: 'lookup' },
): Step {
  const set = findRawSet(table, name);
  const key = set && registers.read(from, keyBytes(set));
  if (!set || !key) return UNKNOWN;
  const found = findRaw(set, toHex(key));
  if ((found === undefined) !== negate) return PAST;
  if (to === null || !found) return ON;
  if (to === 'verdict') return found.verdict ? { kind: 'verdict', verdict: found.verdict } : ON;
  registers.load(to, found.data === undefined ? undefined : fromHex(found.data));
  return ON;
}

/** Translates packets of its own family; of the other one, in tables of both, nothing (net/netfilter/nft_nat.c, nft_nat_inet_eval). */
function nat(
  seen: Seen,
  registers: Registers,
  { side, family, ip, port }: Expression & { readonly name: 'nat' },
): Step {
  if (!isOfFamily(seen, family)) return ON;
  const address = ip === null ? null : registers.read(ip, family === 4 ? 4 : 16);
  const number = port === null ? null : numberAt(registers.read(port, 2));
  if (address === undefined || number === undefined) return UNKNOWN;
  return {
    kind: 'translation',
    translation: {
      kind: side === 'source' ? 'snat' : 'dnat',
      ip: address && ipFromBytes(address),
      port: number,
    },
  };
}

function translate(translation: Translation): Step {
  return { kind: 'translation', translation };
}

function target(seen: Seen, expression: Expression & { readonly name: 'target' }): Step {
  switch (expression.target) {
    case 'DNAT':
    case 'SNAT': {
      const { ip, port } = expression;
      return translate({ kind: expression.target === 'DNAT' ? 'dnat' : 'snat', ip, port });
    }
    case 'MASQUERADE':
      return translate({ kind: 'masquerade' });
    case 'REDIRECT':
      return translate({ kind: 'redirect', port: expression.port });
    case 'NOTRACK':
      return { kind: 'untracked' };
    case 'REJECT':
      return { kind: 'reject', answer: expression.answer };
    case 'MARK':
      return {
        kind: 'mark',
        mark: ((seen.mark & ~expression.mask) ^ expression.mark) >>> 0,
      };
  }
}

type Named<Name> = Expression & { readonly name: Name };

/** The bytes that expressions have in them, read once. */
const valueOf = oncePer(({ value }: Named<'cmp' | 'immediate'>) => fromHex(value));
const maskOf = oncePer(({ mask, xor }: Named<'bitwise'>) => ({
  mask: fromHex(mask),
  flips: fromHex(xor),
}));
const rangeOf = oncePer(({ low, high }: Named<'range'>) => ({
  low: fromHex(low),
  high: fromHex(high),
}));

/** Into a register; what the packet does not have ends the rule. */
function load(registers: Registers, to: number, bytes: Uint8Array | undefined | null): Step {
  if (bytes === null) return PAST;
  registers.load(to, bytes);
  return ON;
}

function addressOf({ packet }: Seen, of: 'saddr' | 'daddr'): Ip | undefined {
  if (packet.kind !== 'ip') return undefined;
  return of === 'saddr' ? packet.source : packet.destination;
}

function loadInto(seen: Seen, registers: Registers, expression: Load): Step {
  switch (expression.name) {
    case 'meta':
      return load(registers, expression.to, metaBytes(seen, expression));
    case 'ct':
      return load(registers, expression.to, ctBytes(seen, expression));
    case 'payload':
      return load(registers, expression.to, payloadBytes(seen, expression));
    case 'immediate':
      return load(registers, expression.to, valueOf(expression));
    case 'fib': {
      const ip = addressOf(seen, expression.of);
      const type = ip === undefined ? null : hostOrder(addressType(seen.netns, ip));
      return load(registers, expression.to, type);
    }
    // Where a counter is nobody knows: it is drawn too.
    case 'numgen': {
      const { to, offset, modulus } = expression;
      return load(registers, to, hostOrder(offset + Math.floor(seen.draw() * modulus)));
    }
    case 'bitwise': {
      const { mask, flips } = maskOf(expression);
      const bytes = registers.read(expression.from, mask.length);
      const changed = bytes?.map((byte, i) => (byte & (mask[i] ?? 0)) ^ (flips[i] ?? 0));
      registers.load(expression.to, changed, mask.length);
      return ON;
    }
    case 'byteorder': {
      const bytes = registers.read(expression.from, expression.bytes);
      registers.load(expression.to, bytes && swapped(bytes, expression.size), expression.bytes);
      return ON;
    }
  }
}

/** Performs one expression of a rule for a packet. */
export function perform(
  seen: Seen,
  table: Table,
  registers: Registers,
  expression: Expression,
): Step {
  if (isLoad(expression)) return loadInto(seen, registers, expression);
  switch (expression.name) {
    case 'meta set': {
      const mark = registers.read(expression.from, 4);
      return mark ? { kind: 'mark', mark: new DataView(mark.buffer).getUint32(0, true) } : UNKNOWN;
    }
    case 'cmp': {
      const value = valueOf(expression);
      const bytes = registers.read(expression.from, value.length);
      if (!bytes) return UNKNOWN;
      return compares(expression, order(bytes, value)) ? ON : PAST;
    }
    case 'range': {
      const { low, high } = rangeOf(expression);
      const bytes = registers.read(expression.from, low.length);
      if (!bytes) return UNKNOWN;
      const isIn = order(bytes, low) >= 0 && order(bytes, high) <= 0;
      return isIn === expression.negate ? PAST : ON;
    }
    case 'lookup':
      return lookup(registers, table, expression);
    case 'nat':
      return nat(seen, registers, expression);
    case 'masq':
      return { kind: 'translation', translation: { kind: 'masquerade' } };
    case 'redir': {
      const port = expression.port === null ? null : numberAt(registers.read(expression.port, 2));
      if (port === undefined) return UNKNOWN;
      return { kind: 'translation', translation: { kind: 'redirect', port } };
    }
    case 'notrack':
      return { kind: 'untracked' };
    case 'reject':
      return { kind: 'reject', answer: expression.answer };
    case 'match': {
      const meets = meetsMatch(seen, expression);
      return meets === undefined ? UNKNOWN : meets ? ON : PAST;
    }
    case 'target':
      return target(seen, expression);
  }
}
