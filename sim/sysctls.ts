/** The settings that decide about packets: whoever reads a host to simulate on it reads these. */
import type { SysctlKey } from '../model/host.ts';
import type { Ifname } from '../model/ifname.ts';
import type { Family } from '../model/ip.ts';
import { linkSysctlKey } from '../model/sysctl.ts';

/** Those of links, by family. */
export const DECIDING_LINK_SETTINGS = {
  4: [
    'forwarding',
    'rp_filter',
    'arp_ignore',
    'arp_filter',
    'proxy_arp',
    'accept_local',
    'route_localnet',
  ],
  6: ['disable_ipv6'],
} as const;

/** Are echo requests for the netns left unanswered (K-7.11)? */
export const ECHO_IGNORE_ALL = {
  4: 'net/ipv4/icmp_echo_ignore_all',
  6: 'net/ipv6/icmp/echo_ignore_all',
} as const satisfies Record<Family, SysctlKey>;

const OF_NETNS: readonly SysctlKey[] = [
  'net/ipv4/ip_forward',
  'net/ipv6/conf/all/forwarding',
  ...Object.values(ECHO_IGNORE_ALL),
];

/** Does IP look at what bridges forward (K-8.4)? They say nothing where there is no bridge. */
export const DECIDING_BRIDGE_SETTINGS: readonly SysctlKey[] = [
  'net/bridge/bridge-nf-call-iptables',
  'net/bridge/bridge-nf-call-ip6tables',
];

/** The keys of all but those of bridges, in a netns with these links. */
export function decidingSysctls(ifnames: readonly Ifname[]): SysctlKey[] {
  return [
    ...OF_NETNS,
    ...(['all', ...ifnames] as const).flatMap((of) =>
      DECIDING_LINK_SETTINGS[4].map((name) => linkSysctlKey(4, of, name)),
    ),
    ...ifnames.flatMap((of) => DECIDING_LINK_SETTINGS[6].map((name) => linkSysctlKey(6, of, name))),
  ];
}

/** The number that a setting says, of those that the kernel takes; undefined where it is not known, or a file holds something else. */
export function numberOf(setting: string | undefined): number | undefined {
  return setting !== undefined && /^\d{1,9}$/.test(setting) ? Number(setting) : undefined;
}
