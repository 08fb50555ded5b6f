/**
 * Doors: what packets pass on their way to host ports. A door is a bit of the mark and conditions of each family; it has
 * chains and maps of its own, so that their rules stay the same whatever doors there are beside it.
 */
import type { Family } from '../model/ip.ts';
import { type Chain, type Match, type Table, formatStatement } from '../model/nftables.ts';

/** A door as the record keeps it. The default one, of `MARK_BIT` and without conditions, is `undefined`. */
export interface Door {
  /** What tells the names of its chains and maps from those of other doors. */
  readonly name: string;
  readonly markBit: number;
  /** What a packet of each family has to be: all of it. */
  readonly conditions: Conditions;
}

/** Conditions for packets of each family. */
export type Conditions = Readonly<Record<Family, readonly Match[]>>;

/**
 * The bit of the mark that a packet has between the two hooks, unless the configuration says another: that of the
 * reference portmap.
 */
export const MARK_BIT = 13;

/** kube-proxy's, which it masquerades and drops by (0x4000 and 0x8000). */
export const FOREIGN_MARK_BITS: readonly number[] = [14, 15];

/** Enough to tell the doors of a node from each other. */
const NAME_BYTES = 4;

/** The door of this bit and these conditions. */
export function doorOf(
  digest: (text: string) => Uint8Array,
  markBit: number,
  conditions: Conditions,
): Door | undefined {
  if (markBit === MARK_BIT && conditions[4].length + conditions[6].length === 0) return undefined;
  const texts = [conditions[4], conditions[6]].map((each) => each.map(formatStatement).join(' '));
  const bytes = digest(['door', markBit, ...texts].join('\n')).slice(0, NAME_BYTES);
  const name = Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
  return { name, markBit, conditions };
}

/** What a chain or map of the door is called whose name in the default door is `base`. */
export function nameAt(door: Pick<Door, 'name'> | undefined, base: string): string {
  return door === undefined ? base : `${base}-${door.name}`;
}

/** The names of the doors that the table has maps for whose name in the default door is among `bases`; undefined for that one. */
export function doorNamesIn(
  { sets }: Pick<Table, 'sets'>,
  bases: readonly string[],
): (string | undefined)[] {
  const names = Object.keys(sets).flatMap((set) => {
    if (bases.includes(set)) return [undefined];
    const [, base = '', name] = /^(.+)-([0-9a-f]{8})$/.exec(set) ?? [];
    return bases.includes(base) ? [name] : [];
  });
  return [...new Set(names)];
}

/** The conditions of a family in a chain that leads its packets on. */
function conditionsIn(chain: Chain | undefined, family: Family): Match[] {
  const rule = chain?.rules.find(({ statements }) =>
    statements.some((each) => each.kind === 'dnat' && each.family === family),
  );
  return (rule?.statements ?? []).flatMap((each) => (each.kind === 'match' ? [each] : []));
}

/** The door of this name, as the rules of its chain say; what they do not say is as in the default one. */
export function readDoor(name: string, chain: Chain | undefined): Door {
  const [mark] = (chain?.rules ?? []).flatMap(({ statements }) =>
    statements.flatMap((each) => (each.kind === 'mark' && each.on ? [each] : [])),
  );
  return {
    name,
    markBit: mark === undefined ? MARK_BIT : Math.log2(mark.bits),
    conditions: { 4: conditionsIn(chain, 4), 6: conditionsIn(chain, 6) },
  };
}
