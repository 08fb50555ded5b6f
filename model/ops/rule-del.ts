import { getNetns, withNetns } from '../host.ts';
import { type OpKind, done, refuse } from '../op.ts';
import {
  type PolicyRule,
  formatPolicyRule,
  isNamedBy,
  policyRulesOf,
  withPolicyRules,
} from '../policy-rule.ts';
import { ipRule } from './rule-add.ts';

/** Deletes the first rule that fits what is said of it. */
export interface RuleDel {
  readonly rule: PolicyRule;
}

export const ruleDel: OpKind<'rule.del'> = {
  apply: (host, { netns: name, rule }) => {
    const netns = getNetns(host, name);
    const rules = policyRulesOf(netns);
    const at = rules.findIndex((each) => isNamedBy(rule, each));
    if (at < 0) return refuse('ENOENT');
    return done(withNetns(host, name, withPolicyRules(netns, rules.toSpliced(at, 1))));
  },
  describe: ({ rule }) => [`${ipRule(rule)} del ${formatPolicyRule(rule)}`],
  sign: () => '-',
  reads: () => [],
  writes: () => [],
  removes: ({ netns, rule }) => [`rule ${netns}/${rule.family}/${rule.priority}`],
};
