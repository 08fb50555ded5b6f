/** Which attachment a request asks for: its MTU, its addresses, its names. */
import { HOST_NETNS, findLink, findNetns } from '../../model/host.ts';
import { type Ip, familyOf, findIp, ipBits } from '../../model/ip.ts';
import { IP6_MIN_MTU_BYTES } from '../../model/link.ts';
import { findPrefixedIp, formatPrefixedIp, prefixLengthOf, prefixOf } from '../../model/prefix.ts';
import { type Attachment, formatKey, makeAttachment } from '../attachment.ts';
import { limitsOf } from '../cni/bandwidth.ts';
import { type Choices, choicesOf } from '../cni/choices.ts';
import type { Config, ConfigRoute, IpamConfig } from '../cni/config.ts';
import { type Dns, isEmptyDns, parseResolvConf } from '../cni/dns.ts';
import { CNI_ERROR, CniError } from '../cni/error.ts';
import { hostPortsFor } from '../cni/port-mappings.ts';
import type { Request } from '../cni/request.ts';
import {
  type CniResult,
  type ResultRoute,
  addressesIn,
  holdsLinks,
  isSingle,
} from '../cni/result.ts';
import { tuningOf } from '../cni/tuning.ts';
import {
  type AddressBook,
  type AllocatedAddress,
  allocate,
  fits,
  subnetOf,
} from '../ipam/allocate.ts';
import { hostLocalOf } from '../ipam/host-local-folder.ts';
import { rangeSetsOf } from '../ipam/ranges.ts';
import { type Tuning, lastingSysctls } from '../pod.ts';
import type { AttachmentRecord } from '../state.ts';
import type { CallContext } from './context.ts';
import { groupObjects } from './usage.ts';

/** The MTU of an Ethernet link, for a host without a default route. */
const ETHERNET_MTU_BYTES = 1500;

/** The configured MTU, or that of the link that leads out of the host. */
export function mtuOf(context: CallContext, config: Config): number {
  if (config.mtu !== 0) return config.mtu;
  const observed = context.backend.observe({
    [HOST_NETNS]: { links: [], routes: 'default', sysctls: [], nftables: [] },
  });
  const device = findNetns(observed, HOST_NETNS)?.routes[0]?.device ?? undefined;
  const link =
    device === undefined ? undefined : findLink(observed, { netns: HOST_NETNS, ifname: device });
  return link?.mtuBytes ?? ETHERNET_MTU_BYTES;
}

/** An attachment that may be made, and as an ADD that died has begun it. */
export interface Draft {
  readonly attachment: Attachment;
  readonly begun: Attachment | undefined;
}

/** Refuses an attachment that exists, or that another process is making. */
export function refuseExisting(context: CallContext, record: AttachmentRecord): void {
  const name = formatKey(record.attachment.key);
  if (record.state === 'finished') {
    const addresses = record.attachment.addresses.map(formatPrefixedIp).join(', ');
    throw new CniError(
      CNI_ERROR.taken,
      `attachment ${name} already exists`,
      `it has ${addresses || 'no addresses'} on ${record.attachment.hostIfname}; DEL has to come first`,
    );
  }
  if (context.isAlive(record.worker)) {
    throw new CniError(
      CNI_ERROR.tryAgainLater,
      `attachment ${name} is being added by process ${record.worker.pid}`,
    );
  }
}

/** The book of a network in which addresses that host-local handed out are taken too. */
export function wholeBook(context: CallContext, request: Request, ipam: IpamConfig): AddressBook {
  const { network } = request.key;
  const book = context.state.addressBook(
    network,
    request.key,
    context.now() - ipam.reuseDelaySeconds * 1000,
  );
  const reserved = context.reservedByHostLocal(hostLocalOf(request));
  return reserved.length === 0 ? book : withReserved(book, reserved);
}

/** A book with more addresses in it. */
function withReserved(book: AddressBook, reserved: readonly Ip[]): AddressBook {
  const isReserved = new Set<string>(reserved);
  return {
    ...book,
    isTaken: (ip) => isReserved.has(ip) || book.isTaken(ip),
    takenBetween: (first, last) => {
      const [low, high] = [ipBits(first), ipBits(last)];
      const between = reserved.filter(
        (ip) => familyOf(ip) === familyOf(first) && low <= ipBits(ip) && ipBits(ip) <= high,
      );
      return [...book.takenBetween(first, last), ...between].toSorted((a, b) =>
        ipBits(a) < ipBits(b) ? -1 : 1,
      );
    },
  };
}

/** An address as the ranges give it, whatever mode it was used in. */
function asHandedOut(address: AllocatedAddress): AllocatedAddress {
  const { ip, gateway } = address;
  return { ip, prefixLength: prefixLengthOf(subnetOf(address)), gateway };
}

function ownAddresses(
  context: CallContext,
  request: Request,
  ipam: IpamConfig,
  choices: Choices,
  record: AttachmentRecord | undefined,
): AllocatedAddress[] {
  const sets = rangeSetsOf(ipam, choices.rangeSets);
  const begun = record?.attachment.addresses.map(asHandedOut);
  return begun && fits(sets, begun, choices.ips)
    ? begun
    : allocate(sets, wholeBook(context, request, ipam), choices.ips);
}

/** Refuses what cannot be answered in the request's version, or work with the MTU. */
function checkAddresses(
  { cniVersion }: Request,
  mtuBytes: number,
  addresses: readonly AllocatedAddress[],
): void {
  if (mtuBytes < IP6_MIN_MTU_BYTES && addresses.some(({ ip }) => familyOf(ip) === 6)) {
    throw new CniError(
      CNI_ERROR.invalidConfig,
      `an MTU of ${mtuBytes} is too small for IPv6, which needs ${IP6_MIN_MTU_BYTES}`,
    );
  }
  if (!holdsLinks(cniVersion) && !isSingle(addresses))
    throw new CniError(
      CNI_ERROR.invalidConfig,
      `CNI version ${cniVersion} does not support more than 1 address per family`,
    );
}

