import { ADDRESS_BITS, type Family, type Ip, familyOf, findIp, ipBits, ipFromBits } from './ip.ts';

declare const prefixBrand: unique symbol;

/** A network prefix in canonical text: `10.244.1.0/24`, `fd00::/64`. Host bits are zero. */
export type Prefix = string & { readonly [prefixBrand]: true };

/** An address together with its prefix length, as a link carries it (`10.244.1.5/24`). */
export interface PrefixedIp {
  readonly ip: Ip;
  readonly prefixLength: number;
}

/** The prefixes that hold every address of a family. */
export const DEFAULT_PREFIX: Readonly<Record<Family, Prefix>> = {
  4: '0.0.0.0/0' as Prefix,
  6: '::/0' as Prefix,
};

const LENGTH = /^(0|[1-9]\d{0,2})$/;

/** Reads `ADDRESS/LENGTH`, host bits allowed, or undefined. */
export function findPrefixedIp(text: string): PrefixedIp | undefined {
  const slash = text.indexOf('/');
  const ip = slash < 0 ? undefined : findIp(text.slice(0, slash));
  const length = text.slice(slash + 1);
  if (ip === undefined || !LENGTH.test(length)) return undefined;
  const prefixLength = Number(length);
  return prefixLength > ADDRESS_BITS[familyOf(ip)] ? undefined : { ip, prefixLength };
}

/** Like `findPrefixedIp`, but throws an error that names the text. */
export function parsePrefixedIp(text: string): PrefixedIp {
  const value = findPrefixedIp(text);
  if (value === undefined) throw new Error(`"${text}" is not an address with a prefix length`);
  return value;
}

export function formatPrefixedIp({ ip, prefixLength }: PrefixedIp): string {
  return `${ip}/${prefixLength}`;
}

function hostBits(family: Family, length: number): bigint {
  return (1n << BigInt(ADDRESS_BITS[family] - length)) - 1n;
}

/** The prefix of `length` bits that holds `ip`. */
export function prefixOf(ip: Ip, length: number): Prefix {
  const family = familyOf(ip);
  return `${ipFromBits(family, ipBits(ip) & ~hostBits(family, length))}/${length}` as Prefix;
}

/** Reads a prefix strictly: host bits that are set make it throw, with the prefix that was probably meant. */
export function parsePrefix(text: string): Prefix {
  const { ip, prefixLength } = parsePrefixedIp(text);
  const prefix = prefixOf(ip, prefixLength);
  if (prefixIp(prefix) !== ip) {
    throw new Error(`"${text}" has host bits set: the prefix is ${prefix}`);
  }
  return prefix;
}

export function prefixLengthOf(prefix: Prefix): number {
  return Number(prefix.slice(prefix.indexOf('/') + 1));
}

/** The address with all host bits zero. */
export function prefixIp(prefix: Prefix): Ip {
  return prefix.slice(0, prefix.indexOf('/')) as Ip;
}

/** The address with all host bits one: for IPv4 up to /30 the directed broadcast. */
export function lastIp(prefix: Prefix): Ip {
  const family = familyOf(prefix);
  return ipFromBits(family, ipBits(prefixIp(prefix)) | hostBits(family, prefixLengthOf(prefix)));
}

export function prefixContains(prefix: Prefix, ip: Ip): boolean {
  return familyOf(prefix) === familyOf(ip) && prefixOf(ip, prefixLengthOf(prefix)) === prefix;
}

/** Do two prefixes share an address? Then one holds the other. */
export function prefixesOverlap(a: Prefix, b: Prefix): boolean {
  return prefixContains(a, prefixIp(b)) || prefixContains(b, prefixIp(a));
}
