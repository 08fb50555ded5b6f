/** One attachment: everything that its part of the network depends on, so that DEL and CHECK need nothing else. */
import type { Ifname } from '../model/ifname.ts';
import { ADDRESS_BITS, type Family, type Ip, familyOf, ipBits, ipFromBits } from '../model/ip.ts';
import { type Mac, localMac } from '../model/mac.ts';
import { DEFAULT_PREFIX, type Prefix, prefixIp } from '../model/prefix.ts';
import type { Bandwidth, Limits } from './bandwidth.ts';
import type { Config, ConfigRoute } from './cni/config.ts';
import { type Dns, isEmptyDns } from './cni/dns.ts';
import { type PortMapping, hostPortsFor } from './cni/port-mappings.ts';
import type { AttachmentKey } from './cni/request.ts';
import type { HostPorts } from './host-port.ts';
import type { IngressPolicy } from './ingress-policy.ts';
import { type AllocatedAddress, subnetOf } from './ipam/allocate.ts';
import type { Tuning } from './pod.ts';
import { doorOf } from './port-door.ts';
import { type AttachmentVlans, gatewayIfname, rangesOf } from './vlan.ts';

/** A route that the pod gets through its link. What is absent is as the kernel has it. */
export interface PodRoute {
  readonly destination: Prefix;
  /** Null: what it leads to is on the link. */
  readonly gateway: Ip | null;
  readonly mtuBytes?: number;
  readonly advmssBytes?: number;
  readonly metric?: number;
  readonly table?: number;
  /** RT_SCOPE_*. */
  readonly scope?: number;
}

/** The IPAM plugin that gave the addresses, and what it has to be given to take them back. */
export interface DelegatedIpam {
  /** `ipam.type`. */
  readonly type: string;
  /** Standard input of ADD. */
  readonly stdin: string;
}

/** What becomes of a pod's packets where nothing else says so. */
export type PodVerdict = 'accept' | 'drop';

/** What the store keeps of an attachment, as JSON. New fields are optional, so that older records stay readable. */
export interface Attachment {
  readonly key: AttachmentKey;
  /** The pod's netns as the runtime named it in ADD; '' where nobody knows it any more. */
  readonly netns: string;
  /** Absent: the pod is on a bridge. `ptp`: the host routes to it, without one. */
  readonly mode?: 'ptp';
  /** Of no meaning in mode `ptp`. */
  readonly bridge: Ifname;
  readonly bridgeMac: Mac;
  readonly promiscuous: boolean;
  readonly hostIfname: Ifname;
  readonly hostMac: Mac;
  readonly podMac: Mac;
  readonly mtuBytes: number;
  readonly hairpin: boolean;
  readonly isolated?: true;
  /** Absent: the pod is where the bridge puts ports. */
  readonly vlans?: AttachmentVlans;
  /** Does the bridge, or the link of its VLAN, carry the gateways' addresses, and the host forward? */
  readonly gateway: boolean;
  readonly forceAddress: boolean;
  readonly masquerade: boolean;
  /** IPv6 addresses are checked for duplicates before they are used. */
  readonly dad?: true;
  /** The pod's link stays down. */
  readonly podDown?: true;
  /** Frames with another MAC address than the pod's are dropped. */
  readonly macSpoofCheck?: true;
  /** Packets from other addresses than the pod's are dropped. */
  readonly ipSpoofCheck?: true;
  /** Absent: made by a version that had no map of pods. */
  readonly verdict?: PodVerdict;
  /** Ports of the host that lead to the pod. */
  readonly hostPorts?: HostPorts;
  /** Absent: as fast as the host can. */
  readonly bandwidth?: Bandwidth;
  readonly tuning?: Tuning;
  /** Absent: everybody may reach the pod. */
  readonly ingressPolicy?: IngressPolicy;
  /** Chains of other tables that drop what is forwarded let it through. */
  readonly adoptForward?: true;
  readonly addresses: readonly AllocatedAddress[];
  readonly routes: readonly PodRoute[];
  readonly dns?: Dns;
  readonly ipam?: DelegatedIpam;
  /** Made by the reference plugins and taken over: their files and rules go with it. */
  readonly madeBy?: 'reference chain';
}

/** Who this machine is, and how names are made from that. */
export interface Identity {
  /** /etc/machine-id, or what stands for it. */
  readonly machineId: string;
  /** 20 bytes or more that depend on every character of the text. */
  readonly digest: (text: string) => Uint8Array;
}

/** One text of several that no other several give: names cannot hold a line break. */
function join(parts: readonly string[]): string {
  return parts.join('\n');
}

function keyText({ network, containerId, ifname }: AttachmentKey): string {
  return join([network, containerId, ifname]);
}

/**
 * The name of the host end: `veth` and 11 digits of the attachment's digest. It comes from the container
 * id and so is not used again soon, when the last one may still be on its way out (K-2.4).
 */
function hostIfname(identity: Identity, key: AttachmentKey): Ifname {
  return vethName(identity, 'link', keyText(key));
}

