/**
 * What somebody wants a host to be. It is partial: a field that is absent means "as it is", and what
 * must not exist is said. Collections say what happens to the members that nobody named.
 */
import type { Address } from './address.ts';
import { type FdbEntry, fdbOf } from './fdb.ts';
import { findLink, type Host, type NetnsName, type SysctlKey } from './host.ts';
import type { Ifname } from './ifname.ts';
import { type Ip, familyOf, ipBits } from './ip.ts';
import {
  type BridgePort,
  type Link,
  type LinkRef,
  type Neighbour,
  TX_QUEUE_LENGTH,
} from './link.ts';
import type { Mac } from './mac.ts';
import type { MacvlanMode } from './macvlan.ts';
import type { Chain, NftFamily, NftSet, Rule, SetElement } from './nftables.ts';
import { type PolicyRule, policyRulesOf } from './policy-rule.ts';
import { PROTOCOL_KERNEL, type Route } from './route.ts';
import type { TokenBucket } from './traffic-control.ts';
import type { VlanRange } from './vlan.ts';
import type { Remote, VxlanTunnel } from './vxlan.ts';

/** What happens to the members of a collection that were not named. */
export type Others = 'keep' | 'remove';

export interface DesiredVlans {
  readonly present: readonly VlanRange[];
  readonly others: Others;
}

export interface DesiredPort {
  readonly master: Ifname;
  readonly hairpin?: boolean;
  readonly isolated?: boolean;
  readonly learning?: boolean;
  readonly flood?: boolean;
  readonly vlans?: DesiredVlans;
}

export interface DesiredAddresses {
  readonly present: readonly Address[];
  /** Those that must go although the others may stay. */
  readonly absent?: readonly Address[];
  readonly others: Others;
}

export interface DesiredTrafficControl {
  /** Null: what the kernel gives the link by itself. */
  readonly root?: TokenBucket | null;
  /** Null: nothing looks at what comes in. */
  readonly ingress?: DesiredIngress | null;
}

export interface DesiredIngress {
  /** Null: what comes in is not redirected. */
  readonly redirect: Ifname | null;
}

/** What a link shall be like, whatever its kind. To make one, `mac` and `mtuBytes` are needed. */
export interface DesiredAttributes {
  readonly mac?: Mac;
  readonly mtuBytes?: number;
  /** 0: in none. */
  readonly group?: number;
  readonly up?: boolean;
  readonly promiscuous?: boolean;
  readonly allMulticast?: boolean;
  readonly txQueueLength?: number;
  readonly alias?: string;
  /** All of its other names. */
  readonly altnames?: readonly string[];
  /** Null: of no bridge. */
  readonly port?: DesiredPort | null;
  readonly addresses?: DesiredAddresses;
  readonly neighbours?: { readonly present: readonly Neighbour[]; readonly others: Others };
  readonly trafficControl?: DesiredTrafficControl;
}

export type DesiredLink =
  | 'absent'
  | ({
      readonly kind: 'bridge';
      readonly vlanFiltering?: boolean;
      /** Those of the bridge itself. */
      readonly vlans?: DesiredVlans;
      /** Of its forwarding database what is not the bridge's own work. */
      readonly fdb?: { readonly present: readonly FdbEntry[]; readonly others: Others };
    } & DesiredAttributes)
  | ({ readonly kind: 'veth'; readonly peer: LinkRef } & DesiredAttributes)
  | ({ readonly kind: 'ifb' } & DesiredAttributes)
  | ({
      readonly kind: 'vxlan';
      readonly remotes?: { readonly present: readonly Remote[]; readonly others: Others };
    } & VxlanTunnel &
      DesiredAttributes)
  | ({
      readonly kind: 'macvlan';
      readonly mode: MacvlanMode;
      /** Of the same netns. */
      readonly lower: Ifname;
    } & DesiredAttributes)
  /** A link that is there already, of whatever kind. */
  | ({ readonly kind: 'any' } & DesiredAttributes);

export interface DesiredSet extends Pick<NftSet, 'keyType' | 'holds'> {
  readonly elements: Readonly<Record<string, SetElement | 'absent'>>;
  readonly others: Others;
}

/** Rules in a chain that is somebody else's: told by their comment, which begins with our mark. */
export interface Guests {
  /** Before the last rule of the chain where that ends every packet, else behind it. */
  readonly present: readonly Rule[];
  readonly absent: readonly Rule[];
}

export interface DesiredTable {
  readonly family: NftFamily;
  readonly name: string;
  /** A chain's rules are wanted exactly as given. */
  readonly chains: Readonly<Record<string, Chain | 'absent'>>;
  /** Single rules of ours, by the name of a chain of somebody else's, whose other rules stay as they are. */
  readonly guests?: Readonly<Record<string, Guests>>;
  readonly sets: Readonly<Record<string, DesiredSet | 'absent'>>;
  /** Of chains and sets alike. */
  readonly others: Others;
}

export interface DesiredNetns {
  readonly links?: Readonly<Record<string, DesiredLink>>;
  readonly otherLinks?: Others;
  /** Routes that the kernel makes by itself are never removed, and need not be named. */
  readonly routes?: { readonly present: readonly Route[]; readonly others: Others };
  readonly policyRules?: { readonly present: readonly PolicyRule[]; readonly others: Others };
  readonly sysctls?: Readonly<Record<SysctlKey, string>>;
  /** By `tableKey`. */
  readonly tables?: Readonly<Record<string, DesiredTable | 'absent'>>;
  readonly otherTables?: Others;
}

