/** Operations on policy rules. */
import { type Host, type NetnsName, findNetns } from '../../model/host.ts';
import type { Ifname } from '../../model/ifname.ts';
import type { Op } from '../../model/op.ts';
import { type PolicyRule, makePolicyRule, policyRulesOf } from '../../model/policy-rule.ts';
import { parsePrefix } from '../../model/prefix.ts';
import type { Draw } from './draw.ts';
import { someLink } from './names.ts';

/** Few, so that rules meet; among them those that a netns is made with. */
const PRIORITIES = [100, 100, 100, 200, 0, 32_766];
const TABLES = [254, 100, 255, 1000];
const PREFIXES = { 4: ['10.0.0.0/24', '10.1.0.0/16'], 6: ['fd00::/64', 'fd77::/16'] } as const;
const MARKS = [
  { value: 1, mask: 0xffff_ffff },
  { value: 1, mask: 1 },
  { value: 0, mask: 0x4000 },
];
const ACTIONS = ['blackhole', 'unreachable', 'prohibit'] as const;

function someRule(netns: NetnsName, host: Host, draw: Draw): PolicyRule {
  const family = draw.of([4, 6] as const);
  const prefix = () => (draw.oneIn(3) ? parsePrefix(draw.of(PREFIXES[family])) : null);
  const link = (): Ifname | null => (draw.oneIn(4) ? someLink(host, netns, draw) : null);
  const action = draw.oneIn(6) ? draw.of(ACTIONS) : 'lookup';
  return makePolicyRule({
    family,
    priority: draw.of(PRIORITIES),
    source: prefix(),
    destination: prefix(),
    iif: link(),
    oif: link(),
    mark: draw.oneIn(4) ? draw.of(MARKS) : null,
    action,
    table: action === 'lookup' ? draw.of(TABLES) : null,
    protocol: draw.of([2, 3, 201]),
  });
}

/** One of those of a netns; undefined without. */
function heldRule(netns: NetnsName, host: Host, draw: Draw): PolicyRule | undefined {
  const found = findNetns(host, netns);
  const rules = found ? policyRulesOf(found) : [];
  return rules.length > 0 ? draw.of(rules) : undefined;
}

/** Seldom one that is there already, but for what does not tell it from others. */
export function ruleAdd(netns: NetnsName, host: Host, draw: Draw): Op {
  const rule = someRule(netns, host, draw);
  const held = draw.oneIn(5) ? heldRule(netns, host, draw) : undefined;
  if (!held) return { op: 'rule.add', netns, rule };
  const { source, destination } = held.family === rule.family ? rule : held;
  return { op: 'rule.add', netns, rule: { ...held, source, destination } };
}

/** Mostly one that is there, by all that it says or by some of that. */
export function ruleDel(netns: NetnsName, host: Host, draw: Draw): Op {
  const rule = draw.oneIn(6) ? undefined : heldRule(netns, host, draw);
  if (!rule) return { op: 'rule.del', netns, rule: someRule(netns, host, draw) };
  const fewer: Partial<PolicyRule> = draw.oneIn(3)
    ? { source: null, ...(draw.oneIn(2) ? { iif: null, mark: null } : {}) }
    : {};
  return { op: 'rule.del', netns, rule: { ...rule, ...fewer } };
}
