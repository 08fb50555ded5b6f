import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { HOST_NETNS, getNetns } from '../../model/host.ts';
import { parseIp } from '../../model/ip.ts';
import type { Expression } from '../../model/nft-expression.ts';
import type { Chain, ChainHook, Rule, Statement, Table } from '../../model/nftables.ts';
import { arrivalOf } from '../../sim/arrival.ts';
import { probe } from '../../sim/probe.ts';
import { formatPublished, publishedPorts } from '../../sim/published.ts';
import { makeWorld } from '../../sim/world.ts';
import { type Mapping, doors, portMappings } from '../arbitraries/port-mappings.ts';
import { attachPod, makeMachine, plainHost } from '../plugin/machine.ts';
import { ROUTED, ROUTED_SENDERS, carriedOut } from './hosts.ts';
import { SERVICES, SERVICE_PORT, rulesets } from './rulesets.ts';

const ANY = { '4': 'any address', '6': 'any address of IPv6' } as const;

/** Where a mapping is, for a pod that has addresses of both families. */
function places({ hostIP = '' }: Mapping): readonly string[] {
  if (hostIP === '') return [ANY[4], ANY[6]];
  if (hostIP === '0.0.0.0') return [ANY[4]];
  return hostIP === '::' ? [ANY[6]] : [hostIP];
}

/** The names of the ports that a configuration asks for; `attachPod` adds the pod's number to each. */
function wanted(mappings: readonly Mapping[], pod: number): string[] {
  return mappings.flatMap((each) =>
    Array.from(
      { length: Math.max(each.range ?? 0, 1) },
      (_, by) => each.hostPort + pod + by,
    ).flatMap((port) => places(each).map((place) => `${each.protocol} ${port} at ${place}`)),
  );
}

const CONFIG = {
  cniVersion: '1.1.0',
  name: 'podnet',
  type: 'cube-cni',
  isDefaultGateway: true,
  ipMasq: true,
  ipam: { type: 'cube-ipam', ranges: [[{ subnet: '10.7.0.0/24' }], [{ subnet: 'fd07::/64' }]] },
};

describe('the ports that rules send elsewhere', () => {
  it('are of ours exactly those of the configurations', () => {
    fc.assert(
      fc.property(
        portMappings(3),
        fc.array(doors(), { minLength: 3, maxLength: 3 }),
        (all, more) => {
          const machine = makeMachine(plainHost());
          for (const [pod, mappings] of all.entries())
            attachPod(
              machine,
              { ...CONFIG, ...more[pod], runtimeConfig: { portMappings: mappings } },
              pod,
            );
          const names = publishedPorts(getNetns(machine.backend.host(), HOST_NETNS)).map(
            formatPublished,
          );
          expect(new Set(names)).toEqual(new Set(all.flatMap(wanted)));
          expect(names).toEqual([...new Set(names)].toSorted((a, b) => (a < b ? -1 : 1)));
        },
      ),
      { numRuns: 30 },
    );
  });

  it('are at the address that a condition asks for', () => {
    const machine = makeMachine(plainHost());
    const conditions = { conditionsV4: ['-d', '192.0.2.7'], conditionsV6: ['-d', '2001:db8::/64'] };
    const portMappings80 = [{ hostPort: 8080, containerPort: 80 }];
    attachPod(
      machine,
      { ...CONFIG, ...conditions, runtimeConfig: { portMappings: portMappings80 } },
      0,
    );
    const node = getNetns(machine.backend.host(), HOST_NETNS);
    expect(publishedPorts(node).map(formatPublished)).toEqual([
      'tcp 8080 at 192.0.2.7',
      'tcp 8080 at any address of IPv6',
    ]);
  });

  it('are all by which a packet that names one comes to another', () => {
    let translated = 0;
    fc.assert(
      fc.property(rulesets(), (ops) => {
        const { host } = carriedOut(ROUTED, ops);
        const names = publishedPorts(getNetns(host, 'node')).map(formatPublished);
        for (const netns of ROUTED_SENDERS)
          for (const destination of SERVICES)
            for (const protocol of ['tcp', 'udp'] as const) {
              const to = { protocol, port: SERVICE_PORT };
              const trace = probe(makeWorld(host), { netns, destination, to });
              const arrival = arrivalOf(host, trace);
              if (!arrival || arrival.packet.destination === destination) continue;
              translated += 1;
              expect(names).toContain(`${protocol} ${SERVICE_PORT} at ${destination}`);
            }
      }),
      { numRuns: 40 },
    );
    expect(translated).toBeGreaterThan(0);
  });
});

