import { getNetns, withNetns } from '../host.ts';
import { type OpKind, done, refuse } from '../op.ts';
import {
  type PolicyRule,
  formatPolicyRule,
  isInTheWay,
  policyRulesOf,
  withPolicyRules,
} from '../policy-rule.ts';

/** Adds a rule of the routing policy database, behind those with its priority. */
export interface RuleAdd {
  readonly rule: PolicyRule;
}

/** The command for the family of a rule. */
export function ipRule({ family }: PolicyRule): string {
  return family === 6 ? 'ip -6 rule' : 'ip rule';
}

export const ruleAdd: OpKind<'rule.add'> = {
  apply: (host, { netns: name, rule }) => {
    const netns = getNetns(host, name);
    const rules = policyRulesOf(netns);
    if (rules.some((each) => isInTheWay(each, rule))) return refuse('EEXIST');
    const behind = rules.filter(
      ({ family, priority }) =>
        family < rule.family || (family === rule.family && priority <= rule.priority),
    ).length;
    const after = withPolicyRules(netns, rules.toSpliced(behind, 0, rule));
    return done(
      withNetns(host, name, rule.family === 6 ? { ...after, hadIpv6Rules: true } : after),
    );
  },
  describe: ({ rule }) => [`${ipRule(rule)} add ${formatPolicyRule(rule)}`],
  sign: () => '+',
  reads: ({ netns }) => [`netns ${netns}`],
  writes: ({ netns, rule }) => [`rule ${netns}/${rule.family}/${rule.priority}`],
  removes: () => [],
};