function vethName(identity: Identity, what: string, name: string): Ifname {
  return `veth${nameDigits(identity, what, name)}` as Ifname;
}

/** 11 digits, which leave room for a prefix of four in the name of a link. */
function nameDigits(identity: Identity, what: string, name: string): string {
  const bytes = identity.digest(join([identity.machineId, what, name]));
  const hex = Array.from(bytes.slice(0, 6), (byte) => byte.toString(16).padStart(2, '0')).join('');
  return hex.slice(0, 11);
}

function macOf(identity: Identity, what: string, name: string): Mac {
  return localMac(identity.digest(join([identity.machineId, what, name])));
}

/** RT_SCOPE_LINK and RT_SCOPE_HOST: a route to what is on the link, or the host itself, has no gateway, whatever the default would be. */
const SCOPES_WITHOUT_GATEWAY: readonly (number | undefined)[] = [253, 254];

function podRoute(
  { dst, gw, mtu, advmss, priority, table, scope }: ConfigRoute,
  gatewayOf: (family: Family) => Ip | null,
): PodRoute {
  const usual = SCOPES_WITHOUT_GATEWAY.includes(scope) ? null : gatewayOf(familyOf(dst));
  return {
    destination: dst,
    gateway: gw ?? usual,
    ...(mtu === undefined || mtu === 0 ? {} : { mtuBytes: mtu }),
    ...(advmss === undefined || advmss === 0 ? {} : { advmssBytes: advmss }),
    ...(priority === undefined ? {} : { metric: priority }),
    ...(table === undefined ? {} : { table }),
    ...(scope === undefined ? {} : { scope }),
  };
}

/** The routes of a pod: those that were configured, and with `isDefaultGateway` a default route for each family that has none. */
function routesOf(
  config: Config,
  configured: readonly ConfigRoute[],
  addresses: readonly AllocatedAddress[],
): PodRoute[] {
  const gatewayOf = (family: Family): Ip | null =>
    addresses.find(({ ip, gateway }) => familyOf(ip) === family && gateway !== null)?.gateway ??
    null;
  const hasFamily = (family: Family): boolean =>
    addresses.some(({ ip }) => familyOf(ip) === family);
  // Without an address of its family a route leads nowhere.
  const routes = configured
    .filter(({ dst, gw }) => hasFamily(familyOf(dst)) || gw !== undefined)
    .map((route) => podRoute(route, gatewayOf));
  if (!config.isDefaultGateway) return routes;
  for (const family of [4, 6] as const) {
    const gateway = gatewayOf(family);
    const isDefault = ({ destination, table }: PodRoute): boolean =>
      destination === DEFAULT_PREFIX[family] && table === undefined;
    if (gateway !== null && !routes.some(isDefault))
      routes.push({ destination: DEFAULT_PREFIX[family], gateway });
  }
  return routes;
}

/** The ports that lead to a pod with these addresses; none before it has any, which another plugin may give later. */
function portsFor(
  identity: Identity,
  { snat, masqAll, markMasqBit, conditions }: Config,
  mappings: readonly PortMapping[],
  addresses: readonly AllocatedAddress[],
): Pick<Attachment, 'hostPorts'> {
  if (mappings.length === 0 || addresses.length === 0) return {};
  const ports = hostPortsFor(
    mappings,
    addresses.map(({ ip }) => ip),
  );
  const door = doorOf(identity.digest, markMasqBit, conditions);
  const behind = { ports, ...(door ? { door } : {}) };
  if (!snat) return { hostPorts: behind };
  return { hostPorts: { ...behind, sourceNat: masqAll ? 'all' : 'subnet' } };
}

/** The VLANs that a configuration asks for, with the link of their gateways where the host is to be one. */
function vlansFor(identity: Identity, config: Config): Pick<Attachment, 'vlans'> {
  const ranges = rangesOf(config);
  if (ranges.length === 0) return {};
  const { bridge, vlan } = config;
  const name = gatewayIfname(bridge, vlan);
  const gateway = {
    ifname: name,
    mac: macOf(identity, 'VLAN gateway', name),
    portIfname: vethName(identity, 'VLAN port', name),
    portMac: macOf(identity, 'VLAN port', name),
  };
  return {
    vlans: {
      ranges,
      ...(config.preserveDefaultVlan ? { keepsDefault: true as const } : {}),
      ...(vlan !== 0 && (config.isGateway || config.isDefaultGateway) ? { gateway } : {}),
    },
  };
}

/** The groups of links that people and other programs use are small numbers; the kernel has 31 bits for them. */
const LEAST_GROUP = 0x4000_0000;
const GROUP_DIGITS = 7;

/** What keeps the limits, with the link that what the pod sends goes through. */
function bandwidthFor(
  identity: Identity,
  key: AttachmentKey,
  limits: Limits | undefined,
): Pick<Attachment, 'bandwidth'> {
  if (!limits) return {};
  if (!limits.egress) return { bandwidth: limits };
  const digits = nameDigits(identity, 'ifb', keyText(key));
  const ifb = {
    ifname: `ifb${digits}` as Ifname,
    mac: macOf(identity, 'ifb', keyText(key)),
    group: LEAST_GROUP + Number.parseInt(digits.slice(0, GROUP_DIGITS), 16),
  };
  return { bandwidth: { ...limits, ifb } };
}

