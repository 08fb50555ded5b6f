import type { Key, Op, OpName } from './op.ts';
import { readsOf, removesOf, writesOf } from './ops.ts';

/** What comes first where nothing else decides: taking away, making, setting, what traffic needs, and effects last. */
const STAGE: Readonly<Record<OpName, number>> = {
  'netns.del': 0,
  'netns.add': 1,
  'rule.del': 1.5,
  'altname.del': 1.5,
  'route.del': 2,
  'filter.del': 2,
  'qdisc.del': 3,
  'neighbour.del': 3,
  'fdb.del': 3,
  'remote.del': 3,
  'address.del': 4,
  'link.del': 5,
  'group.del': 5,
  'link.add': 6,
  'link.rename': 6.5,
  'link.move': 6.5,
  'link.set': 7,
  'altname.add': 7,
  'port.set': 8,
  'vlan.del': 8,
  'vlan.add': 8,
  'fdb.add': 8.5,
  'remote.add': 8.5,
  'qdisc.add': 8,
  'filter.add': 9,
  'sysctl.set': 9,
  'nft.batch': 10,
  'address.add': 11,
  'neighbour.add': 13,
  'route.add': 14,
  'rule.add': 14.5,
  'conntrack.flush': 15,
  // It draws traffic, which is to be tracked anew.
  'address.announce': 16,
};

/** A door opens when what guards it is there. */
const STAGE_OPEN = 10.5;

/** Links go up when everything on them is in place. */
const STAGE_UP = 12;

function stageOf(op: Op): number {
  if (op.op === 'link.set' && 'up' in op.set && op.set.up) return STAGE_UP;
  const isDoor = op.op === 'sysctl.set' && op.key.endsWith('/route_localnet') && op.value === '1';
  return isDoor ? STAGE_OPEN : STAGE[op.op];
}

function index(ops: readonly Op[], keysOf: (op: Op) => readonly Key[]): Map<Key, number[]> {
  const map = new Map<Key, number[]>();
  for (const [i, op] of ops.entries()) {
    for (const key of keysOf(op)) map.set(key, [...(map.get(key) ?? []), i]);
  }
  return map;
}

/**
 * Which operations have to come before which: `result[i]` holds the indexes of those before `ops[i]`.
 * What removes a key comes before what makes it anew, what makes it before what needs it; where
 * nothing makes it, what needs it comes before what removes it.
 */
export function dependencies(ops: readonly Op[]): readonly ReadonlySet<number>[] {
  const before = ops.map(() => new Set<number>());
  const edge = (from: number, to: number): void => {
    if (from !== to) before[to]?.add(from);
  };
  const writers = index(ops, writesOf);
  const removers = index(ops, removesOf);
  for (const [key, removing] of removers) {
    for (const from of removing) for (const to of writers.get(key) ?? []) edge(from, to);
  }
  for (const [i, op] of ops.entries()) {
    for (const key of readsOf(op)) {
      const makers = writers.get(key) ?? [];
      for (const from of makers) edge(from, i);
      if (makers.length === 0) for (const to of removers.get(key) ?? []) edge(i, to);
    }
  }
  return before;
}

/** The operations in an order in which each finds what it needs; equal input gives equal output. */
export function order<T extends Op>(ops: readonly T[]): T[] {
  const waiting = dependencies(ops).map((set) => new Set(set));
  const left = new Set(ops.keys());
  const sorted: T[] = [];
  while (left.size > 0) {
    let next: number | undefined;
    for (const i of left) {
      if (waiting[i]?.size !== 0) continue;
      if (next === undefined || stageOf(ops[i] as T) < stageOf(ops[next] as T)) next = i;
    }
    if (next === undefined)
      throw new Error(
        `operations wait for each other: ${[...left].map((i) => ops[i]?.op).join(', ')}`,
      );
    sorted.push(ops[next] as T);
    left.delete(next);
    for (const set of waiting) set.delete(next);
  }
  return sorted;
}
