/** What a change makes of published ports, for people. */
import { type Ip, familyOf } from '../model/ip.ts';
import type { ReachChange } from './reach-change.ts';
import type { Answer, Answerer, Asker, PortChange, PortDelta } from './reach-ports.ts';
import { type ReachPaint, abridged, formatReach, inColumns } from './reach-text.ts';

const OUTSIDE_NAME = 'the outside';

function askerText({ netns, ip }: Asker): string {
  const name = netns ?? OUTSIDE_NAME;
  if (ip === null) return name;
  return netns === null ? `${name} (${ip})` : `${name} ${ip}`;
}

function endText(ip: Ip, port: number): string {
  return familyOf(ip) === 4 ? `${ip}:${port}` : `[${ip}]:${port}`;
}

function answererText({ netns, ip, port }: Answerer): string {
  return `${endText(ip, port)} ${netns === null ? 'outside' : `in ${netns}`}`;
}

function answerText(answer: Answer): string {
  if (answer === null) return 'nobody else';
  return answer === 'unknown' ? 'not known' : answererText(answer);
}

type Sign = '+' | '-' | '~';

/** A change as a line marks and ends it. */
interface Said {
  readonly mark: Sign | '?';
  readonly words: string;
}

function saidOf({ was, is }: PortChange): Said {
  if (was === 'unknown' || is === 'unknown')
    return { mark: '?', words: `which was ${answerText(was)}, and is ${answerText(is)}` };
  if (was === null) return { mark: '+', words: `which is ${answerText(is)}` };
  if (is === null) return { mark: '-', words: `which was ${answerText(was)}` };
  const [before, after] = [answererText(was), answererText(is)];
  return before === after
    ? { mark: '~', words: `which is ${after}: seen as ${is.seenAs} instead of ${was.seenAs}` }
    : { mark: '~', words: `which is ${after} instead of ${before}` };
}

/** What is said of a port, at which addresses, and to whom. */
interface Group extends Said {
  readonly asked: Map<string, string[]>;
}

/** Changes of one port that read alike. */
function groupsOf(changes: readonly PortChange[]): Group[] {
  const groups = new Map<string, Group>();
  for (const change of changes) {
    const { from, protocol, ip, port } = change;
    const said = saidOf(change);
    const key = JSON.stringify([said, protocol, port, familyOf(ip)]);
    const group = groups.get(key) ?? { ...said, asked: new Map<string, string[]>() };
    groups.set(key, group);
    const asker = askerText(from);
    const ends = group.asked.get(asker) ?? [];
    ends.push(`${endText(ip, port)}/${protocol}`);
    group.asked.set(asker, ends);
  }
  return [...groups.values()];
}

/** A line in its columns: whoever asks, what, and who that is. */
interface Row extends Said {
  readonly columns: readonly [askers: string, arrow: string, asked: string];
}

/** Those who ask for the same stand in one line. */
function rowsOf({ asked, ...said }: Group): Row[] {
  const byAsked = new Map<
    string,
    { readonly ends: readonly string[]; readonly askers: string[] }
  >();
  for (const [asker, ends] of asked) {
    const key = ends.join(' ');
    const alike = byAsked.get(key) ?? { ends, askers: [] };
    alike.askers.push(asker);
    byAsked.set(key, alike);
  }
  return [...byAsked.values()].map(({ ends, askers }) => ({
    ...said,
    columns: [askers.join(', '), '->', abridged(ends, 'addresses').join(', ')],
  }));
}

/** More lines than these are only counted. */
const MOST_LINES = 20;

const MARKS = ['+', '-', '~', '?'] as const;
const SIGNS: Readonly<Record<Said['mark'], Sign>> = { '+': '+', '-': '-', '~': '~', '?': '~' };

function questionsText(count: number): string {
  return `${count} ${count === 1 ? 'question' : 'questions'}`;
}

function headOf({ changes, askers, tried }: PortDelta): string {
  const count = (mark: Said['mark']): number =>
    changes.filter((change) => saidOf(change).mark === mark).length;
  const more = [
    ...(count('~') === 0 ? [] : [`, ${count('~')} changed`]),
    ...(count('?') === 0 ? [] : [`, ${count('?')} not known`]),
  ].join('');
  const names = new Set(askers.map(({ netns }) => netns ?? OUTSIDE_NAME));
  const from = names.size === 0 ? '' : ` from ${abridged([...names], 'places').join(', ')}`;
  return `Ports: ${count('+')} connected, ${count('-')} cut${more}, of ${questionsText(tried)}${from}.`;
}

/**
 * What becomes of published ports in lines: those that lead to somebody then (+), no longer (-), to another or as another (~), and of
 * which that is not known (?). Nothing where there is nothing to tell.
 */
function formatPorts(delta: PortDelta, paint: ReachPaint): string {
  const { changes, leftOut, notAsked } = delta;
  const rows = groupsOf(changes).flatMap(rowsOf);
  const sorted = MARKS.flatMap((mark) => rows.filter((row) => row.mark === mark));
  const texts = inColumns(sorted.map(({ columns }) => columns));
  const lines = sorted
    .map(({ mark, words }, index) => paint(SIGNS[mark], `  ${mark} ${texts[index]}, ${words}`))
    .slice(0, MOST_LINES);
  const untold = sorted.length - lines.length;
  const notes = [
    ...(untold === 0 ? [] : [`${untold} lines more, which --format json has`]),
    ...notAsked.map(
      ({ protocol, ip, port, netns }) =>
        `${protocol} ${port}${ip === null ? '' : ` at ${ip}`} of ${netns} not asked, which is not simulated: nothing is known of it`,
    ),
    ...(leftOut === 0
      ? []
      : [
          `${questionsText(leftOut)} about published ports not asked, which are too many: nothing is known of them`,
        ]),
  ];
  if (lines.length === 0 && notes.length === 0) return '';
  const head = lines.length === 0 ? [] : ['published ports'];
  const noted = [...new Set(notes)].map((text) => paint('note', `note: ${text}`));
  return `${[...head, ...lines, ...noted, headOf(delta)].join('\n')}\n`;
}

/** All that a change does to who reaches whom, in lines: the pairs, and where there is something to tell of them the published ports. */
export function formatChange(
  change: ReachChange,
  paint: ReachPaint = (_sign, line) => line,
): string {
  return formatReach(change, paint) + formatPorts(change.ports, paint);
}
