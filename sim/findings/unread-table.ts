/** Tables that are not read: what they say is in no answer about this host. */
import type { NetnsName } from '../../model/host.ts';
import { within } from '../cause.ts';
import {
  type LegacyChain,
  type LegacyTable,
  type LegacyTables,
  showCommand,
  tableText,
} from '../legacy-table.ts';
import { type HostFinding, seen, shortened } from './finding.ts';

interface Placed {
  readonly netns: NetnsName;
  readonly table: LegacyTable;
}

function chainText({ hook, rules, policy }: LegacyChain): string {
  const count = `${rules} ${rules === 1 ? 'rule' : 'rules'}`;
  return `${hook} has ${policy === 'drop' ? `${count}, policy drop` : count}`;
}

function evidenceOf({ netns, table }: Placed): string {
  const chains = table.chains.map(chainText).join('; ');
  return seen(netns, `${tableText(table)}: ${chains}`);
}

function findingOf([first, ...others]: readonly [Placed, ...Placed[]]): HostFinding {
  const { netns, table } = first;
  const elsewhere = others.length === 0 ? '' : `, nor in ${others.length} other netns`;
  return {
    severity: 'note',
    kind: 'unread-table',
    netns,
    object: tableText(table),
    text: `is not read${elsewhere}: what it drops or changes is in no answer about this host`,
    evidence: shortened([first, ...others].map(evidenceOf)),
    mend: [within(netns, showCommand(table))],
  };
}

/** The tables that may do something to packets, each once for all netns that have one of that name. */
export function unreadTables(legacyTables: LegacyTables): HostFinding[] {
  const byName = new Map<string, [Placed, ...Placed[]]>();
  for (const [netns, tables] of Object.entries(legacyTables)) {
    for (const table of tables) {
      const placed = { netns, table };
      const same = byName.get(tableText(table));
      if (same) same.push(placed);
      else byName.set(tableText(table), [placed]);
    }
  }
  return [...byName.values()].map(findingOf);
}
