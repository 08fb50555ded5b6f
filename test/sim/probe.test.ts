import { describe, expect, it } from 'vitest';
import type { Host } from '../../model/host.ts';
import type { Ifname } from '../../model/ifname.ts';
import { parseIp } from '../../model/ip.ts';
import { parseMac } from '../../model/mac.ts';
import type { Op } from '../../model/op.ts';
import { parsePrefix } from '../../model/prefix.ts';
import { makeRoute } from '../../model/route.ts';
import { type ProbeRequest, probe } from '../../sim/probe.ts';
import { explainReason, kernelReason } from '../../sim/reason.ts';
import { type Trace, formatTrace, formatVerdict } from '../../sim/trace.ts';
import { makeWorld, withHost } from '../../sim/world.ts';
import { ROUTED } from './hosts.ts';
import { TWO_PODS, addressOps, applyAll, bridgeOps, netnsOps, vethOps } from './pods.ts';

const name = (text: string): Ifname => text as Ifname;

function from(
  host: Host,
  netns: string,
  destination: string,
  more: Partial<ProbeRequest> = {},
): Trace {
  return probe(makeWorld(host), { netns, destination: parseIp(destination), ...more });
}

/** The verdict in a few words: `delivered`, or the reason and the place. */
function outcome({ verdict }: Trace): string {
  if (verdict.kind === 'delivered') return 'delivered';
  const place = verdict.link === null ? verdict.netns : `${verdict.netns} ${verdict.link}`;
  return verdict.kind === 'dropped' ? `${verdict.reason} in ${place}` : `unknown beyond ${place}`;
}

function set(netns: string, ifname: string, attribute: Extract<Op, { op: 'link.set' }>['set']): Op {
  return { op: 'link.set', netns, ifname: name(ifname), set: attribute };
}

function sysctl(netns: string, key: string, value: string): Op {
  return { op: 'sysctl.set', netns, key, value };
}

function port(ifname: string, flag: Extract<Op, { op: 'port.set' }>['flag'], on: boolean): Op {
  return { op: 'port.set', netns: 'node', ifname: name(ifname), flag, on };
}

function neighbour(netns: string, ip: string, mac: string): Op {
  return {
    op: 'neighbour.add',
    netns,
    ifname: name('eth0'),
    neighbour: { ip: parseIp(ip), mac: parseMac(mac) },
  };
}

function addressGone(host: Host, netns: string, ifname: string, ip: string): Op {
  const address = host.netns[netns]?.links[ifname]?.addresses.find((each) => each.ip === ip);
  if (!address) throw new Error(`${netns} ${ifname} has no ${ip}`);
  return { op: 'address.del', netns, ifname: name(ifname), address };
}

function routesGone(host: Host, netns: string, family: 4 | 6): Op[] {
  const routes = host.netns[netns]?.routes ?? [];
  return routes
    .filter((route) => route.table === 254 && route.destination.includes(':') === (family === 6))
    .map((route) => ({ op: 'route.del', netns, route }));
}

function sourceOf(host: Host, netns: string, destination: string): string {
  const [hop] = from(host, netns, destination).hops;
  return hop?.data.kind === 'ip' ? hop.data.source : 'none';
}

const A4 = '10.244.1.2';
const B4 = '10.244.1.3';
const B6 = 'fd00:1::3';

describe('a trace in a terminal', () => {
  it.each([
    ['pod-to-pod-ipv4', B4],
    ['pod-to-pod-ipv6', B6],
    ['pod-to-gateway-ipv4', '10.244.1.1'],
    ['pod-to-gateway-ipv6', 'fd00:1::1'],
    ['pod-to-nobody', '10.244.1.99'],
  ])('of %s', async (file, destination) => {
    await expect(formatTrace(from(TWO_PODS, 'a', destination))).toMatchFileSnapshot(
      `golden/${file}.txt`,
    );
  });

  it('of a second packet, which needs no question any more', async () => {
    const first = from(TWO_PODS, 'a', B4);
    const second = probe(first.world, { netns: 'a', destination: parseIp(B4) });
    await expect(formatTrace(second)).toMatchFileSnapshot('golden/pod-to-pod-again.txt');
  });

  it('across a router', async () => {
    await expect(formatTrace(from(ROUTED, 'a', '10.244.2.4'))).toMatchFileSnapshot(
      'golden/pod-to-other-bridge.txt',
    );
  });
});

