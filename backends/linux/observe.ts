/** Reads the part of the kernel's state that a scope names, and gives it the model's form. */
import type { Address } from '../../model/address.ts';
import type { Errno } from '../../model/errno.ts';
import { type BridgeFdb, ownMacs, withFdb } from '../../model/fdb.ts';
import type { Host, Netns, NetnsName, SysctlKey } from '../../model/host.ts';
import type { Ifname } from '../../model/ifname.ts';
import type { BridgeLink, Link, LinkRef, Neighbour, VxlanLink } from '../../model/link.ts';
import type { Ruleset } from '../../model/nftables.ts';
import { withPolicyRules } from '../../model/policy-rule.ts';
import { DEFAULT_PREFIX } from '../../model/prefix.ts';
import { type Route, TABLE_MAIN } from '../../model/route.ts';
import type { TrafficControl } from '../../model/traffic-control.ts';
import { tellLowers } from '../../model/upper.ts';
import { type VlanRange, vlansOf } from '../../model/vlan.ts';
import type { NetnsScope, Scope } from '../backend.ts';
import { decodeAddress, encodeAddressDump } from './address-message.ts';
import { expectAnswer } from './answer.ts';
import type { Attributes } from './attribute.ts';
import {
  type FdbRecord,
  type RemoteRecord,
  decodeFdb,
  decodeRemote,
  encodeFdbDump,
} from './fdb-message.ts';
import type { Kernel, KernelNetns } from './kernel.ts';
import {
  type LinkRecord,
  decodeLink,
  decodeNetnsId,
  encodeLinkDump,
  encodeLinkGet,
  encodeNetnsIdGet,
} from './link-message.ts';
import { makeLink } from './link.ts';
import type { Message } from './message.ts';
import { decodeNeighbour, encodeNeighbourDump } from './neighbour-message.ts';
import type { ForeignDecoder } from './nftables-message.ts';
import { observeRuleset } from './nftables.ts';
import { decodePolicyRule, encodePolicyRuleDump } from './policy-rule-message.ts';
import {
  type NextHopRecord,
  decodeRoute,
  encodeRouteDump,
  encodeTableDump,
} from './route-message.ts';
import { type NetlinkSocket, isFault } from './socket.ts';
import { readSysctls } from './sysctl.ts';
import { readTrafficControl } from './traffic-control.ts';
import { bridgesKnowVlans, readVlans } from './vlan.ts';
import { wholeDump } from './whole-dump.ts';

/** Up to so many links are asked about one by one; for more the kernel tells about all at once. */
const FEW_LINKS = 8;

/** What open(2) says of a path that leads nowhere. */
const NOT_THERE: ReadonlySet<Errno> = new Set<Errno>(['ENOENT', 'ENOTDIR', 'ELOOP', 'ENXIO']);

type Settings = readonly (readonly [key: SysctlKey, value: string])[];

/** Reads settings that a scope does not name one by one. */
export interface SettingsReader {
  /** Those of a link, from the attributes that tell of it; of a family that the link does not have there are none. */
  readonly ofLink: (link: Attributes, ifname: Ifname) => Settings;
  /** Those of all links of the netns together. */
  readonly ofAll: (socket: NetlinkSocket, netns: NetnsName) => Settings;
  /** What is read where a bridge is among the links. */
  readonly ofBridges: readonly SysctlKey[];
}

/** What else is read, beside what plans need. */
interface Extras {
  readonly foreign?: ForeignDecoder;
  readonly linkSettings?: SettingsReader;
}

/** The links that were read of a netns, and how. */
interface LinkReading {
  readonly netns: KernelNetns;
  readonly socket: NetlinkSocket;
  readonly wanted: NetnsScope['links'];
  readonly links: ReadonlyMap<number, LinkRecord>;
  /** Of these links, each and all together, where they were asked for. */
  readonly settings: Readonly<Record<SysctlKey, string>>;
}

