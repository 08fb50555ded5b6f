import {
  ADDRESS_BITS,
  type Family,
  type Ip,
  familyOf,
  findIp,
  ipv4FromValue,
  ipv4Value,
  ipv6FromGroups,
  ipv6Groups,
  isIpv4,
} from './ip.ts';

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

/** The bits of the 16-bit group `index` that belong to a prefix of `length` bits. */
function groupMask(index: number, length: number): number {
  const bits = Math.min(Math.max(length - 16 * index, 0), 16);
  return (0xffff << (16 - bits)) & 0xffff;
}

/** The bits of an IPv4 address that belong to a prefix: shifts by 32 would do nothing. */
function quadMask(length: number): number {
  return length === 0 ? 0 : (0xffffffff << (32 - length)) >>> 0;
}

/** The prefix of `length` bits that holds `ip`. */
export function prefixOf(ip: Ip, length: number): Prefix {
  if (isIpv4(ip))
    return `${ipv4FromValue((ipv4Value(ip) & quadMask(length)) >>> 0)}/${length}` as Prefix;
  const groups = ipv6Groups(ip).map((group, i) => group & groupMask(i, length));
  return `${ipv6FromGroups(groups)}/${length}` as Prefix;
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
  const ip = prefixIp(prefix);
  const length = prefixLengthOf(prefix);
  if (isIpv4(ip)) return ipv4FromValue((ipv4Value(ip) | ~quadMask(length)) >>> 0);
  return ipv6FromGroups(ipv6Groups(ip).map((group, i) => group | (~groupMask(i, length) & 0xffff)));
}

export function prefixContains(prefix: Prefix, ip: Ip): boolean {
  return familyOf(prefix) === familyOf(ip) && prefixOf(ip, prefixLengthOf(prefix)) === prefix;
}

/** Do two prefixes share an address? Then one holds the other. */
export function prefixesOverlap(a: Prefix, b: Prefix): boolean {
  return prefixContains(a, prefixIp(b)) || prefixContains(b, prefixIp(a));
}