/** By netns; one that is not named stays as it is. */
export type DesiredHost = Readonly<Record<NetnsName, DesiredNetns | 'absent'>>;

function isLinkLocal(ip: Ip): boolean {
  return familyOf(ip) === 6 && ipBits(ip) >> 118n === 0x3fan;
}

/** Did the kernel make the address by itself? Those are nobody's to want or to remove. */
export function isKernelAddress(link: Link, address: Address): boolean {
  return link.kind === 'loopback' || (address.scope === 'link' && isLinkLocal(address.ip));
}

function desiredPort(port: BridgePort | null): DesiredPort | null {
  if (port === null) return null;
  const { vlans, ...rest } = port;
  return vlans ? { ...rest, vlans: { present: vlans, others: 'remove' } } : rest;
}

function desiredTrafficControl({ trafficControl = {} }: Link): DesiredTrafficControl {
  const { root, ingress } = trafficControl;
  return {
    // Of a kind that we do not make: as it is.
    ...(root?.kind === 'other' ? {} : { root: root ?? null }),
    ingress: ingress ? { redirect: ingress.redirect ?? null } : null,
  };
}

function desiredLink(netns: NetnsName, link: Link): DesiredLink {
  const common: DesiredAttributes = {
    ...(link.mac === null || link.kind === 'device' ? {} : { mac: link.mac }),
    mtuBytes: link.mtuBytes,
    group: link.group ?? 0,
    up: link.up,
    promiscuous: link.promiscuous,
    allMulticast: link.allMulticast === true,
    txQueueLength: link.txQueueLength ?? TX_QUEUE_LENGTH,
    alias: link.alias,
    altnames: link.altnames ?? [],
    port: desiredPort(link.port),
    addresses: {
      present: link.addresses.filter((a) => !isKernelAddress(link, a)),
      others: 'remove',
    },
    neighbours: { present: link.neighbours, others: 'remove' },
    trafficControl: desiredTrafficControl(link),
  };
  if (link.kind === 'bridge')
    return {
      kind: 'bridge',
      ...common,
      fdb: { present: fdbOf(link).entries, others: 'remove' },
      ...(link.vlans
        ? {
            vlanFiltering: link.vlans.filtering,
            vlans: { present: link.vlans.own, others: 'remove' as const },
          }
        : {}),
    };
  if (link.kind === 'veth' && link.peer) return { kind: 'veth', peer: link.peer, ...common };
  // One whose packets are of another netns cannot be made here, nor one whose link is.
  if (link.kind === 'vxlan' && link.underlay === netns) {
    const { vni, udpPort, local, lower, learning, remotes = [] } = link;
    const tunnel = { vni, udpPort, local, lower, learning };
    return { kind: 'vxlan', ...common, ...tunnel, remotes: { present: remotes, others: 'remove' } };
  }
  if (link.kind === 'macvlan' && link.lower?.netns === netns)
    return { kind: 'macvlan', ...common, mode: link.mode, lower: link.lower.ifname };
  return { kind: link.kind === 'ifb' ? 'ifb' : 'any', ...common };
}

function desiredNetns(host: Host, name: NetnsName): DesiredNetns {
  const netns = host.netns[name];
  if (!netns) throw new Error(`netns "${name}" is not part of this host`);
  return {
    links: Object.fromEntries(
      Object.values(netns.links).map((link) => [link.ifname, desiredLink(name, link)]),
    ),
    otherLinks: 'remove',
    routes: {
      present: netns.routes.filter((r) => r.protocol !== PROTOCOL_KERNEL),
      others: 'remove',
    },
    policyRules: { present: policyRulesOf(netns), others: 'remove' },
    sysctls: netns.sysctls,
    tables: Object.fromEntries(
      Object.entries(netns.nftables).map(([key, table]) => [
        key,
        {
          family: table.family,
          name: table.name,
          chains: table.chains,
          sets: Object.fromEntries(
            Object.values(table.sets).map((set) => [
              set.name,
              { ...set, others: 'remove' as const },
            ]),
          ),
          others: 'remove' as const,
        },
      ]),
    ),
    otherTables: 'remove',
  };
}

/**
 * A host as a wish: what to want in order to come back to it. Only what `scope` names is wanted: the
 * netns of `host` itself, and links by name where the scope lists them (those that are missing shall be absent).
 */
export function desiredOf(
  host: Host,
  observedLinks: Readonly<Record<NetnsName, readonly string[] | 'all'>> = {},
): DesiredHost {
  const wish: Record<NetnsName, DesiredNetns | 'absent'> = {};
  for (const name of Object.keys(host.netns)) {
    const netns = desiredNetns(host, name);
    const links = observedLinks[name];
    if (links === undefined || links === 'all') {
      wish[name] = netns;
    } else {
      const gone = links.filter(
        (ifname) => !findLink(host, { netns: name, ifname: ifname as Ifname }),
      );
      wish[name] = {
        ...netns,
        otherLinks: 'keep',
        links: { ...netns.links, ...Object.fromEntries(gone.map((g) => [g, 'absent' as const])) },
      };
    }
  }
  return wish;
}
