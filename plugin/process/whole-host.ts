/** Everything of this machine that decides about packets, as it is now. */
import type { Backend, NetnsScope } from '../../backends/backend.ts';
import { readLegacyTables } from '../../backends/linux/legacy-tables.ts';
import { TOLD_OF_ALL, settingsReader } from '../../backends/linux/link-settings.ts';
import type { LinuxBackend, LinuxChoice } from '../../backends/linux/linux.ts';
import { FOREIGN } from '../../backends/linux/nftables-foreign.ts';
import { readUnreadTables } from '../../backends/linux/nftables-unread.ts';
import { HOST_NETNS, type Host, type NetnsName } from '../../model/host.ts';
import type { Link } from '../../model/link.ts';
import { type LegacyTables, type WholeHost, deciding } from '../../sim/legacy-table.ts';
import {
  DECIDING_BRIDGE_SETTINGS,
  DECIDING_LINK_SETTINGS,
  decidingSysctls,
} from '../../sim/sysctls.ts';
import { withChosenMacs } from './bridge-macs.ts';

/** For who reads everything: the rules of others too, and which kernel it is. */
export const WHOLE: LinuxChoice = {
  tellsRelease: true,
  foreign: FOREIGN,
  linkSettings: settingsReader(DECIDING_LINK_SETTINGS, DECIDING_BRIDGE_SETTINGS),
};

const EVERYTHING: NetnsScope = {
  links: 'all',
  routes: 'all',
  policyRules: true,
  fdb: true,
  vlans: true,
  trafficControl: true,
  sysctls: decidingSysctls([]).filter((key) => !TOLD_OF_ALL.includes(key)),
  nftables: 'all',
};

/** What a bridge of the host will heed is asked for before there is one: a plan may be about to make it. */
const EVERYTHING_OF_HOST: NetnsScope = {
  ...EVERYTHING,
  sysctls: [...EVERYTHING.sysctls, ...DECIDING_BRIDGE_SETTINGS],
};

/** A link without what it has in netns that are not there: one may go while it is read. */
function among(link: Link, isThere: (netns: NetnsName | null) => boolean): Link {
  const uppers = link.uppers?.filter(({ netns }) => isThere(netns));
  const known = uppers ? { ...link, uppers } : link;
  if (known.kind === 'veth' && !isThere(known.peer?.netns ?? null)) return { ...known, peer: null };
  if (known.kind === 'macvlan' && !isThere(known.lower?.netns ?? null))
    return { ...known, lower: null };
  if (known.kind === 'vxlan' && !isThere(known.underlay)) return { ...known, underlay: null };
  return known;
}

/** The host without a mention of netns that it does not have. */
export function withoutMentions(host: Host): Host {
  const isThere = (name: NetnsName | null): boolean =>
    name !== null && Object.hasOwn(host.netns, name);
  const netns = Object.entries(host.netns).map(([name, state]) => {
    const links = Object.values(state.links).map((link) => [link.ifname, among(link, isThere)]);
    return [name, { ...state, links: Object.fromEntries(links) }];
  });
  return { ...host, netns: Object.fromEntries(netns) };
}

/** The state of these netns, by a backend made for `WHOLE`; one that is not there, or goes meanwhile, is not in it. */
export function observeWhole(backend: Backend, names: readonly NetnsName[]): Host {
  const scope = names.map((name) => [name, name === HOST_NETNS ? EVERYTHING_OF_HOST : EVERYTHING]);
  const host = backend.observe(Object.fromEntries(scope));
  return withChosenMacs(withoutMentions(host));
}

/** What is not read of each netns. */
function unreadOf(backend: LinuxBackend, names: readonly NetnsName[]): LegacyTables {
  const [legacy, ofNft] = [readLegacyTables(names), readUnreadTables(backend, names)];
  const all = names.flatMap((name) => {
    const tables = [...(legacy[name] ?? []), ...(ofNft[name] ?? [])];
    return tables.length === 0 ? [] : [[name, tables] as const];
  });
  return Object.fromEntries(all);
}

/** The same with the tables there that are not read and may do something to packets. Throws where the kernel may not be asked. */
export function readWhole(backend: LinuxBackend, names: readonly NetnsName[]): WholeHost {
  const host = observeWhole(backend, names);
  return { host, legacyTables: deciding(unreadOf(backend, Object.keys(host.netns))) };
}
