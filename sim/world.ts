/** A host together with what its links learned from traffic. An immutable value: every change gives a new one. */
import { hasCarrier } from '../model/carrier.ts';
import { type Host, type NetnsName, findLink, findNetns } from '../model/host.ts';
import type { Ifname } from '../model/ifname.ts';
import type { Ip } from '../model/ip.ts';
import type { LinkRef } from '../model/link.ts';
import type { Mac } from '../model/mac.ts';
import type { Connections } from './conntrack.ts';
import type { LegacyTables } from './legacy-table.ts';

/** Where a bridge saw a MAC address. */
export interface FdbEntry {
  readonly port: Ifname;
}

/** Behind whom a vxlan saw a MAC address. */
export interface RemoteEntry {
  readonly ip: Ip;
}

/** What a link knows of a neighbour by ARP or ND; what somebody set for good is in the host. */
export interface NeighbourEntry {
  readonly mac: Mac;
}

/** One table per link, each by its own key: a MAC address, an IP address. */
type LinkTables<Entry> = Readonly<
  Record<NetnsName, Readonly<Record<string, Readonly<Record<string, Entry>>>>>
>;

export interface World {
  readonly host: Host;
  /** What beside the host may decide about packets, and is not read. */
  readonly legacyTables: LegacyTables;
  /** By netns, bridge, and MAC with VLAN. Only what was learned: `bridge.ts` derives the entries of ports and bridges themselves. */
  readonly fdb: LinkTables<FdbEntry>;
  /** By netns, link and IP. */
  readonly neighbours: LinkTables<NeighbourEntry>;
  /** By netns, vxlan and MAC: what was learned. */
  readonly remotes: LinkTables<RemoteEntry>;
  readonly connections: Connections;
}

/** A world in which nothing was ever sent, of a host that has these tables of iptables-legacy. */
export function makeWorld(host: Host, legacyTables: LegacyTables = {}): World {
  return { host, legacyTables, fdb: {}, neighbours: {}, remotes: {}, connections: {} };
}

/** May frames pass this port of a bridge? The port and the bridge are up, and there is carrier (K-1.7, K-1.16 without STP). */
export function portForwards(host: Host, port: LinkRef): boolean {
  const master = findLink(host, port)?.port?.master;
  const bridge =
    master === undefined ? undefined : findLink(host, { netns: port.netns, ifname: master });
  return bridge?.up === true && hasCarrier(host, port);
}

function keep<Entry>(
  tables: LinkTables<Entry>,
  stays: (ref: LinkRef, entry: Entry) => boolean,
): LinkTables<Entry> {
  const kept: Record<string, Record<string, Record<string, Entry>>> = {};
  for (const [netns, links] of Object.entries(tables)) {
    for (const [ifname, table] of Object.entries(links)) {
      const ref = { netns, ifname: ifname as Ifname };
      const entries = Object.entries(table).filter(([, entry]) => stays(ref, entry));
      if (entries.length > 0) (kept[netns] ??= {})[ifname] = Object.fromEntries(entries);
    }
  }
  return kept;
}

/**
 * The world after its host changed. What was learned on a port that no longer forwards (K-6.2) or on a
 * link without carrier (K-7.3) is forgotten; the kernel takes up to a second for that, here it is at once.
 */
export function withHost(world: World, host: Host): World {
  const isStillPort = (ref: LinkRef, { port }: FdbEntry): boolean => {
    const at = { netns: ref.netns, ifname: port };
    return findLink(host, at)?.port?.master === ref.ifname && portForwards(host, at);
  };
  return {
    ...world,
    host,
    fdb: keep(world.fdb, isStillPort),
    neighbours: keep(world.neighbours, (ref) => hasCarrier(host, ref)),
    remotes: keep(world.remotes, (ref) => findLink(host, ref)?.up === true),
    connections: Object.fromEntries(
      Object.entries(world.connections).filter(([name]) => findNetns(host, name)),
    ),
  };
}

function findEntry<Entry>(tables: LinkTables<Entry>, ref: LinkRef, key: string): Entry | undefined {
  const table = tables[ref.netns]?.[ref.ifname];
  return table && Object.hasOwn(table, key) ? table[key] : undefined;
}

function withEntry<Entry>(
  tables: LinkTables<Entry>,
  ref: LinkRef,
  key: string,
  entry: Entry,
): LinkTables<Entry> {
  const links = tables[ref.netns];
  const table = { ...links?.[ref.ifname], [key]: entry };
  return { ...tables, [ref.netns]: { ...links, [ref.ifname]: table } };
}

function fdbKey(mac: Mac, vlan: number): string {
  return vlan === 0 ? mac : `${mac} vlan ${vlan}`;
}

/** The port by which `bridge` last saw a MAC address in a VLAN, 0 where it does not filter. */
export function findLearnedPort(
  world: World,
  bridge: LinkRef,
  mac: Mac,
  vlan: number,
): Ifname | undefined {
  return findEntry(world.fdb, bridge, fdbKey(mac, vlan))?.port;
}

export function withLearnedPort(
  world: World,
  bridge: LinkRef,
  mac: Mac,
  vlan: number,
  port: Ifname,
): World {
  return { ...world, fdb: withEntry(world.fdb, bridge, fdbKey(mac, vlan), { port }) };
}

/** Behind whom a vxlan last saw a MAC address. */
export function findLearnedRemote(world: World, vxlan: LinkRef, mac: Mac): Ip | undefined {
  return findEntry(world.remotes, vxlan, mac)?.ip;
}

export function withLearnedRemote(world: World, vxlan: LinkRef, mac: Mac, ip: Ip): World {
  return { ...world, remotes: withEntry(world.remotes, vxlan, mac, { ip }) };
}

/** The MAC address of a neighbour: what was set for good comes before what was learned. */
export function findNeighbour(world: World, link: LinkRef, ip: Ip): Mac | undefined {
  const permanent = findPermanentNeighbour(world.host, link, ip);
  return permanent ?? findEntry(world.neighbours, link, ip)?.mac;
}

export function findPermanentNeighbour(host: Host, link: LinkRef, ip: Ip): Mac | undefined {
  return findLink(host, link)?.neighbours.find((neighbour) => neighbour.ip === ip)?.mac;
}

export function withNeighbour(world: World, link: LinkRef, ip: Ip, mac: Mac): World {
  return { ...world, neighbours: withEntry(world.neighbours, link, ip, { mac }) };
}
