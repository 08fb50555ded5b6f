/** What the kernel's tracepoints tell of a probe, read, put in its place and compared; the kernel itself is in test/linux. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { ProbeOutcome } from '../../backends/probe.ts';
import type { Host } from '../../model/host.ts';
import type { Ifname } from '../../model/ifname.ts';
import { parseIp } from '../../model/ip.ts';
import type { NftCommand } from '../../model/nftables.ts';
import type { Op } from '../../model/op.ts';
import { type Observation, compare, formatComparison } from '../../plugin/trace/comparison.ts';
import { crossingsOf } from '../../plugin/trace/crossing.ts';
import { type KernelEvent, parseKernelEvents } from '../../plugin/trace/kernel-event.ts';
import { lengthFilter } from '../../plugin/trace/probe-size.ts';
import {
  type KernelDrop,
  type Sender,
  type Sighting,
  followProbe,
} from '../../plugin/trace/sighting.ts';
import { type Journey, travel } from '../../sim/journey.ts';
import type { ProbeRequest } from '../../sim/probe.ts';
import { kernelReason } from '../../sim/reason.ts';
import { makeWorld } from '../../sim/world.ts';
import {
  ROUTED,
  ROUTED_DESTINATIONS,
  ROUTED_SENDERS,
  breakageLists,
  carriedOut,
} from '../sim/hosts.ts';
import { TWO_PODS } from '../sim/pods.ts';

/** `ping -s 77` from a to b, with all IP packets that the kernel dropped meanwhile. */
const RECORDED = readFileSync(join(import.meta.dirname, 'recorded/echo-between-pods.txt'), 'utf8');
const REQUEST: ProbeRequest = {
  netns: 'a',
  destination: parseIp('10.244.1.3'),
  payloadBytes: 77,
};
const SENDER: Sender = { request: REQUEST, pid: 5998, heard: { kind: 'answered' } };

function places(events: readonly KernelEvent[], host: Host = TWO_PODS): string[] {
  return followProbe(host, SENDER, events).seen.map(
    ({ netns, link, direction }) => `${netns} ${link} ${direction}`,
  );
}

const THERE = ['a eth0 out', 'node v-a in', 'node v-b out', 'b eth0 in'];
const BACK = ['b eth0 out', 'node v-b in', 'node v-a out', 'a eth0 in'];

describe('events of the kernel', () => {
  it('are read from the text of tracefs', () => {
    const events = parseKernelEvents(RECORDED);
    expect(events.slice(0, 3)).toEqual([
      {
        kind: 'queue',
        pid: 5998,
        cpu: 1,
        seconds: 19201.966081,
        skb: '00000000e4ab554f',
        ifname: 'eth0',
        bytes: 119,
        isOfProcess: false,
      },
      {
        kind: 'transmit',
        pid: 5998,
        cpu: 1,
        seconds: 19201.966081,
        skb: '00000000e4ab554f',
        ifname: 'eth0',
        bytes: 119,
        isOfProcess: false,
      },
      {
        kind: 'receive',
        pid: 5998,
        cpu: 1,
        seconds: 19201.966083,
        skb: '00000000e4ab554f',
        ifname: 'v-a',
        bytes: 105,
        isOfProcess: false,
      },
    ]);
    expect(events.find(({ kind }) => kind === 'drop')).toEqual({
      kind: 'drop',
      pid: 5998,
      cpu: 1,
      seconds: 19201.966109,
      skb: '000000004b8bcefb',
      reason: 'NO_SOCKET',
      location: 'ping_rcv+0xab/0xd0',
      isOfProcess: false,
    });
  });

  it.each([
    ['a command with blanks and brackets', 'my [01] -cmd-77    [001] b.s1.  12.5: '],
    ['a command like a pid', '123-45-6789 [000] d.... 1.000001: '],
  ])('are read behind %s', (_what, head) => {
    const [event] = parseKernelEvents(
      `${head}netif_receive_skb: dev=x-1 skbaddr=0000000012345678 len=60`,
    );
    expect(event).toMatchObject({ kind: 'receive', ifname: 'x-1', bytes: 60 });
  });

  it('may lack a reason, as before 5.17, and other lines are none', () => {
    const old =
      '  a-1  [000] ..s1.  1.5: kfree_skb: skbaddr=00000000aa protocol=2048 location=00000000bb';
    expect(parseKernelEvents(old)).toMatchObject([{ reason: null, location: '00000000bb' }]);
    expect(parseKernelEvents('CPU:1 [LOST 12 EVENTS]\n# tracer: nop\n\n')).toEqual([]);
  });
});