describe('what a working pair of pods needs', () => {
  const needs: readonly (readonly [what: string, ops: readonly Op[], v4: string, v6: string])[] = [
    ['nothing else', [], 'delivered', 'delivered'],
    [
      'the sender to be up',
      [set('a', 'eth0', { up: false })],
      'IP_OUTNOROUTES in a',
      'IP_OUTNOROUTES in a',
    ],
    [
      'the receiver to be up',
      [set('b', 'eth0', { up: false })],
      'NEIGH_FAILED in a eth0',
      'NEIGH_FAILED in a eth0',
    ],
    [
      "the sender's port to be up",
      [set('node', 'v-a', { up: false })],
      'NEIGH_FAILED in a eth0',
      'NEIGH_FAILED in a eth0',
    ],
    [
      "the receiver's port to be up",
      [set('node', 'v-b', { up: false })],
      'NEIGH_FAILED in a eth0',
      'NEIGH_FAILED in a eth0',
    ],
    [
      'the bridge to be up',
      [set('node', 'cni0', { up: false })],
      'NEIGH_FAILED in a eth0',
      'NEIGH_FAILED in a eth0',
    ],
    [
      'the port on the bridge',
      [set('node', 'v-b', { master: null })],
      'NEIGH_FAILED in a eth0',
      'NEIGH_FAILED in a eth0',
    ],
    [
      'the port at all',
      [{ op: 'link.del', netns: 'node', ifname: name('v-b') }],
      'NEIGH_FAILED in a eth0',
      'NEIGH_FAILED in a eth0',
    ],
    [
      "the receiver's IPv4 address",
      [addressGone(TWO_PODS, 'b', 'eth0', B4)],
      'NEIGH_FAILED in a eth0',
      'delivered',
    ],
    [
      "the receiver's IPv6 address",
      [addressGone(TWO_PODS, 'b', 'eth0', B6)],
      'delivered',
      'NEIGH_FAILED in a eth0',
    ],
    [
      "the sender's IPv4 address",
      [addressGone(TWO_PODS, 'a', 'eth0', A4)],
      'IP_OUTNOROUTES in a',
      'delivered',
    ],
    ["the sender's IPv4 routes", routesGone(TWO_PODS, 'a', 4), 'IP_OUTNOROUTES in a', 'delivered'],
    ["the sender's IPv6 routes", routesGone(TWO_PODS, 'a', 6), 'delivered', 'IP_OUTNOROUTES in a'],
    [
      "the receiver's IPv4 routes",
      routesGone(TWO_PODS, 'b', 4),
      'IP_OUTNOROUTES in b',
      'delivered',
    ],
    [
      "the receiver's IPv6 routes",
      routesGone(TWO_PODS, 'b', 6),
      'delivered',
      'IP_OUTNOROUTES in b',
    ],
    [
      'no two isolated ports',
      [port('v-a', 'isolated', true), port('v-b', 'isolated', true)],
      'NEIGH_FAILED in a eth0',
      'NEIGH_FAILED in a eth0',
    ],
    ['one isolated port at most', [port('v-a', 'isolated', true)], 'delivered', 'delivered'],
    [
      'no loopback',
      ['a', 'b', 'node'].map((netns) => set(netns, 'lo', { up: false })),
      'delivered',
      'delivered',
    ],
    [
      'no address of the bridge',
      [addressGone(TWO_PODS, 'node', 'cni0', '10.244.1.1')],
      'delivered',
      'delivered',
    ],
    [
      'no learning',
      [port('v-a', 'learning', false), port('v-b', 'learning', false)],
      'delivered',
      'delivered',
    ],
    [
      'IPv6',
      [sysctl('b', 'net/ipv6/conf/eth0/disable_ipv6', '1')],
      'delivered',
      'NEIGH_FAILED in a eth0',
    ],
    [
      'the right neighbour',
      [neighbour('a', B4, '02:00:00:00:00:77'), neighbour('a', B6, '02:00:00:00:00:77')],
      'OTHERHOST in b eth0',
      'OTHERHOST in b eth0',
    ],
    [
      'the right neighbour back',
      [neighbour('b', A4, '02:00:00:00:00:01'), neighbour('b', 'fd00:1::2', '02:00:00:00:00:01')],
      'IP_INADDRERRORS in node cni0',
      'NEIGH_FAILED in a eth0',
    ],
    [
      'that it does not answer silently',
      [sysctl('b', 'net/ipv4/conf/all/arp_ignore', '8')],
      'NEIGH_FAILED in a eth0',
      'delivered',
    ],
  ];

  it.each(needs)('%s', (_what, ops, v4, v6) => {
    const host = applyAll(TWO_PODS, ops);
    expect([outcome(from(host, 'a', B4)), outcome(from(host, 'a', B6))]).toEqual([v4, v6]);
  });

  it('no forwarding: that is for other bridges, each way by the link it comes in by (K-7.6)', () => {
    const off4 = (ifname: string): Host =>
      applyAll(ROUTED, [sysctl('node', `net/ipv4/conf/${ifname}/forwarding`, '0')]);
    expect(outcome(from(TWO_PODS, 'a', B4))).toBe('delivered');
    expect(outcome(from(ROUTED, 'a', '10.244.2.4'))).toBe('delivered');
    expect(outcome(from(off4('cni0'), 'a', '10.244.2.4'))).toBe('IP_INADDRERRORS in node cni0');
    expect(outcome(from(off4('cni1'), 'a', '10.244.2.4'))).toBe('IP_INADDRERRORS in node cni1');
    const off6 = applyAll(ROUTED, [sysctl('node', 'net/ipv6/conf/all/forwarding', '0')]);
    expect(outcome(from(off6, 'a', 'fd00:2::4'))).toBe('IP_INADDRERRORS in node cni0');
    expect(outcome(from(ROUTED, 'a', 'fd00:2::4'))).toBe('delivered');
  });

  it('an answerer that does not take who asks for somebody else: ND answers by that too (K-7.3)', () => {
    const wrong = '02:00:00:00:00:77';
    const host = applyAll(ROUTED, [
      neighbour('a', '10.244.1.3', wrong),
      neighbour('a', 'fd00:1::3', wrong),
    ]);
    // The reply is lost where the answer to ARP was not.
    expect(outcome(from(host, 'b', '10.244.1.2'))).toBe('OTHERHOST in b eth0');
    expect(outcome(from(host, 'b', 'fd00:1::2'))).toBe('NEIGH_FAILED in b eth0');
  });

  it('says why nobody answered', () => {
    const { verdict } = from(applyAll(TWO_PODS, [set('node', 'v-a', { up: false })]), 'a', B4);
    expect(formatVerdict(verdict)).toBe(
      `dropped in a eth0: NEIGH_FAILED, nobody answers for ${B4} (in a eth0: QDISC_DROP, eth0 has no carrier)`,
    );
  });
});

