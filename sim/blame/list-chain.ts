/** The command that lists a chain, in the words of the program that wrote it. */
import { type Host, type NetnsName, findNetns } from '../../model/host.ts';
import {
  type Chain,
  type NftFamily,
  type Rule,
  type Table,
  tableKey,
} from '../../model/nftables.ts';
import { within } from '../cause.ts';

/** A chain by its names. */
export interface ChainRef {
  readonly family: NftFamily;
  readonly table: string;
  readonly chain: string;
}

const IPTABLES: Readonly<Partial<Record<NftFamily, string>>> = {
  ip: 'iptables-nft',
  ip6: 'ip6tables-nft',
};

const TABLES: ReadonlySet<string> = new Set(['filter', 'nat', 'mangle', 'raw', 'security']);

/** Expressions that iptables-nft makes beside its own matches and targets (iptables/nft-shared.c). */
const EXPRESSIONS: ReadonlySet<string> = new Set([
  'bitwise',
  'byteorder',
  'cmp',
  'immediate',
  'limit',
  'meta',
  'payload',
  'range',
]);

/** May iptables-nft have written a rule? It puts a counter in each. */
function isRuleOfIptables({ statements }: Rule): boolean {
  return (
    statements.some(({ kind }) => kind === 'counter') &&
    statements.every((each) =>
      each.kind === 'opaque'
        ? /^(match|target) /.test(each.expression) || EXPRESSIONS.has(each.expression)
        : ['match', 'counter', 'verdict'].includes(each.kind),
    )
  );
}

function isChainOfIptables({ name, hook, rules }: Chain): boolean {
  return (hook === null || name === hook.hook.toUpperCase()) && rules.every(isRuleOfIptables);
}

/** Can iptables-nft list a table, all of which may be its own (nft_is_table_compatible)? */
function isOfIptables({ name, chains, sets }: Table): boolean {
  return (
    TABLES.has(name) &&
    Object.keys(sets).length === 0 &&
    Object.values(chains).every(isChainOfIptables)
  );
}

/** To be run on the host. */
export function listChain(host: Host, netns: NetnsName, ref: ChainRef): string {
  const { family, table, chain } = ref;
  const found = findNetns(host, netns)?.nftables[tableKey(ref)];
  const iptables = found && isOfIptables(found) ? IPTABLES[family] : undefined;
  if (iptables === undefined) return within(netns, `nft -a list chain ${family} ${table} ${chain}`);
  const option = table === 'filter' ? '' : ` -t ${table}`;
  return within(netns, `${iptables}${option} -S ${chain}`);
}
