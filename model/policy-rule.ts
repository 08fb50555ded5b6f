/** Rules of the routing policy database: which table a packet is looked up in (K-5.4; net/core/fib_rules.c). */
import type { Netns } from './host.ts';
import type { Ifname } from './ifname.ts';
import type { Family } from './ip.ts';
import type { Prefix } from './prefix.ts';
import { PROTOCOL_KERNEL, TABLE_DEFAULT, TABLE_LOCAL, TABLE_MAIN } from './route.ts';

/** What becomes of a packet that a rule fits: a table is asked, there is no way on, or other rules are asked: the next (`nop`), or one further down. */
export type PolicyAction = 'lookup' | 'blackhole' | 'unreachable' | 'prohibit' | 'goto' | 'nop';

/** One rule. What is null fits every packet. */
export interface PolicyRule {
  readonly family: Family;
  /** The lowest is asked first; among equals the oldest. */
  readonly priority: number;
  readonly source: Prefix | null;
  readonly destination: Prefix | null;
  /** By name: there need not be such a link. */
  readonly iif: Ifname | null;
  readonly oif: Ifname | null;
  /** Of the packet's mark, the bits of `mask` have to be those of `value`. */
  readonly mark: { readonly value: number; readonly mask: number } | null;
  readonly action: PolicyAction;
  /** The table of `lookup`; null with every other action. */
  readonly table: number | null;
  readonly protocol: number;
  /** It fits the packets that its conditions do not fit (FIB_RULE_INVERT, `not`). */
  readonly inverted?: true;
  /** Of `goto`: the first rule of this priority is asked next; where there is none, the next one. */
  readonly target?: number;
  /** A route with no longer a prefix than this, in bits, does not count as found. */
  readonly suppressPrefixLength?: number;
  /** It has more conditions, or another action, than can be said here. */
  readonly isPartlyRead?: true;
  /** The conditions that are not heeded, in the words of `ip rule`; absent where not even what they are is known, nor what else the rule says. */
  readonly unheeded?: readonly string[];
}

/** What of a rule need not be said. */
type Plain = Pick<PolicyRule, 'family' | 'priority'> & Partial<PolicyRule>;

/** A rule with what it does not say as the kernel has it: the table main, for every packet. */
export function makePolicyRule(rule: Plain): PolicyRule {
  const { action = 'lookup' } = rule;
  return {
    source: null,
    destination: null,
    iif: null,
    oif: null,
    mark: null,
    action,
    table: action === 'lookup' ? TABLE_MAIN : null,
    protocol: PROTOCOL_KERNEL,
    ...rule,
  };
}

/** Those that a netns is made with (fib_default_rules_init; IPv6 has no table default). */
const DEFAULT_POLICY_RULES: readonly PolicyRule[] = [
  makePolicyRule({ family: 4, priority: 0, table: TABLE_LOCAL }),
  makePolicyRule({ family: 4, priority: 32_766, table: TABLE_MAIN }),
  makePolicyRule({ family: 4, priority: 32_767, table: TABLE_DEFAULT }),
  makePolicyRule({ family: 6, priority: 0, table: TABLE_LOCAL }),
  makePolicyRule({ family: 6, priority: 32_766, table: TABLE_MAIN }),
];

/** The rules of a netns, those of IPv4 first, each family in the order in which they are asked. */
export function policyRulesOf(netns: Pick<Netns, 'policyRules'>): readonly PolicyRule[] {
  return netns.policyRules ?? DEFAULT_POLICY_RULES;
}

/**
 * The rules that packets of a family are looked up by. IPv6 asks none until one was added: a default one that was
 * deleted before goes on being heeded (net/ipv6/fib6_rules.c, fib6_has_custom_rules).
 */
export function effectiveRules(
  netns: Pick<Netns, 'policyRules' | 'hadIpv6Rules'>,
  family: Family,
): readonly PolicyRule[] {
  const rules = policyRulesOf(netns).filter((rule) => rule.family === family);
  const isAsked =
    family === 4 ||
    netns.hadIpv6Rules ||
    rules.some((rule) => !DEFAULT_POLICY_RULES.some((each) => samePolicyRule(each, rule)));
  return isAsked ? rules : DEFAULT_POLICY_RULES.filter((rule) => rule.family === family);
}

