/** The simulator against the kernel where netfilter has a say: the routed host, random rulesets, and who reaches whom as whom. */
import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parseIp } from '../../model/ip.ts';
import {
  compareForeign,
  compareHost,
  compareRuleset,
  foreignTexts,
  warmUp,
  warmWorld,
} from '../packets/compare.ts';
import { formatError, formatTold } from '../packets/errors.ts';
import { FOREIGN_RULESETS } from '../packets/foreign.ts';
import { prepare } from '../packets/programs.ts';
import { DYING, QUESTIONS } from '../packets/questions.ts';
import { type RoutedKernel, buildHost, buildRouted } from '../packets/routed-kernel.ts';
import { SHAPES } from '../packets/shapes.ts';
import { requirement } from '../requirements.ts';
import { HAIRPIN_CASES } from '../sim/hairpin.ts';
import { ROUTED } from '../sim/hosts.ts';
import { applyAll } from '../sim/pods.ts';
import { REDIRECTED_CASES } from '../sim/redirected.ts';
import {
  BRIDGED_MASQUERADE,
  LISTEN_PORT,
  NO_RULESET,
  SERVICES,
  SERVICE_PORT,
  rulesets,
} from '../sim/rulesets.ts';
import { TUNNEL_CASES, TUNNEL_TARGET } from '../sim/tunnels.ts';

/** Kept, so that every run asks the same; `npm run fuzz:packets` asks others. */
const SEED = 8;
const RULESETS = 20;
const ERROR_RULESETS = 10;
const SECONDS = 60;
/** Longer than a neighbour that is asked three times, every 20 ms. */
const ERROR_WAIT_MS = 300;

/** What rules of others read like. */
const FOREIGN_TEXTS = join(import.meta.dirname, '../packets/foreign-rules.txt');

describe.skipIf(requirement('root', 'iproute2', 'busybox'))('packets through netfilter', () => {
  let kernel: RoutedKernel | undefined;
  const warm = warmWorld();

  beforeAll(async () => {
    kernel = buildRouted();
    await warmUp(kernel);
  }, SECONDS * 1000);

  afterAll(() => kernel?.tearDown());

  function built(): RoutedKernel {
    if (!kernel) throw new Error('there is no host');
    return kernel;
  }

  it(
    'arrive as the simulator says, or do not',
    async () => {
      await fc.assert(
        fc.asyncProperty(
          rulesets(),
          fc.shuffledSubarray([...QUESTIONS], { minLength: 30, maxLength: 50 }),
          async (ops, questions) => {
            const { partings, verdicts } = await compareRuleset(built(), warm, ops, {
              together: questions,
            });
            expect(partings).toEqual([]);
            // What the simulator does not know it cannot be wrong about.
            expect(verdicts['unknown']).toBeUndefined();
          },
        ),
        { numRuns: RULESETS, seed: SEED, endOnFailure: true },
      );
    },
    SECONDS * 1000,
  );

  it(
    'are told of by the errors that the simulator says, or by none (K-7.7)',
    async () => {
      let told = 0;
      await fc.assert(
        fc.asyncProperty(
          rulesets(),
          fc.shuffledSubarray([...DYING], { minLength: 80, maxLength: 120 }),
          async (ops, questions) => {
            const { partings, errors } = await compareRuleset(built(), warm, ops, {
              together: questions,
            });
            expect(partings).toEqual([]);
            told += errors;
          },
        ),
        { numRuns: ERROR_RULESETS, seed: SEED, endOnFailure: true },
      );
      expect(told).toBeGreaterThan(0);
    },
    SECONDS * 1000,
  );

  it(
    'leave a bridge as if they had come in by no link (K-8.4)',
    async () => {
      const questions = ['10.244.1.2', '10.244.2.4']
        .map(parseIp)
        .map(
          (destination) =>
            ({ netns: 'b', protocol: 'udp', destination, port: LISTEN_PORT }) as const,
        );
      const { partings } = await compareRuleset(built(), warm, BRIDGED_MASQUERADE, {
        together: questions,
      });
      expect(partings).toEqual([]);
    },
    SECONDS * 1000,
  );

  it.each([true, false])(
    'are refused past all chains where a bridge has them look: %s (K-7.7)',
    async (bridged) => {
      const nft = `table inet others {
        chain f { type filter hook forward priority 0; reject with tcp reset; }
        chain o { type filter hook output priority 0; policy drop; icmpv6 type nd-neighbor-advert accept; }
        chain p { type nat hook prerouting priority -100; ip daddr 10.50.0.1 dnat ip to 10.244.2.4; }
      }`;
      const questions = ['10.244.1.3', '10.244.2.4', '10.50.0.1', 'fd00:2::4'].map(
        (destination) =>
          ({
            netns: 'a',
            protocol: 'tcp',
            destination: parseIp(destination),
            port: LISTEN_PORT,
          }) as const,
      );
      const ruleset = { name: 'a reset', nft, bridged };
      const { partings, errors } = await compareForeign(built(), warm, ruleset, {
        together: questions,
      });
      expect(partings).toEqual([]);
      expect(errors).toBe(bridged ? 3 : 0);
    },
    SECONDS * 1000,
  );

  it.each(FOREIGN_RULESETS)(
    'arrive through rules of $name as the simulator says',
    async (ruleset) => {
      const { partings, unknown } = await compareForeign(built(), warm, ruleset, {
        together: QUESTIONS,
      });
      expect(partings).toEqual([]);
      expect(unknown).toEqual([]);
    },
    SECONDS * 1000,
  );

  it('reads rules of others as their authors would write them', async () => {
    const texts: string[] = [];
    // One after the other: they are in one netns.
    for (const ruleset of FOREIGN_RULESETS) texts.push(...(await foreignTexts(built(), ruleset)));
    const written = `${texts.join('\n')}\n`;
    if (process.env['UPDATE'] === '1') writeFileSync(FOREIGN_TEXTS, written);
    expect(written).toBe(readFileSync(FOREIGN_TEXTS, 'utf8'));
  });

  it.each(HAIRPIN_CASES)(
    'of a service for $name arrive: $reaches (K-8.5)',
    async ({ ops, reaches }) => {
      const [destination] = SERVICES;
      if (!destination) throw new Error('there is no service');
      const question = { netns: 'a', protocol: 'udp', destination, port: SERVICE_PORT } as const;
      const { partings, verdicts } = await compareRuleset(built(), warm, ops, {
        together: [question],
      });
      expect(partings).toEqual([]);
      expect(verdicts['delivered'] === 1).toBe(reaches);
    },
    SECONDS * 1000,
  );
});

