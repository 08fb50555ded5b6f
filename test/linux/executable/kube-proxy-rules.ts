/**
 * The rules that kube-proxy gives a node for services, in its iptables and in its nftables mode, each for one family:
 * github.com/kubernetes/kubernetes, pkg/proxy/iptables/proxier.go (iptablesJumpChains, syncProxyRules) and
 * pkg/proxy/nftables/proxier.go (setupNFTables, syncProxyRules), with KUBE-FIREWALL and KUBE-MARK-DROP as older kubelets
 * make them (pkg/kubelet/kubelet_network_linux.go). Written anew after what those leave in the kernel.
 */

type Family = 4 | 6;

/** A service of TCP, with one endpoint. */
export interface Service {
  readonly name: string;
  readonly clusterIp: Readonly<Record<Family, string>>;
  readonly nodePort: number;
  /** `externalTrafficPolicy`: `Local` leaves who asks from outside his address. */
  readonly policy: 'Cluster' | 'Local';
}

/** What the services of a node have in common. */
export interface Cluster {
  readonly services: readonly Service[];
  /** The port of the services. */
  readonly port: number;
  readonly endpoint: { readonly ip: Readonly<Record<Family, string>>; readonly port: number };
  /** What pods have their addresses of: `--cluster-cidr`. */
  readonly podCidr: Readonly<Record<Family, string>>;
  /** `--nodeport-addresses`, which the nftables mode has a set for. */
  readonly nodeIp: Readonly<Record<Family, string>>;
}

function comment(text: string): string {
  return `-m comment --comment "${text}"`;
}

/** The jumps from a chain of the table, in the order that they come to stand in. */
const FILTER_JUMPS: readonly string[] = [
  `INPUT -m conntrack --ctstate NEW ${comment('kubernetes load balancer firewall')} -j KUBE-PROXY-FIREWALL`,
  `INPUT ${comment('kubernetes health check service ports')} -j KUBE-NODEPORTS`,
  `INPUT -m conntrack --ctstate NEW ${comment('kubernetes externally-visible service portals')} -j KUBE-EXTERNAL-SERVICES`,
  'INPUT -j KUBE-FIREWALL',
  `FORWARD -m conntrack --ctstate NEW ${comment('kubernetes load balancer firewall')} -j KUBE-PROXY-FIREWALL`,
  `FORWARD ${comment('kubernetes forwarding rules')} -j KUBE-FORWARD`,
  `FORWARD -m conntrack --ctstate NEW ${comment('kubernetes service portals')} -j KUBE-SERVICES`,
  `FORWARD -m conntrack --ctstate NEW ${comment('kubernetes externally-visible service portals')} -j KUBE-EXTERNAL-SERVICES`,
  `OUTPUT -m conntrack --ctstate NEW ${comment('kubernetes load balancer firewall')} -j KUBE-PROXY-FIREWALL`,
  `OUTPUT -m conntrack --ctstate NEW ${comment('kubernetes service portals')} -j KUBE-SERVICES`,
  'OUTPUT -j KUBE-FIREWALL',
];

function filterTable(family: Family): string[] {
  return [
    '*filter',
    ...[
      'KUBE-EXTERNAL-SERVICES',
      'KUBE-FIREWALL',
      'KUBE-FORWARD',
      'KUBE-NODEPORTS',
      'KUBE-PROXY-FIREWALL',
      'KUBE-SERVICES',
    ].map((chain) => `:${chain} - [0:0]`),
    ...FILTER_JUMPS.map((jump) => `-A ${jump}`),
    `-A KUBE-FIREWALL ${comment('kubernetes firewall for dropping marked packets')} -m mark --mark 0x8000/0x8000 -j DROP`,
    ...(family === 4
      ? [
          `-A KUBE-FIREWALL ${comment('block incoming localnet connections')} -d 127.0.0.0/8 ! -s 127.0.0.0/8 -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP`,
        ]
      : []),
    '-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP',
    `-A KUBE-FORWARD ${comment('kubernetes forwarding rules')} -m mark --mark 0x4000/0x4000 -j ACCEPT`,
    `-A KUBE-FORWARD ${comment('kubernetes forwarding conntrack rule')} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT`,
    'COMMIT',
  ];
}

/** The last part of a service's chains: 16 letters of a hash. */
function hashOf(text: string): string {
  const bytes = new Bun.CryptoHasher('sha256').update(text).digest();
  return Array.from(
    bytes.slice(0, 16),
    (byte) => 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567'[byte % 32],
  ).join('');
}

