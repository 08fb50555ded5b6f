/** The settings of all links together over rtnetlink, of those few that it tells (include/uapi/linux/netconf.h; net/ipv4/devinet.c, inet_netconf_fill_devconf). */
import type { Family } from '../../model/ip.ts';
import { findU32, putU32, readAttributes } from './attribute.ts';
import { AF_INET, AF_INET6 } from './family.ts';
import { type Message, encodeMessage } from './message.ts';

const RTM_NEWNETCONF = 80;
const RTM_GETNETCONF = 82;

/** struct netconfmsg: the family, padded. */
const NETCONFMSG_BYTES = 4;

const NETCONFA_IFINDEX = 1;
/** Instead of an ifindex: `all`. */
const NETCONFA_IFINDEX_ALL = -1;

/** The attributes by the names of the files that say the same (NETCONFA_*). */
const VALUES = {
  4: { forwarding: 2, rp_filter: 3, proxy_arp: 5 },
  6: { forwarding: 2 },
} as const;

/** The settings of all links that can be asked for so. */
export const NETCONF_SETTINGS = {
  4: ['forwarding', 'rp_filter', 'proxy_arp'],
  6: ['forwarding'],
} as const satisfies { readonly [F in Family]: readonly (keyof (typeof VALUES)[F])[] };

/** Asks for the settings of all links in a family: EOPNOTSUPP where the kernel has not that family. */
export function encodeNetconfGet(family: Family): Uint8Array {
  return encodeMessage(RTM_GETNETCONF, 0, NETCONFMSG_BYTES, (writer, fixed) => {
    writer.bytes[fixed] = family === 4 ? AF_INET : AF_INET6;
    putU32(writer, NETCONFA_IFINDEX, NETCONFA_IFINDEX_ALL);
  });
}

/** The settings in an answer, by their names; undefined for other messages. */
export function decodeNetconf(message: Message): Readonly<Record<string, number>> | undefined {
  if (message.type !== RTM_NEWNETCONF) return undefined;
  const family = message.bytes[message.start] === AF_INET ? 4 : 6;
  const attributes = readAttributes(message, message.start + NETCONFMSG_BYTES, message.end);
  const settings: Record<string, number> = {};
  for (const [name, type] of Object.entries(VALUES[family])) {
    const value = findU32(attributes, type);
    // They are signed.
    if (value !== undefined) settings[name] = value | 0;
  }
  return settings;
}
