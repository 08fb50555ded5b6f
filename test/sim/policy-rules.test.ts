/** Rules that are not heeded in all that they say: what they leave open is said, and nothing else is. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Host } from '../../model/host.ts';
import { familyOf, parseIp } from '../../model/ip.ts';
import { type PolicyRule, makePolicyRule } from '../../model/policy-rule.ts';
import { parsePrefix } from '../../model/prefix.ts';
import { formatJourney, travel } from '../../sim/journey.ts';
import { type Verdict, formatVerdict } from '../../sim/trace.ts';
import { makeWorld } from '../../sim/world.ts';
import { ROUTED, ROUTED_DESTINATIONS, ROUTED_SENDERS } from './hosts.ts';

const UNHEEDED = { isPartlyRead: true, unheeded: ['ipproto tcp'] } as const;

/** The routed host with more rules in `node`, in the order of their priorities. */
function withRules(...rules: readonly PolicyRule[]): Host {
  const { node } = ROUTED.netns;
  if (!node) throw new Error('there is no node');
  const defaults = [4, 6].flatMap((family) =>
    [0, 32_766].map((priority) =>
      makePolicyRule({
        family: family as 4 | 6,
        priority,
        table: priority === 0 ? 255 : 254,
      }),
    ),
  );
  const policyRules = [...defaults, ...rules].toSorted((a, b) => a.priority - b.priority);
  return { ...ROUTED, netns: { ...ROUTED.netns, node: { ...node, policyRules } } };
}

function rulesOf(family: 4 | 6): fc.Arbitrary<PolicyRule> {
  const prefixes =
    family === 4
      ? ['10.244.1.0/24', '10.244.2.0/24', '10.244.3.2/32']
      : ['fd00:1::/64', 'fd00:2::/64', 'fd00:3::2/128'];
  const prefix = fc.option(fc.constantFrom(...prefixes).map(parsePrefix));
  return fc
    .record({
      priority: fc.integer({ min: 1, max: 5 }),
      source: prefix,
      destination: prefix,
      action: fc.constantFrom('blackhole', 'prohibit', 'lookup', 'nop', 'goto'),
      target: fc.integer({ min: 2, max: 5 }),
      isInverted: fc.boolean(),
      suppressed: fc.option(fc.constantFrom(0, 24, 64)),
    })
    .map(({ isInverted, suppressed, target, ...words }) =>
      makePolicyRule({
        family,
        ...words,
        ...(words.action === 'goto' ? { target: Math.max(target, words.priority + 1) } : {}),
        ...(isInverted ? { inverted: true } : {}),
        ...(words.action === 'lookup' && suppressed !== null
          ? { suppressPrefixLength: suppressed }
          : {}),
      }),
    );
}

function verdictOn(host: Host, netns: string, destination: string): Verdict {
  return travel(makeWorld(host), { netns, destination: parseIp(destination) }).verdict;
}

/** How it ends, and where. */
function endOf(verdict: Verdict): string {
  return formatVerdict(verdict);
}

/** A rule that is read in part among others, and who asks whom. */
const cases = fc.constantFrom(4, 6).chain((family) =>
  fc.record({
    others: fc.array(rulesOf(family), { maxLength: 2 }),
    rule: rulesOf(family),
    netns: fc.constantFrom(...ROUTED_SENDERS),
    destination: fc.constantFrom(...ROUTED_DESTINATIONS.filter((ip) => familyOf(ip) === family)),
  }),
);

/** The rule where it fits whatever it may not be known to, and where it does not. */
function bothWays(rule: PolicyRule): readonly [PolicyRule, PolicyRule] {
  return [rule, { ...rule, action: 'nop', table: null }];
}

describe('a rule of which a condition is not heeded', () => {
  it('is told of where it matters, and else nothing hangs on it', () => {
    const counts = { open: 0, certain: 0 };
    fc.assert(
      fc.property(cases, ({ others, rule, netns, destination }) => {
        const partly = withRules({ ...rule, ...UNHEEDED }, ...others);
        const answer = verdictOn(partly, netns, destination);
        const ends = (rule.inverted ? [] : bothWays(rule)).map((each) =>
          endOf(verdictOn(withRules(each, ...others), netns, destination)),
        );
        if (answer.kind === 'unknown') {
          counts.open += 1;
          expect(answer.text).toMatch(/^whether rule \d \(.*\) fits is not known$/);
        } else {
          counts.certain += 1;
          for (const end of ends) expect(end).toBe(endOf(answer));
        }
      }),
      { numRuns: 1500 },
    );
    expect(counts.open).toBeGreaterThan(20);
    expect(counts.certain).toBeGreaterThan(100);
  });

  it('that is not known at all may do anything', () => {
    const rule = makePolicyRule({ family: 4, priority: 50, action: 'lookup', table: 254 });
    const verdict = verdictOn(withRules({ ...rule, isPartlyRead: true }), 'a', '10.244.2.4');
    expect(verdict).toMatchObject({ kind: 'unknown', netns: 'node' });
  });

  it('reads so', async () => {
    const source = parsePrefix('10.244.2.0/24');
    const rule = makePolicyRule({ family: 4, priority: 50, source, action: 'blackhole' });
    const unheeded = ['ipproto icmp'];
    const host = withRules({ ...rule, isPartlyRead: true, unheeded });
    const request = { netns: 'a', destination: parseIp('10.244.2.4') };
    const journey = travel(makeWorld(host), request);
    expect(journey.reachable).toEqual({ there: true, back: null });
    await expect(`${formatJourney(journey).join('\n')}\n`).toMatchFileSnapshot(
      'golden/unheeded-rule.txt',
    );
  });
});
