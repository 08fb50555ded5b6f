import { ADDRESS_BITS, type Ip, type Ipv4, familyOf, isIpv4 } from './ip.ts';
import { lastIp, prefixOf } from './prefix.ts';

/** How far an address or a route is valid (include/uapi/linux/rtnetlink.h, enum rt_scope_t). */
export type Scope = 'global' | 'site' | 'link' | 'host' | 'nowhere';

/** An address on a link, as the kernel keeps it. */
export interface Address {
  readonly ip: Ip;
  readonly prefixLength: number;
  /** The far end of a point-to-point address, or null: then the prefix is that of `ip`. */
  readonly peer: Ip | null;
  /** IPv4 only; null: none set. */
  readonly broadcast: Ipv4 | null;
  readonly scope: Scope;
  /** IPv4: an earlier address of the link has the same prefix (K-3.3). Set by the kernel. */
  readonly secondary: boolean;
  /** The kernel makes no route to the prefix. */
  readonly noPrefixRoute: boolean;
  /** IPv6: no duplicate address detection, usable at once. */
  readonly noDad: boolean;
  /** IPv6: duplicate address detection has not ended well: not usable yet, or (failed) at all. */
  readonly tentative: boolean;
}

/** The fields of an address that its maker chooses; the others have the usual values. */
export interface AddressChoice {
  readonly ip: Ip;
  readonly prefixLength: number;
  readonly peer?: Ip | null;
  readonly scope?: Scope;
  readonly noPrefixRoute?: boolean;
}

/** The directed broadcast address of an IPv4 address, null where there is none (/31 and /32, IPv6). */
export function directedBroadcast(ip: Ip, prefixLength: number): Ipv4 | null {
  if (!isIpv4(ip) || prefixLength > ADDRESS_BITS[4] - 2) return null;
  return lastIp(prefixOf(ip, prefixLength)) as Ipv4;
}

/** An address as this project adds it: with its directed broadcast, and for IPv6 without DAD. */
export function makeAddress(choice: AddressChoice): Address {
  const peer = choice.peer ?? null;
  return {
    ip: choice.ip,
    prefixLength: choice.prefixLength,
    peer,
    broadcast: peer === null ? directedBroadcast(choice.ip, choice.prefixLength) : null,
    scope: choice.scope ?? 'global',
    secondary: false,
    noPrefixRoute: choice.noPrefixRoute ?? false,
    noDad: familyOf(choice.ip) === 6,
    tentative: false,
  };
}

/** What tells an address from the others of its link: IPv4 by address and length, IPv6 by address alone (K-4.5). */
export function sameAddress(a: Address, b: Address): boolean {
  return a.ip === b.ip && a.prefixLength === b.prefixLength && a.peer === b.peer;
}
