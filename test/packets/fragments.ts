/** Packets of any size over links of any MTU, in the simulator and on the kernel. */
import fc from 'fast-check';
import type { NetnsName } from '../../model/host.ts';
import type { Ifname } from '../../model/ifname.ts';
import { parseIp } from '../../model/ip.ts';
import type { Op } from '../../model/op.ts';
import { parsePrefix } from '../../model/prefix.ts';
import { makeRoute } from '../../model/route.ts';
import { probe } from '../../sim/probe.ts';
import { type World, withHost } from '../../sim/world.ts';
import { ROUTED, carriedOut } from '../sim/hosts.ts';
import { LISTEN_PORT } from '../sim/rulesets.ts';
import { mtuOp } from '../sim/sized-hosts.ts';
import { bridgedOps, compareHost, readRules, withForeign, withRules } from './compare.ts';
import type { ForeignRuleset } from './foreign.ts';
import { requestOf } from './questions.ts';
import type { RoutedKernel } from './routed-kernel.ts';
import type { Question } from './stations.ts';

/** Chains that see fragments each by itself, and such that see whole packets, since something asks for connections. */
const TEXTS: Readonly<Record<string, string>> = {
  'no rules': '',
  'a chain that lets all pass':
    'table inet sized { chain f { type filter hook forward priority 0; }; }',
  'ports that only a first fragment has': `table inet sized {
    chain f {
      type filter hook forward priority 0; policy drop;
      udp dport ${LISTEN_PORT} accept
      udp sport ${LISTEN_PORT} accept
      icmp type { echo-request, echo-reply } accept
      icmpv6 type { echo-request, echo-reply, packet-too-big, nd-neighbor-solicit, nd-neighbor-advert } accept
    }
  }`,
  'later fragments of one protocol': `table ip sized {
    chain p {
      type filter hook prerouting priority -450;
      ip frag-off & 0x1fff != 0 meta l4proto icmp drop
    }
  }
  table ip6 sized {
    chain i {
      type filter hook forward priority 0;
      meta l4proto udp udp dport ${LISTEN_PORT} meta length > 1400 drop
    }
  }`,
  'what lies where a later fragment has no header': `table inet sized {
    chain f {
      type filter hook forward priority 0;
      icmp type 64-127 drop
      icmpv6 type 96 meta length < 900 drop
      udp dport 0xf000-0xffff drop
      @th,8,16 0xc0c1-0xc8c9 drop
    }
  }`,
  'a length': `table inet sized {
    chain f { type filter hook forward priority 0; meta length 1300-1450 drop; }
    chain i { type filter hook input priority 0; meta length > 3000 drop; }
  }`,
  connections: `table inet sized {
    chain f {
      type filter hook forward priority 0; policy drop;
      ct state established,related accept
      udp dport ${LISTEN_PORT} accept
      icmp type echo-request accept
      icmpv6 type { echo-request, nd-neighbor-solicit, nd-neighbor-advert } accept
    }
  }`,
  masquerade: `table inet sized {
    chain p { type nat hook postrouting priority 100; oifname { "cni1", "v-d" } masquerade; }
  }`,
  'what is not tracked': `table inet sized {
    chain p { type filter hook prerouting priority -300; meta l4proto { icmp, icmpv6 } notrack; }
    chain f { type filter hook forward priority 0; ct state invalid drop; }
  }`,
};

/** The same by matches of iptables, which look for ports in whole packets and first fragments only. */
function iptablesText(icmp: string): string {
  return `*filter
:FORWARD DROP [0:0]
-A FORWARD -p udp -m multiport --dports 1:100,${LISTEN_PORT} -j ACCEPT
-A FORWARD -p udp -m udp --sport ${LISTEN_PORT} -j ACCEPT
${icmp}
COMMIT
`;
}

const IPTABLES4 = iptablesText('-A FORWARD -p icmp -m icmp --icmp-type 8 -j ACCEPT');
const IPTABLES6 = iptablesText('-A FORWARD -p ipv6-icmp -j ACCEPT');

/** Rules, with and without the bridges' packets. */
export const FRAGMENT_RULES: readonly ForeignRuleset[] = [
  ...Object.entries(TEXTS).map(([name, nft]) => ({ name, nft })),
  { name: 'matches of iptables', iptables: IPTABLES4, ip6tables: IPTABLES6 },
].flatMap((rules) => [false, true].map((bridged) => ({ ...rules, bridged })));

