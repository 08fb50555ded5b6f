/** Splitting packets and joining them again (K-7.9). */
import fc from 'fast-check';
import { describe, expect, it, vi } from 'vitest';
import type { Host } from '../../model/host.ts';
import type { Ifname } from '../../model/ifname.ts';
import { familyOf, parseIp } from '../../model/ip.ts';
import type { Op } from '../../model/op.ts';
import { parsePrefix } from '../../model/prefix.ts';
import { makeRoute } from '../../model/route.ts';
import { ipBytes } from '../../sim/bytes.ts';
import { formatCause } from '../../sim/cause.ts';
import { fitTo, split } from '../../sim/fragment.ts';
import {
  FRAGMENT_HEADER_BYTES,
  HEADER_BYTES,
  type IpPacket,
  SLACK_BYTES,
  packetBytes,
} from '../../sim/frame.ts';
import { formatJourney, travel } from '../../sim/journey.ts';
import { type ProbeRequest, probe } from '../../sim/probe.ts';
import { joinParts } from '../../sim/reassembly.ts';
import { type Hop, formatTrace } from '../../sim/trace.ts';
import { makeWorld } from '../../sim/world.ts';
import { SMALLEST_MTU, journeys, mtus, sizedPackets } from '../arbitraries/sized-packet.ts';
import { ROUTED, ROUTED_SENDERS } from './hosts.ts';
import { applyAll } from './pods.ts';
import { LISTEN_PORT, rulesets } from './rulesets.ts';
import { BRIDGED_OPS, NARROW, mtuOp, wireOps, withChain } from './sized-hosts.ts';
import { BRIDGED_TUNNEL_OPS, TUNNEL_TARGET } from './tunnels.ts';

vi.setConfig({ testTimeout: 60_000 });

const ID = 7;

/** What is left of a packet after links of these MTUs, each of which splits what does not fit. */
function splitBy(packet: IpPacket, mtuBytes: readonly number[]): readonly IpPacket[] {
  return mtuBytes.reduce<readonly IpPacket[]>(
    (parts, mtu) =>
      parts.flatMap((part) => (packetBytes(part) <= mtu ? [part] : split(part, mtu, ID))),
    [packet],
  );
}

/** Only IPv4 splits more than once. */
function linksOf({ packet, mtuBytes }: { packet: IpPacket; mtuBytes: readonly number[] }) {
  return familyOf(packet.destination) === 4 ? mtuBytes : mtuBytes.slice(0, 1);
}

