/** Numbers that addresses and routes share (include/linux/socket.h; include/uapi/linux/rtnetlink.h, enum rt_scope_t). */
import type { Scope } from '../../model/address.ts';

export const AF_INET = 2;
export const AF_BRIDGE = 7;
export const AF_INET6 = 10;

const SCOPES: Readonly<Record<Scope, number>> = {
  global: 0,
  site: 200,
  link: 253,
  host: 254,
  nowhere: 255,
};

export function encodeScope(scope: Scope): number {
  return SCOPES[scope];
}

/** A scope by its number; one that an administrator made up lies inside the site and is read as that. */
export function decodeScope(value: number): Scope {
  switch (value) {
    case 0:
      return 'global';
    case 253:
      return 'link';
    case 254:
      return 'host';
    case 255:
      return 'nowhere';
    default:
      return 'site';
  }
}
