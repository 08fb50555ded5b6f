/** All that a change of a host does to who reaches whom: the pairs, and the published ports, within one limit. */
import type { Host } from '../model/host.ts';
import type { LegacyTables } from './legacy-table.ts';
import { type PortDelta, countQuestions, portDelta, portQuestions } from './reach-ports.ts';
import { type ReachDelta, reachDelta } from './reach.ts';
import { joined } from './unread.ts';

export interface ReachChange extends ReachDelta {
  readonly ports: PortDelta;
}

/** Of all that may be tried a part is the ports' where there are so many questions: one of four. */
const PORTS_SHARE = 4;

const NO_QUESTIONS = { near: [], far: [], notAsked: [] } as const;

/**
 * What becomes of who reaches whom, and of who answers at published ports, when `before` turns into `after`: of at most `most` pairs and
 * questions together, each tried before and after. Ports have a fourth of them, and what the pairs leave.
 */
export function reachChange(
  before: Host,
  after: Host,
  most: number,
  legacyTables: LegacyTables = {},
): ReachChange {
  const questions = before === after ? NO_QUESTIONS : portQuestions(before, after);
  const reserved = Math.min(countQuestions(questions), Math.floor(most / PORTS_SHARE));
  const pairs = reachDelta(before, after, most - reserved, legacyTables);
  const ports = portDelta(before, after, questions, most - pairs.tried, legacyTables);
  return { ...pairs, ports, unread: joined([...pairs.unread, ...ports.unread]) };
}
