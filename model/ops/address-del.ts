import type { Address } from '../address.ts';
import { connectedPrefix } from '../connected.ts';
import { findLink } from '../host.ts';
import type { Ifname } from '../ifname.ts';
import { removeAddress } from '../inet.ts';
import { familyOf } from '../ip.ts';
import { holdsIpv6 } from '../link.ts';
import { type OpKind, done, refuse } from '../op.ts';
import { formatPrefixedIp, prefixContains } from '../prefix.ts';

/** Takes an address from a link. */
export interface AddressDel {
  readonly ifname: Ifname;
  readonly address: Address;
}

/** Which address a request means: IPv4 looks at the peer only as far as the prefix goes, IPv6 not at all. */
function isMeant(wanted: Address, address: Address): boolean {
  if (address.ip !== wanted.ip || address.prefixLength !== wanted.prefixLength) return false;
  return (
    familyOf(wanted.ip) === 6 || prefixContains(connectedPrefix(address), wanted.peer ?? wanted.ip)
  );
}

export const addressDel: OpKind<'address.del'> = {
  apply: (host, op) => {
    const link = findLink(host, op);
    if (!link) return refuse('ENODEV');
    if (familyOf(op.address.ip) === 6 && !holdsIpv6(link))
      return refuse('ENXIO', 'ipv6: IPv6 is disabled on this device');
    const address = link.addresses.find((a) => isMeant(op.address, a));
    if (address) return done(removeAddress(host, op, address));
    return refuse(
      'EADDRNOTAVAIL',
      familyOf(op.address.ip) === 4 ? 'ipv4: Address not found' : 'ipv6: address not found',
    );
  },
  describe: ({ ifname, address }) => {
    const peer = address.peer === null ? '' : ` peer ${address.peer}/${address.prefixLength}`;
    return [
      `ip address del ${address.peer === null ? formatPrefixedIp(address) : address.ip}${peer} dev ${ifname}`,
    ];
  },
  sign: () => '-',
  reads: () => [],
  writes: () => [],
  removes: ({ netns, ifname, address }) => [`address ${netns}/${ifname}/${address.ip}`],
};
