import fc from 'fast-check';
import { describe, expect, it, vi } from 'vitest';
import { canonicalJson } from '../../model/canonical.ts';
import { type Host, withNetns } from '../../model/host.ts';
import { type Ip, parseIp } from '../../model/ip.ts';
import { type ProbeRequest, outcomeOf, probe } from '../../sim/probe.ts';
import { type Trace, type Verdict, formatTrace, formatVerdict } from '../../sim/trace.ts';
import { makeWorld, withHost } from '../../sim/world.ts';
import { UNIVERSE, hosts } from '../arbitraries/host.ts';
import { legacyTables } from '../arbitraries/legacy-table.ts';
import { ROUTED, ROUTED_DESTINATIONS, ROUTED_SENDERS, breakageLists, carriedOut } from './hosts.ts';
import { LISTEN_PORT, SERVICES, SERVICE_PORT, rulesets } from './rulesets.ts';

interface Case {
  readonly host: Host;
  readonly request: ProbeRequest;
}

const ADDRESSES = [
  '10.0.0.1',
  '10.0.0.2',
  '10.0.0.3',
  '10.0.1.3',
  '10.1.2.3',
  '192.168.5.2',
  '127.0.0.1',
  '10.0.0.255',
  '224.0.0.1',
  '0.0.0.0',
];
const ADDRESSES6 = [
  'fd00::1',
  'fd00::2',
  'fd00::',
  'fd01::1',
  'fd05::1',
  '::1',
  '::',
  'ff02::1',
  'fe80::1',
];

/** Hosts with rulesets of every kind, and somebody who asks by any protocol. */
function filteredCases(): fc.Arbitrary<Case> {
  const to = fc.option(
    fc.record({
      protocol: fc.constantFrom('udp' as const, 'tcp' as const),
      port: fc.constantFrom(LISTEN_PORT, SERVICE_PORT),
    }),
    { nil: undefined },
  );
  return fc
    .record({
      ops: rulesets(),
      request: requests(ROUTED_SENDERS, [...ROUTED_DESTINATIONS, ...SERVICES]),
      to,
    })
    .map(({ ops, request, to: target }) => ({
      host: carriedOut(ROUTED, ops).host,
      request: target ? { ...request, to: target } : request,
    }));
}

function requests(
  senders: readonly string[],
  destinations: readonly Ip[],
): fc.Arbitrary<ProbeRequest> {
  return fc.record(
    {
      netns: fc.constantFrom(...senders),
      destination: fc.constantFrom(...destinations),
      ttl: fc.constantFrom(1, 2, 64),
      payloadBytes: fc.constantFrom(0, 56, 1400, 1472, 3000),
      dontFragment: fc.boolean(),
    },
    { requiredKeys: ['netns', 'destination'] },
  );
}

/** Any state a kernel can be in, and hosts in which most things work. */
function cases(): fc.Arbitrary<Case> {
  const anyHost = fc.record({
    host: hosts(40),
    request: requests(UNIVERSE, [...ADDRESSES, ...ADDRESSES6].map(parseIp)),
  });
  const routed = fc.record({
    host: breakageLists().map((ops) => carriedOut(ROUTED, ops).host),
    request: requests(ROUTED_SENDERS, ROUTED_DESTINATIONS),
  });
  return fc.oneof(anyHost, routed);
}

/** What the hop says that a verdict other than success comes from. */
function decisiveText(verdict: Verdict): string | undefined {
  if (verdict.kind === 'delivered') return undefined;
  if (verdict.kind === 'unknown') return `not followed: ${verdict.text}`;
  return `dropped, ${verdict.reason}: ${verdict.text}`;
}

function anyCases(): fc.Arbitrary<Case> {
  return fc.oneof(cases(), filteredCases());
}

function trace({ host, request }: Case): Trace {
  return probe(makeWorld(host), request);
}

const runs = { numRuns: 500 };

/** On a machine that does something else too. */
vi.setConfig({ testTimeout: 60_000 });

