import * as z from 'zod/mini';
import { hostPrefix } from '../../model/connected.ts';
import { ifnameProblem, type Ifname } from '../../model/ifname.ts';
import { findIp, type Ip, parseIp } from '../../model/ip.ts';
import { type Prefix, parsePrefix } from '../../model/prefix.ts';
import { DEFAULT_BRIDGE } from '../bridge.ts';
import { OWN_IPAM } from '../ipam/delegate.ts';
import { type Conditions, FOREIGN_MARK_BITS, MARK_BIT } from '../port-door.ts';
import { gatewayNameProblem } from '../vlan.ts';
import { readConditions } from './conditions.ts';
import { CNI_ERROR, CniError } from './error.ts';

/** Reads a text by a parser that throws, so that its message becomes the issue's. */
function parsed<T>(parse: (text: string) => T) {
  return z.pipe(
    z.string(),
    z.transform((text, context): T => {
      try {
        return parse(text);
      } catch (error) {
        context.issues.push({
          code: 'custom',
          message: error instanceof Error ? error.message : String(error),
          input: text,
        });
        return z.NEVER;
      }
    }),
  );
}

const ip = parsed((text): Ip => {
  const value = findIp(text);
  if (value === undefined) throw new Error(`"${text}" is not an IP address`);
  return value;
});

const prefix = parsed((text): Prefix => parsePrefix(text));

const linkName = parsed((text): Ifname => {
  const problem = ifnameProblem(text);
  if (problem !== undefined) throw new Error(`"${text}" cannot be a link name: ${problem}`);
  return text as Ifname;
});

/** Go's decoder reads an empty text as no address, and go-cni sends every key of a range. */
function orEmpty<T extends z.ZodMiniType>(schema: T) {
  return z.optional(
    z.pipe(
      z.transform((value: unknown) => (value === '' ? undefined : value)),
      z.optional(schema),
    ),
  );
}

/** Addresses that are not handed out: one, or all of a prefix. */
const excluded = parsed((text): Prefix =>
  text.includes('/') ? parsePrefix(text) : hostPrefix(parseIp(text)),
);

const range = z.object({
  subnet: prefix,
  rangeStart: orEmpty(ip),
  rangeEnd: orEmpty(ip),
  gateway: orEmpty(ip),
  exclude: z.optional(z.array(excluded)),
});

/** A range of addresses as the configuration gives it. */
export type ConfigRange = z.infer<typeof range>;

/** RT_SCOPE_*: those that a route may be given (include/uapi/linux/rtnetlink.h). */
const ROUTE_SCOPES: readonly number[] = [0, 200, 253, 254];

const route = z.object({
  dst: prefix,
  gw: orEmpty(ip),
  // The kernel cuts what is more (net/ipv4/metrics.c, ip_metrics_convert).
  mtu: z.optional(z.int().check(z.minimum(0), z.maximum(65_520))),
  advmss: z.optional(z.int().check(z.minimum(0), z.maximum(65_495))),
  priority: z.optional(z.int().check(z.minimum(0), z.maximum(0xffffffff))),
  table: z.optional(z.int().check(z.minimum(1), z.maximum(0xffffffff))),
  scope: z.optional(
    z
      .int()
      .check(z.refine((value) => ROUTE_SCOPES.includes(value), 'it must be 0, 200, 253 or 254')),
  ),
});

/** A route as the configuration gives it. */
export type ConfigRoute = z.infer<typeof route>;

const ipam = z.object({
  ranges: z.optional(z.array(z.array(range).check(z.minLength(1, 'a range set needs a range')))),
  subnet: orEmpty(prefix),
  rangeStart: orEmpty(ip),
  rangeEnd: orEmpty(ip),
  gateway: orEmpty(ip),
  exclude: z.optional(z.array(excluded)),
  routes: z.optional(z.array(route)),
  resolvConf: z.optional(z.string()),
  reuseDelaySeconds: z._default(z.int().check(z.minimum(0), z.maximum(86_400)), 0),
  /** Where host-local keeps its reservations, which are respected. */
  dataDir: z.optional(z.string()),
});

/** The configuration of addresses that the plugin itself hands out. */
export type IpamConfig = z.infer<typeof ipam>;

const dns = z.object({
  nameservers: z.optional(z.array(z.string())),
  domain: z.optional(z.string()),
  search: z.optional(z.array(z.string())),
  options: z.optional(z.array(z.string())),
});

const vlanId = z.int().check(z.minimum(1), z.maximum(4094));

/** ETH_MIN_MTU, below which the kernel makes no veth. */
const LINK_MTU_MIN_BYTES = 68;

const bits = z.int().check(z.minimum(0));

const markBit = z.int().check(
  z.minimum(0),
  z.maximum(31),
  z.refine(
    (bit) => !FOREIGN_MARK_BITS.includes(bit),
    'it must not be 14 or 15, which are bits of kube-proxy (0x4000, 0x8000)',
  ),
);

