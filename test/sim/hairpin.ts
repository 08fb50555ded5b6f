/** A pod that asks a service which stands for another pod of its bridge, or for itself: the matrix of K-8.5. */
import type { Ifname } from '../../model/ifname.ts';
import { parseIp } from '../../model/ip.ts';
import type { NftCommand, PortKey, Rule, Target } from '../../model/nftables.ts';
import type { Op } from '../../model/op.ts';
import { LISTEN_PORT, SERVICES, SERVICE_PORT } from './rulesets.ts';

export interface HairpinCase {
  readonly name: string;
  readonly ops: readonly Op[];
  readonly reaches: boolean;
}

const [SERVICE = parseIp('10.96.0.1')] = SERVICES;
const PODS = { itself: parseIp('10.244.1.2'), another: parseIp('10.244.1.3') };
const V_A = 'v-a' as Ifname;
const CNI0 = 'cni0' as Ifname;
const TABLE = { family: 'inet', table: 'fuzz' } as const;

function ruleset(target: keyof typeof PODS, masquerades: boolean): Op {
  const to: Rule = {
    statements: [
      { kind: 'dnat', family: 4, field: 'ip daddr . meta l4proto . th dport', map: 'services' },
    ],
    comment: '',
  };
  const key = `${SERVICE} . udp . ${SERVICE_PORT}` as PortKey;
  const element = {
    key,
    verdict: null,
    comment: '',
    target: `${PODS[target]} . ${LISTEN_PORT}` as Target,
  };
  const commands: NftCommand[] = [
    { ...TABLE, do: 'add table' },
    {
      ...TABLE,
      do: 'add set',
      set: 'services',
      keyType: 'ipv4_addr . inet_proto . inet_service',
      holds: 'ipv4_addr . inet_service',
    },
    { ...TABLE, do: 'add element', set: 'services', element },
    {
      ...TABLE,
      do: 'add chain',
      chain: 'services',
      hook: { type: 'nat', hook: 'prerouting', priority: -100, policy: 'accept' },
    },
    { ...TABLE, do: 'add rule', chain: 'services', rule: to },
    ...(masquerades
      ? ([
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
            rule: { statements: [{ kind: 'masquerade' }], comment: '' },
          },
        ] satisfies NftCommand[])
      : []),
  ];
  return { op: 'nft.batch', netns: 'node', commands };
}

interface Row {
  readonly target: keyof typeof PODS;
  readonly masquerades: boolean;
  readonly port: 'plain' | 'hairpin' | 'promiscuous bridge';
  /** With bridge-nf-call-iptables, and without. */
  readonly reaches: readonly [boolean, boolean];
}

const ROWS: readonly Row[] = [
  { target: 'another', masquerades: false, port: 'plain', reaches: [true, false] },
  { target: 'another', masquerades: true, port: 'plain', reaches: [true, true] },
  { target: 'itself', masquerades: true, port: 'plain', reaches: [false, true] },
  { target: 'itself', masquerades: true, port: 'hairpin', reaches: [true, true] },
  { target: 'itself', masquerades: false, port: 'plain', reaches: [false, false] },
  { target: 'itself', masquerades: true, port: 'promiscuous bridge', reaches: [false, true] },
];

/** Every row, with br_netfilter and without. The routed host is as it was before each. */
export const HAIRPIN_CASES: readonly HairpinCase[] = ROWS.flatMap(
  ({ target, masquerades, port, reaches }) =>
    [true, false].map((isBridged, column) => ({
      name: `${target}, ${masquerades ? 'masqueraded' : 'as it is'}, ${port}, bridge-nf-call-iptables ${isBridged ? 1 : 0}`,
      ops: [
        {
          op: 'sysctl.set',
          netns: 'node',
          key: 'net/bridge/bridge-nf-call-iptables',
          value: isBridged ? '1' : '0',
        },
        { op: 'port.set', netns: 'node', ifname: V_A, flag: 'hairpin', on: port === 'hairpin' },
        {
          op: 'link.set',
          netns: 'node',
          ifname: CNI0,
          set: { promiscuous: port === 'promiscuous bridge' },
        },
        ruleset(target, masquerades),
      ],
      reaches: reaches[column] === true,
    })),
);