/** What was read of one netns, before its links are joined to those of others. */
interface Reading extends LinkReading {
  readonly addresses: ReadonlyMap<number, readonly Address[]>;
  readonly neighbours: ReadonlyMap<number, readonly Neighbour[]>;
  /** Of bridges and ports, where they were asked for and bridges know them. */
  readonly vlans: ReadonlyMap<number, readonly VlanRange[]>;
  /** Of bridges, where they were asked for. */
  readonly fdb: readonly FdbRecord[] | undefined;
  /** Of vxlans, where those were. */
  readonly remotes: readonly RemoteRecord[];
  readonly sysctls: Readonly<Record<SysctlKey, string>>;
  /** Where it was asked for. */
  readonly trafficControl: ReadonlyMap<number, TrafficControl>;
}

function hasKind(links: LinkReading['links'], kinds: readonly string[]): boolean {
  for (const { kind } of links.values()) if (kinds.includes(kind)) return true;
  return false;
}

function readLinks(
  socket: NetlinkSocket,
  name: NetnsName,
  wanted: NetnsScope['links'],
  decode: (answer: Message) => LinkRecord | undefined,
): Map<number, LinkRecord> {
  const links = new Map<number, LinkRecord>();
  if (wanted === 'all' || wanted.length > FEW_LINKS) {
    for (const link of expectAnswer(
      socket.dump(wholeDump(encodeLinkDump), decode),
      name,
      'the links',
    )) {
      if (wanted === 'all' || wanted.includes(link.ifname)) links.set(link.ifindex, link);
    }
    return links;
  }
  for (const ifname of wanted) {
    const link = socket.ask(encodeLinkGet(ifname), decode);
    if (isFault(link) && link.errno === 'ENODEV') continue;
    const found = expectAnswer(link, name, `link "${ifname}"`);
    // The kernel answers to alternative names too.
    if (found.ifname === ifname) links.set(found.ifindex, found);
  }
  return links;
}

/** Dumps what belongs to each of the links: in one dump each, or for many links or all in one. */
function readPerLink<T extends { readonly ifindex: number | undefined }>(
  { netns, socket, wanted, links }: LinkReading,
  what: string,
  encode: (ifindex: number) => Uint8Array,
  decode: (message: Message) => T | undefined,
): T[] {
  const found: T[] = [];
  for (const ifindex of wanted === 'all' || links.size > FEW_LINKS ? [0] : links.keys()) {
    // Kernels that do not filter answer with everything.
    const question = ifindex === 0 ? wholeDump(encode) : encode(ifindex);
    const answer = socket.dump(question, (message) => {
      const each = decode(message);
      return ifindex === 0 || each?.ifindex === ifindex ? each : undefined;
    });
    // The link has gone since it was read.
    if (isFault(answer) && answer.errno === 'ENODEV') continue;
    found.push(...expectAnswer(answer, netns.name, what));
  }
  return found;
}

function group<T extends { readonly ifindex: number }, V>(
  records: readonly T[],
  value: (record: T) => V,
): Map<number, V[]> {
  const groups = new Map<number, V[]>();
  for (const record of records) {
    const existing = groups.get(record.ifindex);
    if (existing) existing.push(value(record));
    else groups.set(record.ifindex, [value(record)]);
  }
  return groups;
}

function vlansIn({ netns, socket, links }: LinkReading): Map<number, readonly VlanRange[]> {
  const vlans = new Map<number, readonly VlanRange[]>();
  for (const link of links.values()) {
    const ranges = readVlans(socket, netns.name, link);
    if (ranges) vlans.set(link.ifindex, vlansOf(ranges));
  }
  return vlans;
}

function trafficControlIn({
  netns,
  socket,
  wanted,
  links,
}: LinkReading): Map<number, TrafficControl> {
  const nameOf = (ifindex: number): Ifname | undefined => {
    const link = links.get(ifindex) ?? socket.ask(encodeLinkGet(ifindex), decodeLink);
    return isFault(link) ? undefined : link.ifname;
  };
  const all = wanted === 'all' || links.size > FEW_LINKS;
  return readTrafficControl({ socket, netns: netns.name, nameOf }, all ? 'all' : links.keys());
}