/** The process of the probe drops a packet by a rule, with these flags of its context. */
function forbidden(flags: string): string {
  return `bun-5998 [000] ${flags} 1.5: kfree_skb: skbaddr=0000000012 protocol=2048 location=nft_do_chain+0x1/0x2 reason: NETFILTER_DROP`;
}

/** A timer drops a packet for whose next hop nobody has answered. */
function unanswered(seconds: number, skb: string): string {
  return `x-9 [000] ..s1. ${seconds}.5: kfree_skb: skbaddr=${skb} protocol=2048 location=neigh_invalidate+0x1/0x2 reason: NEIGH_FAILED`;
}

function dropsOf(text: string): readonly KernelDrop[] {
  return followProbe(TWO_PODS, SENDER, parseKernelEvents(text)).drops;
}

/** Does the filter let a packet of that length through? */
function isLetIn(len: number): boolean {
  return lengthFilter(REQUEST)
    .split(' || ')
    .some((range) => {
      const [least = NaN, most = NaN] = [...range.matchAll(/\d+/g)].map(Number);
      return len >= least && len <= most;
    });
}

describe('a probe', () => {
  it('is followed from link to link, and its answer', () => {
    expect(places(parseKernelEvents(RECORDED))).toEqual([...THERE, ...BACK]);
  });

  it('is not taken for packets of others', () => {
    const events = parseKernelEvents(RECORDED);
    const others = events.flatMap((event): KernelEvent[] =>
      event.kind === 'drop'
        ? []
        : [{ ...event, skb: `${event.skb}-other`, bytes: event.bytes + 1 }],
    );
    expect(
      places(events.flatMap((event, index) => [...others.slice(index, index + 1), event])),
    ).toEqual([...THERE, ...BACK]);
  });

  it('is told from what others send at the same time, be it as long, by links of the same names', () => {
    const own = parseKernelEvents(RECORDED);
    const others = fc.array(
      fc.record({
        kind: fc.constantFrom('queue' as const, 'transmit' as const, 'receive' as const),
        pid: fc.constantFrom(0, 6000),
        cpu: fc.constantFrom(0, 1),
        // Around the probe and its answer, but not within what a packet takes on the CPU that has it.
        afterUs: fc.oneof(fc.integer({ min: -900, max: -1 }), fc.integer({ min: 500, max: 900 })),
        skb: fc.constantFrom('aa', 'bb', 'cc'),
        ifname: fc.constantFrom('eth0', 'v-a', 'v-b', 'cni0'),
        bytes: fc.constantFrom(105, 119),
        isOfProcess: fc.constant(false),
      }),
      { maxLength: 12 },
    );
    const [first] = own;
    fc.assert(
      fc.property(others, (noise) => {
        const events = [
          ...own,
          ...noise.map(({ afterUs, ...event }) => ({
            ...event,
            seconds: (first?.seconds ?? 0) + afterUs / 1e6,
          })),
        ].toSorted((a, b) => a.seconds - b.seconds);
        expect(places(events)).toEqual([...THERE, ...BACK]);
      }),
    );
  });

  it('is lost where its memory is given to a packet elsewhere', () => {
    const events = parseKernelEvents(RECORDED).map((event, index): KernelEvent =>
      event.kind !== 'drop' && index >= 3 ? { ...event, ifname: 'nowhere' } : event,
    );
    expect(places(events)).toEqual(THERE.slice(0, 2));
  });

  it('is dropped in its own netns where its process asked for that, not where others took its time', () => {
    expect(dropsOf(forbidden('.....'))).toMatchObject([
      { netns: 'a', link: null, reason: 'NETFILTER_DROP' },
    ]);
    expect(dropsOf(forbidden('..s1.'))).toEqual([]);
  });

  it('has the last of the packets that wait for a neighbour, where it was told so', () => {
    const events = parseKernelEvents([unanswered(1, 'aa'), unanswered(2, 'bb')].join('\n'));
    expect(followProbe(TWO_PODS, SENDER, events).drops).toEqual([]);
    const heard = { kind: 'refused', errno: 'EHOSTUNREACH', during: 'wait' } as const;
    const told = followProbe(TWO_PODS, { ...SENDER, heard }, events);
    expect(told.drops).toMatchObject([{ netns: 'a', afterUs: 1_000_000 }]);
  });

  it('was never sent then, whatever others send by links of the same names', () => {
    const events = parseKernelEvents(unanswered(1, 'bb'));
    const [last] = events;
    const others = parseKernelEvents(RECORDED).map((event) => ({
      ...event,
      pid: 1,
      seconds: (last?.seconds ?? 0) - 1e-3,
    }));
    const heard = { kind: 'refused', errno: 'EHOSTUNREACH', during: 'wait' } as const;
    const told = followProbe(TWO_PODS, { ...SENDER, heard }, [...others, ...events]);
    expect(told.seen).toEqual([]);
    expect(told.drops.map(({ netns, link }) => [netns, link])).toEqual([['a', null]]);
  });

  it('is lost with its answer where that is dropped before any link has it', () => {
    const there = parseKernelEvents(RECORDED).slice(0, 6);
    const drops = (cpu: number, seconds: number, heard: Sender['heard']) => {
      const line = `x-9 [00${cpu}] ..s1. ${seconds}: kfree_skb: skbaddr=99 protocol=2048 location=nft_do_chain+0x1/0x2 reason: NETFILTER_DROP`;
      const events = [...there, ...parseKernelEvents(line)];
      return followProbe(TWO_PODS, { ...SENDER, heard }, events).drops;
    };
    const silent = { kind: 'silent' } as const;
    expect(drops(1, 19201.966099, silent)).toMatchObject([{ netns: 'b', link: null }]);
    expect(drops(0, 19201.966099, silent)).toEqual([]);
    expect(drops(1, 19201.966899, silent)).toEqual([]);
    expect(drops(1, 19201.966099, { kind: 'answered' })).toEqual([]);
  });

  it('is not what a router drops that it says itself while it sends the probe on', () => {
    const line = `x-9 [001] ..s1. 19201.966085: kfree_skb: skbaddr=99 protocol=2048 location=nf_hook_slow+0x1/0x2 reason: NETFILTER_DROP`;
    const events = [...parseKernelEvents(RECORDED), ...parseKernelEvents(line)];
    const inOrder = events.toSorted((a, b) => a.seconds - b.seconds);
    const heard = { kind: 'silent' } as const;
    const { drops } = followProbe(TWO_PODS, { ...SENDER, heard }, inOrder);
    expect(drops.map(({ reason }) => reason)).not.toContain('NETFILTER_DROP');
  });

  it('is not what is dropped later where it was in memory', () => {
    const there = parseKernelEvents(RECORDED).slice(0, 6);
    const drops = (seconds: number) => {
      const line = `x-9 [000] ..s1. ${seconds}: kfree_skb: skbaddr=00000000e4ab554f protocol=2048 location=ip_rcv+0x1/0x2 reason: IP_CSUM`;
      return followProbe(TWO_PODS, SENDER, [...there, ...parseKernelEvents(line)]).drops;
    };
    expect(drops(19201.9661)).toMatchObject([{ netns: 'b', link: 'eth0', reason: 'IP_CSUM' }]);
    expect(drops(19202.2)).toEqual([]);
  });

  it('is told from others by its length', () => {
    expect([84, 98, 104, 105, 106, 119, 120, 155, 169].filter(isLetIn)).toEqual([
      105, 119, 155, 169,
    ]);
  });
});

