/**
 * Reads a netns by `ip -j`, `tc -j` and `nft -j`: slower, and another's code from the message on, so that our own decoder is
 * not the only witness of what our encoder did. Reads no sysctls: those are plain text on either way.
 */
import { spawnSync } from 'node:child_process';
import type { Address, Scope } from '../../model/address.ts';
import { type BridgeFdb, ownMacs, withFdb } from '../../model/fdb.ts';
import type { Netns, NetnsName } from '../../model/host.ts';
import type { Ifname } from '../../model/ifname.ts';
import { ADDRESS_BITS, type Family, type Ip, type Ipv4, familyOf } from '../../model/ip.ts';
import {
  type Link,
  type Neighbour,
  TX_QUEUE_LENGTH,
  type BridgeLink,
  type VxlanLink,
} from '../../model/link.ts';
import { type Mac, findMac } from '../../model/mac.ts';
import { MACVLAN_MODES } from '../../model/macvlan.ts';
import { type PolicyRule, withPolicyRules } from '../../model/policy-rule.ts';
import { DEFAULT_PREFIX, type Prefix } from '../../model/prefix.ts';
import type { Route, RouteType } from '../../model/route.ts';
import { type VlanRange, vlansOf } from '../../model/vlan.ts';
import type { Remote, VxlanTunnel } from '../../model/vxlan.ts';
import { readRuleset } from './nft-json.ts';
import { readTrafficControl } from './tc-json.ts';

interface PortJson {
  readonly hairpin: boolean;
  readonly isolated: boolean;
  readonly learning: boolean;
  readonly flood: boolean;
}

interface AddressJson {
  readonly local: Ip;
  readonly address?: Ip;
  readonly prefixlen: number;
  readonly broadcast?: Ipv4;
  readonly scope: string;
  readonly secondary?: boolean;
  readonly noprefixroute?: boolean;
  readonly nodad?: boolean;
  readonly tentative?: boolean;
  readonly dadfailed?: boolean;
}

interface LinkJson {
  readonly ifname: Ifname;
  readonly altnames?: readonly string[];
  /** The peer's name when it is in the same netns. */
  readonly link?: Ifname;
  readonly link_netnsid?: number;
  readonly flags: readonly string[];
  readonly mtu: number;
  readonly txqlen?: number;
  readonly address: string;
  readonly ifalias?: string;
  readonly group?: string;
  readonly master?: Ifname;
  readonly linkinfo?: {
    readonly info_kind?: string;
    readonly info_data?: {
      readonly vlan_filtering?: number;
      readonly vlan_default_pvid?: number;
      readonly id?: number;
      readonly port?: number;
      readonly local?: Ip;
      readonly local6?: Ip;
      readonly link?: Ifname;
      readonly learning?: boolean;
      readonly mode?: string;
    };
    readonly info_slave_data?: PortJson;
  };
  readonly addr_info: readonly AddressJson[];
}

interface RouteJson {
  readonly type: string;
  readonly dst: string;
  readonly gateway?: Ip;
  readonly dev?: Ifname;
  readonly table: string;
  readonly protocol: string;
  readonly scope: string;
  readonly prefsrc?: Ip;
  readonly metric?: number;
  readonly flags: readonly string[];
  readonly metrics?: readonly { readonly mtu?: number; readonly advmss?: number }[];
  /** The preference of a router: only IPv6 routes have one. */
  readonly pref?: string;
}

interface RuleJson {
  readonly priority: number;
  readonly src: Ip | 'all';
  readonly srclen?: number;
  readonly dst?: Ip;
  readonly dstlen?: number;
  readonly iif?: Ifname;
  readonly oif?: Ifname;
  readonly fwmark?: string;
  readonly fwmask?: string;
  readonly table?: string;
  /** A number (FR_ACT_*), absent where a table is asked. */
  readonly action?: string;
  readonly protocol: string;
}

interface VlanJson {
  readonly ifname: string;
  readonly vlans: readonly {
    readonly vlan: number;
    readonly vlanEnd?: number;
    readonly flags?: readonly string[];
  }[];
}

