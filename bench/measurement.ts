/** The values of one side of a measurement, in the order in which they were taken. */
export interface Samples {
  readonly label: string;
  readonly values: readonly number[];
}

/** What is to be reached: by the ratio of the medians, or by the highest value of the first side. */
export interface Target {
  readonly of: 'ratio' | 'max';
  readonly atMost: number;
}

/** The same work done by two sides in turn; the first is the one in question. */
export interface Measurement {
  readonly name: string;
  readonly unit: 'ms' | 'MB';
  readonly sides: readonly [Samples, Samples];
  readonly target: Target | null;
}

/** The three numbers by which samples are told. */
interface Spread {
  readonly min: number;
  readonly median: number;
  readonly max: number;
}

/** How a measurement came out; `met` is null when there is no target. */
interface Verdict {
  readonly spreads: readonly [Spread, Spread];
  readonly ratio: number;
  readonly met: boolean | null;
}

/** The middle value, or the mean of the two middle values; NaN of no values. */
function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = (sorted.length - 1) / 2;
  const lower = sorted[Math.floor(middle)] ?? Number.NaN;
  const upper = sorted[Math.ceil(middle)] ?? Number.NaN;
  return (lower + upper) / 2;
}

/** Lowest, middle and highest value; Infinity, NaN and -Infinity of no values. */
function spread(values: readonly number[]): Spread {
  return { min: Math.min(...values), median: median(values), max: Math.max(...values) };
}

/** The median of the first side divided by that of the second, and whether the target is met. */
export function judge({ sides, target }: Measurement): Verdict {
  const spreads = [spread(sides[0].values), spread(sides[1].values)] as const;
  const ratio = spreads[0].median / spreads[1].median;
  const reached = target?.of === 'max' ? spreads[0].max : ratio;
  return { spreads, ratio, met: target === null ? null : reached <= target.atMost };
}

/** Colours for a terminal, or functions that return their text unchanged. */
interface Paint {
  readonly bold: (text: string) => string;
  readonly dim: (text: string) => string;
  readonly good: (text: string) => string;
  readonly bad: (text: string) => string;
}

interface Cell {
  readonly text: string;
  readonly paint?: (text: string) => string;
}

type Row = readonly Cell[];

/** Two lines per measurement: the side in question with ratio and target, below it the other. */
export function formatMeasurements(measurements: readonly Measurement[], paint: Paint): string {
  const rows = measurements.flatMap((measurement): Row[] => {
    const { name, unit, sides, target } = measurement;
    const { spreads, ratio, met } = judge(measurement);
    const goal = target === null ? '' : `${target.of === 'max' ? 'max ' : ''}<= ${target.atMost}`;
    return [
      [
        { text: name, paint: paint.bold },
        { text: sides[0].label },
        ...spreadCells(spreads[0]),
        { text: unit, paint: paint.dim },
        { text: ratio.toFixed(2), paint: paint.bold },
        { text: goal },
        verdictCell(met, paint),
      ],
      [
        { text: '' },
        { text: sides[1].label },
        ...spreadCells(spreads[1]),
        { text: unit, paint: paint.dim },
      ],
    ];
  });
  const titles = ['call', 'side', 'min', 'median', 'max', '', 'ratio', 'target'];
  return align([titleRow(titles, paint), ...rows], 2);
}

/** One line per phase, each containing the one above; `adds` is what it takes beyond that. */
export function formatPhases(phases: readonly Samples[], paint: Paint): string {
  let before = 0;
  const rows = phases.map(({ label, values }): Row => {
    const own = spread(values);
    const adds = own.median - before;
    before = own.median;
    return [
      { text: label, paint: paint.bold },
      ...spreadCells(own),
      { text: adds.toFixed(2), paint: paint.bold },
      { text: 'ms', paint: paint.dim },
    ];
  });
  return align([titleRow(['phase', 'min', 'median', 'max', 'adds'], paint), ...rows], 1);
}

function titleRow(titles: readonly string[], { dim }: Paint): Row {
  return titles.map((text) => ({ text, paint: dim }));
}

function verdictCell(met: boolean | null, { good, bad }: Paint): Cell {
  if (met === null) return { text: '' };
  return met ? { text: 'met', paint: good } : { text: 'not met', paint: bad };
}

function spreadCells({ min, median: middle, max }: Spread): Row {
  return [min, middle, max].map((value) => ({ text: value.toFixed(2) }));
}

/** Pads, then paints, since colours have no width. The first `words` columns begin on the left. */
function align(rows: readonly Row[], words: number): string {
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