/** Bridges and vxlans have their tables in one dump; without any of them there is nothing to ask for. */
function readFdb(
  { socket, netns, links }: LinkReading,
  isWanted: boolean,
): Pick<Reading, 'fdb' | 'remotes'> {
  if (!isWanted) return { fdb: undefined, remotes: [] };
  if (!hasKind(links, ['bridge', 'vxlan'])) return { fdb: [], remotes: [] };
  const answer = socket.dump(
    wholeDump(encodeFdbDump),
    (message) => decodeFdb(message) ?? decodeRemote(message),
  );
  const records = expectAnswer(answer, netns.name, 'the forwarding databases');
  return {
    fdb: records.filter((record) => 'masterIndex' in record),
    remotes: records.filter((record) => 'remote' in record),
  };
}

/** Of which links to read how much. */
type LinkScope = Pick<NetnsScope, 'links' | 'fdb' | 'trafficControl'> & {
  readonly hasVlans: boolean;
};

function readNetns(
  netns: KernelNetns,
  scope: LinkScope,
  reader?: SettingsReader,
): Omit<Reading, 'sysctls'> {
  const wanted = scope.links;
  const socket = expectAnswer(netns.route(), netns.name, 'anything');
  const settings: Record<SysctlKey, string> = {};
  const note = (link: Attributes, ifname: Ifname): void => {
    for (const [key, value] of reader?.ofLink(link, ifname) ?? []) settings[key] = value;
  };
  const links = readLinks(socket, netns.name, wanted, (answer) => decodeLink(answer, note));
  for (const [key, value] of reader?.ofAll(socket, netns.name) ?? []) settings[key] = value;
  if (reader && hasKind(links, ['bridge']))
    Object.assign(settings, sysctlsIn(netns, reader.ofBridges));
  const reading = { netns, socket, wanted, links, settings };
  return {
    ...reading,
    addresses: group(
      readPerLink(reading, 'the addresses', encodeAddressDump, decodeAddress),
      (a) => a.address,
    ),
    neighbours: group(
      readPerLink(reading, 'the neighbours', encodeNeighbourDump, decodeNeighbour),
      (n) => n.neighbour,
    ),
    vlans: scope.hasVlans ? vlansIn(reading) : new Map(),
    ...readFdb(reading, scope.fdb === true && wanted === 'all'),
    trafficControl: scope.trafficControl ? trafficControlIn(reading) : new Map(),
  };
}

/** Where a route leads to several: whom by which link. */
function severalOf(
  { links }: Reading,
  nextHops: readonly NextHopRecord[] | undefined,
): Pick<Route, 'nextHops'> {
  if (nextHops === undefined) return {};
  return {
    nextHops: nextHops.map(({ ifindex, hop }) => ({
      ...hop,
      device: links.get(ifindex)?.ifname ?? null,
    })),
  };
}

function readRoutes(reading: Reading): Route[] {
  const routes: Route[] = [];
  for (const { ifindex, route, nextHops } of readPerLink(
    reading,
    'the routes',
    encodeRouteDump,
    decodeRoute,
  )) {
    // A route without a link, or with several, belongs to the netns as a whole.
    const device = ifindex === undefined ? null : reading.links.get(ifindex)?.ifname;
    if (device !== undefined && (device !== null || reading.wanted === 'all'))
      routes.push({ ...route, device, ...severalOf(reading, nextHops) });
  }
  return routes;
}

/** The default route that packets take: of the first family that has one, that with the lowest metric. */
function readDefaultRoute(netns: KernelNetns): Route | undefined {
  const socket = expectAnswer(netns.route(), netns.name, 'anything');
  for (const family of [4, 6] as const) {
    const table = socket.dump(encodeTableDump(family, TABLE_MAIN), decodeRoute);
    // The kernel makes the table with its first route.
    if (isFault(table) && table.errno === 'ENOENT') continue;
    const [outward] = expectAnswer(table, netns.name, 'the default route')
      .filter(
        ({ route }) =>
          route.table === TABLE_MAIN &&
          route.type === 'unicast' &&
          route.destination === DEFAULT_PREFIX[family],
      )
      .toSorted((a, b) => a.route.metric - b.route.metric);
    if (!outward) continue;
    const { ifindex, route } = outward;
    if (ifindex === undefined) return { ...route, device: null };
    const link = socket.ask(encodeLinkGet(ifindex), decodeLink);
    return { ...route, device: expectAnswer(link, netns.name, `link ${ifindex}`).ifname };
  }
  return undefined;
}

