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

/**
 * The same work done by sides in turn. The first is the one in question, the second the one that it
 * is measured by; others are there to be seen beside it.
 */
export interface Measurement {
  readonly name: string;
  readonly unit: 'ms' | 'MB';
  readonly sides: readonly [Samples, Samples, ...Samples[]];
  readonly target: Target | null;
}

/** The three numbers by which samples are told. */
interface Spread {
  readonly min: number;
  readonly median: number;
  readonly max: number;
}

/** A side's numbers, and its median divided by that of the second side. */
interface Compared extends Spread {
  readonly ratio: number;
}

/** How a measurement came out; `met` is null when there is no target. */
interface Verdict {
  readonly spreads: readonly Compared[];
  /** That of the side in question. */
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

/** Compares the sides by their medians, and says whether the target is met. */
export function judge({ sides, target }: Measurement): Verdict {
  const base = median(sides[1].values);
  const compare = ({ values }: Samples): Compared => {
    const own = spread(values);
    return { ...own, ratio: own.median / base };
  };
  const { ratio, max } = compare(sides[0]);
  const reached = target?.of === 'max' ? max : ratio;
  return {
    spreads: sides.map(compare),
    ratio,
    met: target === null ? null : reached <= target.atMost,
  };
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

/** A line per side of each measurement: the one in question with ratio and target, below it the others. */
export function formatMeasurements(measurements: readonly Measurement[], paint: Paint): string {
  const rows = measurements.flatMap((measurement): Row[] => {
    const { name, unit, sides, target } = measurement;
    const { spreads, met } = judge(measurement);
    const goal = target === null ? '' : `${target.of === 'max' ? 'max ' : ''}<= ${target.atMost}`;
    return spreads.map((own, index): Row => {
      const isInQuestion = index === 0;
      return [
        { text: isInQuestion ? name : '', paint: paint.bold },
        { text: sides[index]?.label ?? '' },
        ...spreadCells(own),
        { text: unit, paint: paint.dim },
        // The second side is what the others are divided by.
        {
          text: index === 1 ? '' : own.ratio.toFixed(2),
          paint: isInQuestion ? paint.bold : paint.dim,
        },
        ...(isInQuestion ? [{ text: goal }, verdictCell(met, paint)] : []),
      ];
    });
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
