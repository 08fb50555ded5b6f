/** What happened in all histories, so that they can be seen to have looked at something. */
export type Tally = Map<string, number>;

/** Counts one more. */
export function count(tally: Tally, what: string, by = 1): void {
  tally.set(what, (tally.get(what) ?? 0) + by);
}