describe.skipIf(requirement('root', 'iproute2'))('packets through a host of another shape', () => {
  it.each(SHAPES)(
    'of $name arrive as the simulator says, or do not',
    async ({ ops }) => {
      const host = applyAll(ROUTED, ops);
      const kernel = buildRouted();
      try {
        await prepare(kernel, ops);
        const { partings, verdicts } = await compareHost(kernel, warmWorld(host), host, {
          together: QUESTIONS,
        });
        expect(partings).toEqual([]);
        // Everybody is there for everybody: all but addresses that nobody has.
        expect(verdicts['delivered']).toBe(240);
      } finally {
        kernel.tearDown();
      }
    },
    SECONDS * 1000,
  );
});

describe.skipIf(requirement('root', 'iproute2'))('frames of whom a bridge has to ask for', () => {
  let kernel: RoutedKernel | undefined;

  beforeAll(() => {
    kernel = buildRouted();
  }, SECONDS * 1000);

  afterAll(() => kernel?.tearDown());

  it.each(REDIRECTED_CASES)(
    'for $name: $reaches, $error (K-8.4)',
    async ({ service, ops, reaches, error }) => {
      if (!kernel) throw new Error('there is no host');
      kernel.execute(NO_RULESET);
      for (const op of ops) kernel.execute(op);
      const forget = ['-n', kernel.places.real('node'), 'neigh', 'flush', 'dev', 'cni0'];
      expect(spawnSync('ip', forget).status).toBe(0);
      const question = {
        netns: 'a',
        protocol: 'udp',
        destination: service,
        port: SERVICE_PORT,
      } as const;
      const [answer] = await kernel.ask([question], ERROR_WAIT_MS);
      expect(typeof answer?.as === 'string').toBe(reaches);
      const expected = error && { from: service, error, mtuBytes: null };
      expect(formatTold(answer?.told)).toBe(formatError(expected));
    },
    SECONDS * 1000,
  );
});

describe.skipIf(requirement('root', 'iproute2', 'busybox'))('packets through a vxlan', () => {
  it.each(TUNNEL_CASES)('where $name come back: $reaches (K-9.3, K-9.4)', ({ ops, reaches }) => {
    const host = buildHost();
    try {
      for (const op of ops) host.execute(op);
      const ping = ['busybox', 'timeout', '2', 'busybox', 'ping', '-c', '1', '-W', '1'];
      const words = ['netns', 'exec', host.places.real('a'), ...ping, TUNNEL_TARGET];
      expect(spawnSync('ip', words).status === 0).toBe(reaches);
    } finally {
      host.tearDown();
    }
  });
});
