/** The base chains of a netns, found once for as long as nothing changes: every packet and every frame asks for them. */
import type { Netns } from '../model/host.ts';
import type { Family } from '../model/ip.ts';
import type { Chain, ChainHook, Table } from '../model/nftables.ts';
import { seesFamily } from './conntrack.ts';
import { oncePer, oncePerWord } from './remembered.ts';

export type HookName = ChainHook['hook'];

/** A chain that is hooked in. */
export interface BaseChain {
  readonly table: Table;
  readonly chain: Chain;
  readonly hook: ChainHook;
}

/** The base chains of the tables that see packets of a family, or frames of bridges, in the order of their priorities. */
export const baseChainsOf = oncePerWord(
  ({ nftables }: Netns, of: Family | 'bridge'): readonly BaseChain[] =>
    Object.values(nftables)
      .filter((table) => (of === 'bridge' ? table.family === of : seesFamily(table, of)))
      .flatMap((table) =>
        Object.values(table.chains).flatMap((chain) =>
          chain.hook ? [{ table, chain, hook: chain.hook }] : [],
        ),
      )
      .toSorted((a, b) => a.hook.priority - b.hook.priority),
);

/** Has a netns no chain that anything passes? */
export const isOpen = oncePer(({ nftables }: Netns): boolean =>
  Object.values(nftables).every(({ chains }) => Object.values(chains).every(({ hook }) => !hook)),
);
