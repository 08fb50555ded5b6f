/** Who reaches whom: what a change of a host connects and cuts, by probes of the host before it and after it. */
import { canonicalJson } from '../model/canonical.ts';
import { HOST_NETNS, type Host, type NetnsName, findLink, findNetns } from '../model/host.ts';
import { type Ip, familyOf } from '../model/ip.ts';
import type { Link } from '../model/link.ts';
import { arrivalOf, leaves } from './arrival.ts';
import { evenly } from './evenly.ts';
import { isOfAnswer } from './journey.ts';
import type { LegacyTables } from './legacy-table.ts';
import { OUTSIDE, type Outside } from './outside.ts';
import { probe } from './probe.ts';
import type { Hop } from './trace.ts';
import { type UnreadTable, joined, unreadIn } from './unread.ts';
import { makeWorld } from './world.ts';

/** A global address of a netns. */
export interface Endpoint {
  readonly netns: NetnsName;
  readonly ip: Ip;
}

/** An endpoint that asks, and whom it asks. */
export interface Pair {
  readonly from: Endpoint;
  readonly to: Endpoint | Outside;
}

/** Does the answer come back, from who was asked? Of the outside: does the packet leave this host? */
export type Reach = 'reached' | 'lost' | 'unknown';

/** A pair that reaches before and after, and of whom whoever is reached sees another address as the sender's. */
export interface Translated extends Pair {
  /** The address that was seen before; where the packet leaves this host, that which it leaves with. */
  readonly was: Ip;
  /** The same after. */
  readonly is: Ip;
}

export interface ReachDelta {
  /** Reached after and not before. */
  readonly connected: readonly Pair[];
  /** Reached before and not after. */
  readonly cut: readonly Pair[];
  /** Not known before, or not known after, and known at the other time. */
  readonly unclear: readonly Pair[];
  /** Reached before and after, with another translation of the sender's address. */
  readonly translated: readonly Translated[];
  /** Of how many pairs this was found out. */
  readonly tried: number;
  /** Of how many it was not, because they were too many. */
  readonly leftOut: number;
  /** What packets passed as if it let them on unchanged. */
  readonly unread: readonly UnreadTable[];
}

function linksOf(host: Host, netns: NetnsName): readonly Link[] {
  return Object.values(findNetns(host, netns)?.links ?? {});
}

function isReachable(link: Link, { scope }: Link['addresses'][number]): boolean {
  return link.kind !== 'loopback' && scope === 'global';
}

/** The global addresses of all netns, those of loopbacks left out, sorted. */
export function endpointsOf(host: Host): Endpoint[] {
  const found = Object.keys(host.netns).flatMap((netns) =>
    linksOf(host, netns).flatMap((link) =>
      link.addresses.filter((each) => isReachable(link, each)).map(({ ip }) => ({ netns, ip })),
    ),
  );
  return distinct(found);
}

function keyOf({ netns, ip }: Endpoint | Outside): string {
  return `${netns ?? ''} ${ip}`;
}

function distinct(endpoints: readonly Endpoint[]): Endpoint[] {
  const byKey = new Map(endpoints.map((each) => [keyOf(each), each]));
  return [...byKey].toSorted(([a], [b]) => (a < b ? -1 : 1)).map(([, each]) => each);
}

/** Pairs that are tried together: both directions of two endpoints of one family in two netns, or an endpoint and the outside. */
function knotsOf(endpoints: readonly Endpoint[]): Pair[][] {
  return endpoints.flatMap((a, index) => [
    ...endpoints
      .slice(index + 1)
      .filter((b) => b.netns !== a.netns && familyOf(b.ip) === familyOf(a.ip))
      .map((b) => [
        { from: a, to: b },
        { from: b, to: a },
      ]),
    [{ from: a, to: OUTSIDE[familyOf(a.ip)] }],
  ]);
}

/** Every endpoint with every other of its family in another netns, and with the outside. */
export function pairsOf(endpoints: readonly Endpoint[]): Pair[] {
  return knotsOf(endpoints).flat();
}

/** The link of a netns that has an address. */
export function linkWith(host: Host, { netns, ip }: Endpoint): Link | undefined {
  return linksOf(host, netns).find((link) => link.addresses.some((each) => each.ip === ip));
}

/** What became of an echo. */
interface Tried {
  readonly reach: Reach;
  /** Whom the other side takes for the sender, where it is reached; else null. */
  readonly seenAs: Ip | null;
  readonly hops: readonly Hop[];
}

const NOT_TRIED: Tried = { reach: 'lost', seenAs: null, hops: [] };

