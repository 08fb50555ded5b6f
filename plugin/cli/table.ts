/** Rows of text with columns that align; the last one is not padded. */
export function formatTable(rows: readonly (readonly string[])[]): string {
  const widths: number[] = [];
  for (const row of rows)
    for (const [i, cell] of row.entries()) widths[i] = Math.max(widths[i] ?? 0, cell.length);
  return rows
    .map((row) => {
      const cells = row.map((cell, i) => cell.padEnd(widths[i] ?? 0));
      return `${cells.join('  ').trimEnd()}\n`;
    })
    .join('');
}
