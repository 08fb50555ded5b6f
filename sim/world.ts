/** A host together with what its links learned from traffic, at some time. An immutable value: every change gives a new one. */
import { hasCarrier } from '../model/carrier.ts';
import { type Host, type NetnsName, findLink, findNetns } from '../model/host.ts';
import type { Ifname } from '../model/ifname.ts';
import type { Ip } from '../model/ip.ts';
import type { LinkRef } from '../model/link.ts';
import type { Mac } from '../model/mac.ts';
import type { Connections } from './conntrack.ts';
import type { LegacyTables } from './legacy-table.ts';
import type { NeighbourEntry } from './neighbour-state.ts';

/** Where a bridge saw a MAC address, and when it last did. */
export interface FdbEntry {
  readonly port: Ifname;
  readonly seenMs: number;
  /** Somebody had set where it is, until it was seen elsewhere: it is not forgotten. */
  readonly isStatic?: true;
}

/** Behind whom a vxlan saw a MAC address, and when it last did. */
export interface RemoteEntry {
  readonly ip: Ip;
  readonly seenMs: number;
}

/** One table per link, each by its own key: a MAC address, an IP address. */
type LinkTables<Entry> = Readonly<
  Record<NetnsName, Readonly<Record<string, Readonly<Record<string, Entry>>>>>
>;

/** What decides about packets beside the state of the host. */
export interface Circumstances {
  /** Decides what the kernel decides by chance; null: the first, or the middle, of what can be. */
  readonly seed: number | null;
  /** After how long bridges and vxlans forget where they saw a MAC address: five minutes, unless they were told otherwise (`ip link set br0 type bridge ageing_time`). With 0 nothing is learned. */
  readonly ageingMs: number;
}