function tryPair(host: Host, { from, to }: Pair, legacyTables: LegacyTables): Tried {
  if (!linkWith(host, from)) return NOT_TRIED;
  if (to.netns !== null && !linkWith(host, to)) return NOT_TRIED;
  const request = { netns: from.netns, source: from.ip, destination: to.ip };
  const trace = probe(makeWorld(host, legacyTables), request);
  const { verdict, hops } = trace;
  const end = (reach: Reach): Tried => {
    const arrival = reach === 'reached' ? arrivalOf(host, trace) : undefined;
    return { reach, seenAs: arrival?.packet.source ?? null, hops };
  };
  if (to.netns === null && leaves(host, trace)) return end('reached');
  if (verdict.kind !== 'delivered') return end(verdict.kind === 'dropped' ? 'lost' : 'unknown');
  // Another netns with the same address may have answered.
  return end(hops.find(isOfAnswer)?.netns === to.netns ? 'reached' : 'lost');
}

/** Whether a pair reaches, by an echo in a world in which nothing was sent before. Who is not there neither asks nor answers. */
export function reachOf(host: Host, pair: Pair): Reach {
  return tryPair(host, pair, {}).reach;
}

/** What of a netns decides about an endpoint before all else: its link, the far end of that, and of a pod everything. */
export function groundsOf(host: Host, endpoint: Endpoint): string {
  const link = linkWith(host, endpoint);
  const far = link?.kind === 'veth' && link.peer !== null ? findLink(host, link.peer) : undefined;
  const whole = endpoint.netns === HOST_NETNS ? undefined : findNetns(host, endpoint.netns);
  return canonicalJson([link ?? null, far ?? null, whole ?? null]);
}

/** So many pairs of the list at most, from all over it. */
function spread(knots: readonly Pair[][], most: number): readonly Pair[] {
  const pairs = knots.flat();
  if (pairs.length <= most) return pairs;
  // Of which none has more than two pairs.
  return evenly(knots, Math.floor(most / 2)).flat();
}

interface Chosen {
  readonly pairs: readonly Pair[];
  readonly leftOut: number;
}

/** The pairs to try: those of endpoints that change come first, and of the others as many as there is room for. */
function choose(before: Host, after: Host, most: number): Chosen {
  const endpoints = distinct([...endpointsOf(before), ...endpointsOf(after)]);
  const changed = new Set(
    endpoints
      .filter((each) => groundsOf(before, each) !== groundsOf(after, each))
      .map((each) => keyOf(each)),
  );
  const isNear = (knot: readonly Pair[]): boolean =>
    knot.some(({ from, to }) => changed.has(keyOf(from)) || changed.has(keyOf(to)));
  const all = knotsOf(endpoints);
  const near = spread(all.filter(isNear), most);
  const far = spread(
    all.filter((knot) => !isNear(knot)),
    most - near.length,
  );
  const pairs = [...near, ...far];
  return { pairs, leftOut: all.flat().length - pairs.length };
}

const NO_DELTA: ReachDelta = {
  connected: [],
  cut: [],
  unclear: [],
  translated: [],
  tried: 0,
  leftOut: 0,
  unread: [],
};

/**
 * What becomes of who reaches whom when `before` turns into `after`. Of at most `most` pairs: first those of endpoints that
 * come, go or change, then others from all over; how many were left out is in the answer. The exchanged hosts give the exchanged answer.
 * Tables of iptables-legacy, the same before and after, are passed over and named.
 */
export function reachDelta(
  before: Host,
  after: Host,
  most: number,
  legacyTables: LegacyTables = {},
): ReachDelta {
  if (before === after) return NO_DELTA;
  const { pairs, leftOut } = choose(before, after, most);
  const passed: UnreadTable[] = [];
  const reachIn = (host: Host, pair: Pair): Omit<Tried, 'hops'> => {
    const { hops, ...outcome } = tryPair(host, pair, legacyTables);
    passed.push(...unreadIn(hops));
    return outcome;
  };
  const outcomes = pairs.map((pair) => ({
    pair,
    was: reachIn(before, pair),
    is: reachIn(after, pair),
  }));
  const those = (isMeant: (was: Reach, is: Reach) => boolean): Pair[] =>
    outcomes.filter(({ was, is }) => isMeant(was.reach, is.reach)).map(({ pair }) => pair);
  return {
    connected: those((was, is) => was === 'lost' && is === 'reached'),
    cut: those((was, is) => was === 'reached' && is === 'lost'),
    unclear: those((was, is) => was !== is && (was === 'unknown' || is === 'unknown')),
    translated: outcomes.flatMap(({ pair, was, is }) =>
      was.seenAs === null || is.seenAs === null || was.seenAs === is.seenAs
        ? []
        : [{ ...pair, was: was.seenAs, is: is.seenAs }],
    ),
    tried: pairs.length,
    leftOut,
    unread: joined(passed),
  };
}
