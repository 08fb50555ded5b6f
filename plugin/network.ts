/** What an attachment wants of the network, what is left when it goes, and what has to be read to plan either. */
import type { NetnsScope, Scope, TableScope } from '../backends/backend.ts';
import { makeAddress } from '../model/address.ts';
import { hostPrefix } from '../model/connected.ts';
import type { DesiredHost, DesiredLink, DesiredNetns, DesiredTable } from '../model/desired.ts';
import { HOST_NETNS, type Host, type SysctlKey, findLink, findNetns } from '../model/host.ts';
import { ADDRESS_BITS, type Family, type Ip, familyOf } from '../model/ip.ts';
import { type Link, OWNER_MARK, isOurs } from '../model/link.ts';
import { type SetKey, tableKey } from '../model/nftables.ts';
import type { Prefix } from '../model/prefix.ts';
import { PROTOCOL_CUBE, makeRoute } from '../model/route.ts';
import { linkSysctlKey } from '../model/sysctl.ts';
import { type Attachment, formatKey } from './attachment.ts';
import { desiredIfb, desiredLimits, ifbWithout, limitLinks } from './bandwidth.ts';
import { bridgeWithout, desiredBridge, desiredGateways } from './bridge.ts';
import { abandoned, adopted } from './forward.ts';
import { type PortUse, leadsFromLocalhost, portKeys, portPart, withoutPorts } from './host-port.ts';
import { type PolicyUse, policyKeys, policyPart, withoutPolicy } from './ingress-policy.ts';
import { MASQUERADE_MAPS, masqueradePart, withoutMasquerade } from './masquerade.ts';
import { POD_MAPS, isMapped, podPart, withoutPod } from './pod-map.ts';
import {
  desiredPod,
  gatewaysOf,
  hasFamily,
  hostEnd,
  podEnd,
  podSysctls,
  restoredSysctls,
} from './pod.ts';
import { isChecked, spoofKeys, spoofPart, spoofTable, withoutSpoof } from './spoof-check.ts';
import { OWN_TABLES, TABLE, type TablePart, tableOf } from './table.ts';
import { desiredGateway, desiredVlans, gatewayLinks, gatewayRef } from './vlan.ts';

const IP_FORWARD = 'net/ipv4/ip_forward';
const IP6_FORWARD = linkSysctlKey(6, 'all', 'forwarding');

/** Does the host have to forward packets for it? */
export function isForwarded(attachment: Attachment): boolean {
  return attachment.gateway || attachment.mode === 'ptp';
}

function forwardSysctls(attachment: Attachment): string[] {
  if (!isForwarded(attachment)) return [];
  return [
    ...(hasFamily(attachment, 4) ? [IP_FORWARD] : []),
    ...(hasFamily(attachment, 6) ? [IP6_FORWARD] : []),
  ];
}

/** The host's link that hears the pod. */
export function hearingLink(attachment: Attachment): Attachment['bridge'] {
  return attachment.mode === 'ptp' ? attachment.hostIfname : gatewayRef(attachment).ifname;
}

/**
 * IPv6 settings of that link. Router advertisements there would be a pod's (CVE-2020-10749). And while the kernel looks for
 * duplicates of the link's own link-local address, it cannot ask for the pod's MAC address, so that what is forwarded to
 * the pod waits for seconds.
 */
const HEARING_SETTINGS = { accept_ra: '0', accept_dad: '0' } as const;
const HEARING_NAMES = ['accept_ra', 'accept_dad'] as const;

function hearingSysctls(attachment: Attachment): string[] {
  if (!hasFamily(attachment, 6)) return [];
  return HEARING_NAMES.flatMap((name) => [
    linkSysctlKey(6, 'default', name),
    linkSysctlKey(6, hearingLink(attachment), name),
  ]);
}

/** The setting of that link by which packets for 127.0.0.0/8 may leave through it (net/ipv4/route.c, IN_DEV_ROUTE_LOCALNET). */
const LOCALNET = 'route_localnet';

/** That setting of the link that leads to the pod. */
export function localnetKey(attachment: Attachment): string {
  return linkSysctlKey(4, hearingLink(attachment), LOCALNET);
}