describe('an own address', () => {
  it.each([A4, 'fd00:1::2', '127.0.0.1', '::1', '127.3.2.1'])(
    '%s is reached through lo, which has to be up (K-3.7)',
    (ip) => {
      expect(outcome(from(TWO_PODS, 'a', ip))).toBe('delivered');
    },
  );

  it('is not reached while lo is down', () => {
    const host = applyAll(TWO_PODS, [set('a', 'lo', { up: false })]);
    expect(outcome(from(host, 'a', A4))).toBe('QDISC_DROP in a lo');
    expect(outcome(from(host, 'a', '127.0.0.1'))).toBe('QDISC_DROP in a lo');
    // IPv6 keeps no route to ::1 then: it takes the default route.
    expect(outcome(from(host, 'a', '::1'))).toBe('IP_INHDR in node cni0');
  });
});

describe('a bridge', () => {
  const learned = from(TWO_PODS, 'a', B4).world;
  const again = (ops: readonly Op[]): Trace =>
    probe(withHost(learned, applyAll(TWO_PODS, ops)), { netns: 'a', destination: parseIp(B4) });

  it('keeps isolated ports apart when it knows where to', () => {
    expect(outcome(again([port('v-a', 'isolated', true), port('v-b', 'isolated', true)]))).toBe(
      'BRIDGE_ISOLATED in node cni0',
    );
  });

  it('forgets a port that goes down', () => {
    expect(outcome(again([set('node', 'v-b', { up: false })]))).toBe('NO_TX_TARGET in node cni0');
  });

  it('floods what it does not know only where flood is on', () => {
    const mac = [neighbour('a', B4, '02:00:00:00:00:03'), neighbour('b', A4, '02:00:00:00:00:02')];
    expect(outcome(from(applyAll(TWO_PODS, mac), 'a', B4))).toBe('delivered');
    expect(outcome(from(applyAll(TWO_PODS, [...mac, port('v-b', 'flood', false)]), 'a', B4))).toBe(
      'NO_TX_TARGET in node cni0',
    );
  });

  it('sends back by the same port only with hairpin', () => {
    const self = neighbour('a', B4, '02:00:00:00:00:02');
    expect(outcome(from(applyAll(TWO_PODS, [self]), 'a', B4))).toBe(
      'BRIDGE_SAME_PORT in node cni0',
    );
    const hairpin = from(applyAll(TWO_PODS, [self, port('v-a', 'hairpin', true)]), 'a', B4);
    expect(outcome(hairpin)).toBe('IP_INADDRERRORS in a eth0');
  });

  it('drops what a port cannot take, 4 bytes of slack granted (K-6.4)', () => {
    const small = applyAll(TWO_PODS, [set('b', 'eth0', { mtuBytes: 1400 })]);
    expect(outcome(from(small, 'a', B4, { payloadBytes: 1372 }))).toBe('delivered');
    expect(outcome(from(small, 'a', B4, { payloadBytes: 1376 }))).toBe('delivered');
    expect(outcome(from(small, 'a', B4, { payloadBytes: 1377 }))).toBe('FRAME_TOO_BIG in node v-b');
    expect(outcome(from(small, 'a', B4, { payloadBytes: 1473 }))).toBe('PKT_TOO_BIG in a eth0');
  });

  it('looped to another one names the loop, and delivers all the same', () => {
    const looped = applyAll({ netns: {} }, [
      ...netnsOps('node'),
      ...bridgeOps('node', 'br0', '02:00:00:00:00:0a'),
      ...bridgeOps('node', 'br1', '02:00:00:00:00:0b'),
      ...addressOps('node', 'br0', '10.0.0.1/24'),
      ...['1', '2'].flatMap((n) => [
        ...vethOps(
          'node',
          `x${n}`,
          `02:00:00:00:01:0${n}`,
          'br0',
          'node',
          `y${n}`,
          `02:00:00:00:02:0${n}`,
        ),
        set('node', `y${n}`, { master: name('br1') }),
      ]),
      ...netnsOps('a'),
      ...vethOps('node', 'v-a', '02:00:00:00:01:09', 'br1', 'a', 'eth0', '02:00:00:00:00:09'),
      ...addressOps('a', 'eth0', '10.0.0.2/24'),
    ]);
    const lost = from(looped, 'a', '10.0.0.3');
    expect(outcome(lost)).toBe('NEIGH_FAILED in a eth0');
    expect(formatVerdict(lost.verdict)).toMatch(/LOOP/);
    const fixed = applyAll(looped, [neighbour('a', '10.0.0.3', '02:00:00:00:00:77')]);
    expect(outcome(from(fixed, 'a', '10.0.0.3'))).toMatch(/^LOOP in node/);
  });
});

