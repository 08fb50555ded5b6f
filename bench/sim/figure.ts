import { type Spread, spread } from '../spread.ts';
import { type Paint, type Row, align, spreadCells, titleRow, verdictCell } from '../table.ts';

/** What is to be reached, by the middle of the values or by each of them. */
export type Target =
  | { readonly of: 'median' | 'max'; readonly atMost: number }
  | { readonly of: 'median' | 'min'; readonly atLeast: number };

/** One thing that was measured, several times. */
export interface Figure {
  readonly name: string;
  /** What it was measured on. */
  readonly on: string;
  /** `times` is a ratio, `ops/s` operations a second; MB are 10^6 bytes. */
  readonly unit: 'ms' | 'µs' | 'ops/s' | 'MB' | 'times';
  readonly values: readonly number[];
  readonly target?: Target | undefined;
}

/** The spread of a figure's values, and whether its target is met; null when it has none. */
export function judgeFigure({ values, target }: Figure): Spread & { readonly met: boolean | null } {
  const own = spread(values);
  return { ...own, met: target === undefined ? null : isMet(own, target) };
}

function isMet(own: Spread, target: Target): boolean {
  return 'atMost' in target ? own[target.of] <= target.atMost : own[target.of] >= target.atLeast;
}

/** `max <= 5`. */
function formatTarget(target: Target): string {
  const bound = 'atMost' in target ? `<= ${target.atMost}` : `>= ${target.atLeast}`;
  return target.of === 'median' ? bound : `${target.of} ${bound}`;
}

/** A line per figure; what is the same as in the line above is not said again. */
export function formatFigures(figures: readonly Figure[], paint: Paint): string {
  const rows = figures.map((figure, index): Row => {
    const { name, on, unit, target } = figure;
    const { met, ...own } = judgeFigure(figure);
    const goal = target ? formatTarget(target) : '';
    return [
      { text: figures[index - 1]?.name === name ? '' : name, paint: paint.bold },
      { text: on },
      // Of operations in a second no fraction is of interest.
      ...(unit === 'ops/s'
        ? [own.min, own.median, own.max].map((value) => ({ text: value.toFixed(0) }))
        : spreadCells(own)),
      { text: unit, paint: paint.dim },
      { text: goal },
      verdictCell(met, paint),
    ];
  });
  const titles = ['figure', 'on', 'min', 'median', 'max', '', 'target'];
  return align([titleRow(titles, paint), ...rows], 2);
}
