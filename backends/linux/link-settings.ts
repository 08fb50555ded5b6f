/** The settings of links that a dump of links tells beside everything else (net/ipv4/devinet.c, inet_fill_link_af; net/ipv6/addrconf.c, inet6_fill_ifla6_attrs). */
import type { SysctlKey } from '../../model/host.ts';
import type { Ifname } from '../../model/ifname.ts';
import type { Family } from '../../model/ip.ts';
import { linkSysctlKey } from '../../model/sysctl.ts';
import { findNest, findSpan, readAttributes } from './attribute.ts';
import { RTM_NEWLINK, IFINFOMSG_BYTES } from './link-message.ts';
import type { Message } from './message.ts';

/** Settings of links by family that decide about packets. */
export const LINK_SETTINGS = {
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

/** Settings by their keys. */
export type Settings = readonly (readonly [key: SysctlKey, value: string])[];

const IFLA_AF_SPEC = 26;

/** AF_INET and AF_INET6, by which the settings of each lie in an attribute, and in that the attribute with all their values. */
const FAMILIES = { 4: { family: 2, conf: 1 }, 6: { family: 10, conf: 2 } } as const;

/** Where each value lies: IPV4_DEVCONF_* (include/uapi/linux/ip.h), which begin at 1, and DEVCONF_* (include/uapi/linux/ipv6.h). */
const PLACES: Readonly<Record<(typeof LINK_SETTINGS)[Family][number], number>> = {
  forwarding: 0,
  proxy_arp: 2,
  rp_filter: 7,
  arp_filter: 12,
  arp_ignore: 18,
  accept_local: 22,
  route_localnet: 25,
  disable_ipv6: 26,
};

const VALUE_BYTES = 4;

/** The settings of the link in an answer, by their keys; of a family that the link does not have there are none. */
export function decodeLinkSettings(message: Message, ifname: Ifname): Settings {
  if (message.type !== RTM_NEWLINK) return [];
  const attributes = readAttributes(message, message.start + IFINFOMSG_BYTES, message.end);
  const spec = findNest(attributes, IFLA_AF_SPEC);
  if (!spec) return [];
  return ([4, 6] as const).flatMap((family) => {
    const own = findNest(spec, FAMILIES[family].family);
    const conf = own && findSpan(own, FAMILIES[family].conf);
    if (!conf) return [];
    return LINK_SETTINGS[family].flatMap((name) => {
      const at = conf.start + PLACES[name] * VALUE_BYTES;
      if (at + VALUE_BYTES > conf.end) return [];
      return [[linkSysctlKey(family, ifname, name), `${own.view.getInt32(at, true)}`] as const];
    });
  });
}
