/**
 * Tables that are not read: those of iptables-legacy, which are beside nf_tables in the kernel, and those of nft of a family, or with a
 * hook, that is not simulated. That they are there is known, what their rules say is not. A packet goes on as if they let it; whoever is told what became of it is told which of them it passed.
 */
import type { Host, NetnsName } from '../model/host.ts';
import type { Ifname } from '../model/ifname.ts';
import type { ChainHook } from '../model/nftables.ts';

/** `ingress` and `egress` are those of links. */
export type UnreadHook = ChainHook['hook'] | 'ingress' | 'egress';

/** Whose packets a table sees. */
export type LegacyFamily = 'ip' | 'ip6' | 'arp';

/** A chain that packets pass at a hook. */
export interface LegacyChain {
  readonly hook: UnreadHook;
  /** Of `ingress` and `egress`: at which links, a name that ends with `*` for all that begin so. */
  readonly devices?: readonly string[];
  /** How many rules it has; those of chains that they jump to do not count. */
  readonly rules: number;
  readonly policy: 'accept' | 'drop';
}

export interface LegacyTable {
  /** Of nft: whose table it is; absent: of iptables-legacy and its siblings. */
  readonly program?: 'nft';
  /** Of nft `arp`, `netdev`, or `inet` for what that has at links. */
  readonly family: LegacyFamily | 'netdev' | 'inet';
  /** Of iptables-legacy `filter`, `nat`, `mangle`, `raw` or `security`. */
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
  family: LegacyTable['family'],
): readonly LegacyTable[] {
  return tables[netns]?.filter((table) => table.family === family) ?? NONE;
}

/** Has a table a chain at a hook? */
export function isAt({ chains }: LegacyTable, hook: UnreadHook): boolean {
  return chains.some((chain) => chain.hook === hook);
}

/** The tables of a netns that see the frames of a link as they come, or leave. */
export function tablesAtLink(
  tables: LegacyTables,
  netns: NetnsName,
  hook: 'ingress' | 'egress',
  ifname: Ifname,
): readonly LegacyTable[] {
  const isThere = (device: string): boolean =>
    device.endsWith('*') ? ifname.startsWith(device.slice(0, -1)) : device === ifname;
  return (
    tables[netns]?.filter(({ chains }) =>
      chains.some((chain) => chain.hook === hook && chain.devices?.some(isThere)),
    ) ?? NONE
  );
}

/** The program that lists and changes the tables of a family. */
const PROGRAM = {
  ip: 'iptables-legacy',
  ip6: 'ip6tables-legacy',
  arp: 'arptables-legacy',
} as const satisfies Record<LegacyFamily, string>;

/** What tells a table from the others of its netns. */
export type TableName = Pick<LegacyTable, 'program' | 'family' | 'name'>;

function isLegacy(family: LegacyTable['family']): family is LegacyFamily {
  return Object.hasOwn(PROGRAM, family);
}

/** `table filter of iptables-legacy`, `table netdev filter`. */
export function tableText({ program, family, name }: TableName): string {
  return program === 'nft' || !isLegacy(family)
    ? `table ${family} ${name}`
    : `table ${name} of ${PROGRAM[family]}`;
}

/** The command that prints the rules of a table, in its netns. */
export function showCommand({ program, family, name }: TableName): string {
  if (program === 'nft' || !isLegacy(family)) return `nft -a list table ${family} ${name}`;
  return family === 'arp' ? `${PROGRAM.arp} -t ${name} -nvL` : `${PROGRAM[family]} -t ${name} -S`;
}
