import type { Fault } from '../model/errno.ts';
import type { Host, Netns, NetnsName, SysctlKey } from '../model/host.ts';
import { findNetns } from '../model/host.ts';
import type { KernelProfile } from '../model/kernel-profile.ts';
import type { Link, LinkRef } from '../model/link.ts';
import { type Ruleset, type Table, filtersForwarded, tableKey } from '../model/nftables.ts';
import { applyOp } from '../model/ops.ts';
import { DEFAULT_PREFIX, type Prefix } from '../model/prefix.ts';
import { type Route, TABLE_MAIN } from '../model/route.ts';
import { tellLowers } from '../model/upper.ts';
import {
  type Backend,
  BRIDGE_VLANS,
  type NetnsScope,
  type Scope,
  type TableScope,
} from './backend.ts';

/** The kernel in memory, and the host as it now is: for tests, for the demonstration, and for machines without Linux. */
export interface MemoryBackend extends Backend {
  readonly host: () => Host;
  /** Puts another state in place, as if somebody else had made it. */
  readonly replace: (host: Host) => void;
}

function observeTable(table: Table, scope: TableScope): Table {
  if (scope.elements === 'all') return table;
  const wanted = scope.elements;
  const sets = Object.fromEntries(
    Object.values(table.sets).map((set) => {
      const found = (wanted[set.name] ?? []).flatMap((key) => {
        const element = Object.hasOwn(set.elements, key) ? set.elements[key] : undefined;
        return element ? [[key, element] as const] : [];
      });
      const elements = Object.fromEntries(found);
      return [set.name, { ...set, elements }];
    }),
  );
  return { ...table, sets };
}

/** The chains that filter what is forwarded, of tables that are not read otherwise. */
function forwardChains(ruleset: Ruleset, known: Ruleset): Ruleset {
  const tables: Record<string, Table> = {};
  for (const [key, table] of Object.entries(ruleset)) {
    const chains = Object.values(table.chains).filter(
      ({ hook }) => hook && filtersForwarded(table.family, hook),
    );
    if (chains.length > 0 && !Object.hasOwn(known, key))
      tables[key] = {
        ...table,
        chains: Object.fromEntries(chains.map((chain) => [chain.name, chain])),
        sets: {},
      };
  }
  return tables;
}

function observeRuleset(ruleset: Ruleset, scope: NetnsScope['nftables']): Ruleset {
  if (scope === 'all') return ruleset;
  const tables: Record<string, Table> = {};
  for (const each of scope) {
    const table = ruleset[tableKey(each)];
    if (table) tables[tableKey(each)] = observeTable(table, each);
  }
  return tables;
}

function defaultRoute(netns: Netns): Route | undefined {
  const outward = (destination: Prefix): Route | undefined =>
    netns.routes
      .filter(
        (r) => r.destination === destination && r.type === 'unicast' && r.table === TABLE_MAIN,
      )
      .toSorted((a, b) => a.metric - b.metric)[0];
  return outward(DEFAULT_PREFIX[4]) ?? outward(DEFAULT_PREFIX[6]);
}

/** A link whose traffic control nobody looked at. */
function withoutTrafficControl(link: Link): Link {
  const { trafficControl: _unread, ...rest } = link;
  return rest;
}

/** A link whose forwarding database nobody looked at. */
function withoutFdb(link: Link): Link {
  if (link.kind === 'vxlan') {
    const { remotes: _untold, ...rest } = link;
    return rest;
  }
  if (link.kind !== 'bridge') return link;
  const { fdb: _unread, ...rest } = link;
  return rest;
}

/** A link whose VLANs nobody looked at. */
function withoutVlans(link: Link): Link {
  if (link.kind === 'bridge' && link.vlans) {
    const { vlans: _own, ...rest } = link;
    return rest;
  }
  if (!link.port?.vlans) return link;
  const { vlans: _unread, ...port } = link.port;
  return { ...link, port };
}