/** What of a service's external chain depends on the policy. */
function externalRules({ name, policy }: Service, hash: string, cidr: string): string[] {
  if (policy === 'Cluster')
    return [
      `-A KUBE-EXT-${hash} ${comment(`masquerade traffic for ${name} external destinations`)} -j KUBE-MARK-MASQ`,
      `-A KUBE-EXT-${hash} -j KUBE-SVC-${hash}`,
    ];
  return [
    `-A KUBE-EXT-${hash} ${comment(`pod traffic for ${name} external destinations`)} -s ${cidr} -j KUBE-SVC-${hash}`,
    `-A KUBE-EXT-${hash} ${comment(`masquerade LOCAL traffic for ${name} external destinations`)} -m addrtype --src-type LOCAL -j KUBE-MARK-MASQ`,
    `-A KUBE-EXT-${hash} ${comment(`route LOCAL traffic for ${name} external destinations`)} -m addrtype --src-type LOCAL -j KUBE-SVC-${hash}`,
    `-A KUBE-EXT-${hash} -j KUBE-SVL-${hash}`,
    `-A KUBE-SVL-${hash} -j KUBE-SEP-${hash}`,
  ];
}

function serviceRules(cluster: Cluster, service: Service, family: Family): string[] {
  const { port, endpoint } = cluster;
  const hash = hashOf(service.name);
  const ip = endpoint.ip[family];
  const to = `${family === 4 ? ip : `[${ip}]`}:${endpoint.port}`;
  const isClusterIp = `${comment(`${service.name} cluster IP`)} -d ${service.clusterIp[family]} -p tcp -m tcp --dport ${port}`;
  const chains = ['EXT', 'SVC', 'SEP', ...(service.policy === 'Local' ? ['SVL'] : [])];
  return [
    ...chains.map((kind) => `:KUBE-${kind}-${hash} - [0:0]`),
    `-A KUBE-SERVICES ${isClusterIp} -j KUBE-SVC-${hash}`,
    `-A KUBE-NODEPORTS ${comment(service.name)} -p tcp -m tcp --dport ${service.nodePort} -j KUBE-EXT-${hash}`,
    ...externalRules(service, hash, cluster.podCidr[family]),
    `-A KUBE-SVC-${hash} ${isClusterIp} ! -s ${cluster.podCidr[family]} -j KUBE-MARK-MASQ`,
    `-A KUBE-SVC-${hash} ${comment(`${service.name} -> ${to}`)} -j KUBE-SEP-${hash}`,
    `-A KUBE-SEP-${hash} ${comment(service.name)} -s ${ip} -j KUBE-MARK-MASQ`,
    `-A KUBE-SEP-${hash} ${comment(service.name)} -p tcp -m tcp -j DNAT --to-destination ${to}`,
  ];
}

function isChain(line: string): boolean {
  return line.startsWith(':');
}

/** The input of `iptables-restore`, or of `ip6tables-restore`. */
export function iptablesRules(cluster: Cluster, family: Family): string {
  const services = cluster.services.flatMap((service) => serviceRules(cluster, service, family));
  const isLocal = `-m addrtype --dst-type LOCAL${family === 6 ? ' ! -d ::1' : ''}`;
  return [
    ...filterTable(family),
    '*nat',
    ...['MARK-DROP', 'MARK-MASQ', 'NODEPORTS', 'POSTROUTING', 'SERVICES'].map(
      (chain) => `:KUBE-${chain} - [0:0]`,
    ),
    ...services.filter(isChain),
    ...['PREROUTING', 'OUTPUT'].map(
      (chain) => `-A ${chain} ${comment('kubernetes service portals')} -j KUBE-SERVICES`,
    ),
    `-A POSTROUTING ${comment('kubernetes postrouting rules')} -j KUBE-POSTROUTING`,
    '-A KUBE-MARK-DROP -j MARK --or-mark 0x8000',
    '-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000',
    '-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN',
    '-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000',
    `-A KUBE-POSTROUTING ${comment('kubernetes service traffic requiring SNAT')} -j MASQUERADE --random-fully`,
    ...services.filter((line) => !isChain(line)),
    `-A KUBE-SERVICES ${comment('kubernetes service nodeports; NOTE: this must be the last rule in this chain')} ${isLocal} -j KUBE-NODEPORTS`,
    'COMMIT',
    '',
  ].join('\n');
}