interface FdbJson {
  readonly mac: Mac;
  readonly ifname: Ifname;
  readonly master?: Ifname;
  readonly state: string;
  readonly vlan?: number;
  readonly dst?: Ip;
}

interface NeighbourJson {
  readonly dst: Ip;
  readonly dev: Ifname;
  readonly lladdr: Mac;
}

function run(command: string, args: readonly string[], input: string): string {
  const { status, stdout, stderr } = spawnSync(command, args, {
    input,
    encoding: 'utf8',
    maxBuffer: 1 << 26,
  });
  // iproute2 says so of peers in a netns that nobody gave an id here.
  if (status !== 0 || /[^\s]/.test(stderr.replaceAll('Peer netns reference is invalid.', '')))
    throw new Error(`${command} ${args.join(' ')}: ${stderr}`);
  return stdout;
}

const SCOPES: Readonly<Record<string, Scope>> = {
  '0': 'global',
  '200': 'site',
  '253': 'link',
  '254': 'host',
  '255': 'nowhere',
};
const TYPES: readonly RouteType[] = [
  'unicast',
  'local',
  'broadcast',
  'anycast',
  'multicast',
  'blackhole',
  'unreachable',
  'prohibit',
  'throw',
];

function scopeOf(number: string): Scope {
  const scope = SCOPES[number];
  if (scope === undefined) throw new Error(`scope ${number} is none that the model knows`);
  return scope;
}

function toAddress(json: AddressJson): Address {
  return {
    ip: json.local,
    prefixLength: json.prefixlen,
    peer: json.address ?? null,
    broadcast: json.broadcast ?? null,
    scope: scopeOf(json.scope),
    secondary: json.secondary ?? false,
    noPrefixRoute: json.noprefixroute ?? false,
    noDad: json.nodad ?? false,
    tentative: (json.tentative ?? false) || (json.dadfailed ?? false),
  };
}

/** Where the netns of its packets is another, that and the link below are null. */
function toTunnel(
  { linkinfo, link_netnsid: elsewhere }: LinkJson,
  netns: NetnsName,
): VxlanTunnel & Pick<VxlanLink, 'underlay'> {
  const { id = 0, port = 0, local, local6, link, learning } = linkinfo?.info_data ?? {};
  const isHere = elsewhere === undefined;
  return {
    vni: id,
    udpPort: port,
    local: local ?? local6 ?? null,
    lower: isHere ? (link ?? null) : null,
    learning: learning === true,
    underlay: isHere ? netns : null,
  };
}

function toLink(
  json: LinkJson,
  neighbours: readonly NeighbourJson[],
  netns: NetnsName,
  vlans: ReadonlyMap<string, readonly VlanRange[]> | undefined,
): Link {
  const ranges = vlans && { vlans: vlans.get(json.ifname) ?? [] };
  const loopback = json.flags.includes('LOOPBACK');
  const port = json.linkinfo?.info_slave_data;
  const common = {
    ifname: json.ifname,
    ...(json.altnames ? { altnames: json.altnames } : {}),
    mac: loopback ? null : (findMac(json.address) ?? null),
    mtuBytes: json.mtu,
    up: json.flags.includes('UP'),
    promiscuous: json.flags.includes('PROMISC'),
    ...(json.flags.includes('ALLMULTI') ? { allMulticast: true as const } : {}),
    // None is not printed.
    ...((json.txqlen ?? 0) === TX_QUEUE_LENGTH ? {} : { txQueueLength: json.txqlen ?? 0 }),
    ...(Number(json.group ?? 0) === 0 ? {} : { group: Number(json.group) }),
    alias: json.ifalias ?? '',
    port:
      json.master !== undefined && port
        ? {
            master: json.master,
            hairpin: port.hairpin,
            isolated: port.isolated,
            learning: port.learning,
            flood: port.flood,
            ...ranges,
          }
        : null,
    addresses: json.addr_info.map(toAddress),
    neighbours: neighbours
      .filter((n) => n.dev === json.ifname)
      .map((n): Neighbour => ({ ip: n.dst, mac: n.lladdr })),
  };
  if (loopback) return { kind: 'loopback', ...common };
  const kind = json.linkinfo?.info_kind;
  if (kind === 'veth') {
    const peer = json.link === undefined ? null : { netns, ifname: json.link };
    return { kind, ...common, peer };
  }
  if (kind === 'macvlan') {
    const mode = MACVLAN_MODES.find((each) => each === json.linkinfo?.info_data?.mode);
    if (!mode) throw new Error(`macvlan ${json.ifname} is of a mode that no program asks for`);
    const lower = json.link === undefined ? null : { netns, ifname: json.link };
    return { kind, ...common, mode, lower };
  }
  if (kind === 'ifb') return { kind, ...common };
  if (kind === 'vxlan') return { kind, ...common, ...toTunnel(json, netns) };
  if (kind === 'bridge') {
    const { vlan_filtering: filtering, vlan_default_pvid: defaultPvid } =
      json.linkinfo?.info_data ?? {};
    const own =
      ranges && defaultPvid !== undefined
        ? { vlans: { filtering: filtering === 1, defaultPvid, own: ranges.vlans } }
        : {};
    return { kind, ...common, hadPorts: false, macChosen: false, mtuChosen: false, ...own };
  }
  throw new Error(`a link of kind ${kind} in a netns of ours`);
}