function observeNetns(host: Host, netns: Netns, scope: NetnsScope, scopes: Scope): Netns {
  const outward = scope.routes === 'default' ? defaultRoute(netns) : undefined;
  const isRead = (name: string): boolean =>
    scope.links === 'all' || scope.links.some((n) => n === name) || outward?.device === name;
  const isSeen = (ref: LinkRef): boolean =>
    sees(scopes, ref.netns, ref.ifname) && findNetns(host, ref.netns) !== undefined;
  const seen = ({ uppers: _told, ...link }: Link): Link => {
    // Where not all ports were looked at, what the bridge would take from them is not known.
    if (link.kind === 'bridge' && scope.links !== 'all')
      return { ...link, macChosen: true, mtuChosen: true };
    // Like a netlink reader, see a peer, or what a link is on, only where both were looked at.
    if (link.kind === 'veth' && link.peer && !isSeen(link.peer)) return { ...link, peer: null };
    if (link.kind === 'macvlan' && link.lower && !isSeen(link.lower))
      return { ...link, lower: null };
    if (link.kind === 'vxlan' && link.underlay !== null && !Object.hasOwn(scopes, link.underlay))
      return { ...link, underlay: null, lower: null };
    return link;
  };
  // Not by assignment: a link may be called __proto__.
  const links = Object.fromEntries(
    Object.values(netns.links)
      .filter(({ ifname }) => isRead(ifname))
      .map((link) => (scope.vlans ? link : withoutVlans(link)))
      .map((link) => (scope.fdb && scope.links === 'all' ? link : withoutFdb(link)))
      .map((link) => (scope.trafficControl ? link : withoutTrafficControl(link)))
      .map((link) => [link.ifname, seen(link)]),
  );
  const sysctls: Record<SysctlKey, string> = {};
  for (const key of scope.sysctls) {
    const value = netns.sysctls[key];
    if (value !== undefined) sysctls[key] = value;
  }
  const used = netns.routes.filter((r) => r.device === null || Object.hasOwn(links, r.device));
  const routes = scope.routes === 'all' ? used : outward ? [outward] : [];
  const named = observeRuleset(netns.nftables, scope.nftables);
  const nftables = scope.forwardChains
    ? { ...named, ...forwardChains(netns.nftables, named) }
    : named;
  const { policyRules } = netns;
  const rules = scope.policyRules && policyRules ? { policyRules } : {};
  return { links, routes, ...rules, sysctls, nftables };
}

/** Whether bridges know VLANs is said to those who ask for VLANs. */
function observeKernel(
  kernel: KernelProfile | undefined,
  hasVlans: boolean,
): { readonly kernel?: KernelProfile } {
  const { bridgeVlans = false, ...rest } = kernel ?? {};
  if (hasVlans) return { kernel: { ...rest, bridgeVlans } };
  return kernel ? { kernel: rest } : {};
}

function sees(scopes: Scope, name: NetnsName, ifname: string): boolean {
  const scope = scopes[name];
  return scope !== undefined && (scope.links === 'all' || scope.links.some((n) => n === ifname));
}

/** A backend over a host in memory; operations have the effects and errors that the model gives them. */
export function makeMemoryBackend(initial: Host): MemoryBackend {
  let state = initial;
  return {
    host: () => state,
    replace: (host) => {
      state = host;
    },
    observe: (scopes) => {
      const netns = Object.entries(scopes).flatMap(([name, scope]) => {
        const found = findNetns(state, name);
        return found ? [[name, observeNetns(state, found, scope, scopes)] as const] : [];
      });
      const hasVlans = Object.values(scopes).some(({ vlans }) => vlans);
      return {
        ...tellLowers({ netns: Object.fromEntries(netns) }),
        ...observeKernel(state.kernel, hasVlans),
      };
    },
    execute: (op): Fault | undefined => {
      const outcome = applyOp(state, op);
      if (!outcome.ok) return outcome.fault;
      state = outcome.host;
      return undefined;
    },
    lacks: (extra) => (extra?.vlans && state.kernel?.bridgeVlans !== true ? [BRIDGE_VLANS] : []),
    close: () => undefined,
  };
}
