/**
 * Host ports: what is for a port of this host goes to a pod. An element of a map for each port, and rules that never change.
 * Only addresses of this host are looked at, so that another host's port is never taken for one of ours (CVE-2025-67499).
 */
import type { DesiredSet } from '../model/desired.ts';
import { type Family, type Ip, familyOf } from '../model/ip.ts';
import type {
  AddressField,
  Chain,
  ChainHook,
  LookupField,
  PortKey,
  Rule,
  SetElement,
  SetKey,
  SetKeyType,
  Table,
  Transport,
} from '../model/nftables.ts';
import { type Prefix, findPrefixedIp, prefixOf } from '../model/prefix.ts';
import type { Attachment } from './attachment.ts';
import { subnetOf } from './ipam/allocate.ts';
import { type Door, MARK_BIT, doorNamesIn, nameAt, readDoor } from './port-door.ts';
import { type TablePart, addressMaps, commentOf, rule } from './table.ts';

/** A port of this host that leads to one of the pod, as the record keeps it: for one of the pod's addresses. */
export interface HostPort {
  readonly protocol: Transport;
  readonly port: number;
  /** Null: at every address of this host of the pod address's family. */
  readonly hostIp: Ip | null;
  readonly podIp: Ip;
  readonly podPort: number;
}

/** Whose source is replaced by the host's, since the answer would not come back through the host: nobody's, or those of the pod's own subnet and of the host's loopback, or everybody's. */
export type SourceNat = 'subnet' | 'all';

/** What an attachment has of host ports. */
export interface HostPorts {
  readonly ports: readonly HostPort[];
  /** Absent: the default one. */
  readonly door?: Door;
  readonly sourceNat?: SourceNat;
}

/** The maps from a port, at an address or at any, to a pod's, as the default door calls them. */
const AT_ADDRESS: Readonly<Record<Family, string>> = { 4: 'host-ports4', 6: 'host-ports6' };
const AT_ANY: Readonly<Record<Family, string>> = { 4: 'ports4', 6: 'ports6' };

/** The maps from a pod's address to the chain that replaces sources. */
export const SOURCE_MAPS: Readonly<Record<Family, string>> = { 4: 'snat4', 6: 'snat6' };

/** The link whose packets may be for 127.0.0.0/8. */
const LOOPBACK_SET = 'loopback';

/** NF_IP_PRI_RAW, NF_IP_PRI_NAT_DST, and before the masquerade of what pods send. */
const PRIORITIES = { raw: -300, dstnat: -100, srcnat: 99 } as const;

const PORTS = 'host-ports';
const ALL_SOURCES = 'snat-all';

const PORT = 'meta l4proto . th dport';
const AT: Readonly<Record<Family, LookupField>> = {
  4: `ip daddr . ${PORT}`,
  6: `ip6 daddr . ${PORT}`,
};

function base(
  name: string,
  hook: ChainHook['hook'],
  priority: number,
  type: ChainHook['type'] = 'nat',
): Pick<Chain, 'name' | 'hook'> {
  return { name, hook: { type, hook, priority, policy: 'accept' } };
}

/** The maps of a door for ports at an address, and at any. */
function mapsAt(
  door: Pick<Door, 'name'> | undefined,
): [Record<Family, string>, Record<Family, string>] {
  const of = (names: Readonly<Record<Family, string>>): Record<Family, string> => ({
    4: nameAt(door, names[4]),
    6: nameAt(door, names[6]),
  });
  return [of(AT_ADDRESS), of(AT_ANY)];
}

/**
 * The chains of a door. Packets for this host go through its maps, one for an address before one for all, and have its mark
 * from there to the other hook, so that sources are only replaced of what came by a host port.
 */
