import { describe, expect, it } from 'vitest';
import type { Host } from '../../model/host.ts';
import type { Ifname } from '../../model/ifname.ts';
import { type Family, ipBytes, parseIp } from '../../model/ip.ts';
import { type Expression, toHex } from '../../model/nft-expression.ts';
import type { ChainHook, NftCommand, Rule, Statement, Target } from '../../model/nftables.ts';
import type { Op } from '../../model/op.ts';
import { type ProbeRequest, probe } from '../../sim/probe.ts';
import { type Trace, formatTrace, formatVerdict } from '../../sim/trace.ts';
import { makeWorld } from '../../sim/world.ts';
import { HAIRPIN_CASES } from './hairpin.ts';
import { ROUTED } from './hosts.ts';
import { applyAll } from './pods.ts';
import { REDIRECTED_CASES } from './redirected.ts';
import { BRIDGED_MASQUERADE, LISTEN_PORT, SERVICES, SERVICE_PORT } from './rulesets.ts';
import { BRIDGED_OPS } from './sized-hosts.ts';

const TABLE = { family: 'inet', table: 'cube' } as const;

function rule(...statements: readonly Statement[]): Rule {
  return { statements, comment: '' };
}

function chain(
  name: string,
  hook: Partial<ChainHook> & Pick<ChainHook, 'hook'>,
  ...rules: readonly Rule[]
): NftCommand[] {
  const whole: ChainHook = { type: 'filter', priority: 0, policy: 'accept', ...hook };
  return [
    { ...TABLE, do: 'add chain', chain: name, hook: whole },
    ...rules.map((each): NftCommand => ({ ...TABLE, do: 'add rule', chain: name, rule: each })),
  ];
}

function filtered(...commands: readonly NftCommand[]): Host {
  const batch: Op = {
    op: 'nft.batch',
    netns: 'node',
    commands: [{ ...TABLE, do: 'add table' }, ...commands],
  };
  return applyAll(ROUTED, [batch]);
}

function from(
  host: Host,
  netns: string,
  destination: string,
  more: Partial<ProbeRequest> = {},
): Trace {
  return probe(makeWorld(host), { netns, destination: parseIp(destination), ...more });
}

/** What was said where netfilter had a say. */
function said({ hops }: Trace): string[] {
  return hops
    .filter(({ stage }) => stage === 'netfilter')
    .map(({ netns, link, decision }) => `${netns} ${link}: ${decision}`);
}

/** From whom the other end saw the packet come. */
function seenFrom({ hops }: Trace): string | undefined {
  const hop = hops.find(({ decision }) => decision.endsWith('replies'));
  return hop?.data.kind === 'ip' ? hop.data.source : undefined;
}

function asked(expression: string): Statement {
  return { kind: 'opaque', expression };
}

/** The host with these rules in its chain `fwd`. */
function ruled(host: Host, rules: readonly Rule[]): Host {
  const node = host.netns['node'];
  const table = node?.nftables['inet cube'];
  const fwd = table?.chains['fwd'];
  if (!node || !table || !fwd) throw new Error('the chain is not there');
  const changed = { ...table, chains: { ...table.chains, fwd: { ...fwd, rules } } };
  const nftables = { ...node.nftables, 'inet cube': changed };
  return { ...host, netns: { ...host.netns, node: { ...node, nftables } } };
}

/** Nobody writes such rules by an operation: they are read. */
function withRules(...rules: readonly Rule[]): Host {
  return ruled(filtered(...chain('fwd', { hook: 'forward' })), rules);
}

const DROP: Statement = { kind: 'verdict', verdict: 'drop' };
const ACCEPT: Statement = { kind: 'verdict', verdict: 'accept' };
const TO_C: Statement = {
  kind: 'match',
  field: 'ip daddr',
  negate: false,
  value: parseIp('10.244.2.4'),
};

