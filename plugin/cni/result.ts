import { familyOf } from '../../model/ip.ts';
import type { Mac } from '../../model/mac.ts';
import { formatPrefixedIp } from '../../model/prefix.ts';
import type { Attachment } from '../attachment.ts';
import type { CniVersion } from './request.ts';

/** A link in a result: with `sandbox` when it is in the pod. */
interface ResultInterface {
  readonly name: string;
  readonly mac: string;
  readonly sandbox?: string;
}

interface ResultIp {
  /** "4" or "6", before version 1.0.0 only. */
  readonly version?: string;
  /** Index into `interfaces`. */
  readonly interface: number;
  readonly address: string;
  readonly gateway: string;
}

/** The success result of ADD (CNI specification, section 5, "Success"). */
export interface CniResult {
  readonly cniVersion: CniVersion;
  readonly interfaces: readonly ResultInterface[];
  readonly ips: readonly ResultIp[];
  readonly routes?: readonly { readonly dst: string; readonly gw: string }[];
  readonly dns?: Readonly<Record<string, never>>;
}

/** The index of the pod's link among the interfaces, after the bridge and the host end, as the reference orders them. */
const POD_INTERFACE = 2;

/** What ADD answers about an attachment, in the form of a version. `bridgeMac` is the one the bridge really has. */
export function resultOf(
  attachment: Attachment,
  bridgeMac: Mac,
  cniVersion: CniVersion,
): CniResult {
  const old = cniVersion === '0.4.0';
  return {
    cniVersion,
    interfaces: [
      { name: attachment.bridge, mac: bridgeMac },
      { name: attachment.hostIfname, mac: attachment.hostMac },
      { name: attachment.key.ifname, mac: attachment.podMac, sandbox: attachment.netns },
    ],
    ips: attachment.addresses.map((address) => ({
      ...(old ? { version: String(familyOf(address.ip)) } : {}),
      interface: POD_INTERFACE,
      address: formatPrefixedIp(address),
      gateway: address.gateway,
    })),
    ...(attachment.routes.length > 0
      ? {
          routes: attachment.routes.map(({ destination, gateway }) => ({
            dst: destination,
            gw: gateway,
          })),
        }
      : {}),
    ...(old ? { dns: {} } : {}),
  };
}

/** The result as it goes to standard output: four spaces and no final newline, as the reference prints it. */
export function formatResult(result: CniResult): string {
  return JSON.stringify(result, null, 4);
}

/** The addresses that a result of ours or of anybody's gives the link `ifname`, as texts; undefined when it is no result. */
export function addressesIn(prevResult: unknown, ifname: string): string[] | undefined {
  if (prevResult === null || typeof prevResult !== 'object') return undefined;
  const { ips, interfaces } = prevResult as { ips?: unknown; interfaces?: unknown };
  if (ips !== undefined && !Array.isArray(ips)) return undefined;
  const names = Array.isArray(interfaces)
    ? interfaces.map((each: { name?: unknown } | null) => each?.name)
    : [];
  return ((ips ?? []) as { interface?: unknown; address?: unknown }[])
    .filter((ip) => typeof ip?.interface !== 'number' || names[ip.interface] === ifname)
    .flatMap((ip) => (typeof ip?.address === 'string' ? [ip.address] : []));
}