describe('the fragments of a packet', () => {
  it('make it again, in whichever order they come', () => {
    fc.assert(
      fc.property(journeys(), fc.infiniteStream(fc.nat()), (journey, order) => {
        const parts = splitBy(journey.packet, linksOf(journey));
        fc.pre(parts.length > 1);
        const shuffled = parts
          .map((part) => ({ part, at: order.next().value }))
          .toSorted((a, b) => a.at - b.at)
          .map(({ part }) => part);
        expect(joinParts(shuffled, false)).toEqual(journey.packet);
      }),
      { numRuns: 300 },
    );
  });

  it('are no longer than the MTU, begin at multiples of eight, and follow each other', () => {
    fc.assert(
      fc.property(journeys(), (journey) => {
        const links = linksOf(journey);
        const parts = splitBy(journey.packet, links);
        fc.pre(parts.length > 1);
        let end = 0;
        for (const [at, part] of parts.entries()) {
          expect(packetBytes(part)).toBeLessThanOrEqual(Math.min(...links));
          expect(part.fragment).toMatchObject({ offsetBytes: end, hasMore: at < parts.length - 1 });
          expect(end % 8).toBe(0);
          end += part.fragment?.dataBytes ?? 0;
        }
      }),
      { numRuns: 300 },
    );
  });

  it('are as few as there can be', () => {
    fc.assert(
      fc.property(
        sizedPackets().chain((packet) =>
          fc.tuple(fc.constant(packet), mtus(familyOf(packet.destination))),
        ),
        ([packet, mtu]) => {
          const family = familyOf(packet.destination);
          fc.pre(packetBytes(packet) > mtu);
          const room = mtu - FRAGMENT_HEADER_BYTES[family];
          const units = Math.floor(room / 8) * 8;
          const data = packetBytes(packet) - HEADER_BYTES[family];
          const fewest = data <= room ? 1 : 1 + Math.ceil((data - room) / units);
          expect(split(packet, mtu, ID)).toHaveLength(fewest);
        },
      ),
      { numRuns: 300 },
    );
  });

  it('do not make it while any is missing', () => {
    fc.assert(
      fc.property(journeys(), fc.nat(), (journey, missing) => {
        const parts = splitBy(journey.packet, linksOf(journey));
        fc.pre(parts.length > 1);
        expect(joinParts(parts.toSpliced(missing % parts.length, 1), false)).toBeUndefined();
      }),
      { numRuns: 200 },
    );
  });

  it('hold its bytes, each a part of them', () => {
    fc.assert(
      fc.property(journeys(), (journey) => {
        const { packet } = journey;
        const family = familyOf(packet.destination);
        const parts = splitBy(packet, linksOf(journey));
        fc.pre(parts.length > 1);
        const data = parts.map((part) => ipBytes(part).subarray(FRAGMENT_HEADER_BYTES[family]));
        expect(Buffer.concat(data).equals(ipBytes(packet).subarray(HEADER_BYTES[family]))).toBe(
          true,
        );
      }),
      { numRuns: 100 },
    );
  });

  it('come out as they went in where they are joined on the way', () => {
    fc.assert(
      fc.property(journeys(), fc.nat(3000), (journey, more) => {
        const links = linksOf(journey);
        const parts = splitBy(journey.packet, links);
        fc.pre(parts.length > 1);
        const whole = joinParts(parts, true);
        if (!whole) throw new Error('they are not joined');
        const mtuBytes = Math.max(SMALLEST_MTU[familyOf(whole.destination)], ...links) + more;
        const fit = fitTo(whole, mtuBytes, false);
        // What fits into one of its fragments, with the header that those of IPv6 have more.
        fc.pre(fit.kind !== 'whole');
        if (fit.kind !== 'split') throw new Error('they do not fit where they came from');
        const again = split(whole, fit.mtuBytes, ID + 1);
        expect(again.map(({ fragment }) => fragment)).toEqual(
          parts.map(({ fragment }) => fragment),
        );
      }),
      { numRuns: 200 },
    );
  });
});

const PODS = ['a', 'b', 'c', 'd'] as const;

function mtuOps(mtuBytes: readonly number[]): readonly Op[] {
  return PODS.flatMap((pod, at) => wireOps(pod, mtuBytes[at] ?? 1500));
}

const DESTINATIONS4 = ['10.244.1.1', '10.244.1.2', '10.244.1.3', '10.244.2.4', '10.244.3.2'];
const DESTINATIONS6 = ['fd00:1::1', 'fd00:1::3', 'fd00:2::4', 'fd00:3::2'];

function requests(destinations: readonly string[]): fc.Arbitrary<ProbeRequest> {
  return fc
    .record({
      netns: fc.constantFrom(...ROUTED_SENDERS),
      destination: fc.constantFrom(...destinations.map(parseIp)),
      payloadBytes: fc.integer({ min: 0, max: 6000 }),
      dontFragment: fc.constant(false),
      to: fc.option(fc.constant({ protocol: 'udp' as const, port: LISTEN_PORT }), {
        nil: undefined,
      }),
    })
    .map(({ to, ...request }) => (to ? { ...request, to } : request));
}

function fourMtus(smallest: number): fc.Arbitrary<readonly number[]> {
  const mtu = fc.integer({ min: smallest, max: 4000 });
  return fc.array(mtu, { minLength: PODS.length, maxLength: PODS.length });
}

