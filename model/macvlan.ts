/** Links with a MAC of their own on another link, which hands them the frames for it (drivers/net/macvlan.c). */
import { type Host, findLink } from './host.ts';
import type { LinkRef, MacvlanLink } from './link.ts';
import type { Mac } from './mac.ts';
import { macvlansOver } from './upper.ts';

/**
 * Whom macvlans of one link reach: none of the others (`private`), those that the switch outside sends back to (`vepa`), or
 * each other at once (`bridge`). The kernel's other modes, `passthru` and `source`, are links that are only looked at.
 */
export const MACVLAN_MODES = ['private', 'vepa', 'bridge'] as const;
export type MacvlanMode = (typeof MACVLAN_MODES)[number];

/** Is the MAC that of the link below, or of one over it that is up, so that no other can have it (K-1.19; macvlan_addr_busy)? */
export function isBusyMac(host: Host, lower: LinkRef, mac: Mac): boolean {
  return (
    findLink(host, lower)?.mac === mac ||
    macvlansOver(host, lower).some((ref) => {
      const link = findLink(host, ref);
      return link?.up === true && link.mac === mac;
    })
  );
}

/** Would the link have a MAC that is another's if it went up? One that is up has its own already. */
export function collides(host: Host, { lower, up, mac }: MacvlanLink): boolean {
  return !up && lower !== null && mac !== null && isBusyMac(host, lower, mac);
}
