/**
 * What a runtime chooses for one attachment: `runtimeConfig` (CONVENTIONS.md, "Dynamic Plugin specific fields"), `args.cni`
 * and CNI_ARGS. Read by hand: they come with every call, and the schema of the rest takes milliseconds to load.
 */
import { type Ip, findIp } from '../../model/ip.ts';
import { type Mac, findMac, isUnicastMac } from '../../model/mac.ts';
import { type Prefix, findPrefixedIp, parsePrefix } from '../../model/prefix.ts';
import { type BandwidthChoices, readBandwidth } from './bandwidth.ts';
import type { ConfigRange } from './config.ts';
import type { Dns } from './dns.ts';
import { CNI_ERROR, CniError } from './error.ts';
import { type PortMapping, readPortMappings } from './port-mappings.ts';
import type { Request } from './request.ts';
import { type TuningChoices, readTuning } from './tuning.ts';

/** The choices for one attachment. */
export interface Choices {
  /** The pod's link has this MAC address. */
  readonly mac: Mac | undefined;
  /** The pod gets these addresses. */
  readonly ips: readonly Ip[];
  /** Range sets before those of the configuration. */
  readonly rangeSets: readonly (readonly ConfigRange[])[];
  readonly dns: Dns | undefined;
  readonly portMappings: readonly PortMapping[];
  readonly bandwidth: BandwidthChoices;
  readonly tuning: TuningChoices;
}

type Raw = Readonly<Record<string, unknown>>;

function refuse(where: string, value: unknown, wanted: string): never {
  throw new CniError(
    CNI_ERROR.invalidConfig,
    `invalid network configuration: ${where}: it must be ${wanted}, not ${JSON.stringify(value)?.slice(0, 80)}`,
  );
}

function object(value: unknown, where: string): Raw {
  if (value === undefined) return {};
  if (value === null || typeof value !== 'object' || Array.isArray(value))
    refuse(where, value, 'an object');
  return value as Raw;
}

function list(value: unknown, where: string): readonly unknown[] {
  if (value === undefined) return [];
  if (!Array.isArray(value)) refuse(where, value, 'a list');
  return value;
}

/** An address; a prefix length behind it is accepted and not looked at, as host-local has it. */
function readIp(value: unknown, where: string): Ip {
  const ip = typeof value === 'string' ? (findIp(value) ?? findPrefixedIp(value)?.ip) : undefined;
  return ip ?? refuse(where, value, 'an IP address');
}

function findOptionalIp(value: unknown, where: string): Ip | undefined {
  return value === undefined || value === '' ? undefined : readIp(value, where);
}

function readMac(value: unknown, where: string): Mac | undefined {
  if (value === undefined || value === '') return undefined;
  const mac = typeof value === 'string' ? findMac(value) : undefined;
  if (mac === undefined || !isUnicastMac(mac)) refuse(where, value, 'a unicast MAC address');
  return mac;
}

function readSubnet(value: unknown, where: string): Prefix {
  try {
    return parsePrefix(typeof value === 'string' ? value : '');
  } catch (error) {
    throw new CniError(
      CNI_ERROR.invalidConfig,
      `invalid network configuration: ${where}: ${error instanceof Error ? error.message : String(error)}`,
    );
  }
}

function readRange(value: unknown, where: string): ConfigRange {
  const { subnet, rangeStart, rangeEnd, gateway } = object(value, where);
  return {
    subnet: readSubnet(subnet, `${where}.subnet`),
    rangeStart: findOptionalIp(rangeStart, `${where}.rangeStart`),
    rangeEnd: findOptionalIp(rangeEnd, `${where}.rangeEnd`),
    gateway: findOptionalIp(gateway, `${where}.gateway`),
  };
}

function readTexts(value: unknown, where: string): string[] {
  return list(value, where).map((each) =>
    typeof each === 'string' ? each : refuse(where, each, 'a text'),
  );
}