/** Links that meet, each end with an MTU of its own. */
const WIRES: readonly (readonly (readonly [NetnsName, string])[])[] = ['a', 'b', 'c', 'd'].map(
  (pod) => [
    ['node', `v-${pod}`],
    [pod, 'eth0'],
  ],
);

/** A host whose MTUs are changed. */
export interface SizedHost {
  readonly name: string;
  /** Added to the routed host once the links have their MTUs, which those of IPv6 follow (rt6_mtu_change_route). */
  readonly routes: readonly (Op & { readonly op: 'route.add' })[];
  /** Whose links have MTUs beside those of the pods. */
  readonly bridges: readonly string[];
  readonly mtus: readonly number[];
  readonly destinations: readonly string[];
}

/** Less than 1280 takes IPv6 from a link, for good. */
const MTUS = [1280, 1284, 1300, 1400, 1499, 1500, 2001, 3000];

const DESTINATIONS4 = ['10.244.1.1', '10.244.1.2', '10.244.1.3', '10.244.2.4', '10.244.3.2'];
const DESTINATIONS6 = ['fd00:1::1', 'fd00:1::2', 'fd00:1::3', 'fd00:2::4', 'fd00:3::2'];
const DESTINATIONS = [...DESTINATIONS4, ...DESTINATIONS6];

function routeOp(
  netns: NetnsName,
  destination: string,
  device: string,
  gateway: string | null,
  mtuBytes: number,
): Op & { readonly op: 'route.add' } {
  const route = makeRoute({
    destination: parsePrefix(destination),
    device: device as Ifname,
    gateway: gateway === null ? null : parseIp(gateway),
    mtuBytes,
  });
  return { op: 'route.add', netns, route };
}

/** Routes of whose MTU senders and routers know, some larger than that of their link. */
export const ROUTES: readonly (Op & { readonly op: 'route.add' })[] = [
  routeOp('a', '10.244.3.0/30', 'eth0', '10.244.1.1', 1290),
  routeOp('a', 'fd00:3::/126', 'eth0', 'fd00:1::1', 1290),
  routeOp('b', '10.244.2.0/24', 'eth0', '10.244.1.1', 2500),
  routeOp('b', 'fd00:2::/64', 'eth0', 'fd00:1::1', 2500),
  routeOp('d', '10.244.1.0/24', 'eth0', '10.244.3.1', 1450),
  routeOp('node', '10.244.2.4/32', 'cni1', null, 1350),
  routeOp('node', 'fd00:2::4/128', 'cni1', null, 1350),
  routeOp('node', '10.244.1.2/32', 'cni0', null, 2500),
  routeOp('node', 'fd00:1::3/128', 'cni0', null, 2500),
];

export const PLAIN: SizedHost = {
  name: 'links of several MTUs',
  routes: [],
  bridges: [],
  mtus: MTUS,
  destinations: DESTINATIONS,
};

export const SIZED_HOSTS: readonly SizedHost[] = [
  { ...PLAIN, name: 'bridges with an MTU of their own', bridges: ['cni0', 'cni1'] },
  { ...PLAIN, name: 'routes with an MTU', routes: ROUTES },
  {
    ...PLAIN,
    name: 'links with the smallest MTUs',
    mtus: [68, 69, 75, 76, 100, 256, 576, 600],
    destinations: DESTINATIONS4,
  },
];

/** Every link as it was. */
function usualOps({ bridges }: SizedHost): readonly Op[] {
  return [...WIRES.flat(), ...bridges.map((bridge) => ['node', bridge] as const)].map(
    ([netns, ifname]) => mtuOp(netns, ifname, 1500),
  );
}

/** MTUs for the links, mostly one for both ends of a wire. */
export function mtuOps({ bridges, mtus }: SizedHost): fc.Arbitrary<readonly Op[]> {
  const mtu = fc.constantFrom(...mtus);
  const wires = WIRES.map((ends) =>
    fc
      .oneof(
        { weight: 3, arbitrary: mtu.map((both) => [both, both]) },
        { weight: 1, arbitrary: fc.tuple(mtu, mtu) },
      )
      .map((both) => ends.map(([netns, ifname], end) => mtuOp(netns, ifname, both[end] ?? 1500))),
  );
  const own = bridges.map((bridge) => mtu.map((each) => [mtuOp('node', bridge, each)]));
  return fc.tuple(...wires, ...own).map((ops) => ops.flat());
}