describe('chains (K-8.1)', () => {
  it('are asked where they are hooked in, there and back', () => {
    const trace = from(filtered(...chain('fwd', { hook: 'forward' })), 'a', '10.244.2.4');
    expect(said(trace)).toEqual([
      'node cni0: forward: goes on, policy of chain inet cube fwd',
      'node cni1: forward: goes on, policy of chain inet cube fwd',
    ]);
    expect(trace.verdict.kind).toBe('delivered');
  });

  it('are named with the rule that drops a packet, or the policy', () => {
    const byRule = from(
      filtered(...chain('fwd', { hook: 'forward' }, rule(TO_C, DROP))),
      'a',
      '10.244.2.4',
    );
    expect(formatVerdict(byRule.verdict)).toBe(
      'dropped in node cni0: NETFILTER_DROP, forward: rule 1 of chain inet cube fwd, ip daddr 10.244.2.4 drop',
    );
    const byPolicy = from(
      filtered(...chain('fwd', { hook: 'forward', policy: 'drop' })),
      'a',
      '10.244.2.4',
    );
    expect(formatVerdict(byPolicy.verdict)).toBe(
      'dropped in node cni0: NETFILTER_DROP, forward: policy of chain inet cube fwd',
    );
  });

  it('run by their priority, whatever their order, until one drops', () => {
    const host = filtered(
      ...chain('late', { hook: 'forward', priority: 10 }, rule(DROP)),
      ...chain('early', { hook: 'forward', priority: -10 }, rule(ACCEPT)),
    );
    expect(said(from(host, 'a', '10.244.2.4'))).toEqual([
      'node cni0: forward: goes on, rule 1 of chain inet cube early, accept',
      'node cni0: dropped, NETFILTER_DROP: forward: rule 1 of chain inet cube late, drop',
    ]);
  });

  it('jump, return and go to others', () => {
    const host = filtered(
      { ...TABLE, do: 'add chain', chain: 'other', hook: null },
      ...chain(
        'fwd',
        { hook: 'forward' },
        rule({ kind: 'verdict', verdict: 'jump', chain: 'other' }),
        rule(TO_C, { kind: 'verdict', verdict: 'goto', chain: 'other' }),
        rule(ACCEPT),
      ),
      {
        ...TABLE,
        do: 'add rule',
        chain: 'other',
        rule: rule({ kind: 'verdict', verdict: 'return' }),
      },
      { ...TABLE, do: 'add rule', chain: 'other', rule: rule(DROP) },
    );
    // From the chain that was gone to one returns to whom the first one would return to: the policy.
    expect(said(from(host, 'a', '10.244.2.4'))).toEqual([
      'node cni0: forward: goes on, policy of chain inet cube fwd',
      'node cni1: forward: goes on, rule 3 of chain inet cube fwd, accept',
    ]);
  });
});

describe('what is not understood', () => {
  it('does not matter where both answers lead to the same', () => {
    const host = withRules(rule(asked('match addrtype'), ACCEPT), rule(ACCEPT));
    expect(from(host, 'a', '10.244.2.4').verdict.kind).toBe('delivered');
  });

  it('is said with what follows either way', () => {
    const host = withRules(rule(asked('match addrtype'), asked('match mark'), DROP));
    expect(formatVerdict(from(host, 'a', '10.244.2.4').verdict)).toBe(
      'unknown beyond node cni0: forward: rule 1 of chain inet cube fwd, (match addrtype) (match mark) drop: match addrtype is not understood; where it fits it is dropped (rule 1 of chain inet cube fwd, (match addrtype) (match mark) drop), else it goes on (policy of forward)',
    );
    const acts = withRules(rule(asked('target TPROXY')));
    expect(formatVerdict(from(acts, 'a', '10.244.2.4').verdict)).toContain(
      'what target TPROXY does is not known',
    );
    expect(from(withRules(rule(asked('reject'))), 'a', '10.244.2.4').verdict).toMatchObject({
      reason: 'NETFILTER_DROP',
    });
  });
});

