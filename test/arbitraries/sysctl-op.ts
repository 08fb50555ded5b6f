/** Operations on netns and their sysctls, and the values that every program starts from. */
import type { Host, NetnsName } from '../../model/host.ts';
import type { Op } from '../../model/op.ts';
import type { Draw } from './draw.ts';
import { someLink } from './names.ts';

type Setting = readonly [key: string, values: readonly string[]];

const SYSCTLS: readonly Setting[] = [
  ['net/ipv4/ip_forward', ['0', '1']],
  ['net/ipv6/conf/all/forwarding', ['0', '1']],
  ['net/ipv6/conf/IF/disable_ipv6', ['0', '1']],
  ['net/ipv4/conf/IF/promote_secondaries', ['0', '1']],
  ['net/ipv4/conf/IF/arp_notify', ['0', '1']],
];

const ODD_SYSCTLS: readonly Setting[] = [
  ['net/ipv4/conf/all/forwarding', ['0', '1']],
  ['net/ipv4/conf/default/forwarding', ['0', '1']],
  ['net/ipv4/conf/IF/forwarding', ['0', '1']],
  ['net/ipv6/conf/IF/forwarding', ['0', '1']],
  ['net/ipv6/conf/default/forwarding', ['0', '1']],
  ['net/ipv6/conf/all/disable_ipv6', ['0', '1']],
  ['net/ipv6/conf/default/disable_ipv6', ['0', '1']],
  ['net/ipv6/conf/IF/keep_addr_on_down', ['0', '1']],
  ['net/ipv4/conf/default/promote_secondaries', ['0', '1']],
  ['net/ipv4/conf/IF/proxy_arp', ['0', '1']],
  ['net/ipv4/conf/IF/arp_notify', ['banana', '']],
];

/** One sysctl, of the netns, of its defaults or of a link. */
export function sysctlSet(netns: NetnsName, host: Host, draw: Draw): Op {
  const [key, values] = draw.of(draw.oddIn(2) ? ODD_SYSCTLS : SYSCTLS);
  return {
    op: 'sysctl.set',
    netns,
    key: key.replace('IF', someLink(host, netns, draw)),
    value: draw.of(values),
  };
}

/** Settings that a program starts from. */
export type Pins = readonly (readonly [key: string, value: string])[];

const COMMON_PINS: Pins = [
  ['net/ipv6/conf/default/accept_dad', '0'],
  ['net/ipv6/conf/all/forwarding', '0'],
  ['net/ipv6/conf/all/disable_ipv6', '0'],
  ['net/ipv6/conf/default/keep_addr_on_down', '0'],
  ['net/ipv4/conf/default/promote_secondaries', '0'],
  ['net/ipv4/conf/default/arp_notify', '0'],
  ['net/ipv4/conf/default/proxy_arp', '0'],
  ['net/ipv4/conf/default/route_localnet', '0'],
  ['net/ipv4/ip_forward', '0'],
];

/**
 * Nothing is left to the machine: IPv6 makes no addresses and waits for nothing by itself, and what IPv4 would copy
 * from the first netns (K-2.2) is said.
 */
export const PINS: Pins = [['net/ipv6/conf/default/addr_gen_mode', '1'], ...COMMON_PINS];

/** The same, but links have link-local addresses, made of their MACs. */
export const LINK_LOCAL_PINS: Pins = [['net/ipv6/conf/default/addr_gen_mode', '0'], ...COMMON_PINS];

/** What follows when a netns is made. */
export function pinOps(netns: NetnsName, pins: Pins): Op[] {
  return pins.map(([key, value]): Op => ({ op: 'sysctl.set', netns, key, value }));
}

/** Makes the netns of a program. */
export function universeOps(universe: readonly NetnsName[], pins: Pins): Op[] {
  return universe.flatMap((netns): Op[] => [{ op: 'netns.add', netns }, ...pinOps(netns, pins)]);
}

/** A netns goes; now and then one is made that may be there. */
export function netnsOp(netns: NetnsName, _host: Host, draw: Draw): Op {
  return draw.oneIn(4) ? { op: 'netns.del', netns } : { op: 'netns.add', netns };
}