/** Sizes around those where one fragment more is needed, and any. */
function sizes({ mtus }: SizedHost): fc.Arbitrary<number> {
  const edge = fc
    .tuple(fc.constantFrom(...mtus), fc.constantFrom(1, 1, 2, 3), fc.integer({ min: -64, max: 16 }))
    .map(([mtu, times, more]) => Math.max(1, Math.min(4000, mtu * times + more)));
  return fc.oneof(
    { weight: 3, arbitrary: edge },
    { weight: 1, arbitrary: fc.integer({ min: 1, max: 4000 }) },
  );
}

/** Who has an address. */
const OWNERS: Readonly<Record<string, NetnsName>> = {
  '10.244.1.1': 'node',
  '10.244.1.2': 'a',
  '10.244.1.3': 'b',
  '10.244.2.4': 'c',
  '10.244.3.2': 'd',
  'fd00:1::1': 'node',
  'fd00:1::2': 'a',
  'fd00:1::3': 'b',
  'fd00:2::4': 'c',
  'fd00:3::2': 'd',
};

/** Questions with and without DF. With it the socket asks for the MTU of its link alone (IP_PMTUDISC_PROBE), so that no route has one there. */
export function sizedQuestions(host: SizedHost): fc.Arbitrary<Question> {
  const isLimited = (netns: NetnsName): boolean => host.routes.some((op) => op.netns === netns);
  return fc
    .record({
      netns: fc.constantFrom('node', 'a', 'b', 'c', 'd'),
      destination: fc.constantFrom(...host.destinations.map(parseIp)),
      protocol: fc.constantFrom('icmp' as const, 'udp' as const),
      payloadBytes: sizes(host),
      dontFragment: fc.boolean(),
    })
    .map(({ dontFragment, ...asked }) => ({
      ...asked,
      port: asked.protocol === 'udp' ? LISTEN_PORT : 0,
      dontFragment: dontFragment && !isLimited(asked.netns),
    }));
}

/** Of what a netns was told about a path it knows for a tick of its clock: no two questions of a batch are between the same two. */
function batchesOf(questions: readonly Question[]): readonly (readonly Question[])[] {
  const batches: Question[][] = [];
  const counts = new Map<string, number>();
  for (const asked of questions) {
    const ends = [asked.netns, OWNERS[asked.destination] ?? ''].toSorted();
    const pair = `${ends.join(' ')} ${asked.destination.includes(':')}`;
    const at = counts.get(pair) ?? 0;
    counts.set(pair, at + 1);
    (batches[at] ??= []).push(asked);
  }
  return batches;
}

export interface SizedComparison {
  readonly partings: readonly string[];
  /** Why the simulator does not know. */
  readonly unknown: readonly string[];
  /** Of how many senders were told by an ICMP error, and how many were answered in more than one piece, there or back. */
  readonly errors: number;
  readonly fragmented: number;
}

/** Is it answered, and comes in fragments, or the answer does? */
function isFragmented(world: World, asked: Question): boolean {
  const { hops, verdict } = probe(world, requestOf(asked));
  return (
    verdict.kind === 'delivered' &&
    hops.some(({ data }) => data.kind === 'ip' && data.fragment !== undefined)
  );
}

/** The host with MTUs and rules on both sides, and on which questions they part. */
export async function compareSized(
  kernel: RoutedKernel,
  warm: World,
  sized: SizedHost,
  ops: readonly Op[],
  rules: ForeignRuleset,
  questions: readonly Question[],
): Promise<SizedComparison> {
  const { routes } = sized;
  return withForeign(kernel, rules, async (netns) => {
    const wanted = [...usualOps(sized), ...ops, ...routes, ...bridgedOps(rules)];
    const { ops: done, host } = carriedOut(ROUTED, wanted);
    for (const op of done) kernel.execute(op);
    const ruled = withRules(readRules(netns), host);
    const partings: string[] = [];
    const unknown: string[] = [];
    let errors = 0;
    try {
      for (const batch of batchesOf(questions)) {
        const compared = await compareHost(kernel, warm, ruled, { together: batch });
        partings.push(...compared.partings);
        unknown.push(...compared.unknown);
        errors += compared.errors;
      }
    } finally {
      for (const { netns: of, route } of routes)
        kernel.execute({ op: 'route.del', netns: of, route });
    }
    const world = { ...withHost(warm, ruled), connections: {} };
    const fragmented = questions.filter((asked) => isFragmented(world, asked)).length;
    return { partings, unknown, errors, fragmented };
  });
}
