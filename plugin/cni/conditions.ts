/**
 * Conditions of host ports, as the reference's portmap takes them: words of iptables where the first begins with `-` or `!`,
 * else words of nft. Of what those two programs know, matches of an address or a prefix and of the link that a packet came in
 * by are understood, and exactly as they mean them.
 */
import { ifnameProblem, type Ifname } from '../../model/ifname.ts';
import { ADDRESS_BITS, type Family, familyOf, findIp } from '../../model/ip.ts';
import type { AddressField, Match } from '../../model/nftables.ts';
import { findPrefixedIp, prefixOf } from '../../model/prefix.ts';
import { CNI_ERROR, CniError } from './error.ts';

/** What is compared, whatever words name it. */
type Side = 'saddr' | 'daddr' | 'iifname';

/** The words of one key. */
interface Source {
  readonly key: 'conditionsV4' | 'conditionsV6';
  readonly family: Family;
  readonly words: readonly string[];
}

const OPTIONS: Readonly<Record<string, Side>> = {
  '-s': 'saddr',
  '--source': 'saddr',
  '--src': 'saddr',
  '-d': 'daddr',
  '--destination': 'daddr',
  '--dst': 'daddr',
  '-i': 'iifname',
  '--in-interface': 'iifname',
};

const OPERATORS: Readonly<Record<string, boolean>> = {
  '==': false,
  eq: false,
  '!=': true,
  ne: true,
};

/** nft's word for the addresses of each family. */
const PROTOCOLS: Readonly<Record<Family, string>> = { 4: 'ip', 6: 'ip6' };

/** How much of a list of words a message shows. */
const SHOWN_LENGTH = 80;

function malformed({ key }: Source, problem: string): never {
  throw new CniError(CNI_ERROR.invalidConfig, `invalid network configuration: ${key}: ${problem}`);
}

function unsupported({ key, family, words }: Source, word: string): never {
  const protocol = PROTOCOLS[family];
  throw new CniError(
    CNI_ERROR.unsupportedField,
    `unsupported field: ${key} = ${JSON.stringify(words).slice(0, SHOWN_LENGTH)}`,
    `${JSON.stringify(word)} is not supported, but these are, each with one address, prefix or name, "!" before it or "!=" in it: -s, -d, -i; ${protocol} saddr, ${protocol} daddr, iifname`,
  );
}

/** Lists, sets, ranges and masks, which the two programs take for several addresses. */
const SEVERAL = /[,{}@$]|^[0-9a-f.:]+(?:-|\/[0-9a-f]*[.:])/i;

function readAddress(source: Source, text: string): Match['value'] {
  const { family } = source;
  const ip = findIp(text);
  const prefixed = findPrefixedIp(text);
  const found = ip ?? prefixed?.ip;
  if (found === undefined && SEVERAL.test(text)) unsupported(source, text);
  if (found === undefined || familyOf(found) !== family)
    malformed(source, `${JSON.stringify(text)} is no address or prefix of IPv${family}`);
  if (ip !== undefined || prefixed?.prefixLength === ADDRESS_BITS[family]) return found;
  return prefixOf(found, prefixed?.prefixLength ?? 0);
}

/** A whole name: what ends in `+` or `*` stands for several. */
function readLink(source: Source, text: string): Ifname {
  const name = /^"(.*)"$/.exec(text)?.[1] ?? text;
  if (/["\\+*{}@$]/.test(name)) unsupported(source, text);
  const problem = ifnameProblem(name);
  return problem === undefined
    ? (name as Ifname)
    : malformed(source, `${JSON.stringify(name)} cannot be a link name: ${problem}`);
}

function matchOf(source: Source, side: Side, negate: boolean, value: string): Match {
  if (side === 'iifname')
    return { kind: 'match', field: side, negate, value: readLink(source, value) };
  const field: AddressField = source.family === 4 ? `ip ${side}` : `ip6 ${side}`;
  return { kind: 'match', field, negate, value: readAddress(source, value) } as Match;
}

/** `[!] OPTION VALUE ...`; iptables takes each option once. */
function readIptables(source: Source): Match[] {
  const { words } = source;
  const matches: Match[] = [];
  const seen = new Set<Side>();
  for (let at = 0; at < words.length; at += 2) {
    const negate = words[at] === '!';
    if (negate) at += 1;
    const [option, value] = words.slice(at, at + 2);
    if (option === undefined) malformed(source, '"!" stands before nothing');
    if (!option.startsWith('-'))
      malformed(source, `${JSON.stringify(option)} stands where an option has to`);
    const side = Object.hasOwn(OPTIONS, option) ? OPTIONS[option] : undefined;
    if (side === undefined) unsupported(source, option);
    if (value === undefined || value === '!') malformed(source, `"${option}" has no value`);
    if (seen.has(side)) malformed(source, `"${option}" is there twice`);
    seen.add(side);
    matches.push(matchOf(source, side, negate, value));
  }
  return matches;
}

/** What the words of nft at an index compare, and how many they are. */
function readField(source: Source, words: readonly string[]): { side: Side; count: number } {
  const [first = '', second = ''] = words;
  if (first === 'iifname') return { side: 'iifname', count: 1 };
  if (first === 'meta' && second === 'iifname') return { side: 'iifname', count: 2 };
  const isAddress = second === 'saddr' || second === 'daddr';
  if (isAddress && first === PROTOCOLS[source.family]) return { side: second, count: 2 };
  if (isAddress && Object.values(PROTOCOLS).includes(first))
    malformed(source, `"${first} ${second}" is not of IPv${source.family}`);
  return unsupported(source, first);
}

/** `FIELD [OPERATOR] VALUE ...`, as one line: the reference joins the words with blanks. */
function readNft(source: Source): Match[] {
  const words = source.words.flatMap((word) => word.split(/\s+/)).filter((word) => word !== '');
  const matches: Match[] = [];
  for (let at = 0; at < words.length; at += 1) {
    const { side, count } = readField(source, words.slice(at));
    at += count;
    const operator = words[at] ?? '';
    const isOperator = Object.hasOwn(OPERATORS, operator);
    if (isOperator) at += 1;
    const value = words[at];
    if (value === undefined)
      malformed(source, `${JSON.stringify(words.at(-1))} has nothing behind it`);
    matches.push(matchOf(source, side, isOperator && OPERATORS[operator] === true, value));
  }
  return matches;
}

/** The conditions in a key of the configuration. Throws a CniError of code 7, or of code 2 where other words would mean something. */
export function readConditions(key: Source['key'], words: readonly string[]): Match[] {
  const source: Source = { key, family: key === 'conditionsV4' ? 4 : 6, words };
  return /^[-!]/.test(words[0] ?? '') ? readIptables(source) : readNft(source);
}