describe('a packet without DF', () => {
  it('of IPv4 arrives over links of any MTU, whatever is tracked', () => {
    fc.assert(
      fc.property(
        fourMtus(68),
        fc.boolean(),
        fc.boolean(),
        requests(DESTINATIONS4),
        (mtuBytes, isTracked, isBridged, request) => {
          // Ports of one bridge have one MTU, or it drops what is too large for one of them.
          const [first = 0, , third = 0, fourth = 0] = mtuBytes;
          const ops = [...mtuOps([first, first, third, fourth]), ...(isBridged ? BRIDGED_OPS : [])];
          const host = applyAll(ROUTED, ops);
          const ruled = isTracked
            ? withChain(host, 'forward', 'accept', 'asks for connections')
            : host;
          const trace = probe(makeWorld(ruled), request);
          expect(trace.verdict.kind, formatTrace(trace)).toBe('delivered');
        },
      ),
      { numRuns: 150 },
    );
  });

  it('never passes a link that is too small for it, nor does what it is split into', () => {
    const destinations = [...DESTINATIONS4, ...DESTINATIONS6];
    const rules = fc.oneof(fc.constant([]), rulesets());
    fc.assert(
      fc.property(fourMtus(1280), rules, requests(destinations), (mtuBytes, ops, request) => {
        const host = applyAll(ROUTED, [...mtuOps(mtuBytes), ...ops]);
        const { hops } = probe(makeWorld(host), request);
        for (const { netns, link, stage, data, dropped } of hops) {
          if (stage !== 'transmit' || link === null || data.kind !== 'frame' || dropped) continue;
          const most = host.netns[netns]?.links[link]?.mtuBytes ?? 0;
          expect(packetBytes(data.packet)).toBeLessThanOrEqual(most + SLACK_BYTES);
        }
      }),
      { numRuns: 150 },
    );
  });

  it('of which the first part is lost does not arrive, and nobody is told', () => {
    const destination = parseIp('10.244.3.2');
    const request = { netns: 'a', destination, payloadBytes: 1600, dontFragment: false };
    const uneven = applyAll(ROUTED, [mtuOp('d', 'eth0', 1300)]);
    const first = probe(makeWorld(uneven), request);
    expect(first.verdict).toMatchObject({ reason: 'FRAME_TOO_BIG' });
    expect(first.hops.map(({ dropped }) => dropped)).toContain('FRAG_REASM_TIMEOUT');
    expect(first.error).toBeNull();
  });

  it.each([
    ['10.244.2.4', null],
    ['fd00:2::4', 'reassembly time exceeded'],
  ] as const)('of which a later part is lost does not arrive (%s: %s)', (to, error) => {
    const destination = parseIp(to);
    const udp = { protocol: 'udp', port: LISTEN_PORT } as const;
    const request = { netns: 'a', destination, payloadBytes: 1600, dontFragment: false, to: udp };
    const host = withChain(ROUTED, 'forward', 'drop', 'accepts a port', 'accepts ICMPv6');
    const trace = probe(makeWorld(host), request);
    expect(trace.verdict).toMatchObject({ reason: 'NETFILTER_DROP', netns: 'node' });
    expect(trace.error).toEqual(error && { from: destination, error, mtuBytes: null });
  });
});

function offsetIn({ data }: Hop): number | undefined {
  return data.kind === 'ip' ? data.fragment?.offsetBytes : undefined;
}

