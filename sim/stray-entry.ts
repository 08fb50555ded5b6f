/** Entries of forwarding databases by which frames for a MAC address go astray: what to blame, and what would mend it. */
import { ownMacs } from '../model/fdb.ts';
import { type Host, type Netns, type NetnsName, findLink } from '../model/host.ts';
import type { BridgeLink } from '../model/link.ts';
import type { Mac } from '../model/mac.ts';

/** An entry that is wrong, or missing. */
export interface StrayEntry {
  readonly netns: NetnsName;
  readonly bridge: BridgeLink;
  /** In the words of `Cause`. */
  readonly object: string;
  readonly text: string;
  /** To be run in the netns. */
  readonly mend: string;
}

function objectOf(mac: Mac, { ifname }: BridgeLink): string {
  return `FDB entry ${mac} of bridge ${ifname}`;
}

/** What is wrong in a bridge with where a MAC address is said to be, by somebody and not by what was seen; undefined where nothing is. */
export function strayEntryIn(
  host: Host,
  netns: NetnsName,
  links: Netns['links'],
  bridge: BridgeLink,
  mac: Mac,
): StrayEntry | undefined {
  const { entries, missing } = bridge.fdb ?? { entries: [], missing: [] };
  const about = { netns, bridge, object: objectOf(mac, bridge) };
  const isOwn = ownMacs({ links }, bridge).has(mac);
  if (isOwn && missing.includes(mac))
    return {
      ...about,
      text: 'is missing, so that frames for it do not go up: it is an address of the bridge itself, or of a port',
      mend: `bridge fdb add ${mac} dev ${bridge.ifname} self permanent`,
    };
  const entry = entries.find((each) => each.mac === mac);
  if (!entry || isOwn) return undefined;
  const at = entry.port === null ? `${bridge.ifname} self` : `${entry.port} master`;
  const mend = `bridge fdb del ${mac} dev ${at}`;
  if (entry.state === 'local')
    return { ...about, text: 'says that it is this host itself, and it is not', mend };
  const port = entry.port === null ? undefined : links[entry.port];
  const far = port?.kind === 'veth' && port.peer ? findLink(host, port.peer) : undefined;
  // What is behind a port that leads elsewhere nobody knows.
  return far?.mac === mac || (far?.port ?? null) !== null || !far
    ? undefined
    : { ...about, text: `leads to port ${entry.port}, and it is not there`, mend };
}

/** The same in any bridge of a host, those of one netns first. */
export function strayEntry(host: Host, first: NetnsName, mac: Mac): StrayEntry | undefined {
  const names = [first, ...Object.keys(host.netns).filter((name) => name !== first)];
  for (const name of names) {
    const links = host.netns[name]?.links ?? {};
    for (const link of Object.values(links)) {
      const stray =
        link.kind === 'bridge' && link.fdb && strayEntryIn(host, name, links, link, mac);
      if (stray) return stray;
    }
  }
  return undefined;
}