/** What the kernel would tell if it did as predicted. */
function asPredicted(host: Host, journey: Journey): Observation {
  const { verdict, forward } = journey;
  const seen = crossingsOf(host, [...forward, ...journey.return])
    .flat()
    .map(({ netns, link, direction }): Sighting => ({ netns, link, direction, afterUs: 0 }));
  const outcome: ProbeOutcome =
    verdict.kind === 'delivered'
      ? { kind: 'answered' }
      : verdict.kind === 'dropped' && verdict.reason === 'SOCKET_REFUSED'
        ? { kind: 'refused', errno: verdict.text.split(':')[0] as 'EINVAL', during: 'send' }
        : { kind: 'silent' };
  const drops =
    verdict.kind === 'dropped' && verdict.reason !== 'SOCKET_REFUSED'
      ? [
          {
            netns: verdict.netns,
            link: verdict.link,
            reason: kernelReason(verdict.reason),
            location: 'somewhere+0x1/0x2',
            afterUs: 0,
          },
        ]
      : [];
  return { seen, drops, outcome, lostEvents: 0, waitedMs: 1000 };
}

const journeys = fc
  .record({
    ops: breakageLists(),
    netns: fc.constantFrom(...ROUTED_SENDERS),
    destination: fc.constantFrom(...ROUTED_DESTINATIONS),
  })
  .map(({ ops, netns, destination }) => {
    const { host } = carriedOut(ROUTED, ops);
    return { host, journey: travel(makeWorld(host), { netns, destination }) };
  });

