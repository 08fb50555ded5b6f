/** Packets of any size over links of any MTU: who has an answer in the simulator has one on the kernel, and nobody else (K-7.9). */
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parseIp } from '../../model/ip.ts';
import { makeWorld } from '../../sim/world.ts';
import { readRules, warmUp, warmWorld, withForeign, withRules } from '../packets/compare.ts';
import {
  FRAGMENT_RULES,
  PLAIN,
  ROUTES,
  SIZED_HOSTS,
  compareSized,
  mtuOps,
  sizedQuestions,
} from '../packets/fragments.ts';
import { type RoutedKernel, buildHost, buildRouted } from '../packets/routed-kernel.ts';
import {
  type SizedEcho,
  compareEchoes,
  fragmentsPredicted,
  fragmentsSeen,
  hearOf,
} from '../packets/sized-echo.ts';
import { requirement } from '../requirements.ts';
import { ROUTED } from '../sim/hosts.ts';
import { applyAll } from '../sim/pods.ts';
import { LISTEN_PORT } from '../sim/rulesets.ts';
import { BRIDGED_OPS, wireOps } from '../sim/sized-hosts.ts';
import {
  BRIDGED_TUNNEL_OPS,
  LARGE_TUNNEL_OPS,
  TUNNEL_TARGET,
  TUNNEL_TARGET6,
} from '../sim/tunnels.ts';

/** Kept, so that every run asks the same: each of the rulesets of other hosts. */
const SEED = 4321;
const RUNS = 1;
const QUESTIONS = 40;
const SECONDS = 120;

describe.skipIf(requirement('root', 'iproute2', 'conntrack', 'iptables-nft', 'nftables')).each([
  { host: PLAIN, rules: FRAGMENT_RULES },
  ...SIZED_HOSTS.map((host) => ({
    host,
    rules: FRAGMENT_RULES.filter(({ name }) => name === 'no rules' || name === 'connections'),
  })),
])('packets of any size over $host.name', ({ host, rules }) => {
  let kernel: RoutedKernel | undefined;
  const warm = warmWorld();
  let [fragmented, errors] = [0, 0];

  beforeAll(async () => {
    kernel = buildRouted();
    await warmUp(kernel);
  }, SECONDS * 1000);

  afterAll(() => kernel?.tearDown());

  it.each(rules)(
    'arrive through $name, or do not, as the simulator says (bridges: $bridged)',
    async (each) => {
      const built = kernel;
      if (!built) throw new Error('there is no host');
      const questions = fc.array(sizedQuestions(host), {
        minLength: QUESTIONS,
        maxLength: QUESTIONS,
      });
      await fc.assert(
        fc.asyncProperty(mtuOps(host), questions, async (ops, asked) => {
          const compared = await compareSized(built, warm, host, ops, each, asked);
          expect(compared.partings).toEqual([]);
          expect(compared.unknown).toEqual([]);
          fragmented += compared.fragmented;
          errors += compared.errors;
        }),
        { numRuns: RUNS, seed: SEED + rules.indexOf(each), endOnFailure: true },
      );
    },
    SECONDS * 1000,
  );

  it('are answered in fragments, or refused, too', () => {
    expect(fragmented).toBeGreaterThan(0);
    expect(errors).toBeGreaterThan(0);
  });
});

/** An echo of 4000 bytes, and who cuts it. */
const CUT = [
  { name: 'its sender', ops: [], rules: 'no rules', to: '10.244.3.2' },
  { name: 'its sender, of IPv6', ops: [], rules: 'no rules', to: 'fd00:3::2' },
  { name: 'a router once more', ops: wireOps('d', 1284), rules: 'no rules', to: '10.244.3.2' },
  { name: 'a router that joins', ops: wireOps('d', 1284), rules: 'connections', to: '10.244.3.2' },
  {
    name: 'a router that joins, as it came',
    ops: [...wireOps('a', 1284), ...wireOps('d', 3000)],
    rules: 'connections',
    to: '10.244.3.2',
  },
  {
    name: 'a router of IPv6 that joins, as it came',
    ops: [...wireOps('a', 1284), ...wireOps('d', 3000)],
    rules: 'connections',
    to: 'fd00:3::2',
  },
  { name: 'a bridge that joins', ops: wireOps('a', 1284), rules: 'connections', to: '10.244.1.3' },
  {
    name: 'a bridge of IPv6 that joins',
    ops: wireOps('a', 1284),
    rules: 'connections',
    to: 'fd00:1::3',
  },
] as const;

