/** Network configurations as they stand in /etc/cni/net.d: valid ones of every shape, and their single keys. */
import fc from 'fast-check';

/** A configuration as JSON, with what the runtime adds. */
export type RawConfig = Readonly<Record<string, unknown>>;

/** Range sets that can stand side by side in one configuration; some share a subnet with each other or with foreign addresses. */
const RANGE_SETS = [
  [{ subnet: '10.244.1.0/24' }],
  [
    {
      subnet: '10.0.0.0/24',
      rangeStart: '10.0.0.10',
      rangeEnd: '10.0.0.20',
      gateway: '10.0.0.254',
    },
  ],
  [{ subnet: '10.0.0.0/24', rangeStart: '10.0.0.100', gateway: '10.0.0.254' }],
  [{ subnet: '172.16.0.0/29' }, { subnet: '172.16.1.0/30', gateway: '172.16.1.1' }],
  [{ subnet: 'fd00::/64' }],
  [{ subnet: 'fd01:2::/112', rangeStart: 'fd01:2::100' }],
  [{ subnet: 'fd01:2::/112', rangeEnd: 'fd01:2::80', gateway: 'fd01:2::1' }],
];

const ROUTES = [
  { dst: '0.0.0.0/0' },
  { dst: '192.0.2.0/24' },
  { dst: '::/0' },
  { dst: '2001:db8::/32' },
];

/** What the reference's plugin `tuning` would set. */
const TUNINGS: readonly RawConfig[] = [
  { promisc: true, sysctl: { 'net.ipv4.conf.IFNAME.arp_filter': '1' } },
  { allmulti: true, txQLen: 500 },
];

/** Host ports, as a runtime asks for them, and whose sources are replaced. Each at an address of its own or at all. */
const PORTS: readonly RawConfig[] = [
  { runtimeConfig: { portMappings: [{ hostPort: 8080, containerPort: 80 }] } },
  {
    masqAll: true,
    runtimeConfig: { portMappings: [{ hostPort: 53, containerPort: 53, protocol: 'udp' }] },
  },
  { snat: false, runtimeConfig: { portMappings: [{ hostPort: 443, containerPort: 8443 }] } },
  { markMasqBit: 31, runtimeConfig: { portMappings: [{ hostPort: 7000, containerPort: 80 }] } },
  {
    conditionsV4: ['!', '-s', '192.0.2.0/24', '-i', 'eth9'],
    conditionsV6: ['ip6 daddr', '2001:db8::1'],
    runtimeConfig: { portMappings: [{ hostPort: 9000, containerPort: 80 }] },
  },
];

/** Limits of what a pod sends and is sent, with bursts that hold a frame of every MTU. */
const LIMITS: readonly RawConfig[] = [
  { ingressRate: 8_000_000, ingressBurst: 800_000 },
  { egressRate: 1_000_000, egressBurst: 80_000_000 },
  { ingressRate: 8_000_000, ingressBurst: 800_000, egressRate: 1e11, egressBurst: 800_000 },
];

/** VLANs of a pod's port, as far as a configuration can choose them. */
const VLANS: readonly RawConfig[] = [
  { vlan: 100 },
  { vlan: 100, preserveDefaultVlan: true },
  { vlan: 1 },
  { vlanTrunk: [{ minID: 200, maxID: 210 }, { id: 5 }] },
  { vlan: 205, vlanTrunk: [{ minID: 200, maxID: 210 }] },
];

/** Bridges that pods are put on: one that is nobody's, and the names that foreign bridges have in generated hosts. */
export const POD_BRIDGES = ['cni0', 'br0', 'br1'];

/** Versions whose results hold every attachment that `configurations` makes. */
const VERSIONS = ['0.3.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0'];

/** Valid configurations of one network. */
export function configurations(): fc.Arbitrary<RawConfig> {
  return fc
    .record({
      bridge: fc.constantFrom(...POD_BRIDGES),
      gateway: fc.constantFrom({}, { isGateway: true }, { isDefaultGateway: true }),
      forceAddress: fc.boolean(),
      ipMasq: fc.boolean(),
      port: fc.constantFrom(
        {},
        {},
        { hairpinMode: true },
        { promiscMode: true },
        { portIsolation: true },
        { macspoofchk: true },
        { mode: 'ptp' },
      ),
      vlans: fc.constantFrom({}, {}, {}, ...VLANS),
      ipspoofchk: fc.constantFrom({}, {}, { ipspoofchk: true }),
      ports: fc.constantFrom({}, {}, {}, {}, ...PORTS),
      tuning: fc.constantFrom({}, {}, {}, ...TUNINGS),
      limits: fc.constantFrom({}, {}, {}, ...LIMITS),
      adoptForward: fc.constantFrom({}, {}, { adoptForward: true }),
      policy: fc.constantFrom(
        {},
        {},
        { ingressPolicy: 'same-bridge' },
        { ingressPolicy: 'isolated' },
      ),
      podVerdict: fc.constantFrom({}, {}, { podVerdict: 'drop' }),
      dad: fc.constantFrom({}, {}, { enabledad: true }),
      mtu: fc.constantFrom({}, { mtu: 0 }, { mtu: 1280 }, { mtu: 1450 }, { mtu: 9000 }),
      ranges: fc.shuffledSubarray(RANGE_SETS, { minLength: 1, maxLength: 3 }),
      routes: fc.shuffledSubarray(ROUTES),
      cniVersion: fc.constantFrom(...VERSIONS),
    })
    .map(
      ({ bridge, gateway, port, ranges, routes, cniVersion, forceAddress, ipMasq, ...more }) => ({
        cniVersion,
        name: 'net',
        type: 'cube-cni',
        bridge,
        ...gateway,
        forceAddress,
        ipMasq,
        ...port,
        // VLANs are a bridge's.
        ...('mode' in port ? {} : more.vlans),
        ...('mode' in port ? {} : more.policy),
        ...more.ipspoofchk,
        ...more.ports,
        ...more.tuning,
        ...more.limits,
        ...more.adoptForward,
        ...more.podVerdict,
        ...more.dad,
        ...more.mtu,
        ipam: { type: 'cube-ipam', ranges, routes },
      }),
    );
}