function localnetSysctls(attachment: Attachment): string[] {
  if (!leadsFromLocalhost(attachment)) return [];
  return [linkSysctlKey(4, 'default', LOCALNET), localnetKey(attachment)];
}

/** A purpose that our tables serve for an attachment: its part of a table while it is there, and when it goes. */
interface Purpose {
  readonly table: { readonly family: DesiredTable['family']; readonly table: string };
  /** The elements to read. */
  readonly keys: Readonly<Record<string, readonly SetKey[]>>;
  readonly part: TablePart;
  readonly without: (use: SharedUse, departing: Departing) => TablePart;
}

function addressKeys(
  { addresses }: Attachment,
  maps: Readonly<Record<Family, string>>,
): Purpose['keys'] {
  const of = (family: Family): readonly Ip[] =>
    addresses.map(({ ip }) => ip).filter((ip) => familyOf(ip) === family);
  return { [maps[4]]: of(4), [maps[6]]: of(6) };
}

/** Everything that our tables do for an attachment. */
function purposesOf(attachment: Attachment): Purpose[] {
  const { addresses } = attachment;
  const going = (departing: Departing): Attachment['addresses'] =>
    departing === 'attachment' ? addresses : [];
  const purposes: Purpose[] = [];
  if (attachment.masquerade)
    purposes.push({
      table: TABLE,
      keys: addressKeys(attachment, MASQUERADE_MAPS),
      part: masqueradePart(attachment),
      without: (use, departing) =>
        withoutMasquerade(
          going(departing),
          use.unusedSubnets,
          use.masquerade ? 'others masquerade' : 'nobody else does',
        ),
    });
  if (isMapped(attachment))
    purposes.push({
      table: TABLE,
      keys: addressKeys(attachment, POD_MAPS),
      part: podPart(attachment),
      without: (_use, departing) => withoutPod(going(departing)),
    });
  if (attachment.hostPorts)
    purposes.push({
      table: TABLE,
      keys: portKeys(attachment),
      part: portPart(attachment),
      without: (use, departing) => withoutPorts(attachment, use.ports, departing === 'attachment'),
    });
  if (attachment.ingressPolicy)
    purposes.push({
      table: TABLE,
      keys: policyKeys(attachment),
      part: policyPart(attachment),
      without: (use) => withoutPolicy(attachment, use.policy),
    });
  if (isChecked(attachment))
    purposes.push({
      table: spoofTable(attachment),
      keys: spoofKeys(attachment),
      part: spoofPart(attachment),
      without: (use, departing) =>
        departing === 'attachment' || !use.spoofCheck
          ? withoutSpoof(attachment, use.spoofCheck ? 'others are checked' : 'nobody else is')
          : { chains: {}, sets: {} },
    });
  return purposes;
}

/** The purposes by the table that serves them. */
function byTable(purposes: readonly Purpose[]): Map<string, Purpose[]> {
  const tables = new Map<string, Purpose[]>();
  for (const purpose of purposes) {
    const key = tableKey(purpose.table);
    tables.set(key, [...(tables.get(key) ?? []), purpose]);
  }
  return tables;
}

/** The tables of ours that hold something of the attachment, by key. */
export function tablesOf(attachment: Attachment): string[] {
  return [...byTable(purposesOf(attachment)).keys()];
}

function tableScope(attachment: Attachment): TableScope[] {
  return [...byTable(purposesOf(attachment)).values()].map((purposes) => ({
    ...(purposes[0] as Purpose).table,
    elements: Object.assign({}, ...purposes.map(({ keys }) => keys)) as Purpose['keys'],
  }));
}

function hostLinks(attachment: Attachment): readonly Attachment['bridge'][] {
  const own = [attachment.hostIfname, ...limitLinks(attachment)];
  return attachment.mode === 'ptp' ? own : [attachment.bridge, ...own, ...gatewayLinks(attachment)];
}

/** VLANs are looked at where the attachment has any. */
function vlanScope({ vlans }: Attachment): Pick<NetnsScope, 'vlans'> {
  return vlans ? { vlans: true } : {};
}