/** The base chains, each with what it leads to. */
const NFT_BASE_CHAINS: readonly (readonly [
  name: string,
  hook: string,
  rules: readonly string[],
])[] = [
  [
    'filter-prerouting',
    'filter hook prerouting priority dstnat - 10',
    ['ct state new jump firewall-check'],
  ],
  ['filter-input', 'filter hook input priority -110', ['ct state new jump endpoints-check']],
  ['filter-forward', 'filter hook forward priority -110', ['ct state new jump endpoints-check']],
  [
    'filter-output',
    'filter hook output priority -110',
    ['ct state new jump endpoints-check', 'ct state new jump firewall-check'],
  ],
  ['nat-prerouting', 'nat hook prerouting priority dstnat', ['jump services']],
  ['nat-output', 'nat hook output priority -100', ['jump services']],
  ['nat-postrouting', 'nat hook postrouting priority srcnat', ['jump masquerading']],
];

function nftChain(name: string, rules: readonly string[]): string[] {
  return [`chain ${name} {`, ...rules, '}'];
}

/** What the chains of a service are called by. */
function nftName({ name }: Service): string {
  return `${hashOf(name).slice(0, 8)}-${name}/tcp/http`;
}

function nftService(cluster: Cluster, service: Service, family: Family): string[] {
  const { port, endpoint, podCidr } = cluster;
  const protocol = family === 4 ? 'ip' : 'ip6';
  const name = nftName(service);
  const ip = endpoint.ip[family];
  const to = `endpoint-${name}__${ip.replaceAll(':', '.')}/${endpoint.port}`;
  const spread = `numgen random mod 1 vmap { 0 : goto ${to} }`;
  const external =
    service.policy === 'Cluster'
      ? ['jump mark-for-masquerade', `goto service-${name}`]
      : [
          `${protocol} saddr ${podCidr[family]} goto service-${name} comment "short-circuit pod traffic"`,
          'fib saddr type local jump mark-for-masquerade comment "masquerade local traffic"',
          `fib saddr type local goto service-${name} comment "short-circuit local traffic"`,
          `goto local-${name}`,
        ];
  return [
    ...nftChain(to, [
      `${protocol} saddr ${ip} jump mark-for-masquerade`,
      `meta l4proto tcp dnat to ${family === 4 ? ip : `[${ip}]`}:${endpoint.port}`,
    ]),
    ...nftChain(`service-${name}`, [
      `${protocol} daddr ${service.clusterIp[family]} tcp dport ${port} ${protocol} saddr != ${podCidr[family]} jump mark-for-masquerade`,
      spread,
    ]),
    ...(service.policy === 'Local' ? nftChain(`local-${name}`, [spread]) : []),
    ...nftChain(`external-${name}`, external),
  ];
}

/** The input of `nft -f`. */
export function nftablesRules(cluster: Cluster, family: Family): string {
  const protocol = family === 4 ? 'ip' : 'ip6';
  const at = `${protocol} daddr . meta l4proto . th dport`;
  const atNodePort = `${protocol} daddr @nodeport-ips meta l4proto . th dport`;
  const ipType = `ipv${family}_addr . inet_proto . inet_service : verdict`;
  const ips = cluster.services.map(
    (each) => `${each.clusterIp[family]} . tcp . ${cluster.port} : goto service-${nftName(each)}`,
  );
  const ports = cluster.services.map(
    (each) => `tcp . ${each.nodePort} : goto external-${nftName(each)}`,
  );
  return [
    `table ${protocol} kube-proxy {`,
    'comment "rules for kube-proxy"',
    `set nodeport-ips { type ipv${family}_addr; elements = { ${cluster.nodeIp[family]} }; }`,
    `map no-endpoint-services { type ${ipType}; }`,
    'map no-endpoint-nodeports { type inet_proto . inet_service : verdict; }',
    `map firewall-ips { type ${ipType}; }`,
    ...nftChain('mark-for-masquerade', ['meta mark set meta mark or 0x4000']),
    ...nftChain('masquerading', [
      'meta mark and 0x4000 == 0 return',
      'meta mark set meta mark xor 0x4000',
      'masquerade fully-random',
    ]),
    ...nftChain('reject-chain', ['reject']),
    ...cluster.services.flatMap((each) => nftService(cluster, each, family)),
    `map service-ips { type ${ipType}; elements = { ${ips.join(', ')} }; }`,
    `map service-nodeports { type inet_proto . inet_service : verdict; elements = { ${ports.join(', ')} }; }`,
    ...nftChain('endpoints-check', [
      `${at} vmap @no-endpoint-services`,
      `${atNodePort} vmap @no-endpoint-nodeports`,
    ]),
    ...nftChain('firewall-check', [`${at} vmap @firewall-ips`]),
    ...nftChain('services', [`${at} vmap @service-ips`, `${atNodePort} vmap @service-nodeports`]),
    ...NFT_BASE_CHAINS.flatMap(([name, hook, rules]) =>
      nftChain(name, [`type ${hook}; policy accept;`, ...rules]),
    ),
    '}',
    '',
  ].join('\n');
}
