import type { Ifname } from './ifname.ts';
import type { KernelProfile } from './kernel-profile.ts';
import type { Link, LinkRef } from './link.ts';
import type { Ruleset } from './nftables.ts';
import type { PolicyRule } from './policy-rule.ts';
import type { Route } from './route.ts';

/**
 * A network namespace by the name that `ip` takes: a name under /run/netns, an absolute path, or
 * `host`, the one that the program runs in.
 */
export type NetnsName = string;
export const HOST_NETNS: NetnsName = 'host';

/** A sysctl by its path below /proc/sys, `net/ipv4/conf/eth0/arp_notify`: names may contain dots, never slashes. */
export type SysctlKey = string;

/** One network namespace. Routes are in the order they were added; the other parts are keyed. */
export interface Netns {
  readonly links: Readonly<Record<string, Link>>;
  readonly routes: readonly Route[];
  /** Absent: those that every netns is made with, or nobody looked; else by family, and in the order in which they are asked. */
  readonly policyRules?: readonly PolicyRule[];
  /** A policy rule of IPv6 was once added: only from then on does IPv6 ask its rules at all (K-5.4). Nothing shows it. */
  readonly hadIpv6Rules?: true;
  /** Only those that were read or written: absent means not looked at. */
  readonly sysctls: Readonly<Record<SysctlKey, string>>;
  readonly nftables: Ruleset;
  /** The numbers of its links, by their names; absent: no rule of its ruleset asks for one, or nobody looked. */
  readonly ifindexes?: Readonly<Record<string, number>>;
}

/** The network state of a machine, or the part of it that was looked at. Plain JSON. */
export interface Host {
  readonly netns: Readonly<Record<NetnsName, Netns>>;
  /** Absent: nobody looked. */
  readonly kernel?: KernelProfile;
}

export function findNetns(host: Host, name: NetnsName): Netns | undefined {
  return Object.hasOwn(host.netns, name) ? host.netns[name] : undefined;
}

export function getNetns(host: Host, name: NetnsName): Netns {
  const netns = findNetns(host, name);
  if (netns === undefined) throw new Error(`netns "${name}" is not part of this host`);
  return netns;
}

export function findLink(host: Host, ref: LinkRef): Link | undefined {
  const netns = findNetns(host, ref.netns);
  return netns && Object.hasOwn(netns.links, ref.ifname) ? netns.links[ref.ifname] : undefined;
}

export function getLink(host: Host, ref: LinkRef): Link {
  const link = findLink(host, ref);
  if (link === undefined) throw new Error(`netns "${ref.netns}" has no link "${ref.ifname}"`);
  return link;
}

export function withNetns(host: Host, name: NetnsName, netns: Netns): Host {
  return { ...host, netns: { ...host.netns, [name]: netns } };
}

export function withLink(host: Host, netnsName: NetnsName, link: Link): Host {
  const netns = getNetns(host, netnsName);
  return withNetns(host, netnsName, { ...netns, links: { ...netns.links, [link.ifname]: link } });
}

/** A record without one of its keys. */
export function without<T>(record: Readonly<Record<string, T>>, key: string): Record<string, T> {
  const { [key]: _gone, ...rest } = record;
  return rest;
}

/** The ports of a bridge, by name. */
export function portsOf(netns: Netns, bridge: Ifname): Link[] {
  return Object.values(netns.links)
    .filter((link) => link.port?.master === bridge)
    .toSorted((a, b) => (a.ifname < b.ifname ? -1 : 1));
}