function doorChains(door: Door | undefined): Chain[] {
  const { markBit = MARK_BIT, conditions = { 4: [], 6: [] } } = door ?? {};
  const bits = 2 ** markBit;
  const ports = nameAt(door, PORTS);
  const [atAddress, atAny] = mapsAt(door);
  const lead = rule({ kind: 'local' }, { kind: 'verdict', verdict: 'jump', chain: ports });
  const to = (family: Family, field: LookupField, map: string): Rule =>
    rule(...conditions[family], { kind: 'dnat', family, field, map });
  const replace = (field: AddressField, map: string): Rule =>
    rule({ kind: 'marked', bits }, { kind: 'vmap', field, map });
  return [
    {
      name: ports,
      hook: null,
      rules: [
        rule({ kind: 'mark', bits, on: true }),
        to(4, AT[4], atAddress[4]),
        to(6, AT[6], atAddress[6]),
        to(4, PORT, atAny[4]),
        to(6, PORT, atAny[6]),
        // None of them: it goes on as it came.
        rule({ kind: 'mark', bits, on: false }),
      ],
    },
    { ...base(nameAt(door, 'host-ports-in'), 'prerouting', PRIORITIES.dstnat), rules: [lead] },
    { ...base(nameAt(door, 'host-ports-out'), 'output', PRIORITIES.dstnat), rules: [lead] },
    {
      ...base(nameAt(door, 'host-ports-snat'), 'postrouting', PRIORITIES.srcnat),
      rules: [replace('ip daddr', SOURCE_MAPS[4]), replace('ip6 daddr', SOURCE_MAPS[6])],
    },
  ];
}

/**
 * For who is on the host its ports are at 127.0.0.1 too, for which links have to take such packets (route_localnet);
 * but not from outside, where what listens there feels safe (CVE-2020-8558).
 */
const GUARD: Chain = {
  ...base('host-ports-guard', 'prerouting', PRIORITIES.raw, 'filter'),
  rules: [
    rule(
      { kind: 'lookup', field: 'iifname', negate: true, set: LOOPBACK_SET },
      { kind: 'match', field: 'ip daddr', negate: false, value: '127.0.0.0/8' as Prefix },
      { kind: 'verdict', verdict: 'drop' },
    ),
  ],
};

function sourceChainName(subnet: Prefix): string {
  return `snat-${subnet.replaceAll(':', '_').replace('/', '-')}`;
}

/** The subnet of such a chain by its name, undefined for other chains. */
export function subnetOfSourceChain(name: string): Prefix | undefined {
  const text = /^snat-(.+)-(\d+)$/.exec(name);
  const prefixed = text && findPrefixedIp(`${text[1]?.replaceAll('_', ':')}/${text[2]}`);
  return prefixed ? prefixOf(prefixed.ip, prefixed.prefixLength) : undefined;
}

/** Replaces the sources that a subnet's pods could not answer through the host. */
function subnetChain(subnet: Prefix): Chain {
  const family = familyOf(subnet);
  const from = (value: Prefix) =>
    rule(
      { kind: 'match', field: family === 4 ? 'ip saddr' : 'ip6 saddr', negate: false, value },
      { kind: 'masquerade' },
    );
  const loopback = family === 4 ? [from('127.0.0.0/8' as Prefix)] : [];
  return { name: sourceChainName(subnet), hook: null, rules: [from(subnet), ...loopback] };
}

const ALL_CHAIN: Chain = { name: ALL_SOURCES, hook: null, rules: [rule({ kind: 'masquerade' })] };

/** The subnets of the pod's addresses that have host ports. */
export function sourceSubnets({ hostPorts, addresses }: Attachment): Prefix[] {
  if (hostPorts?.sourceNat !== 'subnet') return [];
  const ips = new Set(hostPorts.ports.map(({ podIp }) => podIp));
  return [...new Set(addresses.filter(({ ip }) => ips.has(ip)).map(subnetOf))];
}

function portKey({ protocol, port, hostIp }: HostPort): PortKey {
  return hostIp === null ? `${protocol} . ${port}` : `${hostIp} . ${protocol} . ${port}`;
}

function mapOf(door: Door | undefined, { hostIp, podIp }: HostPort): string {
  return nameAt(door, (hostIp === null ? AT_ANY : AT_ADDRESS)[familyOf(podIp)]);
}

const FAMILIES = [4, 6] as const;

function keyTypeAtAddress(family: Family): SetKeyType {
  return family === 4
    ? 'ipv4_addr . inet_proto . inet_service'
    : 'ipv6_addr . inet_proto . inet_service';
}

