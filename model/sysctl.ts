import type { Netns, SysctlKey } from './host.ts';
import type { Ifname } from './ifname.ts';
import type { Family } from './ip.ts';

/** The key of a per-link setting, `net/ipv6/conf/eth0/accept_dad`. */
export function linkSysctlKey(
  family: Family,
  ifname: Ifname | 'all' | 'default',
  name: string,
): SysctlKey {
  return `net/ipv${family === 4 ? '4' : '6'}/conf/${ifname}/${name}`;
}

const LINK_KEY = /^net\/ipv([46])\/conf\/([^/]+)\/([^/]+)$/;

interface LinkKey {
  readonly family: Family;
  readonly of: string;
  readonly name: string;
}

/** The parts of a per-link key, or undefined for any other key. */
export function splitLinkSysctl(key: SysctlKey): LinkKey | undefined {
  const match = LINK_KEY.exec(key);
  if (!match) return undefined;
  return { family: match[1] === '4' ? 4 : 6, of: match[2] as string, name: match[3] as string };
}

/** What Linux has where nobody changed it, for the settings that the model's rules depend on. */
const KERNEL_DEFAULTS: Readonly<Record<string, string>> = {
  'net/ipv4/forwarding': '0',
  'net/ipv4/promote_secondaries': '0',
  'net/ipv6/forwarding': '0',
  'net/ipv6/disable_ipv6': '0',
  'net/ipv6/addr_gen_mode': '0',
  'net/ipv6/keep_addr_on_down': '0',
};

/** A per-link setting: the link's own value, else the netns's default, else the kernel's. */
export function linkSysctl(netns: Netns, family: Family, ifname: Ifname, name: string): string {
  return (
    netns.sysctls[linkSysctlKey(family, ifname, name)] ??
    netns.sysctls[linkSysctlKey(family, 'default', name)] ??
    KERNEL_DEFAULTS[`net/ipv${family}/${name}`] ??
    ''
  );
}

/** A new link takes every known default of its netns (K-2.2). */
export function inheritSysctls(netns: Netns, ifname: Ifname): Record<SysctlKey, string> {
  const sysctls = { ...netns.sysctls };
  for (const [key, value] of Object.entries(netns.sysctls)) {
    const link = splitLinkSysctl(key);
    if (link?.of === 'default') sysctls[linkSysctlKey(link.family, ifname, link.name)] = value;
  }
  return sysctls;
}

/** The sysctls of a netns without those of one link. */
export function dropLinkSysctls(netns: Netns, ifname: Ifname): Record<SysctlKey, string> {
  return Object.fromEntries(
    Object.entries(netns.sysctls).filter(([key]) => splitLinkSysctl(key)?.of !== ifname),
  );
}

/**
 * Every key that a write changes, itself included (K-7.6; net/ipv4/devinet.c devinet_sysctl_forward,
 * net/ipv6/addrconf.c addrconf_fixup_forwarding and addrconf_disable_ipv6): `all` of these settings is
 * written through to `default` and to each link.
 */
export function sysctlsWritten(netns: Netns, key: SysctlKey): SysctlKey[] {
  const asLink =
    key === 'net/ipv4/ip_forward'
      ? { family: 4 as const, of: 'all', name: 'forwarding' }
      : splitLinkSysctl(key);
  if (!asLink || asLink.of !== 'all') return [key];
  const { family, name } = asLink;
  const spreads = name === 'forwarding' || (family === 6 && name === 'disable_ipv6');
  if (!spreads) return [key];
  const keys = [linkSysctlKey(family, 'all', name), linkSysctlKey(family, 'default', name)];
  for (const ifname of Object.keys(netns.links))
    keys.push(linkSysctlKey(family, ifname as Ifname, name));
  if (family === 4) keys.push('net/ipv4/ip_forward');
  return keys;
}