function destinationOf({ dst, pref }: RouteJson): Prefix {
  if (dst === 'default') return DEFAULT_PREFIX[pref === undefined ? 4 : 6];
  return (dst.includes('/') ? dst : `${dst}/${ADDRESS_BITS[familyOf(dst)]}`) as Prefix;
}

function toRoute(json: RouteJson): Route {
  const type = TYPES[Number(json.type) - 1];
  if (type === undefined) throw new Error(`route type ${json.type} is none that the model knows`);
  const metrics = json.metrics?.[0] ?? {};
  return {
    destination: destinationOf(json),
    type,
    table: Number(json.table),
    metric: json.metric ?? 0,
    gateway: json.gateway ?? null,
    device: json.dev ?? null,
    scope: scopeOf(json.scope),
    protocol: Number(json.protocol),
    source: json.prefsrc ?? null,
    onlink: json.flags.includes('onlink'),
    ...(metrics.mtu === undefined ? {} : { mtuBytes: metrics.mtu }),
    ...(metrics.advmss === undefined ? {} : { advmssBytes: metrics.advmss }),
  };
}

const ACTIONS: Readonly<Record<string, PolicyRule['action']>> = {
  '6': 'blackhole',
  '7': 'unreachable',
  '8': 'prohibit',
};

function toPolicyRule(family: Family, json: RuleJson): PolicyRule {
  const prefix = (ip: Ip | undefined, length = ADDRESS_BITS[family]): Prefix | null =>
    ip === undefined ? null : (`${ip}/${length}` as Prefix);
  const { fwmark, fwmask } = json;
  return {
    family,
    priority: json.priority,
    source: prefix(json.src === 'all' ? undefined : json.src, json.srclen),
    destination: prefix(json.dst, json.dstlen),
    iif: json.iif ?? null,
    oif: json.oif ?? null,
    mark:
      fwmark === undefined ? null : { value: Number(fwmark), mask: Number(fwmask ?? 0xffff_ffff) },
    action: ACTIONS[json.action ?? ''] ?? 'lookup',
    table: json.table === undefined ? null : Number(json.table),
    protocol: Number(json.protocol),
  };
}

/** One line of JSON for each line of the batch. */
function runIp(place: NetnsName, lines: readonly string[], family: Family = 4): unknown[] {
  const which = family === 6 ? ['-6'] : [];
  return run(
    'ip',
    [...which, '-n', place, '-j', '-d', '-N', '-batch', '-'],
    `${lines.join('\n')}\n`,
  )
    .split('\n')
    .filter((line) => line !== '')
    .map((line): unknown => JSON.parse(line));
}