/** A host whose netns node has these rules, each a chain's, by expressions as they are read of others. */
function namesIn(
  chains: Readonly<Record<string, readonly (readonly (Statement | Expression)[])[]>>,
  more: Partial<Table> = {},
): string[] {
  const hook: ChainHook = { type: 'nat', hook: 'prerouting', priority: -100, policy: 'accept' };
  const made = Object.entries(chains).map(([name, rules]): [string, Chain] => [
    name,
    {
      name,
      hook: name === 'pre' ? hook : null,
      rules: rules.map((parts): Rule => ({
        comment: '',
        statements: parts.map((part): Statement =>
          'kind' in part ? part : { kind: 'opaque', expression: part.name, detail: part },
        ),
      })),
    },
  ]);
  const table: Table = {
    family: 'ip',
    name: 'nat',
    chains: Object.fromEntries(made),
    sets: {},
    ...more,
  };
  const node = { ...getNetns(ROUTED, 'node'), nftables: { 'ip nat': table } };
  return publishedPorts(node).map(formatPublished);
}

const PROTOCOL: Expression = { name: 'meta', key: 'l4proto', to: 0 };
const DPORT: Expression = { name: 'payload', header: 'transport', offset: 2, bytes: 2, to: 0 };
const DADDR: Expression = { name: 'payload', header: 'network', offset: 16, bytes: 4, to: 0 };
const TO_POD: Expression = { name: 'target', target: 'DNAT', ip: parseIp('10.244.1.2'), port: 80 };

function is(value: string, comparison: 'eq' | 'neq' | 'gte' | 'lte' = 'eq'): Expression {
  return { name: 'cmp', from: 0, comparison, value };
}

function jump(chain: string): Statement {
  return { kind: 'verdict', verdict: 'jump', chain };
}

function range(low: string, high: string): Expression {
  return { name: 'range', from: 0, low, high, negate: false };
}

function looks(set: string, from: number, to: 'verdict' | null): Expression {
  return { name: 'lookup', set, from, to, negate: false };
}

/** A key of joined parts, each in registers of its own. */
function keyOf(...parts: readonly string[]): string {
  return parts.map((part) => part.padEnd(8, '0')).join('');
}

const TCP = [PROTOCOL, is('06')];

