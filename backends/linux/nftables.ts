/** Reads tables with their chains, rules, sets and elements. */
import { sameJson } from '../../model/canonical.ts';
import type { Fault } from '../../model/errno.ts';
import type { RawSet } from '../../model/nft-expression.ts';
import {
  type Chain,
  type NftCommand,
  type NftSet,
  type Ruleset,
  type SetElement,
  type Table,
  filtersForwarded,
  formatCommand,
  keyTypeOf,
  tableKey,
} from '../../model/nftables.ts';
import type { NetnsScope, TableScope } from '../backend.ts';
import { expectAnswer } from './answer.ts';
import type { KernelNetns } from './kernel.ts';
import type { Message } from './message.ts';
import {
  type ElementsRecord,
  type ForeignDecoder,
  decodeBaseChain,
  decodeChain,
  decodeElements,
  decodeForeignElements,
  decodeForeignSet,
  decodeGeneration,
  decodeNumberedRule,
  decodeRule,
  decodeSet,
  decodeTable,
  encodeChainDump,
  encodeChainRuleDump,
  encodeElementDump,
  encodeElementGet,
  encodeGenerationGet,
  encodeRuleDump,
  encodeSetDump,
  encodeTableDump,
  encodeTableGet,
} from './nftables-message.ts';
import { type NetlinkSocket, isFault } from './socket.ts';
import { wholeDump } from './whole-dump.ts';

/**
 * The numbers of the rules that commands name: of the first that reads like the one to be deleted, and of the last of a
 * chain, before which another is inserted. ENOENT where there is none.
 */
export function findHandles(
  socket: NetlinkSocket,
  commands: readonly NftCommand[],
): Map<number, Uint8Array> | Fault {
  const handles = new Map<number, Uint8Array>();
  const used = new Set<string>();
  for (const [index, command] of commands.entries()) {
    if (command.do !== 'delete rule' && command.do !== 'insert rule') continue;
    const answer = socket.dump(encodeChainRuleDump(command, command.chain), decodeNumberedRule);
    if (isFault(answer)) return answer;
    // Numbers are counted in each table.
    const nameOf = (handle: Uint8Array): string => `${tableKey(command)} ${handle.join()}`;
    const open = answer.filter(({ handle }) => !used.has(nameOf(handle)));
    const found =
      command.do === 'insert rule'
        ? open.at(-1)
        : open.find(({ rule }) => sameJson(rule, command.rule));
    if (!found) return { errno: 'ENOENT', text: formatCommand(command) };
    if (command.do === 'delete rule') used.add(nameOf(found.handle));
    handles.set(index, found.handle);
  }
  return handles;
}

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

/** The sets of a table that the model lacks. */
function readRawSets(
  asker: Asker,
  scope: TableScope,
  foreign: ForeignDecoder,
): Record<string, RawSet> {
  const sets: Record<string, RawSet> = {};
  const what = `table "${tableKey(scope)}"`;
  const found = asker.dump(what, encodeSetDump(scope), (answer) =>
    decodeForeignSet(answer, foreign),
  );
  for (const { table, set } of found) {
    if (table !== scope.table) continue;
    const elements = asker.dump(what, encodeElementDump(scope, set.name), (answer) =>
      decodeForeignElements(answer, foreign),
    );
    sets[set.name] = foreign.whole(set, elements.flat());
  }
  return sets;
}

function readTable(asker: Asker, scope: TableScope, foreign?: ForeignDecoder): Table {
  const what = `table "${tableKey(scope)}"`;
  const chains: Record<string, Chain & { rules: Chain['rules'][number][] }> = {};
  for (const { table, chain } of asker.dump(what, encodeChainDump(scope.family), decodeChain)) {
    if (table === scope.table) chains[chain.name] = { ...chain, rules: [] };
  }
  for (const { table, chain, rule } of asker.dump(what, encodeRuleDump(scope), (answer) =>
    decodeRule(answer, foreign?.expression),
  )) {
    if (table === scope.table) chains[chain]?.rules.push(rule);
  }
  const sets: Record<string, NftSet> = {};
  for (const { table, set } of asker.dump(what, encodeSetDump(scope), decodeSet)) {
    if (table === scope.table)
      sets[set.name] = { ...set, elements: readElements(asker, scope, set) };
  }
  const rawSets = foreign ? readRawSets(asker, scope, foreign) : {};
  const more = Object.keys(rawSets).length > 0 ? { rawSets } : {};
  return { family: scope.family, name: scope.table, chains, sets, ...more };
}

