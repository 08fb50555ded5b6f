/** What a change connects and cuts, for people. */
import type { Ip } from '../model/ip.ts';
import type { Outside } from './outside.ts';
import type { Endpoint, Pair, ReachDelta, Translated } from './reach.ts';

/** How lines are marked, as those of a plan. */
export type ReachPaint = (sign: '+' | '-' | '~' | 'note', line: string) => string;

/** Of an endpoint with more partners than these, not all are named. */
const MOST_NAMED = 4;

type End = Endpoint | Outside;

/** Both directions of two ends, or only one. */
interface Tie {
  readonly ends: readonly [End, End];
  readonly arrow: '<->' | '->';
}

function nameOf({ netns, ip }: End): string {
  return netns === null ? `the outside (${ip})` : `${netns} ${ip}`;
}

function tiesOf(pairs: readonly Pair[]): Tie[] {
  const keys = new Set(pairs.map(({ from, to }) => `${nameOf(from)} > ${nameOf(to)}`));
  return pairs.flatMap(({ from, to }): Tie[] => {
    const [a, b] = [nameOf(from), nameOf(to)];
    if (!keys.has(`${b} > ${a}`)) return [{ ends: [from, to], arrow: '->' }];
    return a < b ? [{ ends: [from, to], arrow: '<->' }] : [];
  });
}

/** The end that most ties have. */
function hubOf(ties: readonly Tie[]): End | undefined {
  const counts = new Map<string, { readonly end: End; readonly count: number }>();
  for (const end of ties.flatMap(({ ends }) => ends)) {
    const key = nameOf(end);
    counts.set(key, { end, count: (counts.get(key)?.count ?? 0) + 1 });
  }
  return [...counts.values()].toSorted((a, b) => b.count - a.count)[0]?.end;
}

/** A line in its three columns. */
type Row = readonly [left: string, arrow: string, right: string];

/** A list of names, or one text for many of them; `what` they are. */
export function abridged(names: readonly string[], what = 'endpoints'): string[] {
  if (names.length <= MOST_NAMED) return [...names];
  const named = names.slice(0, MOST_NAMED - 1);
  return [`${names.length} ${what}: ${named.join(', ')} and ${names.length - named.length} more`];
}

/** Rows as lines, of which all columns but the last have one width. */
export function inColumns(rows: readonly Row[]): string[] {
  const [left = 0, middle = 0] = [0, 1].map((column) =>
    Math.max(0, ...rows.map((row) => row[column]?.length ?? 0)),
  );
  return rows.map(([a, arrow, b]) => `${a.padEnd(left)}  ${arrow.padEnd(middle)}  ${b}`);
}

/** The rows of a hub: whom it is tied to, by arrow and side. */
function rowsAround(hub: string, ties: readonly Tie[]): Row[] {
  const partners = (arrow: Tie['arrow'], side: 0 | 1): string[] =>
    ties
      .filter((tie) => tie.arrow === arrow)
      .flatMap(({ ends }) =>
        nameOf(ends[side]) === hub ? [nameOf(ends[side === 0 ? 1 : 0])] : [],
      );
  const both = abridged([...partners('<->', 0), ...partners('<->', 1)].toSorted());
  return [
    ...both.map((name): Row => [hub, '<->', name]),
    ...abridged(partners('->', 0)).map((name): Row => [hub, '->', name]),
    ...abridged(partners('->', 1)).map((name): Row => [hub, '<-', name]),
  ];
}

function rowsOf(pairs: readonly Pair[]): Row[] {
  const rows: Row[] = [];
  let ties = tiesOf(pairs);
  for (let hub = hubOf(ties); hub !== undefined; hub = hubOf(ties)) {
    const name = nameOf(hub);
    const isOfHub = ({ ends }: Tie): boolean => ends.some((end) => nameOf(end) === name);
    rows.push(...rowsAround(name, ties.filter(isOfHub)));
    ties = ties.filter((tie) => !isOfHub(tie));
  }
  return rows;
}

/** An address that the other side sees, where it may be the sender's own. */
function seenText(ip: Ip, { from }: Translated, isMany: boolean): string {
  return ip === from.ip && isMany ? 'their own address' : ip;
}

/** Those of one other side, whose address is seen there in the same way instead of the same other. */
function translatedRows(all: readonly Translated[]): Row[] {
  const groups = new Map<string, Translated[]>();
  for (const each of all) {
    const { to } = each;
    const [was, is] = [each.was, each.is].map((ip) => (ip === each.from.ip ? 'own' : ip));
    const key = `${nameOf(to)} ${was} ${is}`;
    groups.set(key, [...(groups.get(key) ?? []), each]);
  }
  return [...groups.values()].flatMap((group) =>
    group.slice(0, 1).map((first): Row => {
      const isMany = group.length > 1;
      const names = abridged(group.map(({ from }) => nameOf(from)).toSorted()).join(', ');
      const [was, is] = [first.was, first.is].map((ip) => seenText(ip, first, isMany));
      return [names, '->', `${nameOf(first.to)}: seen as ${is} instead of ${was}`];
    }),
  );
}

function pairsText(count: number): string {
  return `${count} ${count === 1 ? 'pair' : 'pairs'}`;
}

function headOf({ connected, cut, unclear, translated, tried }: ReachDelta): string {
  if (tried === 0) return 'Reach: nothing changes.';
  const unknown = unclear.length === 0 ? '' : `, ${unclear.length} not known`;
  const seen = translated.length === 0 ? '' : `, ${translated.length} seen otherwise`;
  return `Reach: ${connected.length} connected, ${cut.length} cut${seen}${unknown}, of ${pairsText(tried)} tried.`;
}

/** A delta in lines: whom it connects (+), whom it cuts (-), whose address the other side sees otherwise (~), of whom it is not known (?), and a count of pairs, in which A to B and B to A are two. */
export function formatReach(delta: ReachDelta, paint: ReachPaint = (_sign, line) => line): string {
  const parts = [
    { mark: '+', sign: '+', rows: rowsOf(delta.connected) },
    { mark: '-', sign: '-', rows: rowsOf(delta.cut) },
    { mark: '~', sign: '~', rows: translatedRows(delta.translated) },
    { mark: '?', sign: '~', rows: rowsOf(delta.unclear) },
  ] as const;
  const texts = inColumns(parts.flatMap(({ rows }) => rows));
  const lines = parts
    .flatMap(({ mark, sign, rows }) => rows.map(() => ({ mark, sign })))
    .map(({ mark, sign }, index) => paint(sign, `  ${mark} ${texts[index]}`));
  const { leftOut } = delta;
  const missing =
    leftOut === 0
      ? []
      : [
          paint(
            'note',
            `note: ${pairsText(leftOut)} not tried, which are too many: nothing is known of them`,
          ),
        ];
  const unread = delta.unread.map(({ netns, object }) =>
    paint('note', `note: netns ${netns}: ${object} is not read, and taken to let everything on`),
  );
  const head = lines.length === 0 ? [] : ['reach'];
  return `${[...head, ...lines, ...missing, ...unread, headOf(delta)].join('\n')}\n`;
}
