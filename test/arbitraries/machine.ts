/** Hosts with pods, on which other programs have made links, bridges, addresses, routes and rules of all kinds. */
import fc from 'fast-check';
import { makeAddress } from '../../model/address.ts';
import { HOST_NETNS, type Host, getNetns, withLink, withNetns } from '../../model/host.ts';
import type { Ifname } from '../../model/ifname.ts';
import { isOurs } from '../../model/link.ts';
import { parseMac } from '../../model/mac.ts';
import type { Chain, Rule, Ruleset, Table } from '../../model/nftables.ts';
import type { Op } from '../../model/op.ts';
import { applyOp } from '../../model/ops.ts';
import { parsePrefixedIp } from '../../model/prefix.ts';
import { PODS } from '../plugin/machine.ts';
import { POD_BRIDGES } from './configuration.ts';
import { PLANNABLE, programs, runProgram } from './program.ts';

/** Without our marks: nothing that random programs made is ours. */
function unmarked(host: Host): Host {
  const links = Object.values(host.netns[HOST_NETNS]?.links ?? {});
  return links
    .filter(isOurs)
    .reduce((state, link) => withLink(state, HOST_NETNS, { ...link, alias: '' }), host);
}

/** Addresses that bridges of others have: gateways of generated configurations, some beside them, some far away. */
const ADDRESSES = [
  '10.244.1.1/24',
  '10.0.0.254/24',
  '10.0.0.1/24',
  '10.244.1.1/16',
  '198.51.100.1/32',
  'fd00::1/64',
  'fd00::9/64',
  'fd01:2::1/112',
];

/** What makes a bridge of somebody else, with a name that pods' bridges have too. */
function foreignBridges(): fc.Arbitrary<Op[]> {
  return fc
    .record({
      ifname: fc.constantFrom(...POD_BRIDGES),
      mtuBytes: fc.constantFrom(1500, 1400, 9000),
      up: fc.boolean(),
      promiscuous: fc.boolean(),
      addresses: fc.shuffledSubarray(ADDRESSES, { maxLength: 3 }),
      noPrefixRoute: fc.boolean(),
    })
    .map(({ ifname, mtuBytes, up, promiscuous, addresses, noPrefixRoute }): Op[] => {
      const ref = { netns: HOST_NETNS, ifname: ifname as Ifname };
      const mac = parseMac('02:00:00:00:0b:01');
      return [
        {
          op: 'link.add',
          netns: HOST_NETNS,
          link: { kind: 'bridge', ifname: ref.ifname, mac, mtuBytes, up },
        },
        { op: 'link.set', ...ref, set: { promiscuous } },
        ...addresses.map((text): Op => ({
          op: 'address.add',
          ...ref,
          address: { ...makeAddress(parsePrefixedIp(text)), noPrefixRoute },
        })),
      ];
    });
}

function forwardChain(policy: 'accept' | 'drop', rules: readonly Rule[]): Chain {
  const hook = { type: 'filter', hook: 'forward', priority: 0, policy } as const;
  return { name: 'FORWARD', hook, rules };
}

function opaqueRule(...expressions: string[]): Rule {
  const statements = expressions.map((expression) => ({ kind: 'opaque', expression }) as const);
  return { statements, comment: '' };
}

/** Tables of others that drop what is forwarded: by policy, or by a last rule that is not understood. */
export function foreignTables(): fc.Arbitrary<Ruleset> {
  const other = opaqueRule('ct', 'bitwise', 'cmp', 'immediate');
  const chains = fc.constantFrom(
    forwardChain('drop', []),
    forwardChain('drop', [other, other]),
    forwardChain('accept', [other, opaqueRule('reject')]),
    forwardChain('accept', [other]),
  );
  return fc
    .array(fc.tuple(fc.constantFrom('ip', 'ip6', 'inet'), chains), { maxLength: 2 })
    .map((found) =>
      Object.fromEntries(
        found.map(([family, each]): [string, Table] => [
          `${family} filter`,
          { family, name: 'filter', chains: { FORWARD: each }, sets: {} },
        ]),
      ),
    );
}

/** Hosts with foreign objects in the node's netns and in those of the pods. */
export function machineHosts(maxLength = 25): fc.Arbitrary<Host> {
  return fc
    .tuple(programs(maxLength), fc.option(foreignBridges(), { nil: [] }), foreignTables())
    .map(([seeds, ops, tables]) => {
      const { host } = runProgram([HOST_NETNS, ...PODS], seeds, PLANNABLE);
      const made = ops.reduce((state, op) => {
        const outcome = applyOp(state, op);
        return outcome.ok ? outcome.host : state;
      }, unmarked(host));
      const netns = getNetns(made, HOST_NETNS);
      return withNetns(made, HOST_NETNS, {
        ...netns,
        nftables: { ...netns.nftables, ...tables },
      });
    });
}
