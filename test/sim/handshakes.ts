/** Connections over TCP on the routed host, and rules that only part of a handshake meets. */
import { type Host, getNetns } from '../../model/host.ts';
import type { Expression } from '../../model/nft-expression.ts';
import type { Statement, Table } from '../../model/nftables.ts';
import type { Op } from '../../model/op.ts';
import { ROUTED } from './hosts.ts';
import { addressOps, applyAll, routeOps, vethOps } from './pods.ts';

/** How far a handshake comes. */
export type Opening =
  /** Whoever is asked has heard all of it. */
  | 'open'
  /** Whoever asks has its answer, and nothing after that arrives. */
  | 'half open'
  /** There is no answer. */
  | 'none';

export interface Handshake {
  readonly name: string;
  /** Changes of the routed host. */
  readonly ops: readonly Op[];
  /** A rule in a chain of forward in netns node, in the words of nft, and what it is read as. */
  readonly rule: string | null;
  readonly details: readonly Expression[];
  /** How far netns a comes with c, which is behind the node. */
  readonly opening: Opening;
}

/** A link between a and c, by which c sends to a. */
const SHORTCUT: readonly Op[] = [
  ...vethOps('c', 'short', '02:00:00:00:02:01', null, 'a', 'short', '02:00:00:00:02:02'),
  ...addressOps('c', 'short', '10.9.9.1/30'),
  ...addressOps('a', 'short', '10.9.9.2/30'),
  ...routeOps('c', 'short', '10.244.1.2/32', '10.9.9.2'),
];

/** The packet's state to its connection has this bit. */
function state(bit: string): readonly Expression[] {
  return [
    { name: 'ct', key: 'state', direction: null, to: 0 },
    { name: 'bitwise', from: 0, to: 0, mask: bit, xor: '00000000' },
    { name: 'cmp', from: 0, comparison: 'neq', value: '00000000' },
  ];
}

const INVALID = state('01000000');
const NEW = state('08000000');

/** The flags SYN and ACK are these. */
function flags(value: string): readonly Expression[] {
  return [
    { name: 'meta', key: 'l4proto', to: 0 },
    { name: 'cmp', from: 0, comparison: 'eq', value: '06' },
    { name: 'payload', header: 'transport', offset: 13, bytes: 1, to: 0 },
    { name: 'bitwise', from: 0, to: 0, mask: '12', xor: '00' },
    { name: 'cmp', from: 0, comparison: 'eq', value },
  ];
}

export const HANDSHAKES: readonly Handshake[] = [
  { name: 'without rules', ops: [], rule: null, details: [], opening: 'open' },
  {
    name: 'where invalid packets are dropped',
    ops: [],
    rule: 'ct state invalid drop',
    details: INVALID,
    opening: 'open',
  },
  {
    name: 'where the answer goes another way',
    ops: SHORTCUT,
    rule: null,
    details: [],
    opening: 'open',
  },
  {
    name: 'where the answer goes another way, and invalid packets are dropped',
    ops: SHORTCUT,
    rule: 'ct state invalid drop',
    details: INVALID,
    opening: 'half open',
  },
  {
    name: 'where connections that begin in their middle are dropped',
    ops: [],
    rule: 'ct state new tcp flags & (syn | ack) == ack drop',
    details: [...NEW, ...flags('10')],
    opening: 'open',
  },
  {
    name: 'where what opens them is dropped',
    ops: [],
    rule: 'tcp flags & (syn | ack) == syn drop',
    details: flags('02'),
    opening: 'none',
  },
  {
    name: 'where answers are dropped',
    ops: [],
    rule: 'tcp flags & (syn | ack) == (syn | ack) drop',
    details: flags('12'),
    opening: 'none',
  },
  {
    name: 'where what acknowledges an answer is dropped',
    ops: [],
    rule: 'tcp flags & (syn | ack) == ack drop',
    details: flags('10'),
    opening: 'half open',
  },
];

/** What all of these rules are in. */
export const HANDSHAKE_TABLE = { family: 'ip', name: 'handshake' } as const;

function tableOf({ details }: Handshake): Table {
  const statements = details.map((detail): Statement => ({
    kind: 'opaque',
    expression: detail.name,
    detail,
  }));
  const rule = {
    statements: [...statements, { kind: 'verdict', verdict: 'drop' } as const],
    comment: '',
  };
  const hook = { type: 'filter', hook: 'forward', priority: 0, policy: 'accept' } as const;
  return {
    ...HANDSHAKE_TABLE,
    sets: {},
    chains: { forward: { name: 'forward', hook, rules: details.length === 0 ? [] : [rule] } },
  };
}

/** The host of a case. */
export function handshakeHost(handshake: Handshake): Host {
  const host = applyAll(ROUTED, handshake.ops);
  const node = getNetns(host, 'node');
  const nftables = { [`${HANDSHAKE_TABLE.family} ${HANDSHAKE_TABLE.name}`]: tableOf(handshake) };
  return { ...host, netns: { ...host.netns, node: { ...node, nftables } } };
}
