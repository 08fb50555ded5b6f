/** Reads tables with their chains, rules, sets and elements. */
import type { Chain, NftSet, Ruleset, SetElement, Table } from '../../model/nftables.ts';
import { keyTypeOf, tableKey } from '../../model/nftables.ts';
import type { NetnsScope, TableScope } from '../backend.ts';
import { expectAnswer } from './answer.ts';
import type { KernelNetns } from './kernel.ts';
import type { Message } from './message.ts';
import {
  type ElementsRecord,
  decodeChain,
  decodeElements,
  decodeGeneration,
  decodeRule,
  decodeSet,
  decodeTable,
  encodeChainDump,
  encodeElementDump,
  encodeElementGet,
  encodeGenerationGet,
  encodeRuleDump,
  encodeSetDump,
  encodeTableDump,
  encodeTableGet,
} from './nftables-message.ts';
import { type NetlinkSocket, isFault } from './socket.ts';

/** How often reading begins anew because the ruleset changed meanwhile. */
const READ_TRIES = 10;

/** A table vanished while it was read: the ruleset has changed, and reading begins anew. */
const CHANGED = 'ENOENT';

interface Asker {
  readonly dump: <T>(
    what: string,
    message: Uint8Array,
    decode: (answer: Message) => T | undefined,
  ) => readonly T[];
  readonly find: <T extends object>(
    what: string,
    message: Uint8Array,
    decode: (answer: Message) => T | undefined,
  ) => T | undefined;
}

function makeAsker(socket: NetlinkSocket, netns: string): Asker {
  return {
    dump: (what, message, decode) => {
      const answer = socket.dump(message, decode);
      return isFault(answer) && answer.errno === CHANGED ? [] : expectAnswer(answer, netns, what);
    },
    find: (what, message, decode) => {
      const answer = socket.ask(message, decode);
      return isFault(answer) && answer.errno === CHANGED
        ? undefined
        : expectAnswer(answer, netns, what);
    },
  };
}

function readElements(
  asker: Asker,
  scope: TableScope,
  { name, keyType, holds }: Omit<NftSet, 'elements'>,
): Record<string, SetElement> {
  const what = `the elements of set "${name}" of table "${tableKey(scope)}"`;
  const elements: Record<string, SetElement> = {};
  const decode = (answer: Message): ElementsRecord | undefined =>
    decodeElements(answer, { keyType, holds });
  const take = (record: ElementsRecord | undefined): void => {
    for (const element of record?.elements ?? []) elements[element.key] = element;
  };
  if (scope.elements === 'all') {
    for (const record of asker.dump(what, encodeElementDump(scope, name), decode)) take(record);
  } else {
    for (const key of scope.elements[name] ?? []) {
      // The kernel refuses a key of another length, but there is none anyway.
      if (keyTypeOf(key) === keyType)
        take(asker.find(what, encodeElementGet(scope, name, key), decode));
    }
  }
  return elements;
}

function readTable(asker: Asker, scope: TableScope): Table {
  const what = `table "${tableKey(scope)}"`;
  const chains: Record<string, Chain & { rules: Chain['rules'][number][] }> = {};
  for (const { table, chain } of asker.dump(what, encodeChainDump(scope.family), decodeChain)) {
    if (table === scope.table) chains[chain.name] = { ...chain, rules: [] };
  }
  for (const { table, chain, rule } of asker.dump(what, encodeRuleDump(scope), decodeRule)) {
    if (table === scope.table) chains[chain]?.rules.push(rule);
  }
  const sets: Record<string, NftSet> = {};
  for (const { table, set } of asker.dump(what, encodeSetDump(scope), decodeSet)) {
    if (table === scope.table)
      sets[set.name] = { ...set, elements: readElements(asker, scope, set) };
  }
  return { family: scope.family, name: scope.table, chains, sets };
}

function readTables(asker: Asker, scope: NetnsScope['nftables']): Ruleset {
  const tables: Record<string, Table> = {};
  if (scope === 'all') {
    for (const ref of asker.dump('the tables', encodeTableDump(), decodeTable)) {
      tables[tableKey(ref)] = readTable(asker, { ...ref, elements: 'all' });
    }
    return tables;
  }
  for (const each of scope) {
    const what = `table "${tableKey(each)}"`;
    if (asker.find(what, encodeTableGet(each), decodeTable))
      tables[tableKey(each)] = readTable(asker, each);
  }
  return tables;
}

/**
 * The tables that `scope` names, those that exist. Nobody's change falls in the middle: the number of the ruleset
 * is the same before and after, or reading begins anew.
 */
export function observeRuleset(netns: KernelNetns, scope: NetnsScope['nftables']): Ruleset {
  if (scope !== 'all' && scope.length === 0) return {};
  const socket = netns.netfilter();
  // A kernel without nf_tables has no tables.
  if (isFault(socket) && socket.errno === 'EPROTONOSUPPORT') return {};
  const asker = makeAsker(expectAnswer(socket, netns.name, 'the nft ruleset'), netns.name);
  let generation = asker.find(
    'the nft ruleset',
    encodeGenerationGet(),
    decodeGeneration,
  )?.generation;
  for (let tries = 1; ; tries += 1) {
    const tables = readTables(asker, scope);
    const after = asker.find(
      'the nft ruleset',
      encodeGenerationGet(),
      decodeGeneration,
    )?.generation;
    if (after === generation || tries >= READ_TRIES) return tables;
    generation = after;
  }
}
