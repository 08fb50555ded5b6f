/** What iproute2 and nft say about a netns: a view of the kernel that shares no code with ours. */
import { run, runIn } from './node.ts';

type Json = Readonly<Record<string, unknown>>;

/** Settled by the kernel some time after the fact, or counted. */
const VOLATILE = new Set([
  'ifindex',
  'link_index',
  'link_netnsid',
  'operstate',
  'flags',
  'linkinfo',
  'valid_life_time',
  'preferred_life_time',
  'handle',
  'metrics',
  // A bridge takes these from its ports.
  'gso_max_size',
  'gso_max_segs',
  'gro_max_size',
  'tso_max_size',
  'tso_max_segs',
]);

function ip(netns: string, ...args: readonly string[]): Json[] {
  const name = netns.replace('/run/netns/', '');
  return JSON.parse(run('ip', '-n', name, '-d', '-N', '-j', ...args) || '[]') as Json[];
}

function settled(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(settled);
  if (value === null || typeof value !== 'object') return value;
  return Object.fromEntries(
    Object.entries(value)
      .filter(([key]) => !VOLATILE.has(key))
      .map(([key, part]) => [key, settled(part)]),
  );
}

/** Link-local addresses and their routes come when a link has had its carrier for a while. */
function isLinkLocal(value: unknown): boolean {
  return typeof value === 'string' && /^(fe80|ff00)::/.test(value);
}

interface LinkInfo {
  readonly info_kind?: string;
  readonly info_data?: { readonly vlan_filtering?: number };
  readonly info_slave_data?: Readonly<Record<string, unknown>>;
}

function linkState(link: Json): [string, unknown] {
  const {
    info_kind: kind,
    info_data: data,
    info_slave_data: port,
  } = (link['linkinfo'] ?? {}) as LinkInfo;
  const flags = (link['flags'] ?? []) as readonly string[];
  const addresses = (link['addr_info'] ?? []) as readonly Json[];
  return [
    String(link['ifname']),
    {
      ...(settled(link) as Json),
      kind,
      up: flags.includes('UP'),
      promiscuous: link['promiscuity'],
      ...(data?.vlan_filtering === undefined ? {} : { vlanFiltering: data.vlan_filtering }),
      port: port && { hairpin: port['hairpin'], isolated: port['isolated'] },
      addr_info: addresses.filter(({ local }) => !isLinkLocal(local)).map(settled),
    },
  ];
}

/** The route to an IPv6 address is made by a work queue, moments after the address (addrconf_dad_work). */
function awaitAddresses(netns: string): void {
  const lacking = (): boolean => {
    const local = new Set(ip(netns, '-6', 'route', 'show', 'table', 'local').map(({ dst }) => dst));
    return ip(netns, '-6', 'address')
      .flatMap((link) => (link['addr_info'] ?? []) as readonly Json[])
      .some((address) => address['tentative'] !== true && !local.has(address['local']));
  };
  const end = performance.now() + 2000;
  while (lacking() && performance.now() < end) Bun.sleepSync(5);
}

/** Everything that somebody configured in a netns, in a form that compares equal when it is the same. */
export function kernelState(netns: string): Json {
  awaitAddresses(netns);
  const routes = ['-4', '-6']
    .flatMap((family) => ip(netns, family, 'route', 'show', 'table', 'all'))
    .filter(({ dst }) => !isLinkLocal(dst))
    .map((route) => JSON.stringify(settled(route)))
    .toSorted();
  return {
    links: Object.fromEntries(ip(netns, 'address').map(linkState)),
    routes,
    nftables: nftState(netns),
    qdiscs: qdiscState(netns),
    forwarding: runIn(netns, 'sysctl', 'net.ipv4.ip_forward', 'net.ipv6.conf.all.forwarding'),
  };
}

/** The qdiscs that somebody has made, and how many filters there are on what comes in. */
function qdiscState(netns: string): string[] {
  const name = netns.replace('/run/netns/', '');
  const tc = (...words: string[]): string[] => run('tc', '-n', name, ...words).split('\n');
  return tc('qdisc', 'show')
    .filter((line) => line !== '' && !/^qdisc \S+ 0: /.test(line))
    .map((line) => {
      const [, dev = ''] = /dev (\S+)/.exec(line) ?? [];
      const filters = /clsact|ingress/.test(line)
        ? tc('filter', 'show', 'dev', dev, 'ingress')
        : [];
      return [line.replace(/ refcnt \d+/, '').trim(), ...filters].join('\n');
    })
    .toSorted();
}