export interface World extends Circumstances {
  readonly host: Host;
  /** The time, in milliseconds since the world began. */
  readonly nowMs: number;
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

const USUAL: Circumstances = { seed: null, ageingMs: 300_000 };

/** A world that begins now, in which nothing was ever sent, of a host that has these tables of iptables-legacy. */
export function makeWorld(
  host: Host,
  legacyTables: LegacyTables = {},
  circumstances: Partial<Circumstances> = {},
): World {
  const learned = { fdb: {}, neighbours: {}, remotes: {}, connections: {} };
  return { ...USUAL, ...circumstances, host, nowMs: 0, legacyTables, ...learned };
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
  stays: (ref: LinkRef, entry: Entry, key: string) => boolean,
): LinkTables<Entry> {
  const kept: Record<string, Record<string, Record<string, Entry>>> = {};
  for (const [netns, links] of Object.entries(tables)) {
    for (const [ifname, table] of Object.entries(links)) {
      const ref = { netns, ifname: ifname as Ifname };
      const entries = Object.entries(table).filter(([key, entry]) => stays(ref, entry, key));
      if (entries.length > 0) (kept[netns] ??= {})[ifname] = Object.fromEntries(entries);
    }
  }
  return kept;
}

/**
 * The world after its host changed. What was learned on a port that no longer forwards (K-6.2), or on a link without
 * carrier or with another MAC (K-7.3), is forgotten; the kernel takes up to a second for that, here it is at once.
 */
export function withHost(world: World, host: Host): World {
  const isStillPort = (ref: LinkRef, { port, isStatic }: FdbEntry, key: string): boolean => {
    const at = { netns: ref.netns, ifname: port };
    if (findLink(host, at)?.port?.master !== ref.ifname) return false;
    return isStatic ? findStaticPort(host, ref, macOf(key)) !== undefined : portForwards(host, at);
  };
  const knowsNeighbours = (ref: LinkRef): boolean =>
    hasCarrier(host, ref) && findLink(host, ref)?.mac === findLink(world.host, ref)?.mac;
  return {
    ...world,
    host,
    fdb: keep(world.fdb, isStillPort),
    neighbours: keep(world.neighbours, knowsNeighbours),
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

function macOf(key: string): string {
  return key.split(' ')[0] ?? key;
}

/** Is what was seen then still known? */
function isFresh({ nowMs, ageingMs }: World, { seenMs }: { readonly seenMs: number }): boolean {
  return nowMs < seenMs + ageingMs;
}

/** The port at which somebody has set a MAC address to be. */
function findStaticPort(host: Host, bridge: LinkRef, mac: string): Ifname | undefined {
  const link = findLink(host, bridge);
  if (link?.kind !== 'bridge' || !link.fdb) return undefined;
  const entry = link.fdb.entries.find((each) => each.mac === mac && each.state === 'static');
  return entry?.port ?? undefined;
}

/** The port by which `bridge` last saw a MAC address in a VLAN, 0 where it does not filter; where it was not seen since somebody set where it is, that. */
export function findLearnedPort(
  world: World,
  bridge: LinkRef,
  mac: Mac,
  vlan: number,
): Ifname | undefined {
  const entry = findEntry(world.fdb, bridge, fdbKey(mac, vlan));
  return entry && (entry.isStatic || isFresh(world, entry))
    ? entry.port
    : findStaticPort(world.host, bridge, mac);
}

/** The bridge saw a MAC address at a port: it is there from now on, also where somebody has set it to be elsewhere (br_fdb_update). */
export function withLearnedPort(
  world: World,
  bridge: LinkRef,
  mac: Mac,
  vlan: number,
  port: Ifname,
): World {
  const { nowMs, ageingMs, fdb } = world;
  const key = fdbKey(mac, vlan);
  const known = findEntry(fdb, bridge, key);
  if (ageingMs === 0 || (known?.port === port && known.seenMs === nowMs)) return world;
  const set = findStaticPort(world.host, bridge, mac);
  if (set === port && !known) return world;
  const kept = set === undefined ? {} : ({ isStatic: true } as const);
  return { ...world, fdb: withEntry(fdb, bridge, key, { port, seenMs: nowMs, ...kept }) };
}

/** Behind whom a vxlan last saw a MAC address. */
export function findLearnedRemote(world: World, vxlan: LinkRef, mac: Mac): Ip | undefined {
  const entry = findEntry(world.remotes, vxlan, mac);
  return entry && isFresh(world, entry) ? entry.ip : undefined;
}

export function withLearnedRemote(world: World, vxlan: LinkRef, mac: Mac, ip: Ip): World {
  const { nowMs, remotes } = world;
  const known = findEntry(remotes, vxlan, mac);
  if (known?.ip === ip && known.seenMs === nowMs) return world;
  return { ...world, remotes: withEntry(remotes, vxlan, mac, { ip, seenMs: nowMs }) };
}

/** The MAC address of a neighbour that somebody set for good. */
export function findPermanentNeighbour(host: Host, link: LinkRef, ip: Ip): Mac | undefined {
  return findLink(host, link)?.neighbours.find((neighbour) => neighbour.ip === ip)?.mac;
}

/** What was learned of a neighbour. */
export function findNeighbourEntry(
  world: World,
  link: LinkRef,
  ip: Ip,
): NeighbourEntry | undefined {
  return findEntry(world.neighbours, link, ip);
}

export function withNeighbour(world: World, link: LinkRef, ip: Ip, entry: NeighbourEntry): World {
  if (findNeighbourEntry(world, link, ip) === entry) return world;
  return { ...world, neighbours: withEntry(world.neighbours, link, ip, entry) };
}

/** A neighbour whose entry changes by itself. */
export interface DueNeighbour {
  readonly at: LinkRef;
  readonly ip: Ip;
  readonly entry: NeighbourEntry;
  readonly dueMs: number;
}

/** The neighbours whose entries change next, by itself and at the same time; none where none does up to then. */
export function nextDueNeighbours({ neighbours }: World, untilMs: number): readonly DueNeighbour[] {
  let due: DueNeighbour[] = [];
  let firstMs = untilMs;
  for (const [netns, links] of Object.entries(neighbours)) {
    for (const [ifname, table] of Object.entries(links)) {
      for (const [ip, entry] of Object.entries(table)) {
        const { dueMs } = entry;
        if (dueMs === null || dueMs > firstMs) continue;
        if (dueMs < firstMs) due = [];
        firstMs = dueMs;
        due.push({ at: { netns, ifname: ifname as Ifname }, ip: ip as Ip, entry, dueMs });
      }
    }
  }
  return due;
}

/** The world without what it has forgotten by now. */
export function withoutForgotten(world: World): World {
  const remembers = (_: LinkRef, entry: RemoteEntry | FdbEntry): boolean =>
    ('isStatic' in entry && entry.isStatic) || isFresh(world, entry);
  return { ...world, fdb: keep(world.fdb, remembers), remotes: keep(world.remotes, remembers) };
}
