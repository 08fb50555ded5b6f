/**
 * The lanes in the order of a round: each is first as often as any other, and of up to three each
 * comes after each other one as often, since what one leaves to the kernel falls on the next.
 */
export function inTurn<T>(lanes: readonly T[], round: number): T[] {
  const start = round % lanes.length;
  const turned = [...lanes.slice(start), ...lanes.slice(0, start)];
  return Math.floor(round / lanes.length) % 2 === 0 ? turned : turned.toReversed();
}