describe('laws of probe', () => {
  it('comes to one verdict, with hops that lead to it', () => {
    fc.assert(
      fc.property(anyCases(), (each) => {
        const { hops, verdict } = trace(each);
        const decisions = hops.map((hop) => hop.decision);
        expect(decisions).toContain(decisiveText(verdict) ?? decisions.at(-1));
        expect(
          hops.filter((hop) => hop.decision.includes('the sender has its reply')),
        ).toHaveLength(verdict.kind === 'delivered' ? 1 : 0);
      }),
      runs,
    );
  });

  it('gives equal traces for equal arguments, and leaves the world alone', () => {
    fc.assert(
      fc.property(anyCases(), ({ host, request }) => {
        const world = makeWorld(host);
        const text = canonicalJson(world);
        const first = probe(world, request);
        expect(canonicalJson(probe(world, request))).toBe(canonicalJson(first));
        expect(canonicalJson(world)).toBe(text);
        expect(first.world.host).toBe(host);
      }),
      runs,
    );
  });

  it('ends the same without a trace, also in a world that has learned', () => {
    fc.assert(
      fc.property(anyCases(), fc.array(legacyTables(), { maxLength: 2 }), (each, tables) => {
        const names = Object.keys(each.host.netns);
        const legacy = Object.fromEntries(names.map((name) => [name, tables]));
        const cold = makeWorld(each.host, legacy);
        for (const world of [cold, probe(cold, each.request).world]) {
          const { hops: _, laterHops: __, ...outcome } = probe(world, each.request);
          expect(outcomeOf(world, each.request)).toStrictEqual(outcome);
        }
      }),
      runs,
    );
  });

  it('ends, whatever bridges are looped together', () => {
    fc.assert(
      fc.property(cases(), (each) => {
        const { hops, laterHops } = trace(each);
        const links = Object.values(each.host.netns).reduce(
          (sum, netns) => sum + Object.keys(netns.links).length,
          0,
        );
        // Few distinct frames travel, a routed one per TTL, and each may pass each link twice.
        expect(hops.length + laterHops).toBeLessThan(64 * 24 * (links + 1));
      }),
      runs,
    );
  });

  it('prints a line per hop and one for the verdict', () => {
    fc.assert(
      fc.property(anyCases(), (each) => {
        const result = trace(each);
        const lines = formatTrace(result).trimEnd().split('\n');
        expect(lines).toHaveLength(result.hops.length + 1);
        expect(lines.at(-1)).toContain(formatVerdict(result.verdict));
      }),
      runs,
    );
  });

  it('holds for the second packet as for the first', () => {
    fc.assert(
      fc.property(
        breakageLists(),
        requests(ROUTED_SENDERS, ROUTED_DESTINATIONS),
        (ops, request) => {
          const { host } = carriedOut(ROUTED, ops);
          const first = probe(makeWorld(host), request);
          const second = probe(first.world, request);
          expect(second.verdict.kind).toBe(first.verdict.kind);
          expect(second.hops.length).toBeLessThanOrEqual(first.hops.length);
        },
      ),
      runs,
    );
  });

  it('asks netfilter where there are tables, and only there', () => {
    fc.assert(
      fc.property(anyCases(), (each) => {
        const saw = trace(each).hops.filter((hop) => hop.stage === 'netfilter');
        for (const hop of saw)
          expect(Object.keys(each.host.netns[hop.netns]?.nftables ?? {})).not.toEqual([]);
        const bare = UNIVERSE.concat(ROUTED_SENDERS).reduce((host, name) => {
          const netns = host.netns[name];
          return netns ? withNetns(host, name, { ...netns, nftables: {} }) : host;
        }, each.host);
        const without = trace({ host: bare, request: each.request });
        expect(without.hops.filter((hop) => hop.stage === 'netfilter')).toEqual([]);
        if (saw.length === 0) expect(without.verdict).toEqual(trace(each).verdict);
      }),
      runs,
    );
  });

  it('has an end with one of those chains for what a chain drops', () => {
    fc.assert(
      fc.property(anyCases(), (each) => {
        const { verdict, hops } = trace(each);
        if (verdict.kind !== 'dropped' || verdict.reason !== 'NETFILTER_DROP') return;
        const last = hops.find(({ decision }) => decision.includes(verdict.text));
        expect(last?.stage).toBe('netfilter');
        expect(verdict.text).toMatch(/chain (ip|ip6|inet|bridge) /);
      }),
      runs,
    );
  });
});

describe('a world whose host changes', () => {
  it('forgets nothing while it stays, and everything about links that are gone', () => {
    fc.assert(
      fc.property(requests(ROUTED_SENDERS, ROUTED_DESTINATIONS), (request) => {
        const { world } = probe(makeWorld(ROUTED), request);
        expect(withHost(world, world.host)).toEqual(world);
        const { nowMs } = world;
        expect(withHost(world, { netns: {} })).toEqual({ ...makeWorld({ netns: {} }), nowMs });
      }),
    );
  });
});