/** What an attachment is made of, beside its configuration. */
export interface Ingredients {
  readonly key: AttachmentKey;
  readonly netns: string;
  readonly config: Config;
  /** What the runtime chose for the pod's link, undefined when it left the choice to us. */
  readonly mac: Mac | undefined;
  readonly mtuBytes: number;
  readonly addresses: readonly AllocatedAddress[];
  readonly routes: readonly ConfigRoute[];
  readonly dns: Dns | undefined;
  readonly ipam: DelegatedIpam | undefined;
  readonly portMappings: readonly PortMapping[];
  readonly limits: Limits | undefined;
  readonly tuning: Tuning | undefined;
}

/** The gateway that an address has where its plugin gave none and the bridge is to be one: the first address of its subnet (calcGateways of the reference bridge). */
function withGateway(address: AllocatedAddress, config: Config): AllocatedAddress {
  const needed = config.isGateway || config.isDefaultGateway || config.mode === 'ptp';
  if (address.gateway !== null || !needed) return address;
  const network = ipBits(prefixIp(subnetOf(address)));
  return { ...address, gateway: ipFromBits(familyOf(address.ip), network + 1n) };
}

/** A pod that is routed to has nobody beside it on its link: its prefix is its address. */
function asHost(address: AllocatedAddress): AllocatedAddress {
  return {
    ip: address.ip,
    prefixLength: ADDRESS_BITS[familyOf(address.ip)],
    gateway: address.gateway,
    subnet: subnetOf(address),
  };
}

/** The attachment that these ingredients make. */
export function makeAttachment(identity: Identity, ingredients: Ingredients): Attachment {
  const { key, netns, config, mac, mtuBytes, dns, ipam, portMappings, tuning } = ingredients;
  const addresses = ingredients.addresses.map((address) => withGateway(address, config));
  const isPtp = config.mode === 'ptp';
  return {
    key,
    netns,
    ...(isPtp ? { mode: 'ptp' as const } : {}),
    bridge: config.bridge,
    bridgeMac: usualBridgeMac(identity, config.bridge),
    promiscuous: config.promiscMode,
    hostIfname: hostIfname(identity, key),
    hostMac: macOf(identity, 'host end', keyText(key)),
    podMac: mac ?? macOf(identity, 'pod end', keyText(key)),
    mtuBytes,
    // Where bridged frames pass the host's rules, a pod that asks for its own host port is asked by the port it asks from.
    hairpin: config.hairpinMode || (portMappings.length > 0 && !isPtp && !config.promiscMode),
    ...(config.portIsolation || config.ingressPolicy === 'isolated'
      ? { isolated: true as const }
      : {}),
    ...vlansFor(identity, config),
    gateway: !isPtp && (config.isGateway || config.isDefaultGateway),
    forceAddress: config.forceAddress,
    masquerade: config.ipMasq,
    ...(config.enabledad ? { dad: true as const } : {}),
    ...(config.disableContainerInterface ? { podDown: true as const } : {}),
    ...(config.macspoofchk ? { macSpoofCheck: true as const } : {}),
    ...(config.ipspoofchk ? { ipSpoofCheck: true as const } : {}),
    verdict: config.podVerdict,
    ...portsFor(identity, config, portMappings, addresses),
    ...bandwidthFor(identity, key, ingredients.limits),
    ...(tuning === undefined ? {} : { tuning }),
    ...(config.ingressPolicy === 'open' ? {} : { ingressPolicy: config.ingressPolicy }),
    ...(config.adoptForward ? { adoptForward: true as const } : {}),
    addresses: isPtp ? addresses.map(asHost) : addresses,
    routes: routesOf(config, ingredients.routes, addresses),
    ...(dns === undefined || isEmptyDns(dns) ? {} : { dns }),
    ...(ipam === undefined ? {} : { ipam }),
  };
}

/** The MAC address that a bridge of ours is made with. */
export function usualBridgeMac(identity: Identity, bridge: Ifname): Mac {
  return macOf(identity, 'bridge', bridge);
}

/** The MAC address and the name that `makeAttachment` gives the ends of an attachment's link unless somebody chose others. */
export function usualEnds(
  identity: Identity,
  key: AttachmentKey,
): { readonly hostIfname: Ifname; readonly hostMac: Mac; readonly podMac: Mac } {
  return {
    hostIfname: hostIfname(identity, key),
    hostMac: macOf(identity, 'host end', keyText(key)),
    podMac: macOf(identity, 'pod end', keyText(key)),
  };
}

/** An attachment's name in messages and in marks. */
export function formatKey({ network, containerId, ifname }: AttachmentKey): string {
  return `${network}/${containerId}/${ifname}`;
}
