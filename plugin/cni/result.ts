/** Results of ADD in all versions of the specification (section 5, "Success"): made, converted, read. */
import { familyOf, findIp, type Ip } from '../../model/ip.ts';
import type { Mac } from '../../model/mac.ts';
import { findPrefixedIp, formatPrefixedIp, type PrefixedIp } from '../../model/prefix.ts';
import type { Attachment } from '../attachment.ts';
import { type Dns, isEmptyDns } from './dns.ts';
import { CNI_ERROR, CniError } from './error.ts';
import { type CniVersion, isBefore } from './version.ts';

/** A link in a result: with `sandbox` when it is in the pod. */
export interface ResultInterface {
  readonly name: string;
  readonly mac?: string;
  readonly mtu?: number;
  readonly sandbox?: string;
}

export interface ResultIp {
  /** Index into `interfaces`. */
  readonly interface?: number;
  readonly address: string;
  readonly gateway?: string;
}

/** A route as results and IPAM plugins write it; all but the first two are of version 1.1.0. */
export interface ResultRoute {
  readonly dst: string;
  readonly gw?: string;
  readonly mtu?: number;
  readonly advmss?: number;
  readonly priority?: number;
  readonly table?: number;
  readonly scope?: number;
}

/** A result with everything that the newest version has. */
export interface CniResult {
  readonly interfaces: readonly ResultInterface[];
  readonly ips: readonly ResultIp[];
  readonly routes: readonly ResultRoute[];
  readonly dns: Dns;
}

/** A result in the form of one version. */
export type VersionedResult = Readonly<Record<string, unknown>> & { readonly cniVersion: string };

function routesOf(attachment: Attachment): ResultRoute[] {
  return attachment.routes.map((route) => ({
    dst: route.destination,
    ...(route.gateway === null ? {} : { gw: route.gateway }),
    ...(route.mtuBytes === undefined ? {} : { mtu: route.mtuBytes }),
    ...(route.advmssBytes === undefined ? {} : { advmss: route.advmssBytes }),
    ...(route.metric === undefined ? {} : { priority: route.metric }),
    ...(route.table === undefined ? {} : { table: route.table }),
    ...(route.scope === undefined ? {} : { scope: route.scope }),
  }));
}

/** The MAC addresses that links which attachments share really have; undefined: not known. */
export interface SharedMacs {
  readonly bridge?: Mac | undefined;
  readonly vlanGateway?: Mac | undefined;
}

/**
 * What ADD answers about an attachment. The links are in the reference's order: the bridge where there is one, the host
 * end, the pod's, that of the VLAN's gateways, and the one that limits what the pod sends.
 */
export function resultOf(attachment: Attachment, shared: SharedMacs): CniResult {
  const { mtuBytes, vlans, bandwidth } = attachment;
  const interfaces: ResultInterface[] = [
    ...(attachment.mode === 'ptp'
      ? []
      : [{ name: attachment.bridge, mac: shared.bridge ?? attachment.bridgeMac }]),
    { name: attachment.hostIfname, mac: attachment.hostMac, mtu: mtuBytes },
    {
      name: attachment.key.ifname,
      mac: attachment.podMac,
      mtu: mtuBytes,
      sandbox: attachment.netns,
    },
  ];
  const pod = interfaces.length - 1;
  if (vlans?.gateway) {
    const { ifname, mac } = vlans.gateway;
    interfaces.push({ name: ifname, mac: shared.vlanGateway ?? mac });
  }
  if (bandwidth?.ifb) {
    const { ifname, mac } = bandwidth.ifb;
    interfaces.push({ name: ifname, mac, mtu: mtuBytes });
  }
  return {
    interfaces,
    ips: attachment.addresses.map((address) => ({
      interface: pod,
      address: formatPrefixedIp(address),
      ...(address.gateway === null ? {} : { gateway: address.gateway }),
    })),
    routes: routesOf(attachment),
    dns: attachment.dns ?? {},
  };
}

/** The form of versions 0.1.0 and 0.2.0: one address of each family, with the routes of that family. */
function toSingleAddresses(result: CniResult): Readonly<Record<string, unknown>> {
  const block = (family: 4 | 6): unknown => {
    const ip = result.ips.find(({ address }) => address.includes(':') === (family === 6));
    if (!ip) return undefined;
    const routes = result.routes
      .filter(({ dst }) => dst.includes(':') === (family === 6))
      .map(({ dst, gw }) => ({ dst, ...(gw === undefined ? {} : { gw }) }));
    return {
      ip: ip.address,
      ...(ip.gateway === undefined ? {} : { gateway: ip.gateway }),
      ...(routes.length > 0 ? { routes } : {}),
    };
  };
  const [ip4, ip6] = [block(4), block(6)];
  return {
    ...(ip4 === undefined ? {} : { ip4 }),
    ...(ip6 === undefined ? {} : { ip6 }),
    dns: result.dns,
  };
}

/** Does a result of this version hold anything of an attachment without addresses? Before 0.3.0 it cannot (pkg/types/020 of libcni). */
export function holdsLinks(version: CniVersion): boolean {
  return !isBefore(version, '0.3.0');
}

