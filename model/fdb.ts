/** The forwarding database of a bridge, as far as it is configuration: what it learns is not (net/bridge/br_fdb.c). */
import type { Netns } from './host.ts';
import type { Ifname } from './ifname.ts';
import type { BridgeLink } from './link.ts';
import { type Mac, ZERO_MAC } from './mac.ts';

/** An entry that somebody made. With VLANs it stands for its twins in each of them too. */
export interface FdbEntry {
  readonly mac: Mac;
  /** Where the address is; null: it is the bridge's own. */
  readonly port: Ifname | null;
  /** `static`: frames leave by the port. `local`: they are for this host (the kernel's word is permanent). */
  readonly state: 'static' | 'local';
}

/** What of a bridge's forwarding database does not follow from its own MAC and those of its ports (K-6.1). */
export interface BridgeFdb {
  readonly entries: readonly FdbEntry[];
  /** Addresses of the bridge or of ports whose own entry somebody took away. */
  readonly missing: readonly Mac[];
}

const EMPTY: BridgeFdb = { entries: [], missing: [] };

export function fdbOf({ fdb = EMPTY }: Pick<BridgeLink, 'fdb'>): BridgeFdb {
  return fdb;
}

/** The bridge with another forwarding database. */
export function withFdb(bridge: BridgeLink, fdb: BridgeFdb): BridgeLink {
  const { fdb: _before, ...rest } = bridge;
  return fdb.entries.length === 0 && fdb.missing.length === 0 ? rest : { ...rest, fdb };
}

/** The addresses that the bridge has entries for by itself: its own and those of its ports. */
export function ownMacs({ links }: Pick<Netns, 'links'>, bridge: BridgeLink): ReadonlySet<Mac> {
  // A bridge without ports, whose MAC nobody chose, has none.
  const macs = new Set<Mac>(bridge.mac === null || bridge.mac === ZERO_MAC ? [] : [bridge.mac]);
  for (const { port, mac } of Object.values(links))
    if (port?.master === bridge.ifname && mac !== null) macs.add(mac);
  return macs;
}

/** Everything in the forwarding database that is not learned, the kernel's own entries without their port. */
export function allEntries(
  netns: Pick<Netns, 'links'>,
  bridge: BridgeLink,
): readonly Pick<FdbEntry, 'mac' | 'state' | 'port'>[] {
  const { entries, missing } = fdbOf(bridge);
  const local = new Set<Mac>(ownMacs(netns, bridge));
  for (const mac of missing) local.delete(mac);
  for (const { mac, state } of entries) if (state === 'local') local.add(mac);
  return [
    ...entries.filter(({ state }) => state === 'static'),
    ...[...local].toSorted().map((mac) => ({ mac, state: 'local' as const, port: null })),
  ];
}

/** The bridge after an address became its own, or that of a port: its entry comes anew, and takes the place of a static one (fdb_add_local). */
export function withOwnMac(bridge: BridgeLink, mac: Mac | null): BridgeLink {
  if (!bridge.fdb || mac === null) return bridge;
  return withFdb(bridge, {
    entries: bridge.fdb.entries.filter((e) => e.mac !== mac || e.state === 'local'),
    missing: bridge.fdb.missing.filter((each) => each !== mac),
  });
}

/** The bridge after a port left, or the MAC of one changed: what was said of ports that are gone, or of MACs that nobody has, is void. */
export function withoutStrangers(netns: Pick<Netns, 'links'>, bridge: BridgeLink): BridgeLink {
  if (!bridge.fdb) return bridge;
  const own = ownMacs(netns, bridge);
  const isPort = (port: Ifname | null): boolean =>
    port === null || netns.links[port]?.port?.master === bridge.ifname;
  return withFdb(bridge, {
    entries: bridge.fdb.entries.filter(({ port }) => isPort(port)),
    missing: bridge.fdb.missing.filter((mac) => own.has(mac)),
  });
}
