/**
 * Which tables of iptables-legacy, ip6tables-legacy and arptables-legacy the netns of this machine have, and how many rules are in
 * their chains. What the rules say is not read. Of ebtables-legacy nothing is told: the kernel has no list of its tables, and
 * makes one that is asked for.
 */
import { closeSync } from 'node:fs';
import type { Fault } from '../../model/errno.ts';
import { HOST_NETNS, type NetnsName } from '../../model/host.ts';
import { expectAnswer } from './answer.ts';
import {
  LAYOUTS,
  type LegacyChain,
  decodeEntries,
  decodeInfo,
  entriesQuestion,
  infoQuestion,
} from './legacy-table-message.ts';
import { cString } from './libc.ts';
import { insideNetns, openNetns } from './netns.ts';
import { type OptionSocket, openOptions } from './option-socket.ts';
import { openFolder, readFileAt } from './small-file.ts';
import { isFault } from './socket.ts';

/** The program whose tables they are. */
type Family = keyof typeof LAYOUTS;

/** A table with those of its chains that have hooks. */
export interface LegacyTable {
  readonly family: Family;
  /** `filter`, `nat`. */
  readonly name: string;
  readonly chains: readonly LegacyChain[];
}

type TablesByNetns = Readonly<Record<NetnsName, readonly LegacyTable[]>>;

/** Which files hold the names of the tables of a netns, one a line: there are such in every netns as soon as the module is loaded. */
const NAMES: Readonly<Record<Family, Uint8Array>> = {
  ip: cString('ip_tables_names'),
  ip6: cString('ip6_tables_names'),
  arp: cString('arp_tables_names'),
};

/** Their folder. What is looked for in it is of the netns in which its thread is then (fs/proc/proc_net.c, proc_tgid_net_lookup). */
const FOLDER = cString('/proc/self/net');

/** Whose socket is asked, at which level (SOL_IP, SOL_IPV6), and IPT_SO_GET_INFO; the option for the entries is the next one. */
const OPTIONS = {
  ip: { socket: 4, level: 0, info: 64 },
  ip6: { socket: 6, level: 41, info: 64 },
  arp: { socket: 4, level: 0, info: 96 },
} as const satisfies Record<Family, object>;

const FAMILIES = ['ip', 'ip6', 'arp'] as const;

/** What cannot be read, in the words of an error. */
const WHAT = 'the tables of iptables-legacy';

/** How often a table is read anew that changes meanwhile. */
const TRIES = 20;

/** The names in the list of a family; undefined where there is no list, ENOENT. */
function namesOf(folder: number, family: Family): readonly string[] | undefined | Fault {
  const text = readFileAt(folder, NAMES[family]);
  if (typeof text === 'string') return text.split('\n').filter((name) => name !== '');
  return text.errno === 'ENOENT' ? undefined : text;
}

function isSame(a: Uint8Array, b: Uint8Array): boolean {
  return a.every((byte, index) => byte === b[index]);
}

/** What the chains of a table hold at one time; undefined where it changes meanwhile. */
function tryChains(
  socket: OptionSocket,
  family: Family,
  table: string,
): readonly LegacyChain[] | undefined | Fault {
  const layout = LAYOUTS[family];
  const { level, info: option } = OPTIONS[family];
  const [before, after] = [infoQuestion(table, layout), infoQuestion(table, layout)];
  const refused = socket.read(level, option, before);
  if (refused) return refused;
  const info = decodeInfo(before, layout);
  const entries = entriesQuestion(table, info);
  const fault = socket.read(level, option + 1, entries) ?? socket.read(level, option, after);
  // They are no longer as long as they were.
  if (fault?.errno === 'EAGAIN') return undefined;
  if (fault) return fault;
  return isSame(before, after) ? decodeEntries(entries, info, layout) : undefined;
}

/** The table, which has to be a listed one: the kernel makes others that it is asked for (xt_find_table_lock). */
function readTable(socket: OptionSocket, family: Family, name: string): LegacyTable | Fault {
  for (let tries = 0; tries < TRIES; tries += 1) {
    const chains = tryChains(socket, family, name);
    if (chains && 'errno' in chains) return chains;
    if (chains) return { family, name, chains };
  }
  return { errno: 'EAGAIN', text: `table ${name} changes all the time` };
}

/** The tables of the present netns. */
function tablesHere(folder: number, families: readonly Family[]): readonly LegacyTable[] | Fault {
  const tables: LegacyTable[] = [];
  for (const family of families) {
    const names = namesOf(folder, family) ?? [];
    if ('errno' in names) return names;
    if (names.length === 0) continue;
    const socket = openOptions(OPTIONS[family].socket);
    if (isFault(socket)) return socket;
    try {
      for (const name of names) {
        const table = readTable(socket, family, name);
        if (isFault(table)) return table;
        tables.push(table);
      }
    } finally {
      socket.close();
    }
  }
  return tables;
}

/** The same of another netns; undefined where there is none of that name. */
function tablesIn(
  name: NetnsName,
  folder: number,
  families: readonly Family[],
): readonly LegacyTable[] | undefined | Fault {
  if (name === HOST_NETNS) return tablesHere(folder, families);
  const fd = openNetns(name);
  if (typeof fd !== 'number') return undefined;
  try {
    return insideNetns(fd, () => tablesHere(folder, families));
  } finally {
    closeSync(fd);
  }
}

/** The tables of each of these netns, by what `folder` tells. */
function tablesByNetns(names: readonly NetnsName[], folder: number): TablesByNetns {
  const families = FAMILIES.filter((family) => namesOf(folder, family));
  if (families.length === 0) return {};
  const tables: Record<NetnsName, readonly LegacyTable[]> = {};
  for (const name of names) {
    const answer = tablesIn(name, folder, families);
    // setns(2) says so of a file that is no netns.
    if (!answer || ('errno' in answer && answer.errno === 'EINVAL')) continue;
    const found = expectAnswer(answer, name, WHAT);
    if (found.length > 0) tables[name] = found;
  }
  return tables;
}

/**
 * The tables of each of these netns that has any. One that is not there, or goes meanwhile, is not in the answer. Throws where the
 * kernel may not be asked. Where no module for such tables is loaded no netns is entered.
 */
export function readLegacyTables(names: readonly NetnsName[]): TablesByNetns {
  const folder = openFolder(FOLDER);
  if (typeof folder !== 'number')
    // Without /proc there are no lists.
    return folder.errno === 'ENOENT' ? {} : expectAnswer<TablesByNetns>(folder, HOST_NETNS, WHAT);
  try {
    return tablesByNetns(names, folder);
  } finally {
    closeSync(folder);
  }
}
