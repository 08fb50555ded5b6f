import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Host } from '../../model/host.ts';
import { parseIp } from '../../model/ip.ts';
import { formatJourney, travel } from '../../sim/journey.ts';
import { type ProbeRequest, probe } from '../../sim/probe.ts';
import { formatTrace } from '../../sim/trace.ts';
import { makeWorld } from '../../sim/world.ts';
import { HAIRPIN_CASES } from './hairpin.ts';
import { ROUTED, ROUTED_DESTINATIONS, ROUTED_SENDERS, breakageLists, carriedOut } from './hosts.ts';
import {
  ERRING_CASES,
  ERRING_OPS,
  MASQUERADE,
  MASQUERADED_CASES,
  expectedOf,
  requestOf,
} from './icmp-errors.ts';
import { applyAll, routeOps } from './pods.ts';
import { SERVICES, SERVICE_PORT, rulesets } from './rulesets.ts';
import { TUNNEL_CASES, TUNNEL_TARGET } from './tunnels.ts';

const ERRING = applyAll(ROUTED, ERRING_OPS);

function hasAddress(host: Host, ip: string): boolean {
  return Object.values(host.netns).some(({ links }) =>
    Object.values(links).some(({ addresses }) => addresses.some((each) => each.ip === ip)),
  );
}

describe('the sender is told (K-7.7)', () => {
  it.each(ERRING_CASES)('or not, where $name', (each) => {
    const { error, verdict, ...trace } = probe(makeWorld(ERRING), requestOf(each));
    expect(error, formatTrace({ error, verdict, ...trace })).toEqual(expectedOf(each));
    expect(verdict.kind).toBe('dropped');
  });

  it.each(MASQUERADED_CASES)('through a masquerade, or not, where $name', (each) => {
    const trace = probe(makeWorld(applyAll(ERRING, [MASQUERADE])), requestOf(each));
    expect(trace.error, formatTrace(trace)).toEqual(expectedOf(each));
  });

  it('of an echo as of a datagram', () => {
    const request = { netns: 'a', destination: parseIp('10.244.2.4'), ttl: 1 };
    expect(probe(makeWorld(ERRING), request).error).toMatchObject({ error: 'time exceeded' });
  });

  it('by the service that it asked, of whomever that stands for, from the first packet on (K-8.3)', () => {
    const routed = HAIRPIN_CASES.find(({ name }) => name.endsWith('bridge-nf-call-iptables 0'));
    const [service = parseIp('0.0.0.0')] = SERVICES;
    const to = { protocol: 'udp', port: SERVICE_PORT } as const;
    const request = { netns: 'a', destination: service, ttl: 1, to };
    const { error } = probe(makeWorld(applyAll(ROUTED, routed?.ops ?? [])), request);
    expect(error).toEqual({ from: service, error: 'time exceeded', mtuBytes: null });
  });

  it('through a vxlan too', () => {
    const [whole] = TUNNEL_CASES;
    const host = applyAll(ROUTED, [
      ...(whole?.ops ?? []),
      { op: 'sysctl.set', netns: 'c', key: 'net/ipv4/ip_forward', value: '1' },
      ...routeOps('a', 'vx0', '10.98.1.0/24', TUNNEL_TARGET),
    ]);
    const request = { netns: 'a', destination: parseIp('10.98.1.1'), ttl: 1 };
    expect(probe(makeWorld(host), request).error).toEqual({
      from: TUNNEL_TARGET,
      error: 'time exceeded',
      mtuBytes: null,
    });
  });

  it('in words, and the way of the error is shown', async () => {
    const request = { netns: 'a', destination: parseIp('10.244.2.4'), ttl: 1 };
    const journey = travel(makeWorld(ROUTED), request);
    await expect(`${formatJourney(journey).join('\n')}\n`).toMatchFileSnapshot(
      'golden/time-exceeded.txt',
    );
  });
});

describe('an error', () => {
  const cases = fc.record({
    host: fc
      .tuple(breakageLists(), fc.oneof(fc.constant([]), rulesets()))
      .map(([breakages, rules]) => carriedOut(ROUTED, [...breakages, ...rules]).host),
    request: fc.record({
      netns: fc.constantFrom(...ROUTED_SENDERS),
      destination: fc.constantFrom(...ROUTED_DESTINATIONS, '10.99.9.9', 'fd99::9').map(parseIp),
      ttl: fc.constantFrom(1, 2, 64),
      to: fc.constant({ protocol: 'udp' as const, port: 7000 }),
    }),
  });

  it('is about a question that is lost, comes from an address that there is, and says the mtu of what is too big', () => {
    fc.assert(
      fc.property(cases, ({ host, request }: { host: Host; request: ProbeRequest }) => {
        const { error, verdict, hops } = probe(makeWorld(host), request);
        if (error === null || error === 'unknown') return;
        expect(verdict.kind).not.toBe('delivered');
        expect(hasAddress(host, error.from) || error.from.startsWith('10.96.')).toBe(true);
        expect(error.mtuBytes !== null).toBe(error.error === 'too big');
        expect(hops.some(({ decision }) => decision === 'the sender is told')).toBe(true);
      }),
      { numRuns: 150 },
    );
  });

  it('is never about another', () => {
    fc.assert(
      fc.property(cases, ({ host, request }) => {
        for (const { data } of probe(makeWorld(host), request).hops) {
          const packet = data.kind === 'frame' ? data.packet : data;
          if (packet.kind !== 'ip' || packet.message.kind !== 'error') continue;
          expect(packet.message.quoted.message.kind).not.toBe('error');
        }
      }),
      { numRuns: 100 },
    );
  });
});
