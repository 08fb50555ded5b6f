/**
 * IP addresses as values. An address is its canonical text (RFC 5952 for IPv6), branded: `===` is
 * equality, a map key is the address itself, and JSON needs no conversion. Arithmetic goes through
 * `ipBits` and back. Text is checked once, by `parseIp`, where it enters the program.
 */
declare const ipBrand: unique symbol;

/** A dotted quad in canonical form: four decimal numbers without leading zeros. */
export type Ipv4 = string & { readonly [ipBrand]: 4 };
/** An IPv6 address in the form of RFC 5952: lower case, the longest run of zeros as `::`. */
export type Ipv6 = string & { readonly [ipBrand]: 6 };
export type Ip = Ipv4 | Ipv6;
export type Family = 4 | 6;

/** Length of an address in bits. */
export const ADDRESS_BITS: Readonly<Record<Family, number>> = { 4: 32, 6: 128 };

const QUAD = /^(0|[1-9]\d{0,2})\.(0|[1-9]\d{0,2})\.(0|[1-9]\d{0,2})\.(0|[1-9]\d{0,2})$/;
const GROUP = /^[0-9a-f]{1,4}$/i;

/** The family of an address or a prefix: only IPv6 text has a colon. */
export function familyOf(text: string): Family {
  return text.includes(':') ? 6 : 4;
}

export function isIpv4(ip: Ip): ip is Ipv4 {
  return familyOf(ip) === 4;
}

function quadBits(text: string): bigint | undefined {
  const match = QUAD.exec(text);
  if (!match) return undefined;
  let bits = 0;
  for (const part of match.slice(1)) {
    const byte = Number(part);
    if (byte > 255) return undefined;
    bits = bits * 256 + byte;
  }
  return BigInt(bits);
}

/** The 16-bit groups of one side of `::`; the last may be a dotted quad (RFC 4291 §2.2.3). */
function groupsOf(text: string, quadAllowed: boolean): number[] | undefined {
  if (text === '') return [];
  const parts = text.split(':');
  const groups: number[] = [];
  for (const [index, part] of parts.entries()) {
    if (quadAllowed && index === parts.length - 1 && part.includes('.')) {
      const quad = quadBits(part);
      if (quad === undefined) return undefined;
      groups.push(Number(quad >> 16n), Number(quad & 0xffffn));
    } else if (GROUP.test(part)) {
      groups.push(Number.parseInt(part, 16));
    } else {
      return undefined;
    }
  }
  return groups;
}

function colonBits(text: string): bigint | undefined {
  const halves = text.split('::');
  if (halves.length > 2) return undefined;
  const [left = '', right] = halves;
  const head = groupsOf(left, right === undefined);
  const tail = right === undefined ? [] : groupsOf(right, true);
  if (!head || !tail) return undefined;
  const missing = 8 - head.length - tail.length;
  // "::" stands for one group or more (RFC 4291 §2.2.2; one is written out by RFC 5952, but read).
  if (right === undefined ? missing !== 0 : missing < 1) return undefined;
  let bits = 0n;
  for (const group of [...head, ...Array.from({ length: missing }, () => 0), ...tail]) {
    bits = (bits << 16n) | BigInt(group);
  }
  return bits;
}

/** The address as an unsigned integer, most significant byte first. */
export function ipBits(ip: Ip): bigint {
  const bits = familyOf(ip) === 4 ? quadBits(ip) : colonBits(ip);
  if (bits === undefined) throw new Error(`not a canonical IP address: ${ip}`);
  return bits;
}

function formatIpv6(bits: bigint): string {
  const groups = Array.from({ length: 8 }, (_, i) =>
    Number((bits >> BigInt(112 - 16 * i)) & 0xffffn),
  );
  let bestStart = -1;
  let bestLength = 1; // RFC 5952 §4.2.2: a single zero group is not shortened
  for (let start = 0; start < 8; start += 1) {
    let end = start;
    while (end < 8 && groups[end] === 0) end += 1;
    if (end - start > bestLength) [bestStart, bestLength] = [start, end - start];
    if (end > start) start = end;
  }
  const hex = groups.map((group) => group.toString(16));
  if (bestStart < 0) return hex.join(':');
  return `${hex.slice(0, bestStart).join(':')}::${hex.slice(bestStart + bestLength).join(':')}`;
}

/** The address of `family` with these bits; throws when they do not fit. */
export function ipFromBits(family: Family, bits: bigint): Ip {
  if (bits < 0n || bits >> BigInt(ADDRESS_BITS[family]) !== 0n) {
    throw new Error(`no IPv${family} address has the value ${bits}`);
  }
  if (family === 6) return formatIpv6(bits) as Ipv6;
  const value = Number(bits);
  return [value >>> 24, (value >>> 16) & 255, (value >>> 8) & 255, value & 255].join('.') as Ipv4;
}

/** Reads an address in any accepted spelling into its canonical form, or undefined. No zone (`%eth0`). */
export function findIp(text: string): Ip | undefined {
  const family = familyOf(text);
  const bits = family === 4 ? quadBits(text) : colonBits(text);
  return bits === undefined ? undefined : ipFromBits(family, bits);
}

/** Like `findIp`, but throws an error that names the text. */
export function parseIp(text: string): Ip {
  const ip = findIp(text);
  if (ip === undefined) throw new Error(`"${text}" is not an IP address`);
  return ip;
}

/** The address in network byte order: 4 or 16 bytes. */
export function ipBytes(ip: Ip): Uint8Array {
  const length = ADDRESS_BITS[familyOf(ip)] / 8;
  const bytes = new Uint8Array(length);
  let bits = ipBits(ip);
  for (let i = length - 1; i >= 0; i -= 1) {
    bytes[i] = Number(bits & 255n);
    bits >>= 8n;
  }
  return bytes;
}

/** The address in these 4 or 16 bytes (network byte order). */
export function ipFromBytes(bytes: Uint8Array): Ip {
  if (bytes.length !== 4 && bytes.length !== 16) {
    throw new Error(`an IP address has 4 or 16 bytes, not ${bytes.length}`);
  }
  let bits = 0n;
  for (const byte of bytes) bits = (bits << 8n) | BigInt(byte);
  return ipFromBits(bytes.length === 4 ? 4 : 6, bits);
}
