/** Rules of a netns in our words beside those of nft and of iptables, which operators know. */
import { execFileSync } from 'node:child_process';
import type { Rule, Ruleset } from '../../model/nftables.ts';
import { ruleText } from '../../sim/rule-text/rule.ts';
import { xtMatchText, xtTargetText } from '../../sim/rule-text/xt.ts';
import { readRules } from './compare.ts';

/** One rule in the words of each. */
export interface RuleTexts {
  /** `ip filter FORWARD 1`. */
  readonly where: string;
  readonly ours: string;
  readonly nft: string;
  /** As iptables-save prints it, where it is one of iptables. */
  readonly iptables: string | undefined;
  /** Those of our words that are iptables'. */
  readonly xt: readonly string[];
  readonly comment: string;
}

function run(netns: string, ...command: readonly string[]): string {
  const words = ['netns', 'exec', netns, ...command];
  return execFileSync('ip', words, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
}

/** The rules of nft's listing by their chains: `ip filter FORWARD`. */
function nftRules(listing: string): Map<string, string[]> {
  const rules = new Map<string, string[]>();
  let table = '';
  let chain: string[] | undefined;
  for (const line of listing.split('\n')) {
    const [kind, ...rest] = line.trim().split(' ');
    if (kind === 'table') table = rest.slice(0, 2).join(' ');
    else if (/^\tchain .* \{$/.test(line)) {
      chain = [];
      rules.set(`${table} ${rest[0]}`, chain);
    } else if (line === '\t}') chain = undefined;
    else if (chain && !/^type .* hook /.test(line.trim())) chain.push(line.replace(/^\t\t/, ''));
  }
  return rules;
}

/** The rules that iptables-save prints, by the same. */
function iptablesRules(family: 'ip' | 'ip6', saved: string): Map<string, string[]> {
  const rules = new Map<string, string[]>();
  let table = '';
  for (const line of saved.split('\n')) {
    if (line.startsWith('*')) table = line.slice(1);
    const [, chain, rule] = /^-A (\S+) ?(.*)$/.exec(line) ?? [];
    if (chain === undefined) continue;
    const key = `${family} ${table} ${chain}`;
    rules.set(key, [...(rules.get(key) ?? []), rule ?? '']);
  }
  return rules;
}

function xtTexts({ statements }: Rule, family: Ruleset[string]['family']): string[] {
  return statements.flatMap((statement) => {
    const detail = statement.kind === 'opaque' ? statement.detail : undefined;
    if (detail?.name === 'match') return [xtMatchText(detail, family)];
    return detail?.name === 'target' ? [xtTargetText(detail)] : [];
  });
}

/** All rules of a netns. */
export function textsOf(netns: string): RuleTexts[] {
  const nft = nftRules(run(netns, 'nft', 'list', 'ruleset'));
  const iptables = new Map([
    ...iptablesRules('ip', run(netns, 'iptables-nft-save')),
    ...iptablesRules('ip6', run(netns, 'ip6tables-nft-save')),
  ]);
  const { nftables, ifindexes } = readRules(netns);
  return Object.values(nftables).flatMap((table) =>
    Object.values(table.chains).flatMap(({ name, rules }) => {
      const chain = `${table.family} ${table.name} ${name}`;
      return rules.map((rule, index) => ({
        where: `${chain} ${index + 1}`,
        ours: ruleText(rule, { ...table, ifindexes }),
        nft: nft.get(chain)?.[index] ?? '(none)',
        iptables: iptables.get(chain)?.[index],
        xt: xtTexts(rule, table.family),
        comment: rule.comment,
      }));
    }),
  );
}

/** Braces, and what is between them. */
const BRACES = /\{ (.*?) \}/g;
const MORE = /^\.\.\. (\d+) more$/;

function setsIn(text: string): string[][] {
  return [...text.matchAll(BRACES)].map(([, inner = '']) => inner.split(', '));
}

/** Marks of a map from one on, which nft prints as if they were addresses: 0x00000358/30. */
const MARK_PREFIX = /^(0x[0-9a-f]{8})\/(\d+)/;

function withoutMarkPrefix(element: string): string {
  return element.replace(MARK_PREFIX, (_, first: string, bits: string) => {
    const last = (Number(first) | (2 ** (32 - Number(bits)) - 1)) >>> 0;
    return `${first}-0x${last.toString(16).padStart(8, '0')}`;
  });
}

/**
 * Elements in any order: nft prints them as the kernel keeps them, names of links by their last letters; ours are in the
 * order in which people count. Of many ours are some, and how many more there are.
 */
function isSameSet(ours: readonly string[], nft: readonly string[] = []): boolean {
  const more = Number(MORE.exec(ours.at(-1) ?? '')?.[1] ?? 0);
  const shown = more > 0 ? ours.slice(0, -1) : ours;
  const theirs = nft.map(withoutMarkPrefix);
  return shown.length + more === theirs.length && shown.every((each) => theirs.includes(each));
}

/** What nft calls that which is only named in ours, where it is another word. */
const KEYWORDS: Readonly<Record<string, string>> = {
  dynset: '(?:add|update)',
  nat: '(?:snat|dnat)',
};
/** What is not understood, and what is asked of it. */
const NAMED =
  /\\\(((?:match |target )?\w+)\\\)(?: \\\.\\\.\\\.(?: (?:0x[0-9a-f]+|[=!<>&]=?|\\\^))*)?/g;

function escaped(text: string): string {
  return text.replaceAll(/[.*+?^${}()|[\]\\]/g, String.raw`\$&`);
}

/**
 * nft asks two fields that lie next to each other by one comparison, also whether both are not equal; that is another question, namely whether
 * not both are equal. It prints it as two, ours is what the kernel asks.
 */
const NEITHER = /@(?:nh|th),\d+,\d+ != 0x[0-9a-f]+/g;
const TWO = String.raw`\S+ \S+ != \S+ \S+ \S+ != \S+`;

/**
 * Two comparisons, of which nft takes one for the beginning of a range and the next for its end without asking whether they are of one field,
 * and then prints the second field alone (src/netlink_delinearize.c, expr_may_merge_range).
 */
const ENDS = [
  [/(\S+ \S+) < (\S+) (\S+ \S+) > (\S+)/g, '(?:$&|$3 != \\S+-$4)'],
  [/(\S+ \S+) >= (\S+) (\S+ \S+) <= (\S+)/g, '(?:$&|$3 \\S+-$4)'],
] as const;

/** Where it may be the beginning of an address of either family, ours does not guess of which; nft is told. */
const EITHER = /ct (original|reply) ([sd]addr) (!= )?0x[0-9a-f]+/g;

/** The texts that nft may print where ours is this. */
function patternOf(ours: string, xt: readonly string[]): RegExp {
  let pattern = escaped(ours.replaceAll(BRACES, '{ }')).replaceAll(NAMED, (_, name: string) =>
    name.includes(' ') ? '.*?' : `${KEYWORDS[name] ?? name}\\b.*?`,
  );
  pattern = pattern
    .replaceAll(NEITHER, `(?:$&|${TWO})`)
    .replaceAll(
      EITHER,
      (_, direction, side, sign = '') => `ct ${direction} ip6? ${side} ${sign}\\S+`,
    );
  for (const [ends, range] of ENDS) pattern = pattern.replaceAll(ends, range);
  // Of what iptables wrote ours are its own words, nft's those of iptables-translate, or none.
  for (const each of xt) pattern = pattern.replace(escaped(each), '.*?');
  return new RegExp(`^${pattern}$`);
}

/** Addresses of IPv6 in front of a port, which nft prints without brackets when they are those of a prefix: fd00::90/126:80. */
const PREFIX_AND_PORT = / to ([0-9a-f:]+\/\d+):/;

/**
 * nft's text without what ours leaves out: what counters have counted, which is another number each time, and how a free port
 * is looked for (`random`, `fully-random`, `persistent`), which decides nothing that is simulated.
 */
function nftText(text: string): string {
  return text
    .replaceAll(/counter packets \d+ bytes \d+/g, 'counter')
    .replace(PREFIX_AND_PORT, ' to [$1]:')
    .replace(/ (?:random|fully-random|persistent)(?:,persistent)?(?=$| comment ")/, '');
}

/** The same of iptables, with one of two names for one thing; and of what may be taken the first, which alone the model keeps. */
function iptablesText(text: string): string {
  return text
    .replace(/(?<=--to-\w+ )\S+/, (range) => range.replaceAll(/-[^:]+/g, ''))
    .replace(/(?: --random-fully| --random)?(?: --persistent)?$/, '')
    .replace(/-j CT --notrack$/, '-j NOTRACK');
}

/** Is ours what nft says of the same rule? */
function isNft({ ours, nft, xt }: RuleTexts): boolean {
  const theirs = nftText(nft);
  const sets = setsIn(theirs);
  return (
    patternOf(ours, xt).test(theirs.replaceAll(BRACES, '{ }')) &&
    (xt.length > 0 || setsIn(ours).every((each, i) => isSameSet(each, sets[i])))
  );
}

/** What iptables calls that of it which is only named in ours. */
function namedIn(ours: string): string[] {
  return [...ours.matchAll(/\((match|target) (\w+)\)/g)].map(
    ([, kind, name]) => `${kind === 'match' ? '-m' : '-j'} ${name}`,
  );
}

/** Is that all that a line of iptables says in that place, up to the next match or target? */
function isIn(line: string, words: string): boolean {
  return new RegExp(` ${escaped(words)}(?: -[mjg] |$)`).test(` ${line}`);
}

/** Is what ours has in the words of iptables there in the line that it prints? */
function isIptables({ ours, xt, comment, iptables }: RuleTexts): boolean {
  const line = iptablesText(iptables ?? '');
  const words = comment === '' ? xt : [...xt, `-m comment --comment "${comment}"`];
  return (
    words.every((each) => isIn(line, each)) &&
    xt.every((each) => ours.includes(each)) &&
    namedIn(ours).every((each) => line.includes(each))
  );
}

/**
 * A rule with a comment of iptables, without it: nft prints none, but two spaces, and takes it for a match, in front of which it says
 * the protocol although a port behind it says it too.
 */
function withoutComment(texts: RuleTexts): RuleTexts {
  const ours = texts.ours.replace(/ comment "[^"]*"$/, '');
  const nft = texts.nft.replaceAll(/ {2,}/g, ' ').trim();
  const isUnsaid = !ours.includes('meta l4proto ');
  return {
    ...texts,
    ours,
    nft: isUnsaid ? nft.replace(/meta l4proto (\w+) (?=.*\b\1 [ds]port )/, '') : nft,
  };
}

/** Where ours is neither what nft nor what iptables says, all of them. */
export function partingOf(texts: RuleTexts): string | undefined {
  const { iptables, comment, where, ours, nft } = texts;
  const isSame =
    iptables === undefined
      ? isNft(texts)
      : isIptables(texts) && isNft(comment === '' ? texts : withoutComment(texts));
  if (isSame) return undefined;
  const theirs = iptables === undefined ? '' : `\n  iptables ${iptables}`;
  return `${where}\n  ours     ${ours}\n  nft      ${nft}${theirs}`;
}
