/** Tables for people: aligned columns, painted or plain. */
import colours from 'picocolors';
import type { Spread } from './spread.ts';

/** Colours for a terminal, or functions that return their text unchanged. */
export interface Paint {
  readonly bold: (text: string) => string;
  readonly dim: (text: string) => string;
  readonly good: (text: string) => string;
  readonly bad: (text: string) => string;
}

/** One cell; without a colour of its own it stays as it is. */
export interface Cell {
  readonly text: string;
  readonly paint?: (text: string) => string;
}

/** A line of cells, of any number. */
export type Row = readonly Cell[];

/** The colours for standard output: none where it is no terminal, or NO_COLOR says so. */
export function paintOf(noColor: string | undefined): Paint {
  const isColoured = process.stdout.isTTY && (noColor ?? '') === '';
  const { bold, dim, green, red } = colours.createColors(isColoured);
  return { bold, dim, good: green, bad: red };
}

/** The line above the columns. */
export function titleRow(titles: readonly string[], { dim }: Paint): Row {
  return titles.map((text) => ({ text, paint: dim }));
}

/** Whether a target is met; nothing when there is none. */
export function verdictCell(met: boolean | null, { good, bad }: Paint): Cell {
  if (met === null) return { text: '' };
  return met ? { text: 'met', paint: good } : { text: 'not met', paint: bad };
}

/** Lowest, middle and highest value. */
export function spreadCells({ min, median: middle, max }: Spread): Row {
  return [min, middle, max].map((value) => ({ text: value.toFixed(2) }));
}

/** Pads, then paints, since colours have no width. The first `words` columns begin on the left. */
export function align(rows: readonly Row[], words: number): string {
  const columns = Math.max(...rows.map((row) => row.length));
  const widths = Array.from({ length: columns }, (_, column) =>
    Math.max(...rows.map((row) => row[column]?.text.length ?? 0)),
  );
  const lines = rows.map((row) =>
    row
      .map(({ text, paint }, column) => {
        const width = widths[column] ?? 0;
        const padded = column < words ? text.padEnd(width) : text.padStart(width);
        return paint === undefined || text === '' ? padded : paint(padded);
      })
      .join('  ')
      .trimEnd(),
  );
  return `${lines.join('\n')}\n`;
}
