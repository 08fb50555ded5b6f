import { type Spread, median, spread } from './spread.ts';
import { type Paint, type Row, align, spreadCells, titleRow, verdictCell } from './table.ts';

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
