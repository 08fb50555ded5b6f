import { type Address, directedBroadcast } from '../address.ts';
import { hasIpv6 } from '../connected.ts';
import { findLink, getNetns } from '../host.ts';
import type { Ifname } from '../ifname.ts';
import { addAddress, ipv4AddressFault } from '../inet.ts';
import { familyOf, ipBits } from '../ip.ts';
import { type Link, holdsIpv6 } from '../link.ts';
import { type OpKind, type Outcome, done, refuse } from '../op.ts';
import { formatPrefixedIp } from '../prefix.ts';

/** Gives a link an address. `secondary` and `tentative` are the kernel's to say: they are not sent. */
export interface AddressAdd {
  readonly ifname: Ifname;
  readonly address: Address;
}

/** net/ipv6/addrconf.c, inet6_addr_add and ipv6_add_addr; K-4.5. */
function ipv6Fault(link: Link, address: Address): Outcome | undefined {
  const bits = ipBits(address.ip);
  if (bits === 0n) return refuse('EADDRNOTAVAIL', 'ipv6: Invalid address');
  if (bits >> 120n === 0xffn)
    return refuse(
      'EADDRNOTAVAIL',
      'ipv6: Cannot assign multicast address without "IFA_F_MCAUTOJOIN" flag',
    );
  if (bits === 1n && link.kind !== 'loopback')
    return refuse('EADDRNOTAVAIL', 'ipv6: Cannot assign loopback address on this device');
  return link.addresses.some((a) => a.ip === address.ip)
    ? refuse('EEXIST', 'ipv6: address already assigned')
    : undefined;
}

/** The words of `ip address` that say more than the address itself. */
function describeOptions(address: Address): string {
  const words: string[] = [];
  if (address.peer !== null) words.push(`peer ${address.peer}/${address.prefixLength}`);
  if (address.broadcast !== null)
    words.push(
      address.broadcast === directedBroadcast(address.ip, address.prefixLength)
        ? 'brd +'
        : `brd ${address.broadcast}`,
    );
  if (address.scope !== 'global') words.push(`scope ${address.scope}`);
  if (address.noPrefixRoute) words.push('noprefixroute');
  if (address.noDad) words.push('nodad');
  return words.map((word) => ` ${word}`).join('');
}

/** An address as `ip address add` takes it. */
function describeAddress(address: Address): string {
  return `${address.peer === null ? formatPrefixedIp(address) : address.ip}${describeOptions(address)}`;
}

export const addressAdd: OpKind<'address.add'> = {
  apply: (host, op) => {
    const link = findLink(host, op);
    if (!link) return refuse('ENODEV');
    if (familyOf(op.address.ip) === 4)
      return ipv4AddressFault(link, op.address) ?? done(addAddress(host, op, op.address));
    if (!holdsIpv6(link)) return refuse('EINVAL');
    if (!hasIpv6(getNetns(host, op.netns), link))
      return refuse('EACCES', 'ipv6: IPv6 is disabled on this device');
    return ipv6Fault(link, op.address) ?? done(addAddress(host, op, op.address));
  },
  describe: (op) => [`ip address add ${describeAddress(op.address)} dev ${op.ifname}`],
  sign: () => '+',
  reads: ({ netns, ifname }) => [
    `link ${netns}/${ifname}`,
    `attribute ${netns}/${ifname}`,
    `conf ${netns}/${ifname}`,
  ],
  writes: ({ netns, ifname, address }) => [
    `address ${netns}/${ifname}`,
    `address ${netns}/${ifname}/${address.ip}`,
  ],
  removes: () => [],
};
