/** One attachment: everything that its part of the network depends on, so that DEL and CHECK need nothing else. */
import type { Ifname } from '../model/ifname.ts';
import { type Ip, familyOf } from '../model/ip.ts';
import { type Mac, localMac } from '../model/mac.ts';
import { DEFAULT_PREFIX } from '../model/prefix.ts';
import type { Prefix } from '../model/prefix.ts';
import type { Config } from './cni/config.ts';
import type { AttachmentKey } from './cni/request.ts';
import type { AllocatedAddress } from './ipam/allocate.ts';

/** A route that the pod gets through its link. */
export interface PodRoute {
  readonly destination: Prefix;
  readonly gateway: Ip;
}

/** What the store keeps of an attachment, as JSON. New fields are optional, so that older records stay readable. */
export interface Attachment {
  readonly key: AttachmentKey;
  /** The pod's netns as the runtime named it in ADD. */
  readonly netns: string;
  readonly bridge: Ifname;
  readonly bridgeMac: Mac;
  readonly promiscuous: boolean;
  readonly hostIfname: Ifname;
  readonly hostMac: Mac;
  readonly podMac: Mac;
  readonly mtuBytes: number;
  readonly hairpin: boolean;
  /** Does the bridge carry the gateways' addresses, and the host forward? */
  readonly gateway: boolean;
  readonly forceAddress: boolean;
  readonly masquerade: boolean;
  readonly addresses: readonly AllocatedAddress[];
  readonly routes: readonly PodRoute[];
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
  const bytes = identity.digest(join([identity.machineId, 'link', keyText(key)]));
  const hex = Array.from(bytes.slice(0, 6), (byte) => byte.toString(16).padStart(2, '0')).join('');
  return `veth${hex.slice(0, 11)}` as Ifname;
}

function macOf(identity: Identity, what: string, name: string): Mac {
  return localMac(identity.digest(join([identity.machineId, what, name])));
}

/** The routes of a pod: those of the configuration, and with `isDefaultGateway` a default route for each family that has none. */
function routesOf(config: Config, addresses: readonly AllocatedAddress[]): PodRoute[] {
  const gatewayOf = (family: 4 | 6): Ip | undefined =>
    addresses.find((a) => familyOf(a.ip) === family)?.gateway;
  const routes: PodRoute[] = [];
  for (const { dst, gw } of config.ipam.routes ?? []) {
    const gateway = gw ?? gatewayOf(familyOf(dst));
    if (gateway !== undefined) routes.push({ destination: dst, gateway });
  }
  if (config.isDefaultGateway) {
    for (const family of [4, 6] as const) {
      const gateway = gatewayOf(family);
      if (gateway !== undefined && !routes.some((r) => r.destination === DEFAULT_PREFIX[family])) {
        routes.push({ destination: DEFAULT_PREFIX[family], gateway });
      }
    }
  }
  return routes;
}

/** The attachment that a configuration and these addresses make. */
export function makeAttachment(
  identity: Identity,
  key: AttachmentKey,
  netns: string,
  config: Config,
  mtuBytes: number,
  addresses: readonly AllocatedAddress[],
): Attachment {
  return {
    key,
    netns,
    bridge: config.bridge,
    bridgeMac: macOf(identity, 'bridge', config.bridge),
    promiscuous: config.promiscMode,
    hostIfname: hostIfname(identity, key),
    hostMac: macOf(identity, 'host end', keyText(key)),
    podMac: macOf(identity, 'pod end', keyText(key)),
    mtuBytes,
    hairpin: config.hairpinMode,
    gateway: config.isGateway || config.isDefaultGateway,
    forceAddress: config.forceAddress,
    masquerade: config.ipMasq,
    addresses,
    routes: routesOf(config, addresses),
  };
}

/** An attachment's name in messages and in marks. */
export function formatKey({ network, containerId, ifname }: AttachmentKey): string {
  return `${network}/${containerId}/${ifname}`;
}