/** The links to read: those that were asked for, and that of the default route. */
function withOutward(links: NetnsScope['links'], outward: Route | undefined): NetnsScope['links'] {
  const device = outward?.device ?? undefined;
  return links === 'all' || device === undefined || links.includes(device)
    ? links
    : [...links, device];
}

/** Finds the netns, of those that were read, that has an id in another one. */
type ById = (netnsId: number) => Reading | undefined;

/** By the ids that the netns of `reading` has for others: each is asked about once, and none after the one that was meant. */
function idsIn({ socket }: Reading, readings: readonly Reading[]): ById {
  const known = new Map<number, Reading>();
  const others = readings.values();
  return (netnsId) => {
    for (let found = known.get(netnsId); ; found = known.get(netnsId)) {
      if (found) return found;
      const next = others.next();
      if (next.done) return undefined;
      const fd = next.value.netns.descriptor();
      const answer = typeof fd === 'number' ? socket.ask(encodeNetnsIdGet(fd), decodeNetnsId) : fd;
      if (!isFault(answer) && !known.has(answer.id)) known.set(answer.id, next.value);
    }
  };
}

/** Far ends of veths by their near ends, as far as they are known from the far end: a netns need not be looked for again. */
type FarEnds = Map<LinkRecord, LinkRef>;

/** The other end of a veth, or the link that a macvlan is on; null when it is not among the links that were read (IFLA_LINK and IFLA_LINK_NETNSID). */
function findLinked(
  reading: Reading,
  link: LinkRecord,
  byId: ById,
  farEnds: FarEnds,
): LinkRef | null {
  if (link.linkIndex === undefined) return null;
  const known = farEnds.get(link);
  if (known) return known;
  const place = link.peerNetnsId === undefined ? reading : byId(link.peerNetnsId);
  const peer = place?.links.get(link.linkIndex);
  if (!place || !peer) return null;
  const isPair = link.kind === 'veth' && peer.kind === 'veth' && peer.linkIndex === link.ifindex;
  if (isPair) farEnds.set(peer, { netns: reading.netns.name, ifname: link.ifname });
  return { netns: place.netns.name, ifname: peer.ifname };
}

/** The netns of a vxlan's packets and the link below it (IFLA_LINK_NETNSID is that of its underlay). */
function findBelow(
  reading: Reading,
  { vxlan, peerNetnsId }: LinkRecord,
  byId: ById,
): Pick<VxlanLink, 'underlay' | 'lower'> {
  const isHere = peerNetnsId === undefined;
  const place = !vxlan || isHere ? reading : byId(peerNetnsId);
  if (!vxlan || !place) return { underlay: null, lower: null };
  const { lowerIndex } = vxlan;
  const known = lowerIndex === undefined ? null : place.links.get(lowerIndex)?.ifname;
  const lower = known === undefined ? (isHere ? masterName(place, lowerIndex ?? 0) : null) : known;
  return { underlay: place.netns.name, lower };
}

function masterName({ netns, socket, links }: Reading, ifindex: number): Ifname {
  const known = links.get(ifindex);
  return (
    known?.ifname ??
    expectAnswer(socket.ask(encodeLinkGet(ifindex), decodeLink), netns.name, `link ${ifindex}`)
      .ifname
  );
}

function portsOf({ links }: Reading, { ifindex }: LinkRecord): LinkRecord[] {
  const ports: LinkRecord[] = [];
  for (const link of links.values()) if (link.masterIndex === ifindex) ports.push(link);
  return ports;
}

