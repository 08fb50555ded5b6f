/** A pod asks a service whose answerer its bridge has not heard of yet, and hands packets to the chains of IP (K-8.4). */
import { familyOf, parseIp } from '../../model/ip.ts';
import type { NftCommand, PortKey, Target } from '../../model/nftables.ts';
import type { Op } from '../../model/op.ts';
import type { SenderError } from '../../sim/trace.ts';
import { LISTEN_PORT, SERVICES, SERVICE_PORT } from './rulesets.ts';

export interface RedirectedCase {
  readonly name: string;
  readonly service: (typeof SERVICES)[number];
  readonly ops: readonly Op[];
  readonly reaches: boolean;
  /** What the sender is told, by the service. */
  readonly error: SenderError['error'] | null;
}

const TABLE = { family: 'inet', table: 'fuzz' } as const;

function serviceOf(target: string): RedirectedCase['service'] {
  const service = SERVICES.find((ip) => familyOf(ip) === familyOf(parseIp(target)));
  if (service === undefined) throw new Error(`there is no service for ${target}`);
  return service;
}

function ruleset(service: RedirectedCase['service'], target: string): Op {
  const [family, type, address] =
    familyOf(service) === 4
      ? ([4, 'ipv4_addr', 'ip daddr'] as const)
      : ([6, 'ipv6_addr', 'ip6 daddr'] as const);
  const field = `${address} . meta l4proto . th dport` as const;
  const commands: NftCommand[] = [
    { ...TABLE, do: 'add table' },
    {
      ...TABLE,
      do: 'add set',
      set: 'services',
      keyType: `${type} . inet_proto . inet_service`,
      holds: `${type} . inet_service`,
    },
    {
      ...TABLE,
      do: 'add element',
      set: 'services',
      element: {
        key: `${service} . udp . ${SERVICE_PORT}` as PortKey,
        target: `${parseIp(target)} . ${LISTEN_PORT}` as Target,
        verdict: null,
        comment: '',
      },
    },
    {
      ...TABLE,
      do: 'add chain',
      chain: 'services',
      hook: { type: 'nat', hook: 'prerouting', priority: -100, policy: 'accept' },
    },
    {
      ...TABLE,
      do: 'add rule',
      chain: 'services',
      rule: { statements: [{ kind: 'dnat', family, field, map: 'services' }], comment: '' },
    },
  ];
  return { op: 'nft.batch', netns: 'node', commands };
}

function sysctl(key: string, value: string): Op {
  return { op: 'sysctl.set', netns: 'node', key, value };
}

interface Row {
  readonly target: string;
  readonly forwarding: boolean;
  readonly reaches: boolean;
  readonly error: SenderError['error'] | null;
}

const ROWS: readonly Row[] = [
  { target: '10.244.1.3', forwarding: true, reaches: true, error: null },
  { target: '10.244.1.3', forwarding: false, reaches: false, error: null },
  { target: '10.244.1.99', forwarding: true, reaches: false, error: 'host unreachable' },
  { target: '10.50.0.1', forwarding: true, reaches: false, error: 'net unreachable' },
  { target: '10.50.0.1', forwarding: false, reaches: false, error: null },
  { target: '10.244.2.4', forwarding: true, reaches: true, error: null },
  { target: '10.244.2.4', forwarding: false, reaches: false, error: null },
  { target: 'fd00:1::3', forwarding: true, reaches: true, error: null },
  // A bridge does not ask whether its netns forwards IPv6.
  { target: 'fd00:1::3', forwarding: false, reaches: true, error: null },
  { target: 'fd00:1::99', forwarding: true, reaches: false, error: 'host unreachable' },
  // Of these a bridge tells nobody.
  { target: 'fd50::1', forwarding: true, reaches: false, error: null },
  { target: 'fd00:2::4', forwarding: false, reaches: false, error: null },
];

export const REDIRECTED_CASES: readonly RedirectedCase[] = ROWS.map(
  ({ target, forwarding, reaches, error }) => ({
    name: `${target}, forwarding ${forwarding ? 'on' : 'off'}`,
    service: serviceOf(target),
    ops: [
      sysctl('net/ipv4/ip_forward', forwarding ? '1' : '0'),
      sysctl('net/ipv6/conf/all/forwarding', forwarding ? '1' : '0'),
      ...['iptables', 'ip6tables'].map((name) => sysctl(`net/bridge/bridge-nf-call-${name}`, '1')),
      ruleset(serviceOf(target), target),
    ],
    reaches,
    error,
  }),
);
