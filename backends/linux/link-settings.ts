/** The settings of links that a dump of links tells beside everything else (net/ipv4/devinet.c, inet_fill_link_af; net/ipv6/addrconf.c, inet6_fill_ifla6_attrs). */
import type { Family } from '../../model/ip.ts';
import { linkSysctlKey } from '../../model/sysctl.ts';
import { findNest, findSpan, readAttributes } from './attribute.ts';
import { IFINFOMSG_BYTES } from './link-message.ts';
import type { SettingsDecoder } from './observe.ts';

const IFLA_AF_SPEC = 26;

/** AF_INET and AF_INET6, by which the settings of each lie in an attribute, and in that the attribute with all their values. */
const FAMILIES = { 4: { family: 2, conf: 1 }, 6: { family: 10, conf: 2 } } as const;

/** Where each value lies: IPV4_DEVCONF_* (include/uapi/linux/ip.h), which begin at 1, and DEVCONF_* (include/uapi/linux/ipv6.h). */
const PLACES = {
  4: {
    forwarding: 0,
    proxy_arp: 2,
    rp_filter: 7,
    arp_filter: 12,
    arp_ignore: 18,
    accept_local: 22,
    route_localnet: 25,
  },
  6: { disable_ipv6: 26 },
} as const;

/** Names of settings by family, of those that can be read so. */
export type LinkSettings = {
  readonly [F in Family]: readonly (keyof (typeof PLACES)[F])[];
};

const VALUE_BYTES = 4;

function placesOf(names: LinkSettings): Readonly<Record<Family, readonly [string, number][]>> {
  return {
    4: names[4].map((name) => [name, PLACES[4][name]]),
    6: names[6].map((name) => [name, PLACES[6][name]]),
  };
}

/** Reads these settings of the link in an answer, by their keys; of a family that the link does not have there are none. */
export function settingsDecoder(names: LinkSettings): SettingsDecoder {
  const places = placesOf(names);
  return (message, ifname) => {
    const attributes = readAttributes(message, message.start + IFINFOMSG_BYTES, message.end);
    const spec = findNest(attributes, IFLA_AF_SPEC);
    if (!spec) return [];
    return ([4, 6] as const).flatMap((family) => {
      const own = findNest(spec, FAMILIES[family].family);
      const conf = own && findSpan(own, FAMILIES[family].conf);
      if (!conf) return [];
      return places[family].flatMap(([name, place]) => {
        const at = conf.start + place * VALUE_BYTES;
        if (at + VALUE_BYTES > conf.end) return [];
        return [[linkSysctlKey(family, ifname, name), `${own.view.getInt32(at, true)}`] as const];
      });
    });
  };
}