/** Traffic control is looked at where the attachment has limits. */
function limitScope({ bandwidth }: Attachment): Pick<NetnsScope, 'trafficControl'> {
  return bandwidth ? { trafficControl: true } : {};
}

/** The chains that filter what is forwarded are looked at where the attachment asks for it. */
function forwardScope({ adoptForward }: Attachment): Pick<NetnsScope, 'forwardChains'> {
  return adoptForward ? { forwardChains: true } : {};
}

/** What ADD and CHECK read: no more than their plan depends on, however many pods there are. */
export function attachScope(attachment: Attachment): Scope {
  const isPtp = attachment.mode === 'ptp';
  const host: NetnsScope = {
    links: hostLinks(attachment),
    // Addresses that are to be replaced take the routes of others along (K-3.5): undo brings both back.
    routes: isPtp || (attachment.forceAddress && attachment.gateway) ? 'all' : 'none',
    sysctls: [
      ...forwardSysctls(attachment),
      ...hearingSysctls(attachment),
      ...localnetSysctls(attachment),
    ],
    nftables: tableScope(attachment),
    ...vlanScope(attachment),
    ...limitScope(attachment),
    ...forwardScope(attachment),
  };
  const pod: NetnsScope = {
    links: [attachment.key.ifname],
    routes: 'all',
    sysctls: podSysctls(attachment),
    nftables: [],
  };
  return { [HOST_NETNS]: host, [attachment.netns]: pod };
}

/** What DEL reads: the host's part, since the pod's goes with it, but for settings of its netns. */
export function detachScope(attachment: Attachment): Scope {
  return {
    [HOST_NETNS]: {
      links: hostLinks(attachment),
      routes: 'none',
      sysctls: localnetSysctls(attachment),
      nftables: tableScope(attachment),
      ...vlanScope(attachment),
      ...forwardScope(attachment),
    },
    ...restoreScope(attachment),
  };
}

/** The settings of the pod's netns that do not go with the link, where the netns is known. */
function restoreScope({ netns, key, tuning }: Attachment): Scope {
  const sysctls = Object.keys(tuning?.before ?? {});
  if (netns === '' || sysctls.length === 0) return {};
  return { [netns]: { links: [key.ifname], routes: 'none', sysctls, nftables: [] } };
}

const WHOLE_HOST: NetnsScope = {
  links: 'all',
  routes: 'none',
  sysctls: [],
  nftables: OWN_TABLES.map((table) => ({ ...table, elements: 'all' as const })),
};

/** Everything on the host that may be ours, of whatever attachment, also in tables of others: what to read where no record says what to look for. */
export const WHOLE_SCOPE: Scope = { [HOST_NETNS]: { ...WHOLE_HOST, forwardChains: true } };

/** The same with what has to be asked for link by link: VLANs and traffic control. */
export const WHOLE_SCOPE_IN_DETAIL: Scope = {
  [HOST_NETNS]: { ...WHOLE_HOST, vlans: true, trafficControl: true, forwardChains: true },
};

/** The settings of the link that hears the pod; only where the host has IPv6, and of the bridges only ours. */
function wantedHearing(attachment: Attachment, observed: Host): Record<string, string> {
  const sysctls = findNetns(observed, HOST_NETNS)?.sysctls ?? {};
  if (!hasFamily(attachment, 6)) return {};
  if (attachment.mode !== 'ptp') {
    const carrier = findLink(observed, gatewayRef(attachment));
    const macs = [attachment.bridgeMac, attachment.vlans?.gateway?.mac];
    if (carrier && !isOurs(carrier) && !macs.includes(carrier.mac ?? undefined)) return {};
  }
  return Object.fromEntries(
    HEARING_NAMES.filter((name) => sysctls[linkSysctlKey(6, 'default', name)] !== undefined).map(
      (name) => [linkSysctlKey(6, hearingLink(attachment), name), HEARING_SETTINGS[name]],
    ),
  );
}

