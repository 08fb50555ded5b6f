import type { Op } from '../../model/op.ts';

/**
 * A program that still fails when nothing more can be left out: halves, quarters and so on are dropped, then single
 * operations, until none can go (Zeller's ddmin, without its complements).
 */
export function shrinkProgram(
  ops: readonly Op[],
  fails: (candidate: readonly Op[]) => boolean,
): readonly Op[] {
  let best = ops;
  for (let size = Math.ceil(best.length / 2); size >= 1;) {
    let dropped = false;
    for (let start = best.length - size; start > -size; start -= size) {
      const from = Math.max(0, start);
      const candidate = [...best.slice(0, from), ...best.slice(start + size)];
      if (candidate.length < best.length && candidate.length > 0 && fails(candidate)) {
        best = candidate;
        dropped = true;
      }
    }
    if (size > 1) size = Math.ceil(size / 2);
    else if (!dropped) break;
  }
  return best;
}
