import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  type VlanRange,
  findVlan,
  formatVlan,
  pvidOf,
  vlan,
  withVlans,
  withoutVlans,
} from '../../model/vlan.ts';

/** VLANs one by one, as the kernel keeps them: the marks by id. */
type Plain = ReadonlyMap<number, { readonly pvid: boolean; readonly untagged: boolean }>;

/** A change of VLANs: those from `first` to `last` are added with marks, or taken away. */
interface Change {
  readonly add: boolean;
  readonly range: VlanRange;
}

/** A small space of ids, so that ranges meet. */
const changes: fc.Arbitrary<Change> = fc
  .record({
    add: fc.boolean(),
    first: fc.integer({ min: 1, max: 12 }),
    length: fc.integer({ min: 0, max: 5 }),
    pvid: fc.boolean(),
    untagged: fc.boolean(),
  })
  .map(({ add, first, length, pvid, untagged }) => ({
    add,
    range: { first, last: first + (add && pvid ? 0 : length), pvid: add && pvid, untagged },
  }));

function changedPlain(before: Plain, { add, range }: Change): Plain {
  const after = new Map(before);
  for (let id = range.first; id <= range.last; id += 1) {
    after.delete(id);
    if (!add) continue;
    if (range.pvid) for (const [other, marks] of after) after.set(other, { ...marks, pvid: false });
    after.set(id, { pvid: range.pvid, untagged: range.untagged });
  }
  return after;
}

function changed(before: readonly VlanRange[], { add, range }: Change): readonly VlanRange[] {
  return add ? withVlans(before, range) : withoutVlans(before, range.first, range.last);
}

function plainOf(ranges: readonly VlanRange[]): Plain {
  return new Map(
    ranges.flatMap(({ first, last, pvid, untagged }) =>
      Array.from({ length: last - first + 1 }, (_, i) => [first + i, { pvid, untagged }] as const),
    ),
  );
}

function sorted(plain: Plain): unknown {
  return [...plain].toSorted(([a], [b]) => a - b);
}

describe('ranges of VLANs', () => {
  it('are the VLANs one by one, whatever was added and taken away', () => {
    fc.assert(
      fc.property(fc.array(changes, { maxLength: 12 }), (program) => {
        const ranges = program.reduce<readonly VlanRange[]>(changed, []);
        const plain = program.reduce<Plain>(changedPlain, new Map());
        expect(sorted(plainOf(ranges))).toEqual(sorted(plain));
        for (let id = 1; id <= 18; id += 1)
          expect(findVlan(ranges, id)?.untagged).toBe(plain.get(id)?.untagged);
        expect(pvidOf(ranges)).toBe([...plain].find(([, { pvid }]) => pvid)?.[0]);
      }),
    );
  });

  it('have one form for one set of VLANs', () => {
    fc.assert(
      fc.property(fc.array(changes, { maxLength: 12 }), (program) => {
        const ranges = program.reduce<readonly VlanRange[]>(changed, []);
        const oneByOne = [...plainOf(ranges)]
          .toReversed()
          .reduce<readonly VlanRange[]>((all, [id, marks]) => withVlans(all, vlan(id, marks)), []);
        expect(oneByOne).toEqual(ranges);
        // No two that could be one.
        for (const [i, range] of ranges.entries()) {
          const next = ranges[i + 1];
          expect(next === undefined || range.last < next.first).toBe(true);
        }
      }),
    );
  });

  it.each<[VlanRange, string]>([
    [vlan(100), '100'],
    [vlan(1, { pvid: true, untagged: true }), '1 pvid untagged'],
    [{ first: 100, last: 199, pvid: false, untagged: true }, '100-199 untagged'],
  ])('%j is %s', (range, text) => {
    expect(formatVlan(range)).toBe(text);
  });
});
