/** What a plan connects and cuts on this host: the simulator's answer before it and after it. */
import { InvalidArgumentError } from 'commander';
import { makeLinuxBackend } from '../../backends/linux/linux.ts';
import { listNetns, nameOfNetns } from '../../backends/linux/netns-list.ts';
import type { Host, NetnsName } from '../../model/host.ts';
import type { Op } from '../../model/op.ts';
import { applyOp } from '../../model/ops.ts';
import { type ReachChange, reachChange } from '../../sim/reach-change.ts';
import type { Answer, PortDelta } from '../../sim/reach-ports.ts';
import type { Pair } from '../../sim/reach.ts';
import { CNI_ERROR, CniError } from '../cni/error.ts';
import type { Planned } from '../process/plan-output.ts';
import { WHOLE, readWhole } from '../process/whole-host.ts';

/** So many pairs are tried where nobody says how many: about two seconds beside 100 pods. */
export const USUAL_PAIRS = 400;

/** Reads how many pairs are to be tried. */
export function parsePairs(text: string): number {
  const count = Number(text);
  if (/^\d+$/.test(text) && count >= 2 && count <= 10_000_000) return count;
  throw new InvalidArgumentError('It is a whole number of pairs from 2 to 10000000.');
}

/** The host after operations that were planned on a part of it. */
function afterAll(host: Host, ops: readonly Op[]): Host {
  return ops.reduce((state, op) => {
    const outcome = applyOp(state, op);
    if (outcome.ok) return outcome.host;
    const { errno, text } = outcome.fault;
    throw new CniError(
      CNI_ERROR.drift,
      `netns "${op.netns}" has changed since the plan was made: ${op.op} would fail now; make the plan again`,
      text === '' ? errno : `${errno}: ${text}`,
    );
  }, host);
}

/** The same with the netns by another name, where it has one. */
type Naming = <E extends { readonly netns: NetnsName | null }>(end: E) => E;

function withPortNames(delta: PortDelta, name: Naming): PortDelta {
  const answer = (each: Answer): Answer =>
    each === null || each === 'unknown' ? each : name(each);
  const { changes, askers, notAsked, unread } = delta;
  return {
    ...delta,
    changes: changes.map((each) => ({
      ...each,
      from: name(each.from),
      was: answer(each.was),
      is: answer(each.is),
    })),
    askers: askers.map(name),
    notAsked: notAsked.map(name),
    unread: unread.map(name),
  };
}

/** Netns by the names that people know, where the plan has the paths that the runtime gave. */
function withNames(delta: ReachChange, names: ReadonlyMap<NetnsName, NetnsName>): ReachChange {
  const name: Naming = (end) => ({
    ...end,
    netns: end.netns === null ? null : (names.get(end.netns) ?? end.netns),
  });
  const named = <P extends Pair>(pairs: readonly P[]): P[] =>
    pairs.map((pair) => ({ ...pair, from: name(pair.from), to: name(pair.to) }));
  const { connected, cut, unclear, translated, unread, ports } = delta;
  return {
    ...delta,
    connected: named(connected),
    cut: named(cut),
    unclear: named(unclear),
    translated: named(translated),
    unread: unread.map(name),
    ports: withPortNames(ports, name),
  };
}

/** The plan with what it connects and cuts, of at most `most` pairs and questions about published ports. Throws where it cannot be carried out on this host as it is now. */
export function withReach(planned: Planned, most: number): Planned {
  const { before, ops } = planned.plan;
  const listed = listNetns();
  const known = new Map(
    Object.keys(before.netns).flatMap((path): [NetnsName, NetnsName][] => {
      const name = path.startsWith('/') ? nameOfNetns(path, listed) : undefined;
      return name === undefined ? [] : [[path, name]];
    }),
  );
  const replaced = new Set(known.values());
  const others = listed.filter((name) => !replaced.has(name));
  const backend = makeLinuxBackend(WHOLE);
  try {
    const names = [...new Set([...others, ...Object.keys(before.netns)])];
    const { host, legacyTables } = readWhole(backend, names);
    const delta = reachChange(host, afterAll(host, ops), most, legacyTables);
    return { ...planned, reach: withNames(delta, known) };
  } finally {
    backend.close();
  }
}