describe('the ports that rules of others send elsewhere', () => {
  it('are those of all that is asked on the way', () => {
    expect(
      namesIn({
        pre: [
          [...TCP, DADDR, is('0a600001'), jump('svc')],
          [DADDR, is('0a600002'), DPORT, is('0035'), jump('svc')],
          [jump('nowhere')],
        ],
        svc: [
          [DPORT, is('0050'), TO_POD],
          [DPORT, is('0035'), jump('ep')],
        ],
        ep: [
          [PROTOCOL, is('11'), TO_POD],
          [...TCP, TO_POD],
        ],
        nowhere: [[DPORT, is('0051'), { kind: 'verdict', verdict: 'drop' }]],
      }),
    ).toEqual([
      'tcp 53 at 10.96.0.1',
      'tcp 53 at 10.96.0.2',
      'tcp 80 at 10.96.0.1',
      'udp 53 at 10.96.0.2',
    ]);
  });

  it('are of a range all, or the ends of one that is long', () => {
    expect(namesIn({ pre: [[...TCP, DPORT, range('0050', '0052'), TO_POD]] })).toEqual(
      [80, 81, 82].map((port) => `tcp ${port} at any address`),
    );
    expect(
      namesIn({ pre: [[...TCP, DPORT, is('7530', 'gte'), is('7fff', 'lte'), TO_POD]] }),
    ).toEqual([30_000, 32_767].map((port) => `tcp ${port} at any address`));
  });

  it('are at any address where others than one are asked for', () => {
    const mask: Expression = { name: 'bitwise', from: 0, to: 0, mask: 'ffff0000', xor: '00000000' };
    const ports = [...TCP, DPORT, is('0050')];
    expect(namesIn({ pre: [[DADDR, is('7f000001', 'neq'), ...ports, TO_POD]] })).toEqual([
      'tcp 80 at any address',
    ]);
    expect(namesIn({ pre: [[DADDR, mask, is('0a600000'), ...ports, TO_POD]] })).toEqual([
      'tcp 80 at any address',
    ]);
  });

  it('are none where a rule names none, or its packets are of no transport', () => {
    expect(
      namesIn({
        pre: [
          [...TCP, TO_POD],
          [PROTOCOL, is('01'), DPORT, is('0050'), TO_POD],
        ],
      }),
    ).toEqual([]);
  });

  it('are those of matches of iptables, of both protocols where none is said', () => {
    const ports = [
      [80, 80],
      [443, 444],
    ] as const;
    const multiport: Expression = {
      name: 'match',
      match: 'multiport',
      of: 'destination',
      ports,
      invert: false,
    };
    const tcp: Expression = {
      name: 'match',
      match: 'tcp',
      source: [0, 65_535],
      destination: [8080, 8080],
      flagsMask: 0,
      flags: 0,
      inverts: 0,
    };
    const redirect: Expression = { name: 'target', target: 'REDIRECT', port: 7000 };
    expect(
      namesIn({
        pre: [
          [multiport, jump('ports')],
          [tcp, redirect],
        ],
        ports: [[...TCP, TO_POD]],
      }),
    ).toEqual(['tcp 443', 'tcp 444', 'tcp 80', 'tcp 8080'].map((name) => `${name} at any address`));
    expect(namesIn({ pre: [[multiport, TO_POD]] }).filter((name) => name.includes('80'))).toEqual([
      'tcp 80 at any address',
      'udp 80 at any address',
    ]);
  });

  it('are those of sets, joined or not, of intervals and of verdicts', () => {
    const joined: readonly Expression[] = [
      { ...DADDR, to: 1 },
      { ...PROTOCOL, to: 2 },
      { ...DPORT, to: 3 },
    ];
    const rawSets: Table['rawSets'] = {
      services: {
        name: 'services',
        hasIntervals: false,
        fieldBytes: [4, 1, 2],
        elements: [
          { key: keyOf('0a600001', '06', '0050'), verdict: { verdict: 'goto', chain: 'ep' } },
          { key: keyOf('0a600002', '06', '0050'), verdict: { verdict: 'drop' } },
          { key: keyOf('0a600003', '84', '1f90'), verdict: { verdict: 'goto', chain: 'ep' } },
        ],
      },
      ports: {
        name: 'ports',
        hasIntervals: true,
        fieldBytes: [2],
        elements: [{ key: '0000', isEnd: true }, { key: '0050' }, { key: '0052', isEnd: true }],
      },
    };
    expect(
      namesIn(
        {
          pre: [
            [...joined, looks('services', 1, 'verdict')],
            [...TCP, DPORT, looks('ports', 0, null), TO_POD],
          ],
          ep: [[TO_POD]],
        },
        { rawSets },
      ),
    ).toEqual([
      'sctp 8080 at 10.96.0.3',
      'tcp 80 at 10.96.0.1',
      'tcp 80 at any address',
      'tcp 81 at any address',
    ]);
  });

  it('are of a netns without rules none', () => {
    expect(publishedPorts(getNetns(ROUTED, 'a'))).toEqual([]);
  });
});
