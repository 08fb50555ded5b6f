/** The host ports that a runtime asks for (CONVENTIONS.md of the specification, "portMappings"), and a pod's part in them. */
import { type Ip, familyOf, findIp, ipBits } from '../../model/ip.ts';
import { TRANSPORTS, type Transport } from '../../model/nftables.ts';
import type { HostPort } from '../host-port.ts';
import { CNI_ERROR, CniError } from './error.ts';

/** One port, as the runtime asks for it. */
export interface PortMapping {
  readonly protocol: Transport;
  readonly hostPort: number;
  readonly containerPort: number;
  /** Undefined: at every address of the host. 0.0.0.0 and :: are every one of their family. */
  readonly hostIp: Ip | undefined;
}

type Raw = Readonly<Record<string, unknown>>;

const PORT_MAX = 65_535;

function refuse(where: string, value: unknown, wanted: string): never {
  throw new CniError(
    CNI_ERROR.invalidConfig,
    `invalid network configuration: ${where}: it must be ${wanted}, not ${JSON.stringify(value)?.slice(0, 80)}`,
  );
}

function readPort(value: unknown, where: string): number {
  return typeof value === 'number' && Number.isInteger(value) && value >= 1 && value <= PORT_MAX
    ? value
    : refuse(where, value, 'a port from 1 to 65535');
}

function readProtocol(value: unknown, where: string): Transport {
  if (value === undefined || value === '') return 'tcp';
  const name = typeof value === 'string' ? value.toLowerCase() : '';
  return Object.hasOwn(TRANSPORTS, name)
    ? (name as Transport)
    : refuse(where, value, 'tcp, udp or sctp');
}

function readHostIp(value: unknown, where: string): Ip | undefined {
  if (value === undefined || value === '') return undefined;
  return (typeof value === 'string' && findIp(value)) || refuse(where, value, 'an IP address');
}

/** How many ports a mapping stands for: `range` is podman's word. */
function readRange(raw: Raw, where: string): number {
  const { range, hostPort, containerPort } = raw;
  if (range === undefined || range === 0) return 1;
  const last = Math.max(Number(hostPort), Number(containerPort)) + Number(range) - 1;
  return typeof range === 'number' && Number.isInteger(range) && range >= 1 && last <= PORT_MAX
    ? range
    : refuse(where, range, 'a number of ports that ends at 65535 at most');
}

/** Reads `runtimeConfig.portMappings`, whose keys are in their canonical case; throws a CniError of code 7. */
export function readPortMappings(value: unknown): PortMapping[] {
  const at = 'runtimeConfig.portMappings';
  if (value === undefined) return [];
  if (!Array.isArray(value)) refuse(at, value, 'a list');
  return value.flatMap((each: unknown, i): PortMapping[] => {
    const where = `${at}[${i}]`;
    if (each === null || typeof each !== 'object' || Array.isArray(each))
      refuse(where, each, 'an object');
    const raw = each as Raw;
    const first = {
      protocol: readProtocol(raw['protocol'], `${where}.protocol`),
      hostPort: readPort(raw['hostPort'], `${where}.hostPort`),
      containerPort: readPort(raw['containerPort'], `${where}.containerPort`),
      hostIp: readHostIp(raw['hostIP'], `${where}.hostIP`),
    };
    return Array.from({ length: readRange(raw, `${where}.range`) }, (_, by) => ({
      ...first,
      hostPort: first.hostPort + by,
      containerPort: first.containerPort + by,
    }));
  });
}

/**
 * The ports for a pod with these addresses: each leads to the first address of its family. Throws a CniError of code 7 when
 * two mappings want one port for different things, or one has no address to lead to.
 */
export function hostPortsFor(mappings: readonly PortMapping[], ips: readonly Ip[]): HostPort[] {
  const ports = new Map<string, HostPort>();
  for (const { protocol, hostPort, containerPort, hostIp } of mappings) {
    const family = hostIp === undefined ? undefined : familyOf(hostIp);
    const targets = ([4, 6] as const).flatMap((each) => {
      const ip = ips.find((candidate) => familyOf(candidate) === each);
      return ip === undefined || (family ?? each) !== each ? [] : [ip];
    });
    const asked = `host port ${hostPort}/${protocol}${hostIp === undefined ? '' : ` at ${hostIp}`}`;
    if (targets.length === 0)
      throw new CniError(
        CNI_ERROR.invalidConfig,
        `invalid network configuration: runtimeConfig.portMappings: ${asked} leads nowhere`,
        'the pod has no address of that family',
      );
    for (const podIp of targets) {
      const at = hostIp === undefined || ipBits(hostIp) === 0n ? null : hostIp;
      const port = { protocol, port: hostPort, hostIp: at, podIp, podPort: containerPort };
      const key = `${familyOf(podIp)} ${protocol} ${hostPort} ${at}`;
      if ((ports.get(key) ?? port).podPort !== containerPort)
        throw new CniError(
          CNI_ERROR.invalidConfig,
          `invalid network configuration: runtimeConfig.portMappings: ${asked} is there twice, for ports ${ports.get(key)?.podPort} and ${containerPort}`,
        );
      ports.set(key, port);
    }
  }
  return [...ports.values()];
}
