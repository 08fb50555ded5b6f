/** Rules as `iptables -S` lists them, and which of them are an attachment's. */
import { type Ip, familyOf } from '../../model/ip.ts';
import { CNI_ERROR, CniError } from '../cni/error.ts';
import type { ReferenceNames } from './names.ts';
import type { ProgramAnswer, RunProgram } from './programs.ts';
import { type Command, type DepartingRules, complaint, untilGone } from './removal.ts';

type Table = 'nat' | 'filter';

/** One rule of a listing. */
export interface IptablesRule {
  readonly chain: string;
  /** What it matches and does, as arguments. */
  readonly words: readonly string[];
  /** The same as it was listed. */
  readonly text: string;
}

/** The rules and the user's chains of a table. */
export interface IptablesListing {
  readonly chains: readonly string[];
  readonly rules: readonly IptablesRule[];
}

/** The firewall plugin's chain, with two rules for each address (plugins/meta/firewall/iptables.go). */
const FORWARD_CHAIN = 'CNI-FORWARD';

/** How long iptables waits for others, in seconds. */
const LOCK_WAIT = '30';

/** iptables' exit statuses when the kernel has no such table, and for nothing in particular (VERSION_PROBLEM and OTHER_PROBLEM, include/xtables.h). */
const NO_TABLE = 3;
const OTHER_PROBLEM = 1;

/** The words of a line: some are in quotation marks, within which a backslash protects (libxtables, xtables_save_string). */
export function parseWords(line: string): string[] {
  return [...line.matchAll(/"((?:[^"\\]|\\.)*)"|(\S+)/g)].map(
    ([, quoted, plain]) => quoted?.replaceAll(/\\(.)/g, '$1') ?? plain ?? '',
  );
}

/** Reads what `iptables -S` prints. */
export function parseListing(text: string): IptablesListing {
  const chains: string[] = [];
  const rules: IptablesRule[] = [];
  for (const line of text.split('\n')) {
    const [, command, chain = '', rest = ''] = /^-([AN]) (\S+)(?: (.*))?$/.exec(line) ?? [];
    if (command === 'N') chains.push(chain);
    if (command === 'A') rules.push({ chain, words: parseWords(rest), text: rest });
  }
  return { chains, rules };
}

/** Is the word the address alone: `10.0.0.2/32`, `10.0.0.2:80`, `[fd00::2]:80`? */
function isAddress(word: string, ip: Ip): boolean {
  if (word === ip) return true;
  return familyOf(ip) === 4
    ? word === `${ip}/32` || word.startsWith(`${ip}:`)
    : word === `${ip}/128` || word.startsWith(`[${ip}]:`);
}

function mentions({ words }: IptablesRule, addresses: readonly Ip[]): boolean {
  return words.some((word) => addresses.some((ip) => isAddress(word, ip)));
}

function jumpsTo({ words }: IptablesRule, chain: string): boolean {
  const at = words.findIndex((word) => word === '-j' || word === '-g');
  return at >= 0 && words[at + 1] === chain;
}

function deletion(table: Table, program: string, { chain, words, text }: IptablesRule): Command {
  return {
    args: ['-w', LOCK_WAIT, '-t', table, '-D', chain, ...words],
    text: `${program} -t ${table} -D ${chain} ${text}`,
  };
}

/** What it takes to be rid of a chain, with every jump to it; or only of the rules with our addresses, if others need it. */
function chainRemoval(
  program: string,
  { chains, rules }: IptablesListing,
  chain: string,
  { addresses, shared }: DepartingRules,
): Command[] {
  const related = rules.filter((rule) => rule.chain === chain || jumpsTo(rule, chain));
  if (related.some((rule) => mentions(rule, shared))) {
    return related
      .filter((rule) => mentions(rule, addresses))
      .map((rule) => deletion('nat', program, rule));
  }
  return [
    ...related.filter((rule) => rule.chain !== chain).map((rule) => deletion('nat', program, rule)),
    ...(chains.includes(chain) ? ['-F', '-X'] : []).map((flag) => ({
      args: ['-w', LOCK_WAIT, '-t', 'nat', flag, chain],
      text: `${program} -t nat ${flag} ${chain}`,
    })),
  ];
}

/** Did the firewall plugin make the rule for one of the addresses? */
function letsThrough({ chain, words }: IptablesRule, addresses: readonly Ip[]): boolean {
  const [direction = '', address = ''] = words;
  return (
    chain === FORWARD_CHAIN &&
    ['-s', '-d'].includes(direction) &&
    addresses.some((ip) => isAddress(address, ip)) &&
    words.at(-2) === '-j' &&
    words.at(-1) === 'ACCEPT'
  );
}

/** The commands that remove an attachment's rules from what was listed. */
function iptablesRemoval(
  program: string,
  listings: Readonly<Record<Table, IptablesListing>>,
  names: ReferenceNames,
  departing: DepartingRules,
): Command[] {
  return [
    ...[names.masquerade, names.portMapping, names.oldPortMapping].flatMap((chain) =>
      chainRemoval(program, listings.nat, chain, departing),
    ),
    ...listings.filter.rules
      .filter((rule) => letsThrough(rule, departing.addresses))
      .map((rule) => deletion('filter', program, rule)),
  ];
}

/** Has the kernel no such table, or one that somebody made by nft, in which iptables can have put nothing? */
function hasNoTable({ status, stderr }: ProgramAnswer): boolean {
  return status === NO_TABLE || (status === OTHER_PROBLEM && stderr.includes('is incompatible'));
}

function list(run: RunProgram, program: string, table: Table): IptablesListing {
  const answer = run(program, ['-w', LOCK_WAIT, '-t', table, '-S']);
  if (answer?.status === 0) return parseListing(answer.stdout);
  if (answer === undefined || hasNoTable(answer)) return { chains: [], rules: [] };
  throw new CniError(
    CNI_ERROR.kernel,
    `cannot list the rules of the reference plugins`,
    `${program} -t ${table} -S: ${complaint(answer)}`,
  );
}

/** Removes an attachment's rules and chains of one family and answers the commands that did it. */
export function removeFromIptables(
  run: RunProgram,
  program: 'iptables' | 'ip6tables',
  names: ReferenceNames,
  departing: DepartingRules,
): string[] {
  return untilGone(run, program, () =>
    iptablesRemoval(
      program,
      { nat: list(run, program, 'nat'), filter: list(run, program, 'filter') },
      names,
      departing,
    ),
  );
}
