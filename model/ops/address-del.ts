import { type Address, sameAddress } from '../address.ts';
import { findLink } from '../host.ts';
import type { Ifname } from '../ifname.ts';
import { familyOf } from '../ip.ts';
import { removeAddress } from '../netdev.ts';
import { type OpKind, done, refuse } from '../op.ts';
import { formatPrefixedIp } from '../prefix.ts';

/** Takes an address from a link. */
export interface AddressDel {
  readonly ifname: Ifname;
  readonly address: Address;
}

export const addressDel: OpKind<'address.del'> = {
  apply: (host, op) => {
    const link = findLink(host, op);
    if (!link) return refuse('ENODEV');
    const address = link.addresses.find((a) => sameAddress(a, op.address));
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