const config = z.object({
  mode: z._default(z.enum(['bridge', 'ptp']), 'bridge'),
  bridge: z._default(linkName, DEFAULT_BRIDGE),
  isGateway: z._default(z.boolean(), false),
  isDefaultGateway: z._default(z.boolean(), false),
  forceAddress: z._default(z.boolean(), false),
  ipMasq: z._default(z.boolean(), false),
  ipMasqBackend: z.optional(z.enum(['nftables', 'iptables', ''])),
  hairpinMode: z._default(z.boolean(), false),
  promiscMode: z._default(z.boolean(), false),
  mtu: z._default(z.int().check(z.minimum(0), z.maximum(65535)), 0),
  vlan: z._default(z.int().check(z.minimum(0), z.maximum(4094)), 0),
  vlanTrunk: z.optional(
    z.array(
      z.object({ minID: z.optional(vlanId), maxID: z.optional(vlanId), id: z.optional(vlanId) }),
    ),
  ),
  preserveDefaultVlan: z._default(z.boolean(), false),
  macspoofchk: z._default(z.boolean(), false),
  ipspoofchk: z._default(z.boolean(), false),
  enabledad: z._default(z.boolean(), false),
  disableContainerInterface: z._default(z.boolean(), false),
  portIsolation: z._default(z.boolean(), false),
  podVerdict: z._default(z.enum(['accept', 'drop']), 'accept'),
  snat: z._default(z.boolean(), true),
  masqAll: z._default(z.boolean(), false),
  markMasqBit: z._default(markBit, MARK_BIT),
  conditionsV4: z.optional(z.array(z.string())),
  conditionsV6: z.optional(z.array(z.string())),
  externalSetMarkChain: z.optional(z.string()),
  ingressPolicy: z._default(z.enum(['open', 'same-bridge', 'isolated']), 'open'),
  adoptForward: z._default(z.boolean(), false),
  sysctl: z.optional(z.record(z.string(), z.string())),
  promisc: z._default(z.boolean(), false),
  allmulti: z._default(z.boolean(), false),
  txQLen: z.optional(z.int().check(z.minimum(0), z.maximum(0xffffffff))),
  ingressRate: z.optional(bits),
  ingressBurst: z.optional(bits),
  egressRate: z.optional(bits),
  egressBurst: z.optional(bits),
  dns: z.optional(dns),
});

/** A network's configuration, read and with its defaults. */
export type Config = Omit<
  z.infer<typeof config>,
  'ipMasqBackend' | 'conditionsV4' | 'conditionsV6'
> & {
  /** What packets for host ports have to be. */
  readonly conditions: Conditions;
  /** Null: addresses are another plugin's to give, or nobody's. */
  readonly ipam: IpamConfig | null;
  /** The `type` of the IPAM plugin that gives addresses; null when none does. */
  readonly delegate: string | null;
};

/** JSON's null means that a key is not there, as Go reads it. */
function withoutNulls(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutNulls);
  if (value === null || typeof value !== 'object') return value;
  return Object.fromEntries(
    Object.entries(value)
      .filter(([, part]) => part !== null)
      .map(([key, part]) => [key, withoutNulls(part)]),
  );
}

function formatPath(parts: readonly PropertyKey[]): string {
  return parts
    .map((part, i) =>
      typeof part === 'number' ? `[${part}]` : `${i > 0 ? '.' : ''}${String(part)}`,
    )
    .join('');
}

/** How much of a value a message shows. */
const SHOWN_LENGTH = 80;

/** What is wrong with a value; zod's own words come in a separate and large part of it. */
function explain(issue: z.core.$ZodRawIssue): string | undefined {
  if (issue.input === undefined) return 'it is missing';
  const shown = JSON.stringify(issue.input).slice(0, SHOWN_LENGTH);
  if (issue.code === 'invalid_value')
    return `it must be one of ${issue.values.join(', ')}, not ${shown}`;
  if (issue.code === 'invalid_type') return `it must be of type ${issue.expected}, not ${shown}`;
  if (issue.code === 'too_big') return `it must be at most ${issue.maximum}, not ${shown}`;
  if (issue.code === 'too_small') return `it must be at least ${issue.minimum}, not ${shown}`;
  return undefined;
}

type Raw = Readonly<Record<string, unknown>>;

function refuse(problem: string): never {
  throw new CniError(CNI_ERROR.invalidConfig, `invalid network configuration: ${problem}`);
}

/** Reads a part of the configuration by its schema; `path` is where the part is. What is wrong is noted in `problems`. */
function read<T extends z.ZodMiniType>(
  schema: T,
  raw: unknown,
  path: readonly string[],
  problems: string[],
): z.infer<T> | undefined {
  const outcome = schema.safeParse(withoutNulls(raw), { error: explain });
  if (outcome.success) return outcome.data;
  for (const issue of outcome.error.issues)
    problems.push(`${formatPath([...path, ...issue.path]) || 'configuration'}: ${issue.message}`);
  return undefined;
}

