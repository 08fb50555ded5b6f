/** Taking over attachments that the reference chain made: records for pods that go on running, and no change of the kernel. */
import { HOST_NETNS, type Host, findLink } from '../../model/host.ts';
import type { Ifname } from '../../model/ifname.ts';
import { type Ip, familyOf } from '../../model/ip.ts';
import type { VethLink } from '../../model/link.ts';
import type { Mac } from '../../model/mac.ts';
import {
  type Attachment,
  type Identity,
  type PodRoute,
  formatKey,
  makeAttachment,
} from '../attachment.ts';
import { type Config, parseConfig } from '../cni/config.ts';
import { CniError } from '../cni/error.ts';
import type { AttachmentKey } from '../cni/request.ts';
import type { AllocatedAddress } from '../ipam/allocate.ts';
import type { Reservation } from './host-local.ts';
import { findObject, objectsOf, textOf } from './json.ts';
import type { CachedResult, Conflist } from './result-cache.ts';
import { type ReferenceResult, addressesOf, readResult } from './result.ts';

/**
 * An attachment of the reference chain with a record of ours. What it masquerades and maps is in the chains of the
 * reference plugins, where it stays until DEL, which has to remove those too (`removeReferenceRules`, the ifb of
 * `referenceNames`, and host-local's files).
 */
export interface ImportedAttachment extends Attachment {
  readonly madeBy: 'reference chain';
}

/** What is known of a network that the reference chain made. */
export interface ReferenceNetwork {
  readonly network: string;
  /** libcni's cache, of any network. */
  readonly entries: readonly CachedResult[];
  /** What host-local has reserved in this network. */
  readonly reservations: readonly Reservation[];
  /** The host with all of its links. */
  readonly observed: Host;
  readonly identity: Identity;
  /** Is there a record already? Those are left alone. */
  readonly hasRecord: (key: AttachmentKey) => boolean;
}

/** Something that could not be taken over. */
export interface NotImported {
  /** `NETWORK/CONTAINER/IFNAME`, or as much of it as is known. */
  readonly what: string;
  readonly why: string;
}

/** What an import comes to. */
export interface Import {
  readonly attachments: readonly ImportedAttachment[];
  readonly notImported: readonly NotImported[];
}

/** Why an attachment cannot be taken over. */
class Obstacle extends Error {
  override readonly name = 'Obstacle';
}

/** The keys of the reference bridge that say what a pod gets beside its addresses; not there means the default. */
function bridgeConfig(conflist: Conflist): Config {
  const plugin = objectsOf(conflist['plugins'])[0];
  const type = textOf(plugin?.['type']);
  if (plugin === undefined || type !== 'bridge')
    throw new Obstacle(`it was made by "${type}", not by the reference bridge`);
  const ipam = textOf(findObject(plugin['ipam'])?.['type']);
  if (ipam !== 'host-local')
    throw new Obstacle(`its addresses are of "${ipam}", not of host-local`);
  try {
    // The addresses are those of the result: of the old ranges nothing is needed.
    return parseConfig({ ...plugin, ipam: { type: 'cube-ipam' } });
  } catch (error) {
    if (error instanceof CniError) throw new Obstacle(error.message);
    throw error;
  }
}

interface PodLink {
  readonly mac: Mac;
  readonly netns: string;
}

function podLink({ interfaces }: ReferenceResult, ifname: Ifname): PodLink {
  const link = interfaces.find(({ name, sandbox }) => name === ifname && sandbox !== '');
  if (!link) throw new Obstacle(`its result names no link ${ifname}`);
  if (link.mac === undefined)
    throw new Obstacle(`its result does not say the MAC address of ${ifname}`);
  return { mac: link.mac, netns: link.sandbox };
}

/** The host end: the veth that the result names and that is a port of the bridge. */
function hostEnd({ interfaces }: ReferenceResult, observed: Host, bridge: Ifname): VethLink {
  for (const { name, mac, sandbox } of interfaces) {
    if (sandbox !== '') continue;
    const link = findLink(observed, { netns: HOST_NETNS, ifname: name as Ifname });
    if (link?.kind === 'veth' && link.port?.master === bridge && (mac ?? link.mac) === link.mac)
      return link;
  }
  throw new Obstacle(
    `its host end is not among the ports of ${bridge}: the pod is gone or was changed`,
  );
}