/** Routes that IPv6 addresses get by the kernel: anycast ones for who forwards, and local ones, which it makes some time after the address. */
const OF_IP6_ADDRESSES = /^\{"type":"(4|2","dst":"[^"]*:)/;

/** The same of a host, without forwarding, which stays on, and without what the kernel makes of the addresses. */
export function hostState(netns: string): Json {
  const { routes, ...state } = kernelState(netns);
  const kept = (routes as string[]).filter((route) => !OF_IP6_ADDRESSES.test(route));
  return { ...state, routes: kept, forwarding: null };
}

/** The ruleset as `nft -j` prints it, object by object. */
function nftState(netns: string): unknown {
  const { nftables } = JSON.parse(runIn(netns, 'nft', '-j', 'list', 'ruleset')) as {
    nftables: Json[];
  };
  return settled(nftables.filter((object) => !('metainfo' in object)));
}

interface NftMap {
  readonly name: string;
  readonly elem?: readonly (readonly [{ readonly elem: { readonly val: string } }, unknown])[];
}

/** The keys of the elements of maps of ours, by the beginning of the maps' names. */
function keysOf(netns: string, maps: string): string[] {
  return (nftState(netns) as readonly { readonly map?: NftMap }[])
    .flatMap(({ map }) => (map?.name.startsWith(maps) ? (map.elem ?? []) : []))
    .map(([{ elem }]) => elem.val)
    .toSorted();
}

/** The addresses in our masquerade maps. */
export function masqueraded(netns: string): string[] {
  return keysOf(netns, 'masq');
}

/** The addresses in our maps of pods. */
export function mapped(netns: string): string[] {
  return keysOf(netns, 'pods');
}

/** The names of the links in a netns, without `lo`. */
export function linkNames(netns: string): string[] {
  return ip(netns, 'link')
    .map(({ ifname }) => String(ifname))
    .filter((name) => name !== 'lo')
    .toSorted();
}

/** What `ip -j -d` says about one link. */
export function ipLink(netns: string, ifname: string): Json {
  return linkState(ip(netns, 'address', 'show', 'dev', ifname)[0] as Json)[1] as Json;
}

/** The prefixes and addresses of a link, without those that the kernel makes. */
export function ipAddresses(netns: string, ifname: string): string[] {
  return (ipLink(netns, ifname)['addr_info'] as readonly Json[]).map(
    (address) => `${String(address['local'])}/${String(address['prefixlen'])}`,
  );
}

/** The routes of the table main as texts, without who made them. */
export function mainRoutes(netns: string): string[] {
  return ['-4', '-6']
    .flatMap((family) => ip(netns, family, 'route', 'show', 'table', 'main'))
    .filter(({ dst }) => !isLinkLocal(dst))
    .map(({ dst, gateway, dev, scope, prefsrc, metric }) =>
      JSON.stringify({ dst, gateway, dev, scope, prefsrc, metric }),
    )
    .toSorted();
}

interface VlanRow {
  readonly ifname: string;
  readonly vlans: readonly {
    readonly vlan: number;
    readonly vlanEnd?: number;
    readonly flags?: readonly string[];
  }[];
}

/** The VLANs of every bridge and port that has any: `100-199 PVID Egress Untagged`. */
export function vlansOf(netns: string): Record<string, string[]> {
  const name = netns.replace('/run/netns/', '');
  const text = run('bridge', '-n', name, '-j', '-compressvlans', 'vlan', 'show');
  const rows = JSON.parse(text.trim() || '[]') as VlanRow[];
  return Object.fromEntries(
    rows.map(({ ifname, vlans }) => [
      ifname,
      vlans.map(({ vlan, vlanEnd, flags = [] }) =>
        [vlanEnd === undefined ? vlan : `${vlan}-${vlanEnd}`, ...flags].join(' '),
      ),
    ]),
  );
}