/** Who gives addresses: nobody without a type, as in the reference bridge's L2 mode. */
function readIpam(raw: unknown, problems: string[]): Pick<Config, 'ipam' | 'delegate'> {
  const nobody = { ipam: null, delegate: null };
  const problem = (text: string): typeof nobody => {
    problems.push(text);
    return nobody;
  };
  if (raw === undefined || raw === null) return nobody;
  const shown = JSON.stringify(raw).slice(0, SHOWN_LENGTH);
  if (typeof raw !== 'object' || Array.isArray(raw))
    return problem(`ipam: it must be of type object, not ${shown}`);
  const type = (raw as Raw)['type'] ?? '';
  if (typeof type !== 'string')
    return problem(`ipam.type: it must be of type string, not ${JSON.stringify(type)}`);
  if (type === '') return nobody;
  if (type === OWN_IPAM)
    return { ipam: read(ipam, raw, ['ipam'], problems) ?? null, delegate: null };
  // A delegate is looked for in CNI_PATH by its name, and nowhere else (pkg/invoke/find.go of libcni).
  return type.includes('/') || type.includes('\0')
    ? problem(`ipam.type: invalid plugin name: ${type}`)
    : { ipam: null, delegate: type };
}

/** A key of the reference's portmap whose effect is not there. */
function refuseMissing({ externalSetMarkChain = '' }: Config): void {
  if (externalSetMarkChain !== '')
    throw new CniError(
      CNI_ERROR.unsupportedField,
      `unsupported field: externalSetMarkChain = ${externalSetMarkChain}`.slice(0, SHOWN_LENGTH),
    );
}

/** Rules of VLANs, whose words the reference has (collectVlanTrunk). */
function checkVlans(value: Config): void {
  const { vlan, vlanTrunk = [], mode } = value;
  if (mode === 'ptp' && (vlan !== 0 || vlanTrunk.length > 0))
    refuse('vlan: it is about a bridge, which mode "ptp" has not');
  for (const { minID, maxID } of vlanTrunk) {
    if ((minID === undefined) !== (maxID === undefined))
      refuse(
        `vlanTrunk: minID and maxID should be configured simultaneously, ${minID === undefined ? 'minID' : 'maxID'} is missing`,
      );
    if (minID !== undefined && maxID !== undefined && minID > maxID)
      refuse(`vlanTrunk: minID ${minID} is greater than maxID ${maxID}`);
  }
  const isGateway = value.isGateway || value.isDefaultGateway;
  const problem = vlan !== 0 && isGateway ? gatewayNameProblem(value) : undefined;
  if (problem !== undefined) refuse(`bridge: its link of VLAN ${vlan} ${problem}`);
}

/** Rules that hold between keys. */
function checkTogether(value: Config): void {
  if (value.hairpinMode && value.promiscMode)
    throw new CniError(
      CNI_ERROR.invalidConfig,
      'cannot set hairpin mode and promiscuous mode at the same time',
    );
  const { mtu, ipam: own, delegate } = value;
  if (mtu !== 0 && mtu < LINK_MTU_MIN_BYTES)
    refuse(`mtu: it must be 0 or at least ${LINK_MTU_MIN_BYTES}, not ${mtu}`);
  const hasIpam = own !== null || delegate !== null;
  if (value.disableContainerInterface && hasIpam)
    throw new CniError(
      CNI_ERROR.invalidConfig,
      'cannot use IPAM when DisableContainerInterface flag is set',
    );
  if (value.mode === 'ptp') {
    if (!hasIpam) refuse('ipam: a pod that is routed to needs addresses');
    for (const key of ['macspoofchk', 'portIsolation', 'hairpinMode', 'promiscMode'] as const)
      if (value[key]) refuse(`${key}: it is about a bridge, which mode "ptp" has not`);
  }
  if (value.mode === 'ptp' && value.ingressPolicy !== 'open')
    refuse('ingressPolicy: it is about a bridge, which mode "ptp" has not');
  if (value.ipspoofchk && !hasIpam)
    refuse("ipspoofchk: without IPAM no address is known to be the pod's");
  const routes = (own?.routes ?? []).map(
    ({ dst, priority, table }) => `${dst} ${priority ?? ''} ${table ?? ''}`,
  );
  const twice = routes.find((key, i) => routes.indexOf(key) < i);
  if (twice !== undefined) refuse(`ipam.routes: ${twice.split(' ')[0]} is there twice`);
}

/** Reads a configuration whose keys are in their canonical case; throws an error of code 7 that names the field. */
export function parseConfig(raw: Raw): Config {
  const problems: string[] = [];
  const plain = read(config, raw, [], problems);
  const addresses = readIpam(raw['ipam'], problems);
  const [first, ...others] = problems;
  if (first !== undefined || plain === undefined)
    throw new CniError(
      CNI_ERROR.invalidConfig,
      `invalid network configuration: ${first}`,
      others.join('; '),
    );
  const { ipMasqBackend: _backend, conditionsV4 = [], conditionsV6 = [], ...rest } = plain;
  const conditions = {
    4: readConditions('conditionsV4', conditionsV4),
    6: readConditions('conditionsV6', conditionsV6),
  };
  const value: Config = { ...rest, ...addresses, conditions };
  checkTogether(value);
  checkVlans(value);
  refuseMissing(value);
  return value;
}
