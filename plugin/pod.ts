/** The pod's end of an attachment: its link, addresses, routes and sysctls. */
import { type Scope, makeAddress } from '../model/address.ts';
import { sameJson } from '../model/canonical.ts';
import { hostPrefix } from '../model/connected.ts';
import type { DesiredNetns } from '../model/desired.ts';
import { HOST_NETNS, type Host, type SysctlKey, findLink, findNetns } from '../model/host.ts';
import { type Family, type Ip, familyOf } from '../model/ip.ts';
import type { Link, LinkRef } from '../model/link.ts';
import { PROTOCOL_BOOT, PROTOCOL_CUBE, type Route, makeRoute } from '../model/route.ts';
import { linkSysctlKey, splitLinkSysctl } from '../model/sysctl.ts';
import type { Attachment, PodRoute } from './attachment.ts';
import { subnetOf } from './ipam/allocate.ts';

/** What a pod's link and netns get beside what the pod needs, as the reference's plugin `tuning` sets it. */
export interface Tuning {
  /** By key, with the pod's link in it where it is one of that. */
  readonly sysctls?: Readonly<Record<SysctlKey, string>>;
  /** Of those the ones that do not go with the link, as they were before ADD. */
  readonly before?: Readonly<Record<SysctlKey, string>>;
  readonly promiscuous?: true;
  readonly allMulticast?: true;
  readonly txQueueLength?: number;
}

/** Has the attachment an address of the family? */
export function hasFamily({ addresses }: Attachment, family: Family): boolean {
  return addresses.some(({ ip }) => familyOf(ip) === family);
}

/** The pod's link. */
export function podEnd({ netns, key }: Attachment): LinkRef {
  return { netns, ifname: key.ifname };
}

/** Is a link with the name of the pod's the one that the attachment made: does it lead to the attachment's end on the host? */
export function isOwnPodEnd(attachment: Attachment, link: Link): boolean {
  return link.kind === 'veth' && sameJson(link.peer, hostEnd(attachment));
}

/** The host's link. */
export function hostEnd({ hostIfname }: Attachment): LinkRef {
  return { netns: HOST_NETNS, ifname: hostIfname };
}

/** The gateways of the addresses, each once. */
export function gatewaysOf({ addresses }: Attachment): Ip[] {
  const gateways = addresses.flatMap(({ gateway }) => (gateway === null ? [] : [gateway]));
  return [...new Set(gateways)];
}

/** IPv6 settings of the pod's link: whether it has IPv6, and whether addresses are checked for duplicates (net/ipv6/addrconf.c). */
function podSettings(attachment: Attachment): Readonly<Record<string, string>> {
  if (!hasFamily(attachment, 6)) return {};
  return attachment.dad
    ? { disable_ipv6: '0', accept_dad: '1', enhanced_dad: '1' }
    : // Every address of the pod can be used as soon as ADD returns.
      { disable_ipv6: '0', accept_dad: '0' };
}

/** The sysctls that `desiredPod` may want; those of a link that is yet to come are `default`'s. */
export function podSysctls(attachment: Attachment): string[] {
  const { tuning, key } = attachment;
  const tuned = Object.keys(tuning?.sysctls ?? {}).flatMap((each) => {
    const link = splitLinkSysctl(each);
    return link?.of === key.ifname
      ? [linkSysctlKey(link.family, 'default', link.name, link.tree), each]
      : [each];
  });
  return [
    ...Object.keys(podSettings(attachment)).flatMap((name) => [
      linkSysctlKey(6, 'default', name),
      linkSysctlKey(6, key.ifname, name),
    ]),
    ...tuned,
  ];
}

/** The settings of the netns, or of others' links in it, among those that a pod's link is given: they stay when it goes. */
export function lastingSysctls({ sysctls = {} }: Tuning, ifname: string): SysctlKey[] {
  return Object.keys(sysctls).filter((key) => splitLinkSysctl(key)?.of !== ifname);
}

/**
 * Such settings as they were before, of those that are still as ADD made them, the last that was made first: one may be
 * refused while another is in force. None where the pod's link is not there: whose netns has the path now, nobody knows.
 * `isUsed`: another attachment has made the setting the same.
 */
