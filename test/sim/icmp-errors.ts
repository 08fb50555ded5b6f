/** Questions of which the sender is told by an ICMP error that they do not arrive, or is not (K-7.7). */
import type { Ifname } from '../../model/ifname.ts';
import { parseIp } from '../../model/ip.ts';
import type { NftCommand } from '../../model/nftables.ts';
import type { Op } from '../../model/op.ts';
import { makePolicyRule } from '../../model/policy-rule.ts';
import { parsePrefix } from '../../model/prefix.ts';
import type { ProbeRequest } from '../../sim/probe.ts';
import type { SenderError } from '../../sim/trace.ts';
import { routeOps } from './pods.ts';
import { LISTEN_PORT } from './rulesets.ts';

const name = (text: string): Ifname => text as Ifname;
const CNI1 = name('cni1');

/** The link over which the routed host reaches `d`. */
const SMALL_MTU = 1400;

type Action = 'unreachable' | 'prohibit' | 'blackhole';

function rule(family: 4 | 6, destination: string, action: Action): Op {
  const words = { family, priority: 100, destination: parsePrefix(destination), action };
  return { op: 'rule.add', netns: 'node', rule: makePolicyRule(words) };
}

/** The routed host with rules that end packets, a router behind it, and a small link. */
export const ERRING_OPS: readonly Op[] = [
  rule(4, '10.98.1.0/24', 'unreachable'),
  rule(4, '10.98.2.0/24', 'prohibit'),
  rule(4, '10.98.3.0/24', 'blackhole'),
  rule(6, 'fd98:1::/64', 'unreachable'),
  rule(6, 'fd98:2::/64', 'prohibit'),
  rule(6, 'fd98:3::/64', 'blackhole'),
  ...routeOps('node', 'cni1', '10.98.4.0/24', '10.244.2.4'),
  { op: 'sysctl.set', netns: 'c', key: 'net/ipv4/ip_forward', value: '1' },
  { op: 'link.set', netns: 'node', ifname: name('v-d'), set: { mtuBytes: SMALL_MTU } },
];

const TABLE = { family: 'inet', table: 'fuzz' } as const;

/** What leaves by cni1 is masqueraded: whoever sends an error about it knows the node only. */
export const MASQUERADE: Op = {
  op: 'nft.batch',
  netns: 'node',
  commands: [
    { ...TABLE, do: 'add table' },
    {
      ...TABLE,
      do: 'add chain',
      chain: 'masq',
      hook: { type: 'nat', hook: 'postrouting', priority: 100, policy: 'accept' },
    },
    {
      ...TABLE,
      do: 'add rule',
      chain: 'masq',
      rule: {
        statements: [
          { kind: 'match', field: 'oifname', negate: false, value: CNI1 },
          { kind: 'masquerade' },
        ],
        comment: '',
      },
    },
  ] satisfies NftCommand[],
};

export interface ErringCase {
  readonly name: string;
  readonly destination: string;
  readonly ttl?: number;
  readonly payloadBytes?: number;
  readonly error: readonly [from: string, error: SenderError['error'], mtuBytes?: number] | null;
}

const LARGE = 1420;

export const ERRING_CASES: readonly ErringCase[] = [
  {
    name: 'the TTL is 1',
    destination: '10.244.2.4',
    ttl: 1,
    error: ['10.244.1.1', 'time exceeded'],
  },
  {
    name: 'the hop limit is 1',
    destination: 'fd00:2::4',
    ttl: 1,
    error: ['fd00:1::1', 'time exceeded'],
  },
  { name: 'there is no route', destination: '10.97.0.1', error: ['10.244.1.1', 'net unreachable'] },
  {
    name: 'there is no route of IPv6',
    destination: 'fd97::1',
    error: ['fd00:1::1', 'net unreachable'],
  },
  {
    name: 'a rule says unreachable',
    destination: '10.98.1.1',
    error: ['10.244.1.1', 'net unreachable'],
  },
  {
    name: 'a rule of IPv6 says unreachable',
    destination: 'fd98:1::1',
    error: ['fd00:1::1', 'net unreachable'],
  },
  {
    name: 'a rule prohibits it',
    destination: '10.98.2.1',
    error: ['10.244.1.1', 'admin prohibited'],
  },
  {
    name: 'a rule of IPv6 prohibits it',
    destination: 'fd98:2::1',
    error: ['fd00:1::1', 'admin prohibited'],
  },
  { name: 'a rule is a blackhole', destination: '10.98.3.1', error: null },
  { name: 'a rule of IPv6 is a blackhole', destination: 'fd98:3::1', error: null },
  {
    name: 'nobody answers beyond the router',
    destination: '10.244.2.9',
    error: ['10.244.1.1', 'host unreachable'],
  },
  {
    name: 'nobody answers by ND',
    destination: 'fd00:2::9',
    error: ['fd00:1::1', 'host unreachable'],
  },
  {
    name: 'the next link is small',
    destination: '10.244.3.2',
    payloadBytes: LARGE,
    error: ['10.244.1.1', 'too big', SMALL_MTU],
  },
  {
    name: 'the next link of IPv6 is small',
    destination: 'fd00:3::2',
    payloadBytes: LARGE,
    error: ['fd00:1::1', 'too big', SMALL_MTU],
  },
  {
    name: 'it is used up at the second router',
    destination: '10.98.4.1',
    ttl: 2,
    error: ['10.244.2.4', 'time exceeded'],
  },
];

/** The node's own address towards those behind cni1 who do not answer. */
const SELF: Readonly<Record<string, string>> = {
  '10.244.2.9': '10.244.2.1',
  'fd00:2::9': 'fd00:2::1',
};

/** Behind cni1, where the masquerade is. */
const MASQUERADED = /^(10\.244\.2|10\.98\.4|fd00:2)[.:]/;

/** Who tells what through the masquerade: the same, but where the node tells itself, who sent it, what it then translates back. */
export const MASQUERADED_CASES: readonly ErringCase[] = ERRING_CASES.filter(({ destination }) =>
  MASQUERADED.test(destination),
).map((each) => {
  const from = SELF[each.destination];
  return from === undefined ? each : { ...each, error: [from, 'host unreachable'] };
});

/** As `a` asks it over UDP. */
export function requestOf({ destination, ttl, payloadBytes }: ErringCase): ProbeRequest {
  return {
    netns: 'a',
    destination: parseIp(destination),
    to: { protocol: 'udp', port: LISTEN_PORT },
    ...(ttl === undefined ? {} : { ttl }),
    ...(payloadBytes === undefined ? {} : { payloadBytes }),
  };
}

/** The error of a case as a trace has it. */
export function expectedOf({ error }: ErringCase): SenderError | null {
  return error && { from: parseIp(error[0]), error: error[1], mtuBytes: error[2] ?? null };
}