describe.skipIf(requirement('root', 'iproute2', 'nftables', 'tcpdump'))('an echo is cut', () => {
  it.each(CUT)(
    'by $name, as the simulator says',
    async ({ ops, rules, to }) => {
      const host = buildHost();
      const ruleset = FRAGMENT_RULES.find(({ name }) => name === rules);
      if (!ruleset) throw new Error('there are no such rules');
      const destination = parseIp(to);
      const asked = { netns: 'a', destination, payloadBytes: 4000, dontFragment: false };
      const end = to.includes('1.3') || to.includes('1::3') ? 'b' : 'd';
      try {
        await withForeign(host, ruleset, async (netns) => {
          const all = [...ops, ...BRIDGED_OPS];
          for (const op of all) host.execute(op);
          const changed = applyAll(ROUTED, all);
          const world = makeWorld(withRules(readRules(netns), changed));
          const predicted = fragmentsPredicted(world, asked, { netns: 'node', link: `v-${end}` });
          expect(predicted.length).toBeGreaterThan(1);
          // Whoever asks first waits for ARP and ND.
          await hearOf(host, { netns: 'a', destination }, 1000);
          const seen = await fragmentsSeen(host, asked, { netns: end, link: 'eth0' });
          expect(seen).toEqual(predicted);
        });
      } finally {
        host.tearDown();
      }
    },
    SECONDS * 1000,
  );
});

/** How soon netns give up on fragments, in seconds, where nobody wants to wait half a minute. */
const GIVE_UP = ['net/ipv4/ipfrag_time', 'net/ipv6/ip6frag_time'];

describe.skipIf(requirement('root', 'iproute2', 'nftables'))('whoever sends fragments', () => {
  it(
    'is told by IPv6 alone that some do not arrive',
    async () => {
      const host = buildHost();
      try {
        for (const netns of ['node', 'c'])
          for (const key of GIVE_UP) host.execute({ op: 'sysctl.set', netns, key, value: '1' });
        const drops = {
          name: 'drops',
          nft: `table inet sized {
            chain f { type filter hook forward priority 0; meta length 500-700 drop; }
          }`,
        };
        const to = { protocol: 'udp', port: LISTEN_PORT } as const;
        const request = { netns: 'a', payloadBytes: 2000, dontFragment: false, to };
        const heard = await withForeign(host, drops, () =>
          Promise.all(
            ['10.244.2.4', 'fd00:2::4'].map((each) =>
              hearOf(host, { ...request, destination: parseIp(each) }, 3000),
            ),
          ),
        );
        expect(heard).toEqual(['silent', 'EHOSTUNREACH']);
      } finally {
        host.tearDown();
      }
    },
    SECONDS * 1000,
  );
});

/** Sizes around what fits into the packets of a vxlan, and into its MTU. */
const TUNNELLED = [1, 1402, 1403, 1422, 1423, 1552, 1553, 1572, 1573, 1973, 3000];
/** Sizes around what routes have room for, with the headers of IPv4 and IPv6. */
const ALONG_ROUTES = [1242, 1243, 1262, 1263, 1302, 1303, 1322, 1323, 1472, 2452, 2473, 3000];

const ECHOES = [
  {
    name: 'through a vxlan, in fragments of the underlay (K-9.4)',
    ops: LARGE_TUNNEL_OPS,
    pairs: [['a', TUNNEL_TARGET]],
    sizes: TUNNELLED,
  },
  {
    name: 'through a vxlan from behind a bridge, or not (K-9.4)',
    ops: BRIDGED_TUNNEL_OPS,
    pairs: [
      ['d', TUNNEL_TARGET],
      ['d', TUNNEL_TARGET6],
    ],
    sizes: TUNNELLED,
  },
  {
    name: 'along routes with an MTU, or not',
    ops: ROUTES,
    pairs: [
      ['a', parseIp('10.244.3.2')],
      ['a', parseIp('fd00:3::2')],
      ['a', parseIp('fd00:2::4')],
      ['b', parseIp('10.244.2.4')],
      ['b', parseIp('fd00:2::4')],
    ],
    sizes: ALONG_ROUTES,
  },
] as const;

describe.skipIf(requirement('root', 'iproute2'))('echoes of any size', () => {
  it.each(ECHOES)(
    'arrive $name, as the simulator says',
    async ({ ops, pairs, sizes }) => {
      const host = buildHost();
      try {
        for (const op of ops) host.execute(op);
        const echoes = pairs.flatMap(([netns, destination]) =>
          [true, false].flatMap((dontFragment) =>
            sizes.map((payloadBytes): SizedEcho => ({
              netns,
              destination,
              payloadBytes,
              dontFragment,
            })),
          ),
        );
        const { partings, unknown, answered } = await compareEchoes(
          host,
          makeWorld(applyAll(ROUTED, ops)),
          echoes,
        );
        expect(partings).toEqual([]);
        expect(unknown).toBe(0);
        expect(answered).toBeGreaterThan(0);
      } finally {
        host.tearDown();
      }
    },
    SECONDS * 1000,
  );
});