/** A result in the form of a version. What the version lacks is left out, as libcni's converters leave it out. */
export function convertResult(result: CniResult, version: CniVersion): VersionedResult {
  if (!holdsLinks(version)) return { cniVersion: version, ...toSingleAddresses(result) };
  const families = isBefore(version, '1.0.0');
  const before11 = isBefore(version, '1.1.0');
  const { interfaces, ips, routes, dns } = result;
  return {
    cniVersion: version,
    ...(interfaces.length > 0
      ? {
          interfaces: interfaces.map(({ mtu, ...rest }) =>
            before11 || mtu === undefined ? rest : { ...rest, mtu },
          ),
        }
      : {}),
    ...(ips.length > 0
      ? {
          ips: ips.map((ip) =>
            families ? { version: ip.address.includes(':') ? '6' : '4', ...ip } : ip,
          ),
        }
      : {}),
    ...(routes.length > 0 ? { routes } : {}),
    ...(families || !isEmptyDns(dns) ? { dns } : {}),
  };
}

/** A result as it goes to standard output: four spaces and no final newline, as the reference prints it. */
export function formatResult(result: CniResult, version: CniVersion): string {
  return JSON.stringify(convertResult(result, version), null, 4);
}

function fail(what: string): never {
  throw new CniError(CNI_ERROR.decode, `${what} is not a CNI result`);
}

type Raw = Readonly<Record<string, unknown>>;

function records(value: unknown, what: string): Raw[] {
  if (value === undefined || value === null) return [];
  if (!Array.isArray(value)) fail(what);
  return value.map((each: unknown) => {
    if (each === null || typeof each !== 'object' || Array.isArray(each)) fail(what);
    return each as Raw;
  });
}

function text(value: unknown): string | undefined {
  return typeof value === 'string' && value !== '' ? value : undefined;
}

function whole(value: unknown): number | undefined {
  return typeof value === 'number' && Number.isSafeInteger(value) ? value : undefined;
}

function texts(value: unknown): string[] {
  return Array.isArray(value)
    ? value.filter((each): each is string => typeof each === 'string')
    : [];
}

function readRoute(raw: Raw, what: string): ResultRoute {
  const dst = text(raw['dst']);
  if (dst === undefined) fail(what);
  const gw = text(raw['gw']);
  const numbers = ['mtu', 'advmss', 'priority', 'table', 'scope'].flatMap((key) => {
    const value = whole(raw[key]);
    return value === undefined ? [] : [[key, value] as const];
  });
  return { dst, ...(gw === undefined ? {} : { gw }), ...Object.fromEntries(numbers) };
}

function readIp(raw: Raw, what: string, address = text(raw['address'])): ResultIp {
  if (address === undefined || findPrefixedIp(address) === undefined) fail(what);
  const gateway = text(raw['gateway']);
  if (gateway !== undefined && findIp(gateway) === undefined) fail(what);
  const index = whole(raw['interface']);
  return {
    ...(index === undefined ? {} : { interface: index }),
    address,
    ...(gateway === undefined ? {} : { gateway }),
  };
}

function readInterface(raw: Raw, what: string): ResultInterface {
  const name = text(raw['name']);
  if (name === undefined) fail(what);
  const [mac, sandbox, mtu] = [text(raw['mac']), text(raw['sandbox']), whole(raw['mtu'])];
  return {
    name,
    ...(mac === undefined ? {} : { mac }),
    ...(mtu === undefined ? {} : { mtu }),
    ...(sandbox === undefined ? {} : { sandbox }),
  };
}

function readDns(value: unknown): Dns {
  if (value === null || typeof value !== 'object') return {};
  const raw = value as Raw;
  const domain = text(raw['domain']);
  const lists = ['nameservers', 'search', 'options'].flatMap((key) => {
    const list = texts(raw[key]);
    return list.length > 0 ? [[key, list] as const] : [];
  });
  return { ...(domain === undefined ? {} : { domain }), ...Object.fromEntries(lists) };
}

/**
 * Reads a result of any version, told by its shape: that of a plugin behind or before ours in the chain, or of an IPAM
 * plugin, which has no links. `what` is its name in messages. Throws a CniError of code 6 for anything else.
 */
export function parseResult(value: unknown, what: string): CniResult {
  if (value === null || typeof value !== 'object' || Array.isArray(value)) fail(what);
  const raw = value as Raw;
  const single = [raw['ip4'], raw['ip6']].filter((block) => block !== undefined && block !== null);
  const blocks = records(single, what);
  return {
    interfaces: records(raw['interfaces'], what).map((each) => readInterface(each, what)),
    ips: [
      ...records(raw['ips'], what).map((each) => readIp(each, what)),
      ...blocks.map((block) => readIp(block, what, text(block['ip']))),
    ],
    routes: [
      ...records(raw['routes'], what),
      ...blocks.flatMap((b) => records(b['routes'], what)),
    ].map((each) => readRoute(each, what)),
    dns: readDns(raw['dns']),
  };
}

/** The addresses that a result gives the link `ifname`: those without a link are everybody's. */
export function addressesIn(
  result: CniResult,
  ifname: string,
): (PrefixedIp & { readonly gateway: Ip | null })[] {
  return result.ips
    .filter(
      ({ interface: index }) => index === undefined || result.interfaces[index]?.name === ifname,
    )
    .flatMap(({ address, gateway }) => {
      const prefixed = findPrefixedIp(address);
      return prefixed
        ? [{ ...prefixed, gateway: gateway === undefined ? null : (findIp(gateway) ?? null) }]
        : [];
    });
}

/** Does a result have at most one address of each family, which is all that versions before 0.3.0 can hold? */
export function isSingle(addresses: readonly PrefixedIp[]): boolean {
  const families = addresses.map(({ ip }) => familyOf(ip));
  return new Set(families).size === families.length;
}