/** All maps of the attachment's door, with elements for its ports. */
function portMaps(
  { ports, door }: HostPorts,
  element: (port: HostPort) => SetElement | 'absent',
): Record<string, DesiredSet> {
  const maps: Record<string, DesiredSet> = {};
  const [atAddress, atAny] = mapsAt(door);
  for (const family of FAMILIES)
    for (const map of [atAddress[family], atAny[family]])
      maps[map] = {
        keyType: map === atAny[family] ? 'inet_proto . inet_service' : keyTypeAtAddress(family),
        holds: family === 4 ? 'ipv4_addr . inet_service' : 'ipv6_addr . inet_service',
        elements: Object.fromEntries(
          ports
            .filter((each) => mapOf(door, each) === map)
            .map((each) => [portKey(each), element(each)] as const),
        ),
        others: 'keep',
      };
  return maps;
}

/** The pod's addresses whose packets' sources are replaced. */
function sources({ hostPorts }: Attachment): Ip[] {
  if (!hostPorts?.sourceNat) return [];
  return [...new Set(hostPorts.ports.map(({ podIp }) => podIp))];
}

/** The keys of an attachment in each set. */
export function portKeys(attachment: Attachment): Readonly<Record<string, readonly SetKey[]>> {
  const { ports, door } = attachment.hostPorts ?? NO_PORTS;
  const keys: Record<string, SetKey[]> = { [LOOPBACK_SET]: [LOOPBACK] };
  for (const each of ports) (keys[mapOf(door, each)] ??= []).push(portKey(each));
  for (const ip of sources(attachment)) (keys[SOURCE_MAPS[familyOf(ip)]] ??= []).push(ip);
  return keys;
}

const LOOPBACK = 'lo' as SetKey;
const NO_PORTS: HostPorts = { ports: [] };

/** What leads to an attachment's ports. */
export function portPart(attachment: Attachment): TablePart {
  const comment = commentOf(attachment.key);
  const hostPorts = attachment.hostPorts ?? NO_PORTS;
  const { door, sourceNat } = hostPorts;
  const subnets = new Map(attachment.addresses.map((each) => [each.ip, subnetOf(each)]));
  const chainFor = (ip: Ip): string =>
    sourceNat === 'all'
      ? ALL_SOURCES
      : sourceChainName(subnets.get(ip) ?? prefixOf(ip, familyOf(ip) === 4 ? 32 : 128));
  const chains = [
    ...doorChains(door),
    GUARD,
    ...sourceSubnets(attachment).map(subnetChain),
    ...(sourceNat === 'all' ? [ALL_CHAIN] : []),
  ];
  return {
    chains: Object.fromEntries(chains.map((chain) => [chain.name, chain])),
    sets: {
      ...portMaps(hostPorts, (each) => ({
        key: portKey(each),
        verdict: null,
        target: `${each.podIp} . ${each.podPort}`,
        comment,
      })),
      ...addressMaps(
        SOURCE_MAPS,
        sources(attachment).map((ip) => [
          ip,
          { key: ip, verdict: { verdict: 'goto', chain: chainFor(ip) }, comment },
        ]),
      ),
      [LOOPBACK_SET]: {
        keyType: 'ifname',
        holds: 'nothing',
        elements: { [LOOPBACK]: { key: LOOPBACK, verdict: null, comment: '' } },
        others: 'keep',
      },
    },
  };
}

function absent(names: readonly string[]): Record<string, 'absent'> {
  return Object.fromEntries(names.map((name) => [name, 'absent']));
}

/** What others still need of what leads to host ports. */
export interface PortUse {
  /** Has another attachment host ports? */
  readonly any: boolean;
  /** Has another some behind the same door? */
  readonly door: boolean;
  /** Does another replace everybody's source? */
  readonly allSources: boolean;
  /** Subnets whose chain no other attachment needs. */
  readonly unusedSubnets: readonly Prefix[];
  /** Did we open the link to packets for 127.0.0.0/8, and does nobody else need it? */
  readonly spareLocalhost: boolean;
}