function addressesFor(
  result: ReferenceResult,
  key: AttachmentKey,
  ownerOf: (ip: Ip) => string | undefined,
): AllocatedAddress[] {
  const addresses = addressesOf(result, key.ifname);
  if (addresses.length === 0) throw new Obstacle('its result names no address');
  return addresses.map(({ ip, prefixLength, gateway }) => {
    if (gateway === undefined) throw new Obstacle(`its address ${ip} has no gateway`);
    const owner = ownerOf(ip);
    if (owner !== undefined) throw new Obstacle(`its address ${ip} is that of ${owner}`);
    return { ip, prefixLength, gateway };
  });
}

/** The routes of the result; one without a gateway goes to the first of its family, as the reference bridge has it (pkg/ipam, ConfigureIface). */
function routesFor(
  { routes }: ReferenceResult,
  addresses: readonly AllocatedAddress[],
): PodRoute[] {
  return routes.flatMap(({ destination, gateway }) => {
    const family = familyOf(destination);
    const via = gateway ?? addresses.find(({ ip }) => familyOf(ip) === family)?.gateway;
    return via === undefined || via === null ? [] : [{ destination, gateway: via }];
  });
}

function importOne(
  entry: CachedResult,
  { observed, identity }: ReferenceNetwork,
  ownerOf: (ip: Ip) => string | undefined,
): ImportedAttachment {
  const { network, containerId, ifname } = entry;
  const key: AttachmentKey = { network, containerId, ifname };
  const config = bridgeConfig(entry.config);
  const result = readResult(entry.result);
  const pod = podLink(result, ifname);
  const end = hostEnd(result, observed, config.bridge);
  if (end.mac === null) throw new Obstacle(`its host end ${end.ifname} has no MAC address`);
  const addresses = addressesFor(result, key, ownerOf);
  const { verdict: _mapped, ...attachment } = makeAttachment(identity, {
    key,
    netns: pod.netns,
    config,
    mac: pod.mac,
    mtuBytes: end.mtuBytes,
    addresses,
    routes: [],
    dns: undefined,
    ipam: undefined,
    portMappings: [],
    limits: undefined,
    tuning: undefined,
  });
  return {
    ...attachment,
    hostIfname: end.ifname,
    hostMac: end.mac,
    // The reference chain's own rules do it, and go on doing it.
    masquerade: false,
    routes: routesFor(result, addresses),
    madeBy: 'reference chain',
  };
}

/**
 * The records for the attachments of a network that the reference chain made, to be put and finished in the state, and
 * what cannot have one. What has a record already is left alone, so that an import may be repeated.
 */
export function importAttachments(given: ReferenceNetwork): Import {
  const { network, entries, reservations, hasRecord } = given;
  const attachments: ImportedAttachment[] = [];
  const notImported: NotImported[] = [];
  const taken = new Map<Ip, string>();
  const cached = entries.filter((entry) => entry.network === network);
  for (const entry of cached) {
    if (hasRecord(entry)) continue;
    const { containerId, ifname } = entry;
    const reservedByOther = (ip: Ip): string | undefined => {
      const other = reservations.find(
        (each) =>
          each.ip === ip &&
          (each.containerId !== containerId || (each.ifname ?? ifname) !== ifname),
      );
      return other && `${other.containerId}/${other.ifname ?? ''}`;
    };
    try {
      const attachment = importOne(entry, given, (ip) => taken.get(ip) ?? reservedByOther(ip));
      for (const { ip } of attachment.addresses) taken.set(ip, formatKey(attachment.key));
      attachments.push(attachment);
    } catch (error) {
      if (!(error instanceof Obstacle)) throw error;
      notImported.push({ what: formatKey(entry), why: error.message });
    }
  }
  for (const { ip, containerId, ifname } of reservations) {
    const isCached = cached.some(
      (entry) => entry.containerId === containerId && (ifname ?? entry.ifname) === entry.ifname,
    );
    const isRecorded =
      ifname !== undefined && hasRecord({ network, containerId, ifname: ifname as Ifname });
    if (isCached || isRecorded) continue;
    notImported.push({
      what: `${network}/${containerId}${ifname === undefined ? '' : `/${ifname}`}`,
      why: `host-local has reserved ${ip} for it, but there is no result of it in the runtime's cache`,
    });
  }
  return { attachments, notImported };
}
