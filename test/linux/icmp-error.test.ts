/** Who is told by which ICMP error that a datagram does not arrive: the simulator's cases on the kernel (K-7.7). */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parseIp } from '../../model/ip.ts';
import { probe } from '../../sim/probe.ts';
import { makeWorld } from '../../sim/world.ts';
import { readRules, withForeign, withRules } from '../packets/compare.ts';
import { formatError, formatTold } from '../packets/errors.ts';
import { requestOf } from '../packets/questions.ts';
import { type RoutedKernel, buildRouted } from '../packets/routed-kernel.ts';
import type { Question } from '../packets/stations.ts';
import { requirement } from '../requirements.ts';
import {
  ERRING_CASES,
  ERRING_OPS,
  type ErringCase,
  MASQUERADE,
  MASQUERADED_CASES,
  expectedOf,
} from '../sim/icmp-errors.ts';
import { LISTEN_PORT } from '../sim/rulesets.ts';

/** Longer than a neighbour that is asked three times, every 20 ms. */
const WAIT_MS = 300;
const SECONDS = 30;

/** Rules that reject what is forwarded, and what arrives. */
const REJECTING = {
  name: 'rejecting',
  nft: `table inet rejecting {
    chain passing {
      type filter hook forward priority 0;
      ip daddr 10.244.2.4 tcp dport 80 reject with tcp reset
      ip6 daddr fd00:2::4 tcp dport 80 reject with tcp reset
      ip daddr 10.244.2.4 udp dport 7000 reject
      ip daddr 10.244.3.2 meta l4proto udp reject with icmp type admin-prohibited
      ip6 daddr fd00:2::4 reject with icmpx type no-route
      ip6 daddr fd00:3::2 udp dport 7000 reject with icmpv6 type port-unreachable
    }
    chain arriving {
      type filter hook input priority 0;
      ip daddr 10.244.2.1 udp dport 7000 reject with icmp type host-unreachable
    }
  }`,
};
const REJECTED = ['10.244.2.4', '10.244.3.2', 'fd00:2::4', 'fd00:3::2', '10.244.2.1'];

const TO_LISTENER = { netns: 'a', protocol: 'udp', port: LISTEN_PORT } as const;

function say(each: ErringCase): string {
  return `${each.name}: ${formatError(expectedOf(each))}`;
}

describe.skipIf(requirement('root', 'iproute2'))('the sender is told by the kernel', () => {
  let kernel: RoutedKernel | undefined;

  beforeAll(() => {
    kernel = buildRouted();
    for (const op of ERRING_OPS) kernel.execute(op);
  }, SECONDS * 1000);

  afterAll(() => kernel?.tearDown());

  function built(): RoutedKernel {
    if (!kernel) throw new Error('there is no host');
    return kernel;
  }

  async function toldOf(questions: readonly Question[]): Promise<readonly string[]> {
    const answers = await built().ask(questions, WAIT_MS);
    return answers.map(({ told, isRefused }) =>
      isRefused === true ? 'connection refused' : formatTold(told),
    );
  }

  async function answersTo(cases: readonly ErringCase[]): Promise<readonly string[]> {
    const questions = cases.map(({ destination, ttl = 64, payloadBytes = 0 }): Question => ({
      ...TO_LISTENER,
      destination: parseIp(destination),
      ttl,
      payloadBytes,
    }));
    const told = await toldOf(questions);
    return cases.map(({ name }, at) => `${name}: ${told[at]}`);
  }

  it(
    'as the simulator says',
    async () => expect(await answersTo(ERRING_CASES)).toEqual(ERRING_CASES.map(say)),
    SECONDS * 1000,
  );

  it(
    'by rules that reject',
    async () => {
      const questions = [
        ...REJECTED.map((destination): Question => ({
          ...TO_LISTENER,
          destination: parseIp(destination),
        })),
        ...['10.244.2.4', 'fd00:2::4'].map((destination): Question => ({
          netns: 'a',
          protocol: 'tcp',
          destination: parseIp(destination),
          port: 80,
        })),
      ];
      const [told, expected] = await withForeign(built(), REJECTING, async (netns) => {
        const world = makeWorld(withRules(readRules(netns)));
        const answers = questions.map((question) => {
          const { error } = probe(world, requestOf(question));
          return error === 'unknown' ? error : formatError(error);
        });
        return [await toldOf(questions), answers];
      });
      expect(told).toEqual(expected);
      expect(expected).not.toContain('nothing');
    },
    SECONDS * 1000,
  );

  // Of routes that end packets IPv4 tells five times at once (ip_error): these cases have none.
  it(
    'through a masquerade too',
    async () => {
      built().execute(MASQUERADE);
      expect(await answersTo(MASQUERADED_CASES)).toEqual(MASQUERADED_CASES.map(say));
    },
    SECONDS * 1000,
  );
});
