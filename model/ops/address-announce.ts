import { findLink } from '../host.ts';
import type { Ifname } from '../ifname.ts';
import { type Ip, familyOf } from '../ip.ts';
import type { Mac } from '../mac.ts';
import { type OpKind, done, refuse } from '../op.ts';

/**
 * Tells the neighbours on a link that an address is at this MAC: those that know another change their entry, those
 * that know none do not begin one. IPv4 is a gratuitous ARP request, IPv6 an unsolicited neighbour advertisement.
 */
export interface AddressAnnounce {
  readonly ifname: Ifname;
  readonly ip: Ip;
  readonly mac: Mac;
}

export const addressAnnounce: OpKind<'address.announce'> = {
  // The kernel would send whatever it is given: what is not true of the link is refused before.
  apply: (host, op) => {
    const link = findLink(host, op);
    if (!link) return refuse('ENODEV');
    // The loopback, and links without MAC addresses.
    if (link.mac === null) return refuse('EOPNOTSUPP', 'not an Ethernet link');
    if (!link.up) return refuse('ENETDOWN');
    return link.addresses.some((a) => a.ip === op.ip) ? done(host) : refuse('EADDRNOTAVAIL');
  },
  describe: ({ ifname, ip }) =>
    familyOf(ip) === 4 ? [`arping -U -c 1 -I ${ifname} ${ip}`] : [`ndsend ${ip} ${ifname}`],
  sign: () => '~',
  reads: ({ netns, ifname, ip }) => [
    `link ${netns}/${ifname}`,
    `up ${netns}/${ifname}`,
    `address ${netns}/${ifname}/${ip}`,
  ],
  writes: () => [],
  removes: () => [],
};
