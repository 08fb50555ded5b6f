/**
 * The keys of a configuration as Go's decoder reads them: whatever their case, the last one of several
 * (encoding/json, "preferring an exact match but also accepting a case-insensitive match"). Runtimes rely
 * on it: containerd sends `HostPort`, podman `hostPort`.
 */

/** The keys that an object may have, each with those of what it holds; null where any key may stand. */
export interface KeyTree {
  readonly [key: string]: KeyTree | null;
}

const RANGE: KeyTree = { subnet: {}, rangeStart: {}, rangeEnd: {}, gateway: {}, exclude: {} };

const ATTACHMENTS: KeyTree = { containerID: {}, ifname: {} };

const BANDWIDTH: KeyTree = {
  ingressRate: {},
  ingressBurst: {},
  egressRate: {},
  egressBurst: {},
};

/** Every key that this plugin reads, and those of the protocol around it. */
export const CONFIG_KEYS: KeyTree = {
  cniVersion: {},
  name: {},
  type: {},
  capabilities: null,
  prevResult: null,
  'cni.dev/valid-attachments': ATTACHMENTS,
  'cni.dev/attachments': ATTACHMENTS,
  runtimeConfig: {
    ips: {},
    ipRanges: RANGE,
    mac: {},
    dns: { servers: {}, searches: {}, options: {} },
    portMappings: { hostPort: {}, containerPort: {}, protocol: {}, hostIP: {}, range: {} },
    bandwidth: BANDWIDTH,
  },
  args: {
    cni: {
      ips: {},
      mac: {},
      sysctl: null,
      mtu: {},
      promisc: {},
      allmulti: {},
      txQLen: {},
      labels: null,
    },
  },
  dns: { nameservers: {}, domain: {}, search: {}, options: {} },
  mode: {},
  bridge: {},
  isGateway: {},
  isDefaultGateway: {},
  forceAddress: {},
  ipMasq: {},
  ipMasqBackend: {},
  mtu: {},
  hairpinMode: {},
  promiscMode: {},
  vlan: {},
  vlanTrunk: { minID: {}, maxID: {}, id: {} },
  preserveDefaultVlan: {},
  macspoofchk: {},
  ipspoofchk: {},
  enabledad: {},
  disableContainerInterface: {},
  portIsolation: {},
  podVerdict: {},
  ingressPolicy: {},
  adoptForward: {},
  sysctl: null,
  promisc: {},
  allmulti: {},
  txQLen: {},
  ...BANDWIDTH,
  snat: {},
  masqAll: {},
  markMasqBit: {},
  externalSetMarkChain: {},
  conditionsV4: {},
  conditionsV6: {},
  ipam: {
    type: {},
    ranges: RANGE,
    ...RANGE,
    routes: { dst: {}, gw: {}, mtu: {}, advmss: {}, priority: {}, table: {}, scope: {} },
    resolvConf: {},
    reuseDelaySeconds: {},
    dataDir: {},
  },
  dataDir: {},
  logFile: {},
  logLevel: {},
  logFormat: {},
  logMaxBytes: {},
};

/** Lists that runtimes send where they mean an empty one, which Go writes as null when nobody made it (libcni's api.go, GCNetworkList). */
const EMPTY_AS_NULL: ReadonlySet<string> = new Set([
  'cni.dev/valid-attachments',
  'cni.dev/attachments',
]);

/** Keys by their lower case, for each tree once. */
const lowerCase = new WeakMap<KeyTree, Map<string, string>>();

function byLowerCase(tree: KeyTree): Map<string, string> {
  let known = lowerCase.get(tree);
  if (!known) {
    known = new Map(Object.keys(tree).map((key) => [key.toLowerCase(), key]));
    lowerCase.set(tree, known);
  }
  return known;
}

/** The name by which the tree knows a key, or the key itself. */
function canonicalKey(tree: KeyTree, key: string): string {
  return Object.hasOwn(tree, key) ? key : (byLowerCase(tree).get(key.toLowerCase()) ?? key);
}

/**
 * The value with known keys in their canonical case, and without those whose value is null, which means to Go that the
 * key is not there, unless it is a list that may be empty. Lists are looked through to any depth; what the tree does not know stays as it is.
 */
export function foldKeys(value: unknown, tree: KeyTree | null): unknown {
  if (value === null || typeof value !== 'object' || tree === null) return value;
  if (Array.isArray(value)) return value.map((each) => foldKeys(each, tree));
  const folded: [string, unknown][] = [];
  for (const [key, part] of Object.entries(value)) {
    const name = canonicalKey(tree, key);
    if (part === null && EMPTY_AS_NULL.has(name)) folded.push([name, []]);
    if (part === null) continue;
    folded.push([name, Object.hasOwn(tree, name) ? foldKeys(part, tree[name] ?? null) : part]);
  }
  // Not by assignment: a key may be called __proto__.
  return Object.fromEntries(folded);
}

/** Can one insertion, deletion, replacement or swap of neighbours make one word of the other? */
function isOneEdit(a: string, b: string): boolean {
  if (Math.abs(a.length - b.length) > 1) return false;
  let at = 0;
  while (at < a.length && a[at] === b[at]) at += 1;
  return (
    a.slice(at + 1) === b.slice(at + 1) ||
    a.slice(at + 1) === b.slice(at) ||
    a.slice(at) === b.slice(at + 1) ||
    (a[at] === b[at + 1] && a[at + 1] === b[at] && a.slice(at + 2) === b.slice(at + 2))
  );
}

/** The shortest key that is compared: of shorter ones most are one edit away from each other. */
const COMPARED_LENGTH = 3;

/** Keys that nobody reads and that are one edit away from one that somebody would, as sentences. */
export function suspectKeys(value: unknown, tree: KeyTree | null, path = ''): string[] {
  if (value === null || typeof value !== 'object' || tree === null) return [];
  if (Array.isArray(value)) return value.flatMap((each) => suspectKeys(each, tree, path));
  return Object.entries(value).flatMap(([key, part]) => {
    if (Object.hasOwn(tree, key)) return suspectKeys(part, tree[key] ?? null, `${path}${key}.`);
    const meant =
      key.length < COMPARED_LENGTH
        ? undefined
        : Object.keys(tree).find((known) => isOneEdit(known.toLowerCase(), key.toLowerCase()));
    return meant === undefined
      ? []
      : [`unknown key ${path}${key} is ignored: was ${path}${meant} meant?`];
  });
}
