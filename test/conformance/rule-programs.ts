/** Programs on policy rules (K-5.4). */
import type { Host } from '../../model/host.ts';
import type { OpOf } from '../../model/op.ts';
import {
  type PolicyRule,
  formatPolicyRule,
  makePolicyRule,
  policyRulesOf,
} from '../../model/policy-rule.ts';
import { parsePrefix } from '../../model/prefix.ts';
import { PROTOCOL_CUBE } from '../../model/route.ts';
import { GONE, NETNS, type Program } from './program.ts';

const addRule = (changes: Partial<PolicyRule> = {}): OpOf<'rule.add'> => ({
  op: 'rule.add',
  netns: 'two',
  rule: makePolicyRule({
    family: 4,
    priority: 100,
    table: 100,
    protocol: PROTOCOL_CUBE,
    ...changes,
  }),
});

const delRule = (rule: PolicyRule): OpOf<'rule.del'> => ({ op: 'rule.del', netns: 'two', rule });

function rulesOfIpv4(host: Host): string[] {
  const netns = host.netns['two'];
  return (netns ? policyRulesOf(netns) : [])
    .filter(({ family }) => family === 4)
    .map(formatPolicyRule);
}

/** Of `rule.add`. */
export const RULE_ADD: readonly Program[] = [
  {
    name: 'puts it behind those of its priority',
    given: [...NETNS, addRule({ mark: { value: 1, mask: 1 } })],
    op: addRule(),
    outcome: {
      see: rulesOfIpv4,
      is: [
        'pref 0 table 255',
        'pref 100 fwmark 0x1/0x1 table 100 proto 201',
        'pref 100 table 100 proto 201',
        'pref 32766 table 254',
        'pref 32767 table 253',
      ],
    },
  },
  {
    name: 'of a link that is not there',
    given: NETNS,
    op: addRule({ iif: GONE, action: 'blackhole', table: null, priority: 40_000 }),
    outcome: {
      see: (host) => rulesOfIpv4(host).at(-1),
      is: 'pref 40000 iif gone0 blackhole proto 201',
    },
  },
  { name: 'twice', given: [...NETNS, addRule()], op: addRule(), outcome: 'EEXIST' },
  {
    name: 'beside that of another program',
    given: [...NETNS, addRule()],
    op: addRule({ protocol: 3 }),
    outcome: {
      see: (host) => rulesOfIpv4(host).slice(1, 3),
      is: ['pref 100 table 100 proto 201', 'pref 100 table 100 proto 3'],
    },
  },
  {
    name: 'for every source, beside one for some',
    given: [...NETNS, addRule({ source: parsePrefix('10.0.0.0/8') })],
    op: addRule(),
    outcome: 'EEXIST',
  },
];

/** Of `rule.del`. */
export const RULE_DEL: readonly Program[] = [
  {
    name: 'of the table main',
    given: NETNS,
    op: delRule(makePolicyRule({ family: 4, priority: 32_766 })),
    outcome: { see: rulesOfIpv4, is: ['pref 0 table 255', 'pref 32767 table 253'] },
  },
  {
    name: 'takes the first that has what is said',
    given: [...NETNS, addRule({ mark: { value: 1, mask: 1 } }), addRule()],
    op: delRule(addRule().rule),
    outcome: { see: (host) => rulesOfIpv4(host)[1], is: 'pref 100 table 100 proto 201' },
  },
  {
    name: 'of none',
    given: NETNS,
    op: delRule(addRule().rule),
    outcome: 'ENOENT',
  },
];
