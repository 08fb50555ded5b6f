/** What the reference plugins keep in nft tables, as `nft -j` lists it, and which of it is an attachment's. */
import type { Ip } from '../../model/ip.ts';
import { CNI_ERROR, CniError } from '../cni/error.ts';
import { type JsonObject, findObject, objectsOf, textOf } from './json.ts';
import type { ReferenceNames } from './names.ts';
import type { RunProgram } from './programs.ts';
import { type Command, type DepartingRules, complaint, untilGone } from './removal.ts';

/** A rule of a listing. */
interface NftRule {
  readonly chain: string;
  readonly handle: number;
  readonly comment: string;
  /** Every text that its expressions hold. */
  readonly texts: readonly string[];
}

/** What of a table matters. */
interface NftListing {
  readonly chains: readonly string[];
  readonly rules: readonly NftRule[];
}

/** The tables, `FAMILY NAME`, of bridge, portmap and the bridge's check of MAC addresses. */
const MASQUERADE_TABLE = 'inet cni_plugins_masquerade';
const PORT_TABLES = ['ip cni_hostport', 'ip6 cni_hostport'];
const SPOOF_CHECK_TABLE = 'bridge nat';
const TABLES = [MASQUERADE_TABLE, ...PORT_TABLES, SPOOF_CHECK_TABLE];

function textsIn(value: unknown): string[] {
  if (typeof value === 'string') return [value];
  if (value === null || typeof value !== 'object') return [];
  return Object.values(value).flatMap(textsIn);
}

/** The objects of a kind in an answer of `nft -j`. */
function objects(json: string, kind: string): JsonObject[] {
  const all = objectsOf(findObject(JSON.parse(json))?.['nftables']);
  return objectsOf(all.map((each) => each[kind]));
}

/** Reads what `nft -j -a list table` prints. */
function parseNftListing(json: string): NftListing {
  return {
    chains: objects(json, 'chain').map(({ name }) => textOf(name)),
    rules: objects(json, 'rule').map(({ chain, handle, comment, expr }) => ({
      chain: textOf(chain),
      handle: Number(handle),
      comment: textOf(comment),
      texts: textsIn(expr),
    })),
  };
}

/** A rule for port mappings names only the container, which may have other addresses in other networks. */
function isOwnMapping(
  { comment, texts }: NftRule,
  { portMappingComment }: ReferenceNames,
  addresses: readonly Ip[],
): boolean {
  return (
    comment === portMappingComment &&
    (addresses.length === 0 || addresses.some((ip) => texts.includes(ip)))
  );
}

function command(...args: string[]): Command {
  return { args, text: `nft ${args.join(' ')}` };
}

/** The commands that remove an attachment's rules, and chains that are its own, from a table. */
function nftRemoval(
  table: string,
  { chains, rules }: NftListing,
  names: ReferenceNames,
  { addresses }: DepartingRules,
): Command[] {
  const isOwn = (rule: NftRule): boolean => {
    if (table === MASQUERADE_TABLE) return rule.comment.startsWith(names.masqueradeComment);
    if (table === SPOOF_CHECK_TABLE) return rule.comment === names.spoofCheckComment;
    return isOwnMapping(rule, names, addresses);
  };
  const place = table.split(' ');
  const ownChains =
    table === SPOOF_CHECK_TABLE ? names.spoofCheckChains.filter((c) => chains.includes(c)) : [];
  return [
    ...rules
      .filter(isOwn)
      .map(({ chain, handle }) =>
        command('delete', 'rule', ...place, chain, 'handle', String(handle)),
      ),
    ...ownChains.map((chain) => command('delete', 'chain', ...place, chain)),
  ];
}

/** The tables of the reference plugins that are there. An nft without JSON cannot have made any of them: they use it too. */
function listTables(run: RunProgram): string[] {
  const answer = run('nft', ['-j', 'list', 'tables']);
  if (answer?.status !== 0) return [];
  const there = objects(answer.stdout, 'table').map(
    ({ family, name }) => `${textOf(family)} ${textOf(name)}`,
  );
  return TABLES.filter((table) => there.includes(table));
}

function list(run: RunProgram, table: string): NftListing {
  const answer = run('nft', ['-j', '-a', 'list', 'table', ...table.split(' ')]);
  if (answer?.status === 0) return parseNftListing(answer.stdout);
  // It may have gone since the tables were listed.
  if (answer === undefined || answer.stderr.includes('No such file'))
    return { chains: [], rules: [] };
  throw new CniError(
    CNI_ERROR.kernel,
    `cannot list the rules of the reference plugins`,
    `nft list table ${table}: ${complaint(answer)}`,
  );
}

/** Removes an attachment's rules from the tables of the reference plugins and answers the commands that did it. */
export function removeFromNftables(
  run: RunProgram,
  names: ReferenceNames,
  departing: DepartingRules,
): string[] {
  return listTables(run).flatMap((table) =>
    untilGone(run, 'nft', () => nftRemoval(table, list(run, table), names, departing)),
  );
}