export function restoredSysctls(
  attachment: Attachment,
  observed: Host,
  isUsed: (key: SysctlKey) => boolean,
): Record<SysctlKey, string> {
  const end = findLink(observed, podEnd(attachment));
  if (!end || !isOwnPodEnd(attachment, end)) return {};
  const now = findNetns(observed, attachment.netns)?.sysctls ?? {};
  const { sysctls = {}, before = {} } = attachment.tuning ?? {};
  const restored = Object.keys(sysctls).flatMap((key) => {
    const value = before[key];
    const isOurs = value !== undefined && now[key] === sysctls[key] && now[key] !== value;
    return isOurs && !isUsed(key) ? [[key, value] as const] : [];
  });
  return Object.fromEntries(restored.toReversed());
}

const SCOPES: Readonly<Record<number, Scope>> = {
  0: 'global',
  200: 'site',
  253: 'link',
  254: 'host',
};

/** A route of the pod as the kernel has it. IPv6 routes have no scope (net/ipv6/route.c). */
function kernelRoute(attachment: Attachment, route: PodRoute): Route {
  const { destination, gateway, mtuBytes, advmssBytes, metric, table, scope } = route;
  return makeRoute({
    destination,
    gateway,
    device: attachment.key.ifname,
    protocol: attachment.madeBy === undefined ? PROTOCOL_CUBE : PROTOCOL_BOOT,
    ...(mtuBytes === undefined ? {} : { mtuBytes }),
    ...(advmssBytes === undefined ? {} : { advmssBytes }),
    ...(metric === undefined || metric === 0 ? {} : { metric }),
    ...(table === undefined ? {} : { table }),
    ...(scope === undefined || familyOf(destination) === 6
      ? {}
      : { scope: SCOPES[scope] ?? 'global' }),
  });
}

/** In mode `ptp` all that a pod sends goes to its gateway, also what is for its subnet: the reference's ptp has it so. */
function ptpRoutes(attachment: Attachment): PodRoute[] {
  if (attachment.mode !== 'ptp') return [];
  const toGateways = gatewaysOf(attachment).map((ip) => ({
    destination: hostPrefix(ip),
    gateway: null,
  }));
  const toSubnets = new Map(
    attachment.addresses
      // A subnet of one address is its owner: nothing is to be routed there, or nobody knows the subnet any more.
      .filter((address) => subnetOf(address) !== hostPrefix(address.ip))
      .map((address) => [subnetOf(address), address.gateway]),
  );
  const configured = new Set(attachment.routes.map(({ destination }) => destination));
  return [
    ...toGateways,
    ...[...toSubnets].map(([destination, gateway]) => ({ destination, gateway })),
  ].filter(({ destination }) => !configured.has(destination));
}

/** All routes of the pod that are not the kernel's own. */
function podRoutes(attachment: Attachment): Route[] {
  return [...ptpRoutes(attachment), ...attachment.routes].map((route) =>
    kernelRoute(attachment, route),
  );
}

/** What the pod's netns has to be for the attachment to work. */
export function desiredPod(attachment: Attachment): DesiredNetns {
  const { ifname } = attachment.key;
  const { sysctls: tuned = {}, before: _before, ...ofLink } = attachment.tuning ?? {};
  const settings = Object.entries(podSettings(attachment)).map(
    ([name, value]) => [linkSysctlKey(6, ifname, name), value] as const,
  );
  const sysctls = { ...Object.fromEntries(settings), ...tuned };
  return {
    links: {
      [ifname]: {
        kind: 'veth',
        peer: hostEnd(attachment),
        mac: attachment.podMac,
        mtuBytes: attachment.mtuBytes,
        up: attachment.podDown !== true,
        ...ofLink,
        addresses: {
          present: attachment.addresses.map(({ ip, prefixLength }) => ({
            ...makeAddress({ ip, prefixLength }),
            ...(attachment.dad ? { noDad: false } : {}),
          })),
          others: 'keep',
        },
      },
    },
    ...(Object.keys(sysctls).length > 0 ? { sysctls } : {}),
    routes: { present: podRoutes(attachment), others: 'keep' },
  };
}