/** What the pod shall know of name servers: the runtime's word first, then the configuration's, then the IPAM's. */
function dnsOf(config: Config, choices: Choices, fromIpam: Dns | undefined): Dns | undefined {
  return [choices.dns, config.dns].find((dns) => dns && !isEmptyDns(dns)) ?? fromIpam;
}

function resolvConfOf(context: CallContext, { resolvConf }: IpamConfig): Dns | undefined {
  if (resolvConf === undefined || resolvConf === '') return undefined;
  const text = context.readText(resolvConf);
  if (text === undefined)
    throw new CniError(CNI_ERROR.io, `cannot read ipam.resolvConf ${resolvConf}`);
  return parseResolvConf(text);
}

/** With what DEL has to restore: as the netns has it now, unless an ADD that died has changed it already. */
function withBefore(
  context: CallContext,
  { key, netns }: Request,
  tuning: Tuning | undefined,
  begun: Attachment | undefined,
): Tuning | undefined {
  const sysctls = tuning ? lastingSysctls(tuning, key.ifname) : [];
  if (sysctls.length === 0) return tuning;
  const observed = context.backend.observe({
    [netns]: { links: [], routes: 'none', sysctls, nftables: [] },
  });
  const now = findNetns(observed, netns)?.sysctls ?? {};
  const before = begun?.netns === netns ? { ...now, ...begun.tuning?.before } : now;
  const wanted = Object.entries(before).filter(([name]) => sysctls.includes(name));
  return { ...tuning, before: Object.fromEntries(wanted) };
}

/** The attachment without its group of links where that is another's: the kernel deletes all of a group, whoever has it. */
function withOwnGroup({ state }: CallContext, attachment: Attachment): Attachment {
  const { key, bandwidth } = attachment;
  const isTaken = groupObjects(attachment).some((object) => state.isUsedByOthers(object, key));
  if (!isTaken || !bandwidth?.ifb) return attachment;
  const { group: _taken, ...ifb } = bandwidth.ifb;
  return { ...attachment, bandwidth: { ...bandwidth, ifb } };
}

/** Chooses the addresses and names of an attachment; those of an ADD that died are taken over where they still fit. */
export function draftAttachment(
  context: CallContext,
  request: Request,
  config: Config,
  usualMtuBytes: number,
): Draft {
  const record = context.state.find(request.key);
  if (record) refuseExisting(context, record);
  const choices = choicesOf(request);
  const mtuBytes = choices.tuning.mtu ?? usualMtuBytes;
  const { ipam, delegate } = config;
  const addresses = ipam ? ownAddresses(context, request, ipam, choices, record) : [];
  checkAddresses(request, mtuBytes, addresses);
  if (!ipam && delegate === null && !holdsLinks(request.cniVersion))
    throw new CniError(CNI_ERROR.invalidConfig, 'cannot convert: no valid IP addresses');
  // Before anything is made: there is nothing that they could lead to.
  if (!ipam && delegate === null) hostPortsFor(choices.portMappings, []);
  const attachment = makeAttachment(context.identity, {
    key: request.key,
    netns: request.netns,
    config,
    mac: choices.mac,
    mtuBytes,
    addresses,
    routes: ipam?.routes ?? [],
    dns: dnsOf(config, choices, ipam ? resolvConfOf(context, ipam) : undefined),
    ipam: delegate === null ? undefined : { type: delegate, stdin: request.stdin },
    portMappings: choices.portMappings,
    limits: limitsOf(config, choices.bandwidth, mtuBytes),
    tuning: withBefore(
      context,
      request,
      tuningOf(config, choices.tuning, request.key.ifname, context.readText),
      record?.attachment,
    ),
  });
  return { attachment: withOwnGroup(context, attachment), begun: record?.attachment };
}

/** A route of a result as a configuration would have it. */
function configRoute({ dst, gw, ...rest }: ResultRoute): ConfigRoute {
  const to = findPrefixedIp(dst);
  const via = gw === undefined ? undefined : findIp(gw);
  if (!to || (gw !== undefined && via === undefined))
    throw new CniError(CNI_ERROR.decode, `route ${JSON.stringify({ dst, gw })} is no route`);
  return {
    ...rest,
    dst: prefixOf(to.ip, to.prefixLength),
    ...(via === undefined ? {} : { gw: via }),
  };
}

/** The same attachment with the addresses that another plugin has given it. */
export function completeDraft(
  context: CallContext,
  request: Request,
  config: Config,
  { attachment: begun }: Draft,
  given: CniResult,
): Draft {
  const addresses = addressesIn(given, request.key.ifname);
  if (addresses.length === 0)
    throw new CniError(
      CNI_ERROR.decode,
      'IPAM plugin returned missing IP config',
      `IPAM plugin ${config.delegate} gave no address`,
    );
  checkAddresses(request, begun.mtuBytes, addresses);
  const choices = choicesOf(request);
  const attachment = makeAttachment(context.identity, {
    key: request.key,
    netns: request.netns,
    config,
    mac: choices.mac,
    mtuBytes: begun.mtuBytes,
    addresses,
    routes: given.routes.map(configRoute),
    dns: dnsOf(config, choices, given.dns),
    ipam: begun.ipam,
    portMappings: choices.portMappings,
    limits: begun.bandwidth,
    tuning: begun.tuning,
  });
  return { attachment: withOwnGroup(context, attachment), begun };
}