describe('a connection that a rule refuses', () => {
  const reset: Statement = {
    kind: 'opaque',
    expression: 'reject',
    detail: { name: 'reject', answer: 'tcp reset' },
  };
  const asksTcp = { to: { protocol: 'tcp', port: 80 } } as const;
  const asksUdp = { to: { protocol: 'udp', port: 80 } } as const;

  it.each(['10.244.2.4', 'fd00:2::4'])('is refused in the name of %s (K-7.7)', (text) => {
    const trace = from(withRules(rule(reset)), 'a', text, asksTcp);
    const error = { from: text, error: 'connection refused', mtuBytes: null };
    expect(trace).toMatchObject({ verdict: { reason: 'NETFILTER_DROP' }, error });
    expect(formatTrace(trace)).toContain('tcp rst ack');
  });

  it('of a pod on the same bridge is refused by the port that it came in by, past all chains', () => {
    const host = applyAll(withRules(rule(reset)), BRIDGED_OPS);
    const { hops, error } = from(host, 'a', '10.244.1.3', asksTcp);
    expect(error).toMatchObject({ from: '10.244.1.3', error: 'connection refused' });
    const back = hops.filter(({ data }) => {
      const packet = data.kind === 'frame' ? data.packet : data;
      return packet.kind === 'ip' && packet.message.kind === 'reset';
    });
    expect(back.map(({ netns, link, stage }) => `${netns} ${link} ${stage}`)).toEqual([
      'node v-a transmit',
      'a eth0 deliver',
    ]);
    expect(back[0]?.data).toMatchObject({
      source: '02:00:00:00:00:03',
      destination: '02:00:00:00:00:02',
    });
  });

  it('hears of that past all chains where a bridge had them look at it (K-7.7)', () => {
    const rules = [
      ...chain('fwd', { hook: 'forward' }, rule(reset)),
      ...chain('out', { hook: 'output', policy: 'drop' }),
    ];
    const asks = (value: string): Trace => {
      const key = 'net/bridge/bridge-nf-call-iptables';
      const host = applyAll(filtered(...rules), [{ op: 'sysctl.set', netns: 'node', key, value }]);
      return from(host, 'a', '10.244.2.4', asksTcp);
    };
    expect(asks('0').error).toBeNull();
    expect(asks('1').error).toMatchObject({ error: 'connection refused' });
  });

  it('is lost without a word where the way back is cut, and a datagram always', () => {
    const host = withRules(rule(reset));
    const cut = applyAll(host, [
      { op: 'link.set', netns: 'node', ifname: 'v-a' as Ifname, set: { master: null } },
    ]);
    expect(from(host, 'a', '10.244.2.4', asksUdp).error).toBeNull();
    expect(from(cut, 'a', '10.244.2.4', asksTcp).error).toBeNull();
  });
});

