import type { Netns, SysctlKey } from './host.ts';
import type { Ifname } from './ifname.ts';
import type { Family } from './ip.ts';
import { type Link, holdsIpv6 } from './link.ts';

/** Where settings of links are: those of IP, and those of the neighbours on a link. */
type LinkTree = 'conf' | 'neigh';

/** The key of a per-link setting, `net/ipv6/conf/eth0/accept_dad`. */
export function linkSysctlKey(
  family: Family,
  ifname: Ifname | 'all' | 'default',
  name: string,
  tree: LinkTree = 'conf',
): SysctlKey {
  return `net/ipv${family === 4 ? '4' : '6'}/${tree}/${ifname}/${name}`;
}

/** Is it a path below /proc/sys/net that leads nowhere else? */
export function isNetSysctl(path: string): path is SysctlKey {
  const parts = path.split('/');
  return (
    parts.length > 1 &&
    parts[0] === 'net' &&
    parts.every((part) => part !== '' && part !== '.' && part !== '..' && !/[\s\0]/.test(part))
  );
}

const LINK_KEY = /^net\/ipv([46])\/(conf|neigh)\/([^/]+)\/([^/]+)$/;

interface LinkKey {
  readonly family: Family;
  readonly tree: LinkTree;
  readonly of: string;
  readonly name: string;
}

/** The parts of a per-link key, or undefined for any other key. */
export function splitLinkSysctl(key: SysctlKey): LinkKey | undefined {
  const match = LINK_KEY.exec(key);
  if (!match) return undefined;
  const [, family, tree, of = '', name = ''] = match;
  return { family: family === '4' ? 4 : 6, tree: tree as LinkTree, of, name };
}

/** Two names of one setting (net/ipv4/devinet.c, ctl_forward_entry). */
const IP_FORWARD: SysctlKey = 'net/ipv4/ip_forward';
const ALL_FORWARDING: LinkKey = { family: 4, tree: 'conf', of: 'all', name: 'forwarding' };

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

type Sysctls = Netns['sysctls'];

/** The defaults among sysctls: where each of a thousand links has some, finding them again is most of making one more link. */
const knownDefaults = new WeakMap<Sysctls, readonly LinkKey[]>();

function defaultsIn(sysctls: Sysctls): readonly LinkKey[] {
  const known = knownDefaults.get(sysctls);
  if (known) return known;
  const defaults = Object.keys(sysctls).flatMap((key) => {
    const link = splitLinkSysctl(key);
    return link?.of === 'default' ? [link] : [];
  });
  knownDefaults.set(sysctls, defaults);
  return defaults;
}

/** The defaults are the same after the settings of a link came or went, unless it is called as they are. */
function keepDefaults(before: Sysctls, after: Sysctls, ifname: Ifname): void {
  const defaults = knownDefaults.get(before);
  if (defaults && ifname !== 'default') knownDefaults.set(after, defaults);
}

/**
 * A protocol that begins on a link takes every known default of its netns (K-2.2). Where nobody answers for an address
 * (IFF_NOARP), IPv6 never looks for duplicates (net/ipv6/addrconf.c, ipv6_add_dev).
 */
export function inheritSysctls(
  netns: Netns,
  { ifname, kind }: Pick<Link, 'ifname' | 'kind'>,
  families: readonly Family[],
): Record<SysctlKey, string> {
  const defaults = defaultsIn(netns.sysctls);
  const sysctls = { ...netns.sysctls };
  for (const { family, name, tree } of defaults) {
    if (!families.includes(family)) continue;
    const value = netns.sysctls[linkSysctlKey(family, 'default', name, tree)] ?? '';
    const own = kind === 'ifb' && family === 6 && name === 'accept_dad' ? '-1' : value;
    sysctls[linkSysctlKey(family, ifname, name, tree)] = own;
  }
  keepDefaults(netns.sysctls, sysctls, ifname);
  return sysctls;
}

/** The sysctls of a netns without those of one link and these families. */
export function dropLinkSysctls(
  netns: Netns,
  ifname: Ifname,
  families: readonly Family[],
): Record<SysctlKey, string> {
  const sysctls = { ...netns.sysctls };
  for (const key of Object.keys(sysctls)) {
    // Most are of other links, and are not worth a look at their parts.
    const link = key.includes(`/${ifname}/`) ? splitLinkSysctl(key) : undefined;
    if (link?.of === ifname && families.includes(link.family)) delete sysctls[key];
  }
  keepDefaults(netns.sysctls, sysctls, ifname);
  return sysctls;
}

/** How addresses are made of MACs (include/uapi/linux/if_link.h, enum in6_addr_gen_mode); 2 needs a secret that nobody gave. */
const ADDR_GEN_MODES = ['0', '1', '3'];

/**
 * A value as the kernel keeps it, or undefined when it cannot read it (EINVAL). Settings of links are numbers
 * without a range, also those that mean yes or no (kernel/sysctl.c, proc_dointvec); of other keys nothing is known.
 */
export function storedSysctl(key: SysctlKey, value: string): string | undefined {
  const link = splitLinkSysctl(key);
  if (link === undefined && key !== IP_FORWARD) return value;
  const number = /^\s*(-?\d+)\s*$/.exec(value)?.[1];
  if (number === undefined || Math.abs(Number(number)) > 0x7fffffff) return undefined;
  const stored = String(Number(number));
  return link?.name === 'addr_gen_mode' && !ADDR_GEN_MODES.includes(stored) ? undefined : stored;
}

/**
 * Every key that a write of `value` changes, itself included (K-7.6; net/ipv4/devinet.c devinet_sysctl_forward,
 * net/ipv6/addrconf.c addrconf_fixup_forwarding and addrconf_disable_ipv6): `all` of these settings is
 * written through to `default` and to each link, but in IPv4 only when it changes.
 */
export function sysctlsWritten(netns: Netns, key: SysctlKey, value: string): SysctlKey[] {
  const asLink = key === IP_FORWARD ? ALL_FORWARDING : splitLinkSysctl(key);
  if (!asLink || asLink.of !== 'all') return [key];
  const { family, name } = asLink;
  const spreads = name === 'forwarding' || (family === 6 && name === 'disable_ipv6');
  if (!spreads) return [key];
  const all = linkSysctlKey(family, 'all', name);
  const own = family === 4 ? [all, IP_FORWARD] : [all];
  if (family === 4 && (netns.sysctls[all] ?? netns.sysctls[IP_FORWARD]) === value) return own;
  const owners = Object.values(netns.links).filter((link) => family === 4 || holdsIpv6(link));
  return [
    ...own,
    linkSysctlKey(family, 'default', name),
    ...owners.map((link) => linkSysctlKey(family, link.ifname, name)),
  ];
}