describe('rules', () => {
  const to = { protocol: 'udp', port: LISTEN_PORT } as const;
  const large = { netns: 'a', payloadBytes: 2000, dontFragment: false, to };
  const DESTINATIONS = ['10.244.2.4', 'fd00:2::4'].map(parseIp);

  it.each(DESTINATIONS)(
    'that ask for a port see it in the first fragment alone (%s)',
    (destination) => {
      const host = withChain(ROUTED, 'forward', 'drop', 'accepts a port');
      const { verdict, hops } = probe(makeWorld(host), { ...large, destination });
      expect(verdict).toMatchObject({ reason: 'NETFILTER_DROP' });
      const ends = hops.filter(({ dropped }) => dropped === 'NETFILTER_DROP').map(offsetIn);
      expect(ends.filter((offset) => offset !== undefined)).toEqual([
        destination === '10.244.2.4' ? 1480 : 1448,
      ]);
    },
  );

  it.each([
    // It passes, and the first fragment of the answer does not.
    ['accepts what lies there', 0],
    ['accepts more of it', 1480],
  ] as const)('read what lies where a later fragment has no header: %s', (rule, dropped) => {
    const host = withChain(ROUTED, 'forward', 'drop', 'accepts a port', rule);
    const { hops } = probe(makeWorld(host), { ...large, destination: parseIp('10.244.2.4') });
    const end = hops.find((hop) => hop.dropped === 'NETFILTER_DROP' && offsetIn(hop) !== undefined);
    expect(end && offsetIn(end)).toBe(dropped);
  });

  it.each(DESTINATIONS)('that ask for a protocol see it in every fragment (%s)', (destination) => {
    const host = withChain(ROUTED, 'forward', 'drop', 'accepts UDP');
    expect(probe(makeWorld(host), { ...large, destination }).verdict.kind).toBe('delivered');
  });

  it.each(DESTINATIONS)('see the whole where connections are tracked (%s)', (destination) => {
    const host = withChain(ROUTED, 'forward', 'accept', 'asks for connections');
    const { verdict, hops } = probe(makeWorld(host), { ...large, destination });
    expect(verdict.kind).toBe('delivered');
    const seen = hops.filter(({ decision }) => decision.startsWith('forward: goes on'));
    expect(seen.map(offsetIn)).toEqual([undefined, undefined]);
  });

  it.each([
    ['10.244.1.1', [undefined]],
    ['fd00:1::1', [0, 1448]],
  ])('of input see the whole of IPv4, and the fragments of IPv6 (%s)', (destination, offsets) => {
    const host = withChain(ROUTED, 'input', 'accept', 'accepts a port');
    const { hops } = probe(makeWorld(host), { ...large, destination: parseIp(destination) });
    const seen = hops.filter(
      ({ data, decision }) =>
        decision.startsWith('input: goes on') && data.kind === 'ip' && data.message.kind === 'udp',
    );
    expect(seen.map(offsetIn)).toEqual(offsets);
  });
});

describe('a trace', () => {
  const to = { protocol: 'udp', port: LISTEN_PORT } as const;
  const asks = { netns: 'a', payloadBytes: 2000, dontFragment: false, to };

  it.each([
    ['fragments-ipv4', NARROW, '10.244.3.2'],
    ['fragments-ipv6', applyAll(NARROW, wireOps('a', 1400)), 'fd00:3::2'],
    [
      'fragments-joined',
      withChain(NARROW, 'forward', 'accept', 'asks for connections'),
      '10.244.3.2',
    ],
    [
      'fragments-bridged',
      withChain(applyAll(ROUTED, BRIDGED_OPS), 'forward', 'accept', 'asks for connections'),
      '10.244.1.3',
    ],
    ['fragments-lost', applyAll(ROUTED, [mtuOp('d', 'eth0', 1300)]), '10.244.3.2'],
  ])('of %s', async (file, host, destination) => {
    const warm = probe(makeWorld(host), { netns: 'a', destination: parseIp(destination) }).world;
    const journey = travel(warm, { ...asks, destination: parseIp(destination) });
    await expect(`${formatJourney(journey).join('\n')}\n`).toMatchFileSnapshot(
      `golden/${file}.txt`,
    );
  });
});

function routed(
  netns: string,
  destination: string,
  device: string,
  mtuBytes: number,
  gateway?: string,
): Op {
  const route = makeRoute({
    destination: parsePrefix(destination),
    device: device as Ifname,
    gateway: gateway === undefined ? null : parseIp(gateway),
    mtuBytes,
  });
  return { op: 'route.add', netns, route };
}