function readTables(
  asker: Asker,
  scope: NetnsScope['nftables'],
  foreign: ForeignDecoder | undefined,
): Ruleset {
  const tables: Record<string, Table> = {};
  if (scope === 'all') {
    for (const ref of asker.dump('the tables', wholeDump(encodeTableDump), decodeTable)) {
      tables[tableKey(ref)] = readTable(asker, { ...ref, elements: 'all' }, foreign);
    }
    return tables;
  }
  for (const each of scope) {
    const what = `table "${tableKey(each)}"`;
    if (asker.find(what, encodeTableGet(each), decodeTable))
      tables[tableKey(each)] = readTable(asker, each, foreign);
  }
  return tables;
}

/** The chains that filter what is forwarded, of tables that are not read otherwise. */
function readForwardChains(asker: Asker, known: Ruleset): Ruleset {
  const tables: Record<string, Table> = {};
  for (const { family, table, chain, hook } of asker.dump(
    'the base chains',
    encodeChainDump(undefined),
    decodeBaseChain,
  )) {
    const key = tableKey({ family, table });
    if (!filtersForwarded(family, hook) || Object.hasOwn(known, key)) continue;
    const what = `chain "${chain}" of table "${key}"`;
    const rules = asker.dump(what, encodeChainRuleDump({ family, table }, chain), (answer) =>
      decodeRule(answer),
    );
    const read: Chain = { name: chain, hook, rules: rules.map(({ rule }) => rule) };
    const chains = { ...tables[key]?.chains, [chain]: read };
    tables[key] = { family, name: table, chains, sets: {} };
  }
  return tables;
}

/**
 * The tables that `scope` names, those that exist. Nobody's change falls in the middle: the number of the ruleset
 * is the same before and after, or reading begins anew. What the model leaves out is read by `foreign`. Throws where the
 * ruleset changes each time.
 */
export function observeRuleset(
  netns: KernelNetns,
  { nftables: scope, forwardChains }: Pick<NetnsScope, 'nftables' | 'forwardChains'>,
  foreign?: ForeignDecoder,
): Ruleset {
  if (scope !== 'all' && scope.length === 0 && !forwardChains) return {};
  const socket = netns.netfilter();
  // A kernel without nf_tables has no tables.
  if (isFault(socket) && socket.errno === 'EPROTONOSUPPORT') return {};
  const asker = makeAsker(expectAnswer(socket, netns.name, 'the nft ruleset'), netns.name);
  // That there is no table is told by one answer, which nobody's change can fall into.
  if (
    scope === 'all' &&
    asker.dump('the tables', wholeDump(encodeTableDump), decodeTable).length === 0
  )
    return {};
  let generation = asker.find(
    'the nft ruleset',
    encodeGenerationGet(),
    decodeGeneration,
  )?.generation;
  for (let tries = 1; ; tries += 1) {
    const named = readTables(asker, scope, foreign);
    const tables = forwardChains ? { ...named, ...readForwardChains(asker, named) } : named;
    const after = asker.find(
      'the nft ruleset',
      encodeGenerationGet(),
      decodeGeneration,
    )?.generation;
    if (after === generation) return tables;
    if (tries >= READ_TRIES)
      throw new Error(
        `Cannot read the nft ruleset in netns "${netns.name}": it changed each of the ${READ_TRIES} times that it was read: the host changes too fast`,
      );
    generation = after;
  }
}
