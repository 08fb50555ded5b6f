/**
 * What is not ours, told without asking the plugin: the shadow of a node is a second host on which the same others do
 * the same things, and we were never there. What the node has and its shadow has not is ours.
 */
import assert from 'node:assert/strict';
import { type Host, type Netns, type NetnsName, findNetns } from '../../../model/host.ts';
import { type Link, OWNER_MARK } from '../../../model/link.ts';
import type { Ruleset } from '../../../model/nftables.ts';
import type { Op } from '../../../model/op.ts';
import { applyOp } from '../../../model/ops.ts';
import { splitLinkSysctl } from '../../../model/sysctl.ts';
import type { OpSeed } from '../../arbitraries/draw.ts';
import { PLANNABLE, resolveOp } from '../../arbitraries/program.ts';
import { OF_SHARED_BRIDGE } from '../lasting.ts';

/** What an ADD does to a bridge of somebody else that it is given: while pods are on it there are gateways, and for good it is up and promiscuous. */
function withoutUse(
  { ifname, kind, alias, port, addresses }: Link,
  pods: 'there' | 'gone',
): unknown {
  const shown = { ifname, kind, alias, port };
  return pods === 'gone' ? { ...shown, addresses } : shown;
}

/** Rules of ours are guests in chains of others, and not their owner's. */
function withoutGuests(ruleset: Ruleset): unknown {
  return Object.values(ruleset).map((table) => ({
    ...table,
    chains: Object.values(table.chains).map((chain) => ({
      ...chain,
      rules: chain.rules.filter(({ comment }) => !comment.startsWith(OWNER_MARK)),
    })),
  }));
}

/** Settings of the netns that ADD switches on for good, since others may rely on them, and what the kernel passes on of them. */
function isLasting(key: string): boolean {
  return key === 'net/ipv4/ip_forward' || splitLinkSysctl(key)?.name === 'forwarding';
}

function picked<T>(record: Readonly<Record<string, T>>, names: object): Record<string, T> {
  return Object.fromEntries(Object.entries(record).filter(([name]) => Object.hasOwn(names, name)));
}

/** Routes that come and go with forwarding, or stay from the past of a link. */
function isPassing({ type }: { readonly type: string }): boolean {
  return type === 'multicast' || type === 'anycast';
}

/** A host without what ADD switches on for good, or on a bridge until that goes. */
export function withoutLasting(host: Host): Host {
  const netns = Object.entries(host.netns).map(([name, each]): [string, Netns] => [
    name,
    {
      ...each,
      routes: each.routes.filter((route) => !isPassing(route)),
      sysctls: Object.fromEntries(
        Object.entries(each.sysctls).filter(
          ([key]) => !isLasting(key) && !OF_SHARED_BRIDGE.test(key),
        ),
      ),
    },
  ]);
  return { ...host, netns: Object.fromEntries(netns) };
}

/** The part of a netns that its shadow has too, with all that shows of it and in its order. */
function foreignNetns(
  netns: Netns,
  shadow: Netns,
  used: ReadonlySet<string>,
  pods: 'there' | 'gone',
): unknown {
  const links = Object.values(picked(netns.links, shadow.links));
  const sysctls = Object.entries(picked(netns.sysctls, shadow.sysctls));
  return {
    links: links.map((link) => (used.has(link.ifname) ? withoutUse(link, pods) : link)),
    routes: netns.routes.filter(
      ({ device }) => device === null || (Object.hasOwn(shadow.links, device) && !used.has(device)),
    ),
    policyRules: netns.policyRules,
    sysctls: sysctls.filter(([key]) => !used.has(splitLinkSysctl(key)?.of ?? '')),
    nftables:
      pods === 'gone'
        ? picked(netns.nftables, shadow.nftables)
        : withoutGuests(picked(netns.nftables, shadow.nftables)),
  };
}

/** What of a node is not ours. `used` are the bridges that attachments were told to use. */
export function foreignPart(
  host: Host,
  shadow: Host,
  used: ReadonlySet<string>,
  pods: 'there' | 'gone' = 'there',
): unknown {
  const known = withoutLasting(host);
  return Object.entries(shadow.netns).map(([name, netns]) => {
    const found = findNetns(known, name);
    return [name, found && foreignNetns(found, netns, used, pods)];
  });
}

/** Fails unless the part of others is the same, to the bit, as it was before. */
export function assertUntouched(before: unknown, after: unknown): void {
  assert.deepEqual(after, before, 'something of others was touched');
}

/** What somebody does, as he sees the host that has nothing of ours: undefined where he could not. */
export function foreignOp(
  shadow: Host,
  universe: readonly NetnsName[],
  seed: OpSeed,
): Op | undefined {
  const op = resolveOp(shadow, universe, seed, PLANNABLE);
  return applyOp(shadow, op).ok ? op : undefined;
}

/** All of a host but what ADD does for good, in a form that compares equal whatever came first. */
function remains(host: Host, used: ReadonlySet<string>): unknown {
  return JSON.parse(
    JSON.stringify(foreignPart(host, host, used, 'gone'), (key, part: unknown) => {
      if (key === 'hadPorts' || key === 'macChosen' || key === 'mtuChosen') return undefined;
      return Array.isArray(part) ? part.map((each) => JSON.stringify(each)).toSorted() : part;
    }),
  );
}

/** Fails unless the node is as it would be if we had never been there. */
export function assertNothingLeft(host: Host, shadow: Host, used: ReadonlySet<string>): void {
  assert.deepEqual(remains(host, used), remains(shadow, used), 'something of ours is left');
}