function readDns(value: unknown): Dns | undefined {
  if (value === undefined) return undefined;
  const where = 'runtimeConfig.dns';
  const raw = object(value, where);
  const [servers, searches, options] = ['servers', 'searches', 'options'].map((key) =>
    readTexts(raw[key], `${where}.${key}`),
  );
  return {
    ...(servers && servers.length > 0 ? { nameservers: servers } : {}),
    ...(searches && searches.length > 0 ? { search: searches } : {}),
    ...(options && options.length > 0 ? { options } : {}),
  };
}

/** The keys of CNI_ARGS that mean something here. */
const KNOWN_ARGS = ['IP', 'MAC', 'IgnoreUnknown'];

const TRUE = ['1', 't', 'T', 'TRUE', 'true', 'True'];
const FALSE = ['0', 'f', 'F', 'FALSE', 'false', 'False', ''];

function invalidArgs(problem: string): never {
  throw new CniError(CNI_ERROR.invalidEnvironment, `ARGS: ${problem}`, 'in CNI_ARGS');
}

/** CNI_ARGS as `K=V;K=V` (pkg/types/args.go of libcni). Throws a CniError of code 4. */
function parseArgs(text: string): ReadonlyMap<string, string> {
  const args = new Map<string, string>();
  if (text === '') return args;
  for (const pair of text.split(';')) {
    const parts = pair.split('=');
    const [key = '', value = ''] = parts;
    if (parts.length !== 2) invalidArgs(`invalid pair "${pair}"`);
    args.set(key, value);
  }
  const ignore = args.get('IgnoreUnknown') ?? '';
  if (!TRUE.includes(ignore) && !FALSE.includes(ignore))
    invalidArgs(`error parsing value of pair "IgnoreUnknown=${ignore}"`);
  const unknown = [...args].filter(([key]) => !KNOWN_ARGS.includes(key));
  if (unknown.length > 0 && !TRUE.includes(ignore))
    invalidArgs(`unknown args [${unknown.map(([k, v]) => `"${k}=${v}"`).join(' ')}]`);
  return args;
}

/**
 * What the runtime chooses. MAC: CNI_ARGS, before it `args.cni.mac`, before that `runtimeConfig.mac`, as the reference
 * bridge has it; addresses of all three places add up, as host-local has it. Throws a CniError of code 7 or 4.
 */
export function choicesOf({ config, args: text }: Pick<Request, 'config' | 'args'>): Choices {
  const args = parseArgs(text);
  const cni = object(object(config['args'], 'args')['cni'], 'args.cni');
  const runtime = object(config['runtimeConfig'], 'runtimeConfig');
  const argsMac = args.get('MAC');
  if (argsMac !== undefined && argsMac !== '' && findMac(argsMac) === undefined)
    invalidArgs(`"MAC=${argsMac}" is no MAC address`);
  const argsIp = args.get('IP') ?? '';
  const fromArgs = findIp(argsIp) ?? findPrefixedIp(argsIp)?.ip;
  if (argsIp !== '' && fromArgs === undefined) invalidArgs(`"IP=${argsIp}" is no IP address`);
  const ips = [
    ...(fromArgs === undefined ? [] : [fromArgs]),
    ...list(cni['ips'], 'args.cni.ips').map((ip) => readIp(ip, 'args.cni.ips')),
    ...list(runtime['ips'], 'runtimeConfig.ips').map((ip) => readIp(ip, 'runtimeConfig.ips')),
  ];
  return {
    mac:
      readMac(runtime['mac'], 'runtimeConfig.mac') ??
      readMac(cni['mac'], 'args.cni.mac') ??
      readMac(argsMac, 'CNI_ARGS MAC'),
    ips: [...new Set(ips)],
    rangeSets: list(runtime['ipRanges'], 'runtimeConfig.ipRanges').map((set, i) =>
      list(set, `runtimeConfig.ipRanges[${i}]`).map((range, j) =>
        readRange(range, `runtimeConfig.ipRanges[${i}][${j}]`),
      ),
    ),
    dns: readDns(runtime['dns']),
    portMappings: readPortMappings(runtime['portMappings']),
    bandwidth: readBandwidth(runtime['bandwidth']),
    tuning: readTuning(cni),
  };
}