function makeLinks(
  reading: Reading,
  readings: readonly Reading[],
  farEnds: FarEnds,
): Record<string, Link> {
  const links: Record<string, Link> = {};
  const byId = idsIn(reading, readings);
  const masters = new Map<number, Ifname>();
  for (const record of reading.links.values()) {
    let master: Ifname | null = null;
    if (record.port && record.masterIndex !== undefined) {
      master = masters.get(record.masterIndex) ?? masterName(reading, record.masterIndex);
      masters.set(record.masterIndex, master);
    }
    links[record.ifname] = makeLink(record, {
      master,
      peer: record.kind === 'veth' ? findLinked(reading, record, byId, farEnds) : null,
      lower: record.kind === 'macvlan' ? findLinked(reading, record, byId, farEnds) : null,
      below: findBelow(reading, record, byId),
      ports: reading.wanted === 'all' ? portsOf(reading, record) : undefined,
      addresses: reading.addresses.get(record.ifindex) ?? [],
      neighbours: reading.neighbours.get(record.ifindex) ?? [],
      vlans: reading.vlans.get(record.ifindex),
      trafficControl: reading.trafficControl.get(record.ifindex),
    });
  }
  for (const link of Object.values(links))
    if (link.kind === 'bridge' && reading.fdb)
      links[link.ifname] = withFdb(link, bridgeFdb(reading, links, link));
  for (const [ifindex, remotes] of group(reading.remotes, ({ remote }) => remote)) {
    const ifname = reading.links.get(ifindex)?.ifname;
    const link = ifname && links[ifname];
    if (link && link.kind === 'vxlan') links[ifname] = { ...link, remotes };
  }
  return links;
}

/** What of a bridge's entries it has not by itself, and what of those it lacks. */
function bridgeFdb(
  { links: records, fdb = [] }: Reading,
  links: Readonly<Record<string, Link>>,
  bridge: BridgeLink,
): BridgeFdb {
  const own = ownMacs({ links }, bridge);
  const here = fdb.filter((entry) => records.get(entry.masterIndex)?.ifname === bridge.ifname);
  const local = new Set(here.filter(({ state }) => state === 'local').map(({ mac }) => mac));
  return {
    entries: here
      .filter(({ mac, state }) => state === 'static' || !own.has(mac))
      .map(({ mac, state, ifindex, masterIndex }) => ({
        mac,
        port: ifindex === masterIndex ? null : (records.get(ifindex)?.ifname ?? null),
        state,
      })),
    missing: [...own].filter((mac) => !local.has(mac)),
  };
}

/** Nothing where the netns has those that it was made with. */
function readPolicyRules({ socket, netns }: Reading): Pick<Netns, 'policyRules'> {
  const answer = socket.dump(wholeDump(encodePolicyRuleDump), decodePolicyRule);
  // A kernel without any rules; of a family that has none it tells nothing.
  const lacksRules = isFault(answer) && answer.errno === 'EOPNOTSUPP';
  const rules = lacksRules ? [] : expectAnswer(answer, netns.name, 'the policy rules');
  const { policyRules } = withPolicyRules(
    NOTHING,
    rules.toSorted((a, b) => a.family - b.family),
  );
  return policyRules ? { policyRules } : {};
}

const NOTHING: Netns = { links: {}, routes: [], sysctls: {}, nftables: {} };

function sysctlsIn(netns: KernelNetns, keys: readonly SysctlKey[]): Record<SysctlKey, string> {
  return expectAnswer(
    netns.run(() => readSysctls(keys)),
    netns.name,
    'the sysctls',
  );
}

/** A netns that is there, and what only being in it tells. */
interface Visit {
  readonly socket: NetlinkSocket;
  readonly sysctls: Readonly<Record<SysctlKey, string>>;
}

