/** So many of a list at most, from all over it, and the same ones every time. */
export function evenly<T>(all: readonly T[], most: number): readonly T[] {
  if (all.length <= most) return all;
  const before = (index: number): number => Math.floor((index * most) / all.length);
  return all.filter((_, index) => before(index + 1) > before(index));
}
