/** What of a host is not read and has been passed by packets: an answer about them holds as far as that lets them on unchanged. */
import type { NetnsName } from '../model/host.ts';
import { within } from './cause.ts';
import type { Frame, Packet } from './frame.ts';
import {
  type LegacyTable,
  type TableName,
  type UnreadHook,
  showCommand,
  tableText,
} from './legacy-table.ts';
import { type Place, type Run, note } from './run.ts';
import type { Hop, LookedUp } from './trace.ts';

/** A table that is not read and that packets passed. */
export interface UnreadTable {
  readonly netns: NetnsName;
  /** `table filter of iptables-legacy`, `table netdev filter`. */
  readonly object: string;
  /** Where they passed it. */
  readonly hooks: readonly UnreadHook[];
  /** The command that shows its rules, to be run on the host. */
  readonly show: string;
}

/** Notes that a packet goes on past a table, which is taken to let it. */
export function noteUnread(
  run: Run,
  at: Place,
  data: Frame | Packet,
  hook: UnreadHook,
  table: LegacyTable,
): void {
  const { program, family, name } = table;
  const nft = program === undefined ? {} : { program };
  const lookedUp: LookedUp = { kind: 'legacy table', ...nft, family, table: name, hook };
  const text = `${hook}: ${tableText(table)} is not read, and taken to let it on`;
  note(run, at, 'netfilter', data, text, { lookedUp });
}

/** Each table once, with all the hooks at which it was passed, in an order that does not hang on theirs. */
export function joined(passed: readonly UnreadTable[]): UnreadTable[] {
  const tables = new Map<string, UnreadTable>();
  for (const table of passed) {
    const key = `${table.netns}\n${table.object}`;
    const hooks = new Set([...(tables.get(key)?.hooks ?? []), ...table.hooks]);
    tables.set(key, { ...table, hooks: [...hooks].toSorted() });
  }
  return [...tables].toSorted(([a], [b]) => (a < b ? -1 : 1)).map(([, table]) => table);
}

/** The tables that were passed on the way of these hops. */
export function unreadIn(hops: readonly Hop[]): UnreadTable[] {
  return joined(
    hops.flatMap(({ netns, lookedUp }) => {
      if (lookedUp?.kind !== 'legacy table') return [];
      const { hook } = lookedUp;
      const table: TableName = { ...lookedUp, name: lookedUp.table };
      const object = tableText(table);
      const show = within(netns, showCommand(table));
      return [{ netns, object, hooks: [hook], show }];
    }),
  );
}

/** `netns node: table filter of iptables-legacy is not read (forward)`. */
export function formatUnread({ netns, object, hooks }: UnreadTable): string {
  return `netns ${netns}: ${object} is not read (${hooks.join(', ')})`;
}
