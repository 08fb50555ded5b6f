/** The routed host with links of several MTUs, and with rules that see fragments or whole packets. */
import type { Host } from '../../model/host.ts';
import type { Ifname } from '../../model/ifname.ts';
import type { Expression, Hex } from '../../model/nft-expression.ts';
import type { ChainHook, Rule, Statement, Verdict } from '../../model/nftables.ts';
import type { Op } from '../../model/op.ts';
import { ROUTED } from './hosts.ts';
import { applyAll } from './pods.ts';

/** Sets the MTU of a link. */
export function mtuOp(netns: string, ifname: string, mtuBytes: number): Op {
  return { op: 'link.set', netns, ifname: ifname as Ifname, set: { mtuBytes } };
}

/** Sets the MTU of both ends of the veth of a pod. */
export function wireOps(pod: 'a' | 'b' | 'c' | 'd', mtuBytes: number): readonly Op[] {
  return [mtuOp('node', `v-${pod}`, mtuBytes), mtuOp(pod, 'eth0', mtuBytes)];
}

/** Has packets that bridges forward pass the chains of netns node. */
export const BRIDGED_OPS: readonly Op[] = ['iptables', 'ip6tables'].map((name) => ({
  op: 'sysctl.set',
  netns: 'node',
  key: `net/bridge/bridge-nf-call-${name}`,
  value: '1',
}));

function expression(detail: Expression): Statement {
  return { kind: 'opaque', expression: detail.name, detail };
}

function rule(details: readonly Expression[], verdict: Verdict): Rule {
  return { statements: [...details.map(expression), { kind: 'verdict', ...verdict }], comment: '' };
}

/** `ip frag-off & 0x1fff != 0`, of packets of IPv4. */
const IS_LATER: readonly Expression[] = [
  { name: 'payload', header: 'network', offset: 6, bytes: 2, to: 4 },
  { name: 'bitwise', from: 4, to: 4, mask: '1fff', xor: '0000' },
  { name: 'cmp', from: 4, comparison: 'neq', value: '0000' },
];

/** `th dport 7000`, which asks for the header of the transport. */
const TO_PORT: readonly Expression[] = [
  { name: 'payload', header: 'transport', offset: 2, bytes: 2, to: 4 },
  { name: 'cmp', from: 4, comparison: 'eq', value: '1b58' },
];

/** The same where the later fragment of a packet has other bytes. */
const LIES_THERE: readonly Expression[] = [
  { name: 'payload', header: 'transport', offset: 2, bytes: 2, to: 4 },
  { name: 'cmp', from: 4, comparison: 'eq', value: 'c2c3' },
];

/** What takes no short cut: three bytes at once. */
const LONG: readonly Expression[] = [
  { name: 'payload', header: 'transport', offset: 1, bytes: 3, to: 4 },
  { name: 'cmp', from: 4, comparison: 'eq', value: 'c1c2c3' },
];

/** `meta l4proto udp`, which every fragment knows. */
function isOf(protocol: Hex): readonly Expression[] {
  return [
    { name: 'meta', key: 'l4proto', to: 4 },
    { name: 'cmp', from: 4, comparison: 'eq', value: protocol },
  ];
}

/** `ct state invalid`, which makes a netns track connections. */
const IS_INVALID: readonly Expression[] = [
  { name: 'ct', key: 'state', direction: null, to: 4 },
  { name: 'bitwise', from: 4, to: 4, mask: '01000000', xor: '00000000' },
  { name: 'cmp', from: 4, comparison: 'neq', value: '00000000' },
];

export const RULES = {
  'drops later fragments': rule(IS_LATER, { verdict: 'drop' }),
  'accepts a port': rule(TO_PORT, { verdict: 'accept' }),
  'accepts UDP': rule(isOf('11'), { verdict: 'accept' }),
  'accepts ICMPv6': rule(isOf('3a'), { verdict: 'accept' }),
  'accepts what lies there': rule(LIES_THERE, { verdict: 'accept' }),
  'accepts more of it': rule(LONG, { verdict: 'accept' }),
  'asks for connections': rule(IS_INVALID, { verdict: 'drop' }),
} as const;

/** The host with a chain of filter in netns node that has these rules. */
export function withChain(
  host: Host,
  hook: ChainHook['hook'],
  policy: ChainHook['policy'],
  ...rules: readonly (keyof typeof RULES)[]
): Host {
  const { node } = host.netns;
  if (!node) throw new Error('there is no netns node');
  const chain = {
    name: 'sized',
    hook: { type: 'filter', hook, priority: 0, policy } as const,
    rules: rules.map((name) => RULES[name]),
  };
  const table = { family: 'inet', name: 'sized', chains: { sized: chain }, sets: {} } as const;
  const nftables = { ...node.nftables, 'inet sized': table };
  return { ...host, netns: { ...host.netns, node: { ...node, nftables } } };
}

/** The host on the way to whose `d` packets of 1400 bytes fit. */
export const NARROW: Host = applyAll(ROUTED, wireOps('d', 1400));
