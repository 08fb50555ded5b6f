/** What an attachment leaves behind for good reasons, so that tests can look past it. */
import { makeAddress } from '../../model/address.ts';
import { HOST_NETNS, type Host, findLink } from '../../model/host.ts';
import type { Ifname } from '../../model/ifname.ts';
import { familyOf } from '../../model/ip.ts';
import { OWNER_MARK } from '../../model/link.ts';
import { parseMac } from '../../model/mac.ts';
import type { Chain, Rule, Ruleset, Table } from '../../model/nftables.ts';
import type { Op } from '../../model/op.ts';
import { parsePrefixedIp } from '../../model/prefix.ts';
import type { RawConfig } from '../arbitraries/configuration.ts';
import { plainState } from '../state.ts';
import { afterOps } from './machine.ts';

interface PlainNetns {
  readonly nftables: Ruleset;
  readonly links: PlainLinks;
  readonly sysctls: Readonly<Record<string, string>>;
  readonly routes: readonly string[];
}

/** How IPv6 behaves on a bridge of ours is chosen with its first IPv6 pod, and stays until the bridge goes. */
export const OF_SHARED_BRIDGE = /^net\/ipv6\/conf\/(cni0|br[01])(\.\d+)?\/accept_(dad|ra)$/;

type PlainLinks = Readonly<Record<string, Readonly<Record<string, unknown>>>>;

/** The link of a VLAN's gateways has the MTU of the first pod that needed it, until it goes; and the bridge has no greater one. */
function withoutFirstMtu(links: PlainLinks): PlainLinks {
  const isShared = ({ kind, alias }: PlainLinks[string]): boolean =>
    kind === 'veth' && alias === OWNER_MARK;
  const bridges = new Set(
    Object.values(links)
      .filter(isShared)
      .map(({ port }) => (port as { readonly master: string } | null)?.master),
  );
  return Object.fromEntries(
    Object.entries(links).map(([name, link]) => [
      name,
      isShared(link) || bridges.has(name) ? { ...link, mtuBytes: null } : link,
    ]),
  );
}

function isGuest({ comment }: Rule): boolean {
  return comment.startsWith(OWNER_MARK);
}

/** Rules of ours in a chain of somebody else's stand in the order in which their bridges came. */
function withSortedGuests(chain: Chain): Chain {
  const guests = chain.rules.filter(isGuest).toSorted((a, b) => (a.comment < b.comment ? -1 : 1));
  const rules = chain.rules.map((rule) => (isGuest(rule) ? (guests.shift() ?? rule) : rule));
  return { ...chain, rules };
}

function sortedTable(table: Table): Table {
  const chains = Object.entries(table.chains).map(([name, c]) => [name, withSortedGuests(c)]);
  return { ...table, chains: Object.fromEntries(chains) as Table['chains'] };
}

function withoutOrder(ruleset: Ruleset): Ruleset {
  return Object.fromEntries(
    Object.entries(ruleset).map(([key, table]) => [key, sortedTable(table)]),
  );
}

/** A host in a form that compares equal whether it forwards or not: forwarding stays once it is on, since others may rely on it. */
export function withoutForwarding(host: Host): unknown {
  const netns = Object.entries(plainState(host) as Record<string, PlainNetns>);
  return netns.map(([name, { links, sysctls, routes, nftables, ...rest }]) => ({
    name,
    ...rest,
    nftables: withoutOrder(nftables),
    links: withoutFirstMtu(links),
    routes: routes.filter((route) => !route.includes('"anycast"')),
    sysctls: Object.fromEntries(
      Object.entries(sysctls).filter(
        ([key]) => !key.includes('forward') && !OF_SHARED_BRIDGE.test(key),
      ),
    ),
  }));
}

/**
 * A host on which pods were before: a bridge of somebody else that stands in for the pods' is up and once
 * had a port, and where it has no IPv4 address of its own, it has lost what the kernel takes with the last
 * one (K-3.5): a gateway's. That much of it stays different when the first pod goes.
 */
export function usedBefore(host: Host, raw: RawConfig): Host {
  const ifname = raw['bridge'] as Ifname;
  const bridge = findLink(host, { netns: HOST_NETNS, ifname });
  if (bridge?.kind !== 'bridge') return host;
  const ref = { netns: HOST_NETNS, ifname };
  const gateway = makeAddress(parsePrefixedIp('192.0.2.1/32'));
  const lastAddress: Op[] = bridge.addresses.some(({ ip }) => familyOf(ip) === 4)
    ? []
    : [
        { op: 'address.add', ...ref, address: gateway },
        { op: 'address.del', ...ref, address: gateway },
      ];
  const mac = parseMac('fe:00:00:00:00:01');
  const probe = { ifname: 'probe' as Ifname, mac, mtuBytes: 1500, up: false };
  const peer = { ...probe, ifname: 'probe-peer' as Ifname, netns: HOST_NETNS };
  const set = { op: 'link.set' as const, netns: HOST_NETNS, ifname };
  return afterOps(host, [
    { ...set, set: { up: true } },
    ...(raw['promiscMode'] === true ? [{ ...set, set: { promiscuous: true } }] : []),
    { op: 'link.add', netns: HOST_NETNS, link: { kind: 'veth', ...probe, master: ifname, peer } },
    { op: 'link.del', netns: HOST_NETNS, ifname: probe.ifname },
    ...lastAddress,
  ]);
}