const plain = (text: string): string => text;

describe('the links that a packet crosses', () => {
  /** Chains that let everything pass, of both families that see what a bridge only forwards. */
  const PASSING: readonly Op[] = [
    { op: 'sysctl.set', netns: 'node', key: 'net/bridge/bridge-nf-call-iptables', value: '1' },
    ...(['bridge', 'inet'] as const).map((family): Op => ({
      op: 'nft.batch',
      netns: 'node',
      commands: [
        { family, table: 'passing', do: 'add table' },
        ...(['prerouting', 'forward', 'postrouting'] as const).map((hook): NftCommand => ({
          family,
          table: 'passing',
          do: 'add chain',
          chain: hook,
          hook: { type: 'filter', hook, priority: 0, policy: 'accept' },
        })),
      ],
    })),
  ];

  it.each(['10.244.1.3', '10.244.1.1', '10.244.2.4'])(
    'are the same to %s with chains that let everything pass',
    (text) => {
      const request = { netns: 'a', destination: parseIp(text) };
      const crossed = (host: Host) => {
        const { forward, ...journey } = travel(makeWorld(host), request);
        expect(journey.verdict.kind).toBe('delivered');
        return crossingsOf(host, [...forward, ...journey.return]).flat();
      };
      expect(crossed(carriedOut(ROUTED, PASSING).host)).toEqual(crossed(ROUTED));
    },
  );
});

describe('a copy for somebody else', () => {
  it('is not needed, also where the answer has come before that one has it', () => {
    const flag = { op: 'port.set', netns: 'node', ifname: 'v-a' as Ifname } as const;
    const { host } = carriedOut(ROUTED, [{ ...flag, flag: 'learning', on: false }]);
    const request = { netns: 'a', destination: parseIp('10.244.1.1') };
    const { forward, ...journey } = travel(makeWorld(host), request);
    const crossings = crossingsOf(host, [...forward, ...journey.return]).flat();
    const needless = crossings.filter(({ isNeeded }) => !isNeeded);
    expect(needless.map(({ netns, link }) => `${netns} ${link}`)).toEqual(['node v-b', 'b eth0']);
  });
});