/** Valid configurations of networks that give no addresses. */
export function layer2Configurations(): fc.Arbitrary<RawConfig> {
  return fc
    .record({
      bridge: fc.constantFrom(...POD_BRIDGES),
      port: fc.constantFrom(
        {},
        { hairpinMode: true },
        { portIsolation: true },
        { macspoofchk: true },
      ),
      vlans: fc.constantFrom({}, {}, ...VLANS),
      down: fc.constantFrom({}, { disableContainerInterface: true }),
      ipam: fc.constantFrom({}, { ipam: {} }, { ipam: { type: '' } }),
      cniVersion: fc.constantFrom(...VERSIONS),
    })
    .map(({ bridge, port, vlans, down, ipam, cniVersion }) => ({
      cniVersion,
      name: 'net',
      type: 'cube-cni',
      bridge,
      ...port,
      ...vlans,
      ...down,
      ...ipam,
    }));
}

/** Every key that a configuration may have, and some that it may not. */
const KEYS = [
  'bridge',
  'isGateway',
  'isDefaultGateway',
  'forceAddress',
  'ipMasq',
  'hairpinMode',
  'promiscMode',
  'mtu',
  'ipam',
  'dataDir',
  'logFile',
  'logLevel',
  'logFormat',
  'logMaxBytes',
  'vlan',
  'vlanTrunk',
  'preserveDefaultVlan',
  'macspoofchk',
  'ipspoofchk',
  'enabledad',
  'disableContainerInterface',
  'portIsolation',
  'mode',
  'podVerdict',
  'dns',
  'exclude',
  'reuseDelaySeconds',
  'resolvConf',
  'mtu',
  'priority',
  'table',
  'scope',
  'type',
  'subnet',
  'ranges',
  'rangeStart',
  'rangeEnd',
  'gateway',
  'routes',
  'dst',
  'gw',
  '__proto__',
  'constructor',
];

const VALUES: readonly unknown[] = [
  '10.0.0.0/8',
  '10.0.0.5',
  'fd00::/8',
  '::1',
  'cube-ipam',
  'cni0',
  '/x',
  '',
  true,
  false,
  0,
  1500,
  null,
  2 ** 53,
  -0,
  1e308,
];

/** Any JSON, with the values and keys of configurations here and there. */
function trees(): fc.Arbitrary<unknown> {
  const leaf = fc.oneof(fc.jsonValue({ maxDepth: 1 }), fc.constantFrom(...VALUES));
  return fc.letrec<{ tree: unknown }>((tie) => ({
    tree: fc.oneof(
      { maxDepth: 4, depthSize: 'small' },
      leaf,
      fc.dictionary(fc.constantFrom(...KEYS), tie('tree'), { maxKeys: 8, noNullPrototype: true }),
      fc.array(tie('tree'), { maxLength: 3 }),
    ),
  })).tree;
}

/** A value with the part that `path` leads to replaced; each number of the path chooses among what is there, and one more. */
function replaced(value: unknown, path: readonly number[], part: unknown): unknown {
  const [choice, ...rest] = path;
  if (choice === undefined || value === null || typeof value !== 'object') return part;
  const keys = Object.keys(value);
  const key = keys[choice % (keys.length + 1)] ?? KEYS[choice % KEYS.length] ?? '';
  const within = (value as Record<string, unknown>)[key];
  if (Array.isArray(value))
    return value.map((each, i) => (String(i) === key ? replaced(each, rest, part) : each));
  return { ...value, [key]: replaced(within, rest, part) };
}

/** Configurations in which parts of valid ones are something else, and others that are nothing but JSON. */
export function anyConfigurations(): fc.Arbitrary<RawConfig> {
  const change = fc.tuple(fc.array(fc.nat(100), { minLength: 1, maxLength: 5 }), trees());
  const nearly = fc
    .tuple(configurations(), fc.array(change, { maxLength: 3 }))
    .map(([valid, changes]) =>
      changes.reduce((raw, [path, part]) => replaced(raw, path, part) as RawConfig, valid),
    );
  const wild = fc.dictionary(fc.constantFrom(...KEYS), trees(), {
    maxKeys: 8,
    noNullPrototype: true,
  });
  return fc.oneof({ weight: 3, arbitrary: nearly }, wild);
}