/** The host's end of the pod's link: a port of the bridge, or in mode `ptp` the pod's gateway. */
function desiredHostEnd(attachment: Attachment): DesiredLink {
  const { hostMac, mtuBytes, bridge, hairpin, isolated } = attachment;
  return {
    kind: 'veth',
    peer: podEnd(attachment),
    mac: hostMac,
    mtuBytes,
    ...(attachment.madeBy === undefined ? { alias: aliasOf(attachment) } : {}),
    up: true,
    ...desiredLimits(attachment),
    ...(attachment.mode === 'ptp'
      ? {
          port: null,
          addresses: {
            present: gatewaysOf(attachment).map((ip) =>
              makeAddress({ ip, prefixLength: ADDRESS_BITS[familyOf(ip)] }),
            ),
            others: 'keep' as const,
          },
        }
      : {
          port: {
            master: bridge,
            hairpin,
            isolated: isolated === true,
            ...desiredVlans(attachment),
          },
        }),
  };
}

/** IFALIASZ - 1 (include/uapi/linux/if.h). */
const ALIAS_MAX_LENGTH = 255;

/** The alias that says whose the host's end is. */
export function aliasOf({ key }: Pick<Attachment, 'key'>): string {
  return `${OWNER_MARK} ${formatKey(key)}`.slice(0, ALIAS_MAX_LENGTH);
}

/** The routes to a pod that is not on a bridge. */
function desiredHostRoutes(attachment: Attachment): Pick<DesiredNetns, 'routes'> {
  if (attachment.mode !== 'ptp') return {};
  const present = attachment.addresses.map(({ ip }) =>
    makeRoute({
      destination: hostPrefix(ip),
      device: attachment.hostIfname,
      protocol: PROTOCOL_CUBE,
    }),
  );
  return { routes: { present, others: 'keep' } };
}

/** The families of the pod's addresses. */
export function familiesOf(attachment: Attachment): Family[] {
  return ([4, 6] as const).filter((family) => hasFamily(attachment, family));
}

function desiredTables(attachment: Attachment, observed: Host): Pick<DesiredNetns, 'tables'> {
  const tables = [...byTable(purposesOf(attachment))].map(
    ([key, purposes]) =>
      [
        key,
        tableOf(
          (purposes[0] as Purpose).table,
          purposes.map(({ part }) => part),
        ),
      ] as const,
  );
  const foreign = attachment.adoptForward
    ? adopted(observed, hearingLink(attachment), familiesOf(attachment))
    : {};
  const all = { ...Object.fromEntries(tables), ...foreign };
  return Object.keys(all).length === 0 ? {} : { tables: all };
}

/** What a host has to be for the attachment to work. `observed` tells whether shared objects are there already, and whose. */
export function attached(attachment: Attachment, observed: Host): DesiredHost {
  const bridge =
    attachment.mode === 'ptp'
      ? {}
      : {
          [attachment.bridge]: desiredBridge(attachment, observed),
          ...desiredGateway(attachment, observed, desiredGateways(attachment, observed)),
        };
  const forward = forwardSysctls(attachment).map((key) => [key, '1'] as const);
  const hostNetns: DesiredNetns = {
    links: {
      ...bridge,
      ...desiredIfb(attachment, aliasOf(attachment)),
      [attachment.hostIfname]: desiredHostEnd(attachment),
    },
    sysctls: {
      ...Object.fromEntries(forward),
      ...wantedHearing(attachment, observed),
      ...(leadsFromLocalhost(attachment) ? { [localnetKey(attachment)]: '1' } : {}),
    },
    ...desiredHostRoutes(attachment),
    ...desiredTables(attachment, observed),
  };
  return { [HOST_NETNS]: hostNetns, [attachment.netns]: desiredPod(attachment) };
}