describe('prediction and kernel', () => {
  it('agree where everything was seen', () => {
    fc.assert(
      fc.property(journeys, ({ host, journey }) => {
        const { parting, hops } = compare(host, journey, asPredicted(host, journey), 'icmp');
        expect(parting).toBeNull();
        expect(hops).not.toContain(false);
      }),
    );
  });

  it('part where any link that it needs did not see it, unless events were lost', () => {
    fc.assert(
      fc.property(journeys, fc.nat(), ({ host, journey }, nth) => {
        const observed = asPredicted(host, journey);
        const needed = crossingsOf(host, [...journey.forward, ...journey.return])
          .flat()
          .flatMap(({ isNeeded }, index) => (isNeeded ? [index] : []));
        fc.pre(needed.length > 0);
        const gone = needed[nth % needed.length];
        const seen = observed.seen.filter((_each, index) => index !== gone);
        const compared = compare(host, journey, { ...observed, seen }, 'icmp');
        expect(compared.parting).toContain('nothing of it');
        expect(compared.hops).toContain(false);
        const blurred = compare(host, journey, { ...observed, seen, lostEvents: 1 }, 'icmp');
        expect([blurred.parting, blurred.isBlurred]).toEqual([null, true]);
      }),
    );
  });

  it('part where it ends otherwise', () => {
    fc.assert(
      fc.property(journeys, ({ host, journey }) => {
        const { verdict } = journey;
        fc.pre(verdict.kind !== 'unknown');
        const observed = asPredicted(host, journey);
        const outcome: ProbeOutcome =
          verdict.kind === 'delivered' ? { kind: 'silent' } : { kind: 'answered' };
        expect(compare(host, journey, { ...observed, outcome }, 'icmp').parting).not.toBeNull();
      }),
    );
  });

  const journey = travel(makeWorld(TWO_PODS), REQUEST);
  const observed = asPredicted(TWO_PODS, journey);
  const drop = { netns: 'node', link: null, location: 'nft_do_chain+0x1/0x2', afterUs: 9 };
  const refused = { kind: 'refused', errno: 'ECONNREFUSED', during: 'wait' } as const;

  it.each([
    ['a port that nobody has', { outcome: refused }, 'tcp', null],
    [
      'a refusal of a rule',
      { outcome: refused, drops: [{ ...drop, reason: 'NETFILTER_DROP' }] },
      'tcp',
      'an answer was predicted',
    ],
    ['a datagram that is not answered', { outcome: { kind: 'silent' } }, 'udp', null],
    ['an echo that is not answered', { outcome: { kind: 'silent' } }, 'icmp', 'an answer'],
  ] as const)('tell %s', (_what, change, protocol, parting) => {
    const compared = compare(TWO_PODS, journey, { ...observed, ...change }, protocol);
    if (parting === null) expect(compared.parting).toBeNull();
    else expect(compared.parting).toContain(parting);
  });

  it('agree that an answer has no route where nothing is seen of it: no packet was made', () => {
    const [route] = (ROUTED.netns['d']?.routes ?? []).filter(({ gateway }) => gateway !== null);
    if (!route) throw new Error('there is no default route');
    const { host } = carriedOut(ROUTED, [{ op: 'route.del', netns: 'd', route }]);
    const lost = travel(makeWorld(host), { netns: 'a', destination: parseIp('10.244.3.2') });
    expect(lost.verdict).toMatchObject({ reason: 'IP_OUTNOROUTES' });
    const silent = { ...asPredicted(host, lost), drops: [], outcome: { kind: 'silent' } as const };
    expect(compare(host, lost, silent, 'icmp').parting).toBeNull();
    const dropped = { ...silent, drops: [{ ...drop, reason: 'NETFILTER_DROP' }] };
    expect(compare(host, lost, dropped, 'icmp').parting).not.toBeNull();
  });

  it('are shown side by side', () => {
    const marks = { bold: plain, dim: plain, green: plain, red: plain, yellow: plain };
    const seen = observed.seen.slice(0, 3);
    const drops = [{ ...drop, reason: 'NETFILTER_DROP' }];
    const ended = { ...observed, seen, drops, outcome: { kind: 'silent' } as const };
    const lines = formatComparison(compare(TWO_PODS, journey, ended, 'icmp'), marks);
    expect(
      lines.filter((line) => /^[✓✗] [abn]/.test(line)).map((line) => line.slice(0, 11)),
    ).toEqual(['✓ a eth0   ', '✗ node v-b ', '✗ b eth0   ', '✗ node v-a ']);
    expect(lines.slice(-2)).toEqual([
      '✗ prediction and kernel part: b eth0 received nothing of it',
      '  the kernel: dropped in node: NETFILTER_DROP, by nft_do_chain+0x1/0x2',
    ]);
  });

  it.each([
    ['the netns of the table, by netfilter', [{ ...drop, reason: 'NETFILTER_DROP' }], true],
    ['the netns of the table, for no reason', [{ ...drop, reason: null }], true],
    ['the netns of the table, for another reason', [{ ...drop, reason: 'NEIGH_FAILED' }], false],
    ['elsewhere', [{ ...drop, netns: 'b', reason: 'NETFILTER_DROP' }], false],
    ['nowhere', [], true],
  ])('suspect a table that is not read where it ends in %s', (_where, drops, isSuspect) => {
    const chains = [{ hook: 'forward', rules: 1, policy: 'accept' }] as const;
    const legacyTables = { node: [{ family: 'ip', name: 'filter', chains }] } as const;
    const beside = travel(makeWorld(ROUTED, legacyTables), {
      netns: 'a',
      destination: parseIp('10.244.2.4'),
    });
    const seen = asPredicted(ROUTED, beside);
    const ended = { ...seen, drops, outcome: { kind: 'silent' } as const };
    const marks = { bold: plain, dim: plain, green: plain, red: plain, yellow: plain };
    const linesOf = (each: typeof ended | typeof seen): string[] =>
      formatComparison(compare(ROUTED, beside, each, 'icmp'), marks);
    const suspicion =
      '  it may be of table filter of iptables-legacy in netns node, which is not read';
    expect(linesOf(ended).includes(suspicion)).toBe(isSuspect);
    expect(linesOf(seen)).not.toContain(suspicion);
    expect(linesOf(seen).at(-1)).toBe('✓ prediction and kernel agree: the answer came');
  });
});
