/** The settings of links without their files, as far as netlink tells them: most of reading hundreds of netns would be looking for those. */
import type { NetnsName, SysctlKey } from '../../model/host.ts';
import type { Ifname } from '../../model/ifname.ts';
import type { Family } from '../../model/ip.ts';
import { linkSysctlKey } from '../../model/sysctl.ts';
import { expectAnswer } from './answer.ts';
import { type Attributes, findNest, findSpan } from './attribute.ts';
import { NETCONF_SETTINGS, decodeNetconf, encodeNetconfGet } from './netconf-message.ts';
import type { SettingsReader } from './observe.ts';
import { type NetlinkSocket, isFault } from './socket.ts';

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

/** Of a family the keys of a link's settings, and where the values of each lie. */
type Places = readonly (readonly [key: SysctlKey, place: number])[];

const VALUE_BYTES = 4;

const BOTH = [4, 6] as const;

/** Another name for IPv4's forwarding of all links (net/ipv4/devinet.c, ctl_forward_entry). */
const IP_FORWARD: SysctlKey = 'net/ipv4/ip_forward';

/** The keys of what netlink tells of all links together, by the names that it has there. */
const OF_ALL: Readonly<Record<Family, readonly (readonly [string, readonly SysctlKey[]])[]>> = {
  4: NETCONF_SETTINGS[4].map((name) => {
    const key = linkSysctlKey(4, 'all', name);
    return [name, name === 'forwarding' ? [key, IP_FORWARD] : [key]];
  }),
  6: NETCONF_SETTINGS[6].map((name) => [name, [linkSysctlKey(6, 'all', name)]]),
};

/** The settings of all links together that need not be read from files. */
export const TOLD_OF_ALL: readonly SysctlKey[] = BOTH.flatMap((family) =>
  OF_ALL[family].flatMap(([, keys]) => keys),
);

/** The keys of links are made once for all links of a name: in every netns there is a `lo`, and in most an `eth0`. */
function placesByName(names: LinkSettings): (ifname: Ifname) => Readonly<Record<Family, Places>> {
  const known = new Map<Ifname, Readonly<Record<Family, Places>>>();
  return (ifname) => {
    let places = known.get(ifname);
    if (!places) {
      places = {
        4: names[4].map((name) => [linkSysctlKey(4, ifname, name), PLACES[4][name]]),
        6: names[6].map((name) => [linkSysctlKey(6, ifname, name), PLACES[6][name]]),
      };
      known.set(ifname, places);
    }
    return places;
  };
}

/** Those of a link (net/ipv4/devinet.c, inet_fill_link_af; net/ipv6/addrconf.c, inet6_fill_ifla6_attrs). */
function ofLink(places: Readonly<Record<Family, Places>>, link: Attributes): [SysctlKey, string][] {
  const settings: [SysctlKey, string][] = [];
  const spec = findNest(link, IFLA_AF_SPEC);
  if (!spec) return settings;
  for (const family of BOTH) {
    const own = findNest(spec, FAMILIES[family].family);
    const conf = own && findSpan(own, FAMILIES[family].conf);
    if (!conf) continue;
    for (const [key, place] of places[family]) {
      const at = conf.start + place * VALUE_BYTES;
      if (at + VALUE_BYTES <= conf.end) settings.push([key, `${link.view.getInt32(at, true)}`]);
    }
  }
  return settings;
}

/** The same for every netns; a socket writes its number into them. */
const QUESTIONS = { 4: encodeNetconfGet(4), 6: encodeNetconfGet(6) } as const;

/** Those of all links together. */
function ofAll(socket: NetlinkSocket, netns: NetnsName): [SysctlKey, string][] {
  return BOTH.flatMap((family) => {
    const answer = socket.ask(QUESTIONS[family], decodeNetconf);
    // A kernel without the family.
    if (isFault(answer) && answer.errno === 'EOPNOTSUPP') return [];
    const values = expectAnswer(answer, netns, 'the settings of all links');
    return OF_ALL[family].flatMap(([name, keys]) => {
      const value = values[name];
      return value === undefined ? [] : keys.map((key): [SysctlKey, string] => [key, `${value}`]);
    });
  });
}

/** Reads these settings of each link, `TOLD_OF_ALL` of all together, and by their files those of bridges where there is one. */
export function settingsReader(
  names: LinkSettings,
  ofBridges: readonly SysctlKey[],
): SettingsReader {
  const placesFor = placesByName(names);
  return {
    ofLink: (link, ifname) => ofLink(placesFor(ifname), link),
    ofAll,
    ofBridges,
  };
}