describe('a router', () => {
  it('counts the TTL down to one, where it ends', () => {
    expect(outcome(from(ROUTED, 'a', '10.244.2.4', { ttl: 1 }))).toBe('IP_INHDR in node cni0');
    expect(outcome(from(ROUTED, 'a', '10.244.2.4', { ttl: 2 }))).toBe('delivered');
    expect(outcome(from(ROUTED, 'a', 'fd00:2::4', { ttl: 1 }))).toBe('IP_INHDR in node cni0');
  });

  it('has no route to everywhere', () => {
    expect(outcome(from(ROUTED, 'a', '10.99.0.1'))).toBe('IP_INNOROUTES in node cni0');
    expect(outcome(from(ROUTED, 'a', 'fd99::1'))).toBe('IP_INNOROUTES in node cni0');
  });

  it('asks for the next neighbour, and says when nobody answers', () => {
    expect(outcome(from(ROUTED, 'a', '10.244.2.9'))).toBe('NEIGH_FAILED in node cni1');
    expect(outcome(from(ROUTED, 'a', 'fd00:2::9'))).toBe('NEIGH_FAILED in node cni1');
  });

  it('cannot ask by ND without a link-local address', () => {
    const host = applyAll(ROUTED, [addressGone(ROUTED, 'node', 'cni1', 'fe80::11')]);
    expect(outcome(from(host, 'a', 'fd00:2::4'))).toBe('NEIGH_FAILED in node cni1');
  });

  it('filters by the reverse path when told to (K-7.4)', () => {
    const filter = sysctl('node', 'net/ipv4/conf/v-d/rp_filter', '1');
    const stray = applyAll(ROUTED, [filter, ...addressOps('d', 'eth0', '10.244.1.77/32')]);
    expect(outcome(from(stray, 'd', '10.244.2.4', { source: parseIp('10.244.1.77') }))).toBe(
      'NEIGH_FAILED in d eth0',
    );
    expect(outcome(from(stray, 'd', '10.244.2.4'))).toBe('delivered');
  });
});