describe('translation', () => {
  const masquerade = chain(
    'masq',
    { type: 'nat', hook: 'postrouting', priority: 100 },
    rule({ kind: 'masquerade' }),
  );

  it('gives packets the address of the link that they leave by, and answers find back (K-8.3)', () => {
    const host = filtered(...masquerade);
    for (const to of [
      undefined,
      { protocol: 'udp', port: 53 },
      { protocol: 'tcp', port: 80 },
    ] as const) {
      for (const [destination, source] of [
        ['10.244.2.4', '10.244.2.1'],
        ['fd00:2::4', 'fd00:2::1'],
        ['10.244.3.2', '10.244.3.1'],
      ] as const) {
        const trace = from(host, 'a', destination, to ? { to } : {});
        expect(trace.verdict.kind).toBe('delivered');
        expect(seenFrom(trace)).toBe(source);
      }
    }
  });

  /** Two connections from one port over one masquerade, by a seed: the ports that they are seen from. */
  function portsOfTwo(sourcePort: number, seed: number | null): readonly (number | undefined)[] {
    const request = {
      destination: parseIp('10.244.2.4'),
      to: { protocol: 'udp', port: 53 },
      sourcePort,
    } as const;
    const world = makeWorld(filtered(...masquerade), {}, { seed });
    const first = probe(world, { netns: 'a', ...request });
    const second = probe(first.world, { netns: 'b', ...request });
    expect(second.verdict.kind).toBe('delivered');
    // The first connection goes on as it began.
    expect(probe(second.world, { netns: 'a', ...request }).verdict.kind).toBe('delivered');
    return [first, second].map(({ hops }) => {
      const hop = hops.find(({ decision }) => decision.endsWith('replies'));
      return hop?.data.kind === 'ip' && 'sourcePort' in hop.data.message
        ? hop.data.message.sourcePort
        : undefined;
    });
  }

  it('gives a second connection the next port where its own is taken (K-8.3)', () => {
    expect(portsOfTwo(40_000, null)).toEqual([40_000, 40_001]);
    expect(portsOfTwo(511, null)).toEqual([511, 1]);
  });

  it('gives it any other of its kind by chance, the same for the same seed (K-8.3)', () => {
    const seeds = Array.from({ length: 40 }, (_, seed) => seed);
    for (const [port, low, high] of [
      [40_000, 1024, 65_535],
      [500, 1, 511],
      [700, 600, 1023],
    ] as const) {
      const drawn = seeds.map((seed) => portsOfTwo(port, seed)[1] ?? 0);
      for (const each of drawn) {
        expect(each).not.toBe(port);
        expect(each).toBeGreaterThanOrEqual(low);
        expect(each).toBeLessThanOrEqual(high);
      }
      expect(new Set(drawn).size).toBeGreaterThan(seeds.length / 2);
      expect(seeds.map((seed) => portsOfTwo(port, seed)[1])).toEqual(drawn);
    }
  });

  it('is not asked for by anybody where no rule translates (K-8.2)', () => {
    const { world } = from(filtered(...chain('fwd', { hook: 'forward' })), 'a', '10.244.2.4');
    expect(world.connections).toEqual({});
    const tracked = from(filtered(...masquerade), 'a', '10.244.2.4');
    expect(Object.keys(tracked.world.connections)).toEqual(['node']);
  });

  it.each(HAIRPIN_CASES)('of a service for $name: $reaches (K-8.5)', ({ ops, reaches }) => {
    const [destination] = SERVICES;
    if (!destination) throw new Error('there is no service');
    const request = {
      netns: 'a',
      destination,
      to: { protocol: 'udp', port: SERVICE_PORT },
    } as const;
    // Whom the bridge knows it need not ask.
    const warm = ['10.244.1.1', '10.244.1.3'].reduce(
      (world, each) => probe(world, { netns: 'a', destination: parseIp(each) }).world,
      probe(makeWorld(ROUTED), { netns: 'b', destination: parseIp('10.244.1.1') }).world,
    );
    const { verdict } = probe({ ...warm, host: applyAll(ROUTED, ops) }, request);
    expect(verdict.kind === 'delivered', formatVerdict(verdict)).toBe(reaches);
  });
});

/** What is for a port, to an address of one family by a map. */
function portsTo(family: Family): Rule {
  const field = 'meta l4proto . th dport';
  return rule({ kind: 'dnat', family, field, map: `ports${family}` });
}

/** The same by expressions: the address in register 0, the port in 1 or 4. */
function rawPortsTo(family: Family): Rule {
  const ip = ipBytes(parseIp(family === 4 ? '10.244.2.4' : 'fd00:2::4'));
  const port = ip.length / 4;
  const details: Expression[] = [
    { name: 'immediate', to: 0, value: toHex(ip) },
    { name: 'immediate', to: port, value: toHex([LISTEN_PORT >> 8, LISTEN_PORT & 255]) },
    { name: 'nat', side: 'destination', family, ip: 0, port },
  ];
  return rule(
    ...details.map((detail): Statement => ({ kind: 'opaque', expression: detail.name, detail })),
  );
}