/** What others still need of the objects that attachments share. */
export interface SharedUse {
  /** Does another attachment use the bridge? */
  readonly bridge: boolean;
  /** Does another attachment need the bridge to filter VLANs? */
  readonly vlans: boolean;
  /** Does another attachment use the link of the VLAN's gateways? */
  readonly vlanGateway: boolean;
  /** Addresses that ADD put on a bridge which is not ours, and that no other attachment needs. */
  readonly spareGateways: readonly Ip[];
  /** Subnets whose masquerade chain no other attachment needs. */
  readonly unusedSubnets: readonly Prefix[];
  /** Does another attachment masquerade? */
  readonly masquerade: boolean;
  /** Is another attachment checked in the same table? */
  readonly spoofCheck: boolean;
  /** What leads to host ports. */
  readonly ports: PortUse;
  readonly policy: PolicyUse;
  /** Does another attachment need the link's rules in tables of others? */
  readonly forward: boolean;
  /** Settings of the pod's netns that another attachment has made too. */
  readonly sysctls: readonly SysctlKey[];
  /** Those of our tables that another attachment uses, by key. */
  readonly tables: readonly string[];
}

/** Is the link with the name of the host end the one that ADD makes? Before it has its mark, it is known by its MAC address. */
export function isOwnEnd({ hostMac }: Attachment, end: Link): boolean {
  return isOurs(end) || (end.kind === 'veth' && end.mac === hostMac);
}

/** What is to go: everything of an attachment, or what it shares with others, of which it made nothing itself. */
export type Departing = 'attachment' | 'shared objects';

/** Our tables without the attachment, those that are there; sets that an older version's table has not are left out. */
function tablesWithout(
  attachment: Attachment,
  observed: Host,
  use: SharedUse,
  departing: Departing,
): Record<string, DesiredTable | 'absent'> {
  const ruleset = findNetns(observed, HOST_NETNS)?.nftables ?? {};
  const tables: Record<string, DesiredTable | 'absent'> = {};
  for (const [key, purposes] of byTable(purposesOf(attachment))) {
    const table = ruleset[key];
    if (!table) continue;
    const parts = purposes.map((purpose): TablePart => {
      const { chains, sets } = purpose.without(use, departing);
      const known = Object.entries(sets).filter(([name]) => Object.hasOwn(table.sets, name));
      return { chains, sets: Object.fromEntries(known) };
    });
    tables[key] = use.tables.includes(key)
      ? tableOf((purposes[0] as Purpose).table, parts)
      : 'absent';
  }
  return tables;
}

/** What a host has to be once the attachment is gone: without its own objects, and without shared ones that nobody else uses. */
export function detached(
  attachment: Attachment,
  observed: Host,
  use: SharedUse,
  departing: Departing,
): DesiredHost {
  const end = departing === 'attachment' ? findLink(observed, hostEnd(attachment)) : undefined;
  const links: Record<string, DesiredLink> = {
    ...(end && isOwnEnd(attachment, end) ? { [attachment.hostIfname]: 'absent' } : {}),
    ...(departing === 'attachment' ? ifbWithout(attachment, observed) : {}),
    ...bridgeWithout(attachment, observed, use),
  };
  const tables = {
    ...tablesWithout(attachment, observed, use, departing),
    ...(attachment.adoptForward && !use.forward
      ? abandoned(observed, [hearingLink(attachment)])
      : {}),
  };
  const restored =
    departing === 'attachment'
      ? restoredSysctls(attachment, observed, (key) => use.sysctls.includes(key))
      : {};
  return {
    ...(Object.keys(restored).length === 0 ? {} : { [attachment.netns]: { sysctls: restored } }),
    [HOST_NETNS]: {
      links,
      ...(Object.keys(tables).length === 0 ? {} : { tables }),
      ...localnetWithout(attachment, observed, use, links),
    },
  };
}

/** The link of the last pod whose ports led from 127.0.0.1, if it stays: the rule that guards it goes. */
function localnetWithout(
  attachment: Attachment,
  observed: Host,
  use: SharedUse,
  links: Readonly<Record<string, DesiredLink>>,
): Pick<DesiredNetns, 'sysctls'> {
  const link = hearingLink(attachment);
  const key = localnetKey(attachment);
  const isOn = findNetns(observed, HOST_NETNS)?.sysctls[key] === '1';
  const stays = findLink(observed, { netns: HOST_NETNS, ifname: link }) && links[link] !== 'absent';
  return isOn && stays && use.ports.spareLocalhost ? { sysctls: { [key]: '0' } } : {};
}