function bridgeFdb(kept: readonly FdbJson[], links: Netns['links'], bridge: BridgeLink): BridgeFdb {
  const here = kept.filter(({ master }) => master === bridge.ifname);
  const own = [...ownMacs({ links }, bridge)];
  const entries = here
    .filter(({ mac, state }) => state === 'static' || !own.includes(mac))
    .map(({ mac, ifname, state }) => ({
      mac,
      port: ifname === bridge.ifname ? null : ifname,
      state: state === 'static' ? ('static' as const) : ('local' as const),
    }));
  const isThere = (mac: Mac): boolean =>
    here.some((row) => row.mac === mac && row.state === 'permanent');
  return { entries, missing: own.filter((mac) => !isThere(mac)) };
}

/** The links with what of the forwarding databases is kept for good. */
function withTables(place: NetnsName, links: Netns['links']): Netns['links'] {
  const text = run('bridge', ['-n', place, '-j', 'fdb', 'show'], '');
  const rows = (text.trim() === '' ? [] : JSON.parse(text)) as readonly FdbJson[];
  const kept = rows.filter(
    ({ state, vlan }) => vlan === undefined && (state === 'permanent' || state === 'static'),
  );
  const filled = Object.values(links).map((link): [string, Link] => {
    if (link.kind === 'bridge') return [link.ifname, withFdb(link, bridgeFdb(kept, links, link))];
    const remotes = kept.flatMap(({ ifname, mac, dst }): Remote[] =>
      ifname === link.ifname && dst !== undefined ? [{ mac, ip: dst }] : [],
    );
    const isTold = link.kind === 'vxlan' && remotes.length > 0;
    return [link.ifname, isTold ? { ...link, remotes } : link];
  });
  return Object.fromEntries(filled);
}

/** The VLANs of every port and bridge, by name. */
function readVlans(place: NetnsName): Map<string, readonly VlanRange[]> {
  const text = run('bridge', ['-n', place, '-j', '-compressvlans', 'vlan', 'show'], '');
  const rows = (text.trim() === '' ? [] : JSON.parse(text)) as readonly VlanJson[];
  return new Map(
    rows.map(({ ifname, vlans }) => [
      ifname,
      vlansOf(
        vlans.map(({ vlan, vlanEnd, flags = [] }) => ({
          first: vlan,
          last: vlanEnd ?? vlan,
          pvid: flags.includes('PVID'),
          untagged: flags.includes('Egress Untagged'),
        })),
      ),
    ]),
  );
}

/**
 * What the commands print of the netns `place`, which the program calls `name`. Peers in another netns are null. `read` is
 * what our decoder has made of it, for figures that the commands round.
 */
export function readByCommands(place: NetnsName, name: NetnsName, read: Netns): Netns {
  const [links, neighbours, routes, rules] = runIp(place, [
    'address show',
    'neigh show nud permanent',
    'route show table all',
    'rule show',
  ]) as [LinkJson[], NeighbourJson[], RouteJson[], RuleJson[]];
  const [rules6] = runIp(place, ['rule show'], 6) as [RuleJson[]];
  const ruleset: unknown = JSON.parse(
    run('ip', ['netns', 'exec', place, 'nft', '-j', 'list', 'ruleset'], ''),
  );
  const isKnown = links.some(
    ({ linkinfo }) => linkinfo?.info_data?.vlan_default_pvid !== undefined,
  );
  const vlans = isKnown ? readVlans(place) : undefined;
  const trafficControl = readTrafficControl(place, read.links);
  const withTrafficControl = (link: Link): Link => {
    const found = trafficControl.get(link.ifname);
    return found ? { ...link, trafficControl: found } : link;
  };
  const policyRules = [
    ...rules.map((rule) => toPolicyRule(4, rule)),
    ...rules6.map((rule) => toPolicyRule(6, rule)),
  ];
  const plain: Netns['links'] = Object.fromEntries(
    links.map((link) => [link.ifname, withTrafficControl(toLink(link, neighbours, name, vlans))]),
  );
  const rest: Netns = {
    links: withTables(place, plain),
    routes: routes.map(toRoute),
    sysctls: {},
    nftables: readRuleset(ruleset),
  };
  return withPolicyRules(rest, policyRules);
}