describe('a translation to an address of one family, in a table of both', () => {
  const PORT = { protocol: 'udp', port: SERVICE_PORT } as const;
  const MAPS: NftCommand[] = [4, 6].flatMap((family): NftCommand[] => {
    const target = `${family === 4 ? '10.244.2.4' : 'fd00:2::4'} . ${LISTEN_PORT}`;
    const holds = family === 4 ? 'ipv4_addr . inet_service' : 'ipv6_addr . inet_service';
    const set = `ports${family}`;
    const key = `udp . ${SERVICE_PORT}` as const;
    return [
      { ...TABLE, do: 'add set', set, keyType: 'inet_proto . inet_service', holds },
      {
        ...TABLE,
        do: 'add element',
        set,
        element: { key, verdict: null, target: target as Target, comment: '' },
      },
    ];
  });

  it.each([
    ['by a map', portsTo(4), portsTo(6)],
    ['by expressions', rawPortsTo(4), rawPortsTo(6)],
  ])('leaves packets of the other one to the next rule: %s', (_how, ...rules) => {
    const hook = { type: 'nat', hook: 'prerouting', priority: -100 } as const;
    const host = ruled(filtered(...MAPS, ...chain('fwd', hook)), rules);
    for (const [asked4, answers] of [
      ['10.244.1.1', '10.244.2.4'],
      ['fd00:1::1', 'fd00:2::4'],
    ] as const) {
      const { hops, verdict } = from(host, 'a', asked4, { to: PORT });
      expect(verdict.kind).toBe('delivered');
      const reached = hops.find(({ stage }) => stage === 'deliver');
      expect(reached).toMatchObject({ netns: 'c', data: { destination: answers } });
    }
  });
});

describe('frames on a bridge', () => {
  it.each(REDIRECTED_CASES)(
    'for $name, whom it would have to ask for: $reaches, $error (K-8.4)',
    ({ service: destination, ops, reaches, error }) => {
      const to = { protocol: 'udp', port: SERVICE_PORT } as const;
      const world = makeWorld(applyAll(ROUTED, ops));
      const trace = probe(world, { netns: 'a', destination, to });
      expect(trace.verdict.kind === 'delivered', formatTrace(trace)).toBe(reaches);
      expect(trace.error).toEqual(error && { from: destination, error, mtuBytes: null });
    },
  );

  it('leave it as if they had come in by no link (K-8.4)', () => {
    const host = applyAll(ROUTED, BRIDGED_MASQUERADE);
    expect(seenFrom(from(host, 'b', '10.244.1.2'))).toBe('10.244.1.3');
    expect(seenFrom(from(host, 'b', '10.244.2.4'))).toBe('10.244.2.1');
  });

  it('pass the chains of family bridge', () => {
    const table = { family: 'bridge', table: 'spoof' } as const;
    const hook = { type: 'filter', hook: 'prerouting', priority: -300, policy: 'accept' } as const;
    const statements: Statement[] = [
      { kind: 'match', field: 'iifname', negate: false, value: 'v-a' as Ifname },
      { kind: 'lookup', field: 'ether saddr', negate: true, set: 'stations' },
      DROP,
    ];
    const host = applyAll(ROUTED, [
      {
        op: 'nft.batch',
        netns: 'node',
        commands: [
          { ...table, do: 'add table' },
          { ...table, do: 'add set', set: 'stations', keyType: 'ether_addr', holds: 'nothing' },
          { ...table, do: 'add chain', chain: 'pre', hook },
          { ...table, do: 'add rule', chain: 'pre', rule: { statements, comment: '' } },
        ],
      },
    ]);
    expect(formatVerdict(from(host, 'a', '10.244.1.3').verdict)).toContain(
      'nobody answers for 10.244.1.3 (in node cni0: NETFILTER_DROP, prerouting: rule 1 of chain bridge spoof pre, iifname "v-a" ether saddr != @stations drop)',
    );
    expect(from(host, 'b', '10.244.2.4').verdict.kind).toBe('delivered');
  });
});