/** Opens what the scope needs of a netns, in one visit; undefined where the path leads to something else. */
function visit(
  netns: KernelNetns,
  { sysctls, nftables, forwardChains }: NetnsScope,
): Visit | undefined {
  const found = netns.run(() => {
    const socket = netns.route();
    if (isFault(socket)) return socket;
    // Where there is none, who reads the ruleset hears of it again.
    if (nftables === 'all' || nftables.length > 0 || forwardChains) netns.netfilter();
    return { socket, values: sysctls.length > 0 ? readSysctls(sysctls) : {} };
  });
  // setns(2) says so of a file that is no netns.
  if (isFault(found) && found.errno === 'EINVAL') return undefined;
  const { socket, values } = expectAnswer(found, netns.name, 'anything');
  return { socket, sysctls: expectAnswer(values, netns.name, 'the sysctls') };
}

/** Does a rule know a link by its number? */
function asksForIfindex(ruleset: Ruleset): boolean {
  return Object.values(ruleset).some(({ chains }) =>
    Object.values(chains).some(({ rules }) =>
      rules.some(({ statements }) =>
        statements.some(
          (each) =>
            each.kind === 'opaque' &&
            each.detail?.name === 'meta' &&
            (each.detail.key === 'iif' || each.detail.key === 'oif'),
        ),
      ),
    ),
  );
}

function ifindexesOf({ links }: Reading): Readonly<Record<string, number>> {
  return Object.fromEntries([...links.values()].map(({ ifname, ifindex }) => [ifname, ifindex]));
}

function routesOut(route: Route | undefined): Route[] {
  return route === undefined ? [] : [route];
}

/** Reads what `scope` names, and what is asked for beside that; netns and links that do not exist are absent. Throws when the kernel cannot be asked. */
export function observeHost(
  kernel: Kernel,
  scope: Scope,
  { foreign, linkSettings }: Extras = {},
): Host {
  kernel.forgetStale();
  const readings: Reading[] = [];
  const outward = new Map<NetnsName, Route>();
  let bridgeVlans: boolean | undefined;
  for (const [name, each] of Object.entries(scope)) {
    const { links, routes, vlans, fdb, trafficControl } = each;
    const netns = kernel.netns(name);
    if (isFault(netns) && NOT_THERE.has(netns.errno)) continue;
    const opened = expectAnswer(netns, name, 'anything');
    const visited = visit(opened, each);
    if (!visited) {
      kernel.forget(name);
      continue;
    }
    const route = routes === 'default' ? readDefaultRoute(opened) : undefined;
    if (route) outward.set(name, route);
    if (vlans) bridgeVlans ??= bridgesKnowVlans(visited.socket);
    const hasVlans = vlans === true && bridgeVlans === true;
    const wanted = withOutward(links, route);
    const linkScope = {
      links: wanted,
      hasVlans,
      ...(fdb ? { fdb } : {}),
      ...(trafficControl ? { trafficControl } : {}),
    };
    readings.push({ ...readNetns(opened, linkScope, linkSettings), sysctls: visited.sysctls });
  }
  // Whoever has most far ends first: who looks for its own among many asks the kernel about each.
  const farEnds: FarEnds = new Map();
  const most = readings.toSorted((a, b) => b.links.size - a.links.size);
  const links = new Map(most.map((each) => [each, makeLinks(each, readings, farEnds)]));
  const netns: Record<NetnsName, Netns> = {};
  for (const reading of readings) {
    const { name } = reading.netns;
    const wanted = scope[name] as NetnsScope;
    const { routes, policyRules } = wanted;
    const nftables = observeRuleset(reading.netns, wanted, foreign);
    netns[name] = {
      links: links.get(reading) ?? {},
      routes: routes === 'all' ? readRoutes(reading) : routesOut(outward.get(name)),
      ...(policyRules ? readPolicyRules(reading) : {}),
      sysctls: { ...reading.settings, ...reading.sysctls },
      nftables,
      ...(foreign && asksForIfindex(nftables) ? { ifindexes: ifindexesOf(reading) } : {}),
    };
  }
  const host = readings.some(({ links: each }) => hasKind(each, ['macvlan', 'vxlan']))
    ? tellLowers({ netns })
    : { netns };
  return bridgeVlans === undefined ? host : { ...host, kernel: { bridgeVlans } };
}