/** Do the pod's ports lead from 127.0.0.1? Then the link that leads to the pod has to take such packets. */
export function leadsFromLocalhost({ hostPorts }: Attachment): boolean {
  return (
    hostPorts?.sourceNat !== undefined && hostPorts.ports.some(({ podIp }) => familyOf(podIp) === 4)
  );
}

/** What nobody else needs of what leads to an attachment's ports. */
function unneeded({ hostPorts }: Attachment, use: PortUse): TablePart {
  const { door, sourceNat } = hostPorts ?? NO_PORTS;
  const doorMaps = mapsAt(door).flatMap((each) => Object.values(each));
  return {
    chains: absent([
      ...(use.door ? [] : doorChains(door).map(({ name }) => name)),
      ...(use.any ? [] : [GUARD.name]),
      ...use.unusedSubnets.map(sourceChainName),
      ...(sourceNat === 'all' && !use.allSources ? [ALL_SOURCES] : []),
    ]),
    sets: absent([
      ...(use.door ? [] : doorMaps),
      ...(use.any ? [] : [LOOPBACK_SET, ...Object.values(SOURCE_MAPS)]),
    ]),
  };
}

/** The same without an attachment's ports; `going` false: only what nobody else needs. */
export function withoutPorts(attachment: Attachment, use: PortUse, going: boolean): TablePart {
  const { chains, sets } = unneeded(attachment, use);
  if (!going) return { chains, sets };
  const elements = {
    ...portMaps(attachment.hostPorts ?? NO_PORTS, () => 'absent'),
    ...addressMaps(
      SOURCE_MAPS,
      sources(attachment).map((ip) => [ip, 'absent']),
    ),
  };
  return { chains, sets: { ...elements, ...sets } };
}

/** The ports in the maps of a door whose elements carry `comment`. */
function portsAt(
  { sets }: Pick<Table, 'sets'>,
  door: Pick<Door, 'name'> | undefined,
  comment: string,
): HostPort[] {
  const maps = mapsAt(door).flatMap((each) => Object.values(each));
  return maps.flatMap((map) =>
    Object.values(sets[map]?.elements ?? {}).flatMap((element): HostPort[] => {
      if (element.comment !== comment || element.target === undefined) return [];
      const [podIp = '', podPort = ''] = element.target.split(' . ');
      const [port = '', protocol = '', hostIp] = element.key.split(' . ').toReversed();
      return [
        {
          protocol: protocol as Transport,
          port: Number(port),
          hostIp: (hostIp as Ip | undefined) ?? null,
          podIp: podIp as Ip,
          podPort: Number(podPort),
        },
      ];
    }),
  );
}

/** Whose source is replaced for the attachment whose elements carry `comment`. */
function sourceNatIn({ sets }: Pick<Table, 'sets'>, comment: string): Pick<HostPorts, 'sourceNat'> {
  const [replaced] = FAMILIES.flatMap((family) =>
    Object.values(sets[SOURCE_MAPS[family]]?.elements ?? {}).filter(
      (element) => element.comment === comment,
    ),
  );
  const verdict = replaced?.verdict;
  if (!verdict || !('chain' in verdict)) return {};
  return { sourceNat: verdict.chain === ALL_SOURCES ? 'all' : 'subnet' };
}

/** The host ports of the attachment whose elements carry `comment`, behind whatever door. */
export function portsIn(
  table: Pick<Table, 'sets' | 'chains'>,
  comment: string,
): HostPorts | undefined {
  const bases = [...Object.values(AT_ADDRESS), ...Object.values(AT_ANY)];
  for (const name of doorNamesIn(table, bases)) {
    const named = name === undefined ? undefined : { name };
    const ports = portsAt(table, named, comment);
    if (ports.length === 0) continue;
    const door = named && readDoor(named.name, table.chains[nameAt(named, PORTS)]);
    return { ports, ...(door ? { door } : {}), ...sourceNatIn(table, comment) };
  }
  return undefined;
}

/** A port as messages and the state name it: `tcp 8080`, `tcp 8080 at 192.0.2.1`. */
export function formatPort({ protocol, port, hostIp }: HostPort): string {
  return `${protocol} ${port}${hostIp === null ? '' : ` at ${hostIp}`}`;
}
