/**
 * Tables of iptables-legacy, which are beside nf_tables in the kernel: that they are there is known, what their rules say is not.
 * A packet goes on as if they let it; whoever is told what became of it is told which of them it passed.
 */
import type { Host, NetnsName } from '../model/host.ts';
import type { ChainHook } from '../model/nftables.ts';

type HookName = ChainHook['hook'];

/** Whose packets a table sees. */
export type LegacyFamily = 'ip' | 'ip6' | 'arp';

/** A chain that packets pass at a hook. */
export interface LegacyChain {
  readonly hook: HookName;
  /** How many rules it has; those of chains that they jump to do not count. */
  readonly rules: number;
  readonly policy: 'accept' | 'drop';
}

export interface LegacyTable {
  readonly family: LegacyFamily;
  /** `filter`, `nat`, `mangle`, `raw` or `security`. */
  readonly name: string;
  /** Those that may do something to a packet. */
  readonly chains: readonly LegacyChain[];
}

/** Of each netns that has any; in one that is not mentioned there are none that may do something. */
export type LegacyTables = Readonly<Record<NetnsName, readonly LegacyTable[]>>;

/** A host with what decides about its packets beside the model. */
export interface WholeHost {
  readonly host: Host;
  readonly legacyTables: LegacyTables;
}

/** NF_IP_PRI_RAW and so on (include/uapi/linux/netfilter_ipv4.h), the same for IPv6; of ARP there is only filter, at 0. */
const PRIORITIES: Readonly<Record<string, number>> = {
  raw: -300,
  mangle: -150,
  filter: 0,
  security: 50,
};

/** What nat is asked about is in `netfilter.ts`: only the first packet of a connection. */
export function isNat({ name }: LegacyTable): boolean {
  return name === 'nat';
}

/** When a table that is not nat is asked, among all that are asked at a hook. */
export function priorityOf({ name }: LegacyTable): number {
  return PRIORITIES[name] ?? 0;
}

/** Of tables those chains that hold rules, or have another policy than accept, and of tables those with such chains. */
export function deciding(tables: LegacyTables): LegacyTables {
  const kept = Object.entries(tables).flatMap(([netns, all]) => {
    const some = all
      .map((table) => ({
        ...table,
        chains: table.chains.filter(({ rules, policy }) => rules > 0 || policy === 'drop'),
      }))
      .filter(({ chains }) => chains.length > 0);
    return some.length === 0 ? [] : [[netns, some] as const];
  });
  return Object.fromEntries(kept);
}

const NONE: readonly LegacyTable[] = [];

/** The tables of a family in a netns. */
export function legacyTablesOf(
  tables: LegacyTables,
  netns: NetnsName,
  family: LegacyFamily,
): readonly LegacyTable[] {
  return tables[netns]?.filter((table) => table.family === family) ?? NONE;
}

/** Has a table a chain at a hook? */
export function isAt({ chains }: LegacyTable, hook: HookName): boolean {
  return chains.some((chain) => chain.hook === hook);
}

/** The program that lists and changes the tables of a family. */
const PROGRAM = {
  ip: 'iptables-legacy',
  ip6: 'ip6tables-legacy',
  arp: 'arptables-legacy',
} as const satisfies Record<LegacyFamily, string>;

/** `table filter of iptables-legacy`. */
export function tableText({ family, name }: Pick<LegacyTable, 'family' | 'name'>): string {
  return `table ${name} of ${PROGRAM[family]}`;
}

/** The command that prints the rules of a table, in its netns. */
export function showCommand({ family, name }: Pick<LegacyTable, 'family' | 'name'>): string {
  return family === 'arp' ? `${PROGRAM.arp} -t ${name} -nvL` : `${PROGRAM[family]} -t ${name} -S`;
}