/** A netns with these rules, which are not said where they are those that it was made with. */
export function withPolicyRules(netns: Netns, rules: readonly PolicyRule[]): Netns {
  const { policyRules: _before, ...rest } = netns;
  const isDefault =
    rules.length === DEFAULT_POLICY_RULES.length &&
    rules.every((rule, i) => samePolicyRule(rule, DEFAULT_POLICY_RULES[i] as PolicyRule));
  return isDefault ? rest : { ...rest, policyRules: rules };
}

/** Are they the same rule, in all that each of them says? */
export function samePolicyRule(a: PolicyRule, b: PolicyRule): boolean {
  return (
    isNamedBy(a, b) &&
    isNamedBy(b, a) &&
    a.protocol === b.protocol &&
    a.inverted === b.inverted &&
    a.target === b.target &&
    a.suppressPrefixLength === b.suppressPrefixLength &&
    a.isPartlyRead === b.isPartlyRead &&
    String(a.unheeded) === String(b.unheeded)
  );
}

function sameIfSaid<T>(said: T | null, has: T | null): boolean {
  return said === null || said === has;
}

/** Has a rule the addresses that another one says? */
function hasAddressesOf(said: PolicyRule, rule: PolicyRule): boolean {
  return sameIfSaid(said.source, rule.source) && sameIfSaid(said.destination, rule.destination);
}

/** Does a rule fit the words by which one is deleted? What they do not say does not count (rule_find). */
export function isNamedBy(said: PolicyRule, rule: PolicyRule): boolean {
  return (
    rule.family === said.family &&
    rule.priority === said.priority &&
    rule.action === said.action &&
    (said.protocol === 0 || rule.protocol === said.protocol) &&
    sameIfSaid(said.table, rule.table) &&
    sameIfSaid(said.iif, rule.iif) &&
    sameIfSaid(said.oif, rule.oif) &&
    (said.mark === null ||
      ((said.mark.value === 0 || rule.mark?.value === said.mark.value) &&
        (said.mark.mask === 0 || rule.mark?.mask === said.mark.mask))) &&
    hasAddressesOf(said, rule)
  );
}

/** Is a rule in the way of a new one? Addresses that the new one does not say do not count there either (rule_exists). */
export function isInTheWay(rule: PolicyRule, made: PolicyRule): boolean {
  return (
    rule.family === made.family &&
    rule.priority === made.priority &&
    rule.action === made.action &&
    rule.protocol === made.protocol &&
    rule.table === made.table &&
    rule.iif === made.iif &&
    rule.oif === made.oif &&
    (rule.mark?.value ?? 0) === (made.mark?.value ?? 0) &&
    (rule.mark?.mask ?? 0) === (made.mark?.mask ?? 0) &&
    hasAddressesOf(made, rule)
  );
}

function hex(bits: number): string {
  return `0x${(bits >>> 0).toString(16)}`;
}

function conditionsOf(rule: PolicyRule): string[] {
  const { source, destination, iif, oif, mark, unheeded = [] } = rule;
  const said = [
    ...(source === null ? [] : [`from ${source}`]),
    ...(destination === null ? [] : [`to ${destination}`]),
    ...(iif === null ? [] : [`iif ${iif}`]),
    ...(oif === null ? [] : [`oif ${oif}`]),
    ...(mark === null ? [] : [`fwmark ${hex(mark.value)}/${hex(mark.mask)}`]),
    ...unheeded,
  ];
  return rule.inverted ? ['not', ...said] : said;
}

function actionOf({ action, table, target, suppressPrefixLength }: PolicyRule): string {
  if (action === 'goto') return `goto ${target}`;
  if (action !== 'lookup') return action;
  return suppressPrefixLength === undefined
    ? `table ${table}`
    : `table ${table} suppress_prefixlength ${suppressPrefixLength}`;
}

/** The words of `ip rule` for a rule. */
export function formatPolicyRule(rule: PolicyRule): string {
  const { priority, protocol } = rule;
  return [
    `pref ${priority}`,
    ...conditionsOf(rule),
    actionOf(rule),
    ...(protocol === PROTOCOL_KERNEL ? [] : [`proto ${protocol}`]),
  ].join(' ');
}

/** What a rule says, without its place among the others and who made it. */
export function policyRuleText(rule: PolicyRule): string {
  return [...conditionsOf(rule), actionOf(rule)].join(' ');
}
