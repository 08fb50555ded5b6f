/** Random rules of others, as one writes them for `nft -f`, of what the simulator understands, and some of what it does not. */
import fc from 'fast-check';
import { verdicts, steps, rejects, decisions, translations } from './foreign-actions.ts';
import { type About, ofAll, ofNetwork, ofTransport, notUnderstood } from './foreign-conditions.ts';
import { type Text, either, words, maybe, negation } from './foreign-values.ts';

const comment: Text = fc
  .constantFrom('', '', '', 'comment "some words, { braces } too"')
  .map((text) => text.replaceAll(/[{}] /g, ''));

function ruleOf(about: About, isNat: boolean): Text {
  const { network } = about;
  const conditions = [
    ...ofAll(about),
    ...(network ? ofNetwork(network) : []),
    ...(network ? ofNetwork(network) : []),
    // The set of a table of both has addresses of IPv4.
    ...(network && (network === 'ip' || about.family === 'ip6')
      ? [words(network, fc.constantFrom('saddr', 'daddr'), negation, '@addresses')]
      : []),
    ...ofTransport(about),
    ...ofTransport(about),
  ];
  const asked = fc
    .array(either(...conditions), { minLength: 0, maxLength: 4 })
    .map((all) => all.join(' '));
  const end = isNat
    ? either(...translations(about))
    : either(
        verdicts,
        maybe(verdicts),
        // What leaves is not rejected.
        about.chain === 'late' ? verdicts : rejects(about),
        ...decisions(about),
      );
  return words(
    asked,
    fc.oneof(
      { weight: 6, arbitrary: fc.constant('') },
      { weight: 1, arbitrary: either(...notUnderstood(about)) },
    ),
    isNat ? maybe(fc.constant('counter')) : maybe(either(...steps(about))),
    end,
    comment,
  ).map((rule) => (/^(?:comment .*)?$/.test(rule) ? `counter ${rule}` : rule));
}

/** A rule, and where it stands. */
export interface RandomRule {
  readonly family: About['family'];
  readonly chain: string;
  readonly rule: string;
}

const TYPES = { early: 'prerouting', passing: 'forward', late: 'postrouting' } as const;

/** A rule of any table and chain. */
export function randomRules(): fc.Arbitrary<RandomRule> {
  return fc
    .record({
      family: fc.constantFrom('ip', 'ip6', 'inet'),
      chain: fc.constantFrom('passing', 'early', 'late'),
      network: fc.constantFrom('ip', 'ip6', undefined),
      transport: fc.constantFrom('tcp', 'udp', 'icmp', undefined),
      isNat: fc.boolean(),
    } as const)
    .map(({ isNat, ...about }) => ({
      isNat: isNat && about.chain !== 'passing',
      about: {
        ...about,
        network: about.family === 'inet' ? about.network : about.network && about.family,
        // Without an address it is not said which of the two it is.
        transport:
          about.transport === 'icmp' && about.family !== 'inet' && about.network === undefined
            ? undefined
            : about.transport,
      },
    }))
    .chain(({ isNat, about }) =>
      ruleOf(about, isNat).map((rule) => ({
        family: about.family,
        chain: isNat ? `nat-${about.chain}` : about.chain,
        rule,
      })),
    );
}

function chainText(name: string, type: string, hook: string, rules: readonly string[]): string {
  return [
    `  chain ${name} {`,
    `    type ${type} hook ${hook} priority 7;`,
    ...rules.map((rule) => `    ${rule}`),
    '  }',
  ].join('\n');
}

/** Rules in their tables and chains, for `nft -f`. */
export function randomRuleset(rules: readonly RandomRule[]): string {
  return (['ip', 'ip6', 'inet'] as const)
    .map((family) => {
      const of = (chain: string): string[] =>
        rules
          .filter((each) => each.family === family && each.chain === chain)
          .map(({ rule }) => rule);
      return [
        `table ${family} drawn {`,
        `  set addresses { type ${family === 'ip6' ? 'ipv6_addr' : 'ipv4_addr'}; }`,
        '  chain other { }',
        '  map verdicts { type mark : verdict; }',
        ...(['passing', 'early', 'late'] as const).map((chain) =>
          chainText(chain, 'filter', TYPES[chain], of(chain)),
        ),
        ...(['early', 'late'] as const).map((chain) =>
          chainText(`nat-${chain}`, 'nat', TYPES[chain], of(`nat-${chain}`)),
        ),
        '}',
      ].join('\n');
    })
    .join('\n');
}