describe('what leaves the host, or the model', () => {
  it('is said to be unknown', () => {
    const eth0 = { ...TWO_PODS.netns['b']?.links['eth0'] };
    const card = { ...eth0, kind: 'device', deviceKind: '', carrier: true } as never;
    const host: Host = {
      netns: { ...TWO_PODS.netns, b: { ...TWO_PODS.netns['b'], links: { eth0: card } } as never },
    };
    expect(outcome(from(host, 'b', A4))).toBe('unknown beyond b eth0');
    expect(outcome(from(TWO_PODS, 'a', '224.0.0.1'))).toBe('unknown beyond a');
  });

  it('is refused by the socket where there is nothing to send', () => {
    expect(outcome(from(TWO_PODS, 'a', '10.244.1.255'))).toBe('SOCKET_REFUSED in a');
    expect(outcome(from(TWO_PODS, 'a', B4, { source: parseIp('10.9.9.9') }))).toBe(
      'SOCKET_REFUSED in a',
    );
    expect(outcome(from(TWO_PODS, 'a', 'fe80::9'))).toBe('SOCKET_REFUSED in a');
    expect(() => from(TWO_PODS, 'nowhere', B4)).toThrow('nowhere');
    expect(() => from(TWO_PODS, 'a', B4, { source: parseIp('::1') })).toThrow('::1');
    expect(() => from(TWO_PODS, 'a', B4, { ttl: 0 })).toThrow('TTL');
  });
});

describe('source addresses', () => {
  it('are those of the route, the link or another link (K-5.5)', () => {
    expect(sourceOf(TWO_PODS, 'a', B4)).toBe(A4);
    expect(sourceOf(TWO_PODS, 'a', '10.9.9.9')).toBe(A4);
    const second = applyAll(
      TWO_PODS,
      addressOps('a', 'eth0', '10.7.0.1/24', '10.244.1.20/24', 'fd07::1/64'),
    );
    expect(sourceOf(second, 'a', '10.7.0.9')).toBe('10.7.0.1');
    expect(sourceOf(second, 'a', '10.9.9.9')).toBe(A4);
    expect(sourceOf(second, 'a', 'fd07::9')).toBe('fd07::1');
    expect(sourceOf(second, 'a', B6)).toBe('fd00:1::2');
    const onlyLo = applyAll(TWO_PODS, [
      ...addressOps('a', 'lo', '10.50.0.1/32'),
      addressGone(TWO_PODS, 'a', 'eth0', A4),
      {
        op: 'route.add',
        netns: 'a',
        route: makeRoute({ destination: parsePrefix('10.244.1.0/24'), device: name('eth0') }),
      },
    ]);
    expect(sourceOf(onlyLo, 'a', B4)).toBe('10.50.0.1');
  });
});

describe('drop reasons', () => {
  it('are the names that the kernel has, or NOT_SPECIFIED', () => {
    expect([kernelReason('NEIGH_FAILED'), kernelReason('BRIDGE_ISOLATED')]).toEqual([
      'NEIGH_FAILED',
      'NOT_SPECIFIED',
    ]);
    expect(explainReason('NEIGH_FAILED')).toEqual(['link', 'does not find the next hop']);
  });
});
