/** What traces say of rules that others wrote: nft's own text of the same rule, and where iptables wrote it what iptables says. */
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { withForeign } from '../packets/compare.ts';
import { randomRules, randomRuleset } from '../packets/foreign-nft.ts';
import { foreignRulesets } from '../packets/foreign-random.ts';
import { type RuleTexts, partingOf, textsOf } from '../packets/foreign-texts.ts';
import { FOREIGN_RULESETS, type ForeignRuleset, IPTABLES_WORDS } from '../packets/foreign.ts';
import { type RoutedHost, buildHost } from '../packets/routed-kernel.ts';
import { requirement } from '../requirements.ts';

/** Kept, so that every run reads the same. */
const SEED = 8;
const BATCHES = 8;
const RULES = 100;
const RULESETS = 10;
const SECONDS = 60;

function partings(texts: readonly RuleTexts[]): string {
  return texts.flatMap((each) => partingOf(each) ?? []).join('\n');
}

describe.skipIf(requirement('root', 'iproute2', 'nft-1.0', 'iptables-nft'))(
  'rules of others in words',
  () => {
    let host: RoutedHost | undefined;

    beforeAll(() => {
      host = buildHost();
    });

    afterAll(() => host?.tearDown());

    async function read(ruleset: ForeignRuleset): Promise<readonly RuleTexts[]> {
      if (!host) throw new Error('there is no host');
      return withForeign(host, ruleset, textsOf);
    }

    it.each([...FOREIGN_RULESETS, IPTABLES_WORDS])(
      'of $name are those of nft and of iptables',
      async (ruleset) => {
        const texts = await read(ruleset);
        expect(texts.length).toBeGreaterThan(0);
        expect(partings(texts)).toBe('');
      },
      SECONDS * 1000,
    );

    it(
      'of those that packets are sent through are those of nft and of iptables',
      async () => {
        await fc.assert(
          fc.asyncProperty(foreignRulesets(), async (ruleset) => {
            expect(partings(await read(ruleset))).toBe('');
          }),
          { numRuns: RULESETS, seed: SEED, endOnFailure: true },
        );
      },
      SECONDS * 1000,
    );

    it(
      'are those of nft, whatever they ask and do, and name what is not understood',
      async () => {
        let understood = 0;
        let named = 0;
        await fc.assert(
          fc.asyncProperty(
            fc.array(randomRules(), { minLength: RULES, maxLength: RULES }),
            async (rules) => {
              const texts = await read({ name: 'random', nft: randomRuleset(rules) });
              expect(texts).toHaveLength(rules.length);
              expect(partings(texts)).toBe('');
              for (const { ours } of texts)
                if (/\(\w+\)/.test(ours)) named += 1;
                else understood += 1;
            },
          ),
          { numRuns: BATCHES, seed: SEED, endOnFailure: true },
        );
        expect(understood).toBeGreaterThan(BATCHES * RULES * 0.6);
        expect(named).toBeGreaterThan(0);
      },
      SECONDS * 1000,
    );
  },
);