function outcome(
  ops: readonly Op[],
  destination: string,
  payloadBytes: number,
  dontFragment = true,
): string {
  const request = { netns: 'a', destination: parseIp(destination), payloadBytes, dontFragment };
  const { verdict, error } = probe(makeWorld(applyAll(ROUTED, ops)), request);
  if (verdict.kind !== 'dropped') return verdict.kind;
  return `${verdict.reason} in ${verdict.netns}, ${error === null || error === 'unknown' ? 'untold' : error.mtuBytes}`;
}

function blamed(host: Host, request: ProbeRequest): string {
  const { world } = probe(makeWorld(host), { ...request, payloadBytes: 8 });
  const { cause } = travel(world, request);
  return cause === null ? 'nobody' : [formatCause(cause), ...cause.mend].join('; ');
}

describe('who is to blame for what is too big', () => {
  it('is the route, where that has an MTU', () => {
    const host = applyAll(ROUTED, [routed('node', '10.244.2.4/32', 'cni1', 1300)]);
    const request = { netns: 'a', destination: parseIp('10.244.2.4'), payloadBytes: 1400 };
    expect(blamed(host, request)).toBe(
      'netns node: route 10.244.2.4/32 dev cni1 has an MTU of 1300, and the packet has 1428 bytes',
    );
  });

  it('is a vxlan whose packets have less room than it says', () => {
    const host = applyAll(ROUTED, BRIDGED_TUNNEL_OPS);
    const request = { netns: 'd', destination: TUNNEL_TARGET, payloadBytes: 1500 };
    expect(blamed(host, request)).toBe(
      "netns a: link vx0 has an MTU of 1600, with room for 1450 in its packets, and the packet has 1528 bytes; nsenter --net='/run/netns/a' ip link set vx0 mtu 1450",
    );
  });

  it('is a bridge, where what it has joined came in longer fragments', () => {
    const narrow = applyAll(ROUTED, [...wireOps('b', 1400), ...BRIDGED_OPS]);
    const host = withChain(narrow, 'forward', 'accept', 'asks for connections');
    const destination = parseIp('10.244.1.3');
    const request = { netns: 'a', destination, payloadBytes: 2000, dontFragment: false };
    expect(blamed(host, request)).toBe(
      "netns node: link cni0 has an MTU of 1400, and the packet has 1500 bytes; nsenter --net='/run/netns/node' ip link set cni0 mtu 1500",
    );
  });
});

describe('the MTU of a route', () => {
  it('counts for what is sent along it', () => {
    const own = [
      routed('a', '10.244.2.0/24', 'eth0', 1300, '10.244.1.1'),
      routed('a', 'fd00:2::/64', 'eth0', 1300, 'fd00:1::1'),
    ];
    expect(outcome(own, '10.244.2.4', 1272)).toBe('delivered');
    expect(outcome(own, '10.244.2.4', 1273)).toBe('PKT_TOO_BIG in a, untold');
    expect(outcome(own, '10.244.2.4', 1273, false)).toBe('delivered');
    expect(outcome(own, 'fd00:2::4', 1252)).toBe('delivered');
    expect(outcome(own, 'fd00:2::4', 1253)).toBe('PKT_TOO_BIG in a, untold');
    expect(outcome(own, 'fd00:2::4', 1253, false)).toBe('delivered');
  });

  it('counts for what is passed on along it', () => {
    const passed = [
      routed('node', '10.244.2.4/32', 'cni1', 1300),
      routed('node', 'fd00:2::4/128', 'cni1', 1300),
    ];
    expect(outcome(passed, '10.244.2.4', 1273)).toBe('PKT_TOO_BIG in node, 1300');
    expect(outcome(passed, '10.244.2.4', 1273, false)).toBe('delivered');
    expect(outcome(passed, 'fd00:2::4', 1253)).toBe('PKT_TOO_BIG in node, 1300');
    expect(outcome(passed, 'fd00:2::4', 1253, false)).toBe('PKT_TOO_BIG in node, 1300');
  });
});
