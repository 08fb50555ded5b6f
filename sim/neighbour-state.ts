/** How certain it is where a neighbour is, and what time makes of that (net/core/neighbour.c; RFC 4861, section 7.3.2; K-7.10). */
import type { Mac } from '../model/mac.ts';

/** `failed`: it was asked for in vain. */
export type NeighbourState = 'reachable' | 'stale' | 'delay' | 'probe' | 'failed';

/** What a link knows of a neighbour by ARP or ND; what somebody set for good is in the host. All times are in milliseconds since the world began. */
export interface NeighbourEntry {
  /** Null: not known, where it has failed. */
  readonly mac: Mac | null;
  readonly state: NeighbourState;
  /** When the state or the MAC last changed. */
  readonly updatedMs: number;
  /** When it last showed that it is there; null: not yet, at this MAC. */
  readonly confirmedMs: number | null;
  /** When a packet was last sent while it was not certain that it is there. */
  readonly usedMs: number;
  /** When something happens by itself; null: nothing does. */
  readonly dueMs: number | null;
  /** How often it was asked in state `probe`. */
  readonly probes: number;
}

/** How long each state lasts, and how often is asked, in milliseconds and times. */
export interface NeighbourTiming {
  readonly reachableMs: number;
  readonly delayMs: number;
  readonly retransMs: number;
  /** How often who was known is asked at its MAC, and then by a broadcast. */
  readonly unicastProbes: number;
  readonly repeatedMulticastProbes: number;
  /** How often who is not known is asked for. */
  readonly multicastProbes: number;
  /** For how long no answer by ARP replaces the MAC that an earlier one told. */
  readonly locktimeMs: number;
}

/** What somebody said of where a neighbour is. */
export interface Heard {
  readonly mac: Mac;
  /** Does it show that the neighbour is there now? Only answers do. */
  readonly isCertain: boolean;
  /** Does it count where another MAC is known? `weakly`: not, but then that one is not certain any more. */
  readonly overrides: boolean | 'weakly';
}

/** The entry after something was heard (__neigh_update). */
export function afterHearing(
  entry: NeighbourEntry | undefined,
  heard: Heard,
  nowMs: number,
  timing: NeighbourTiming,
): NeighbourEntry {
  const { isCertain } = heard;
  const fresh: NeighbourEntry = {
    mac: heard.mac,
    state: isCertain ? 'reachable' : 'stale',
    updatedMs: nowMs,
    confirmedMs: isCertain ? nowMs : null,
    usedMs: nowMs,
    dueMs: isCertain ? nowMs + timing.reachableMs : null,
    probes: 0,
  };
  if (!entry || entry.mac === null) return fresh;
  const { confirmedMs, usedMs } = entry;
  if (entry.mac === heard.mac) {
    if (!isCertain) return entry;
    return entry.state === 'reachable' ? { ...entry, confirmedMs: nowMs } : { ...fresh, usedMs };
  }
  if (heard.overrides === true) return { ...fresh, usedMs };
  const isDoubted = heard.overrides === 'weakly' && entry.state === 'reachable';
  if (!isDoubted) return isCertain ? { ...entry, confirmedMs: nowMs } : entry;
  const confirmed = isCertain ? nowMs : confirmedMs;
  return { ...entry, state: 'stale', updatedMs: nowMs, confirmedMs: confirmed, dueMs: null };
}

/** The entry after a packet was sent by it (__neigh_event_send). One that is certain is not looked at (neigh_hh_output). */
export function afterUse(
  entry: NeighbourEntry,
  nowMs: number,
  { delayMs }: NeighbourTiming,
): NeighbourEntry {
  if (entry.state === 'stale') {
    const dueMs = nowMs + delayMs;
    return { ...entry, state: 'delay', updatedMs: nowMs, usedMs: nowMs, dueMs };
  }
  const isNoted = entry.state === 'reachable' || entry.usedMs === nowMs;
  return isNoted ? entry : { ...entry, usedMs: nowMs };
}

/** What happens when the time of an entry has come. */
export interface Due {
  readonly entry: NeighbourEntry;
  /** Is the neighbour asked now, where it is known to be, or by a broadcast? */
  readonly asks: 'unicast' | 'multicast' | null;
}

function probed(entry: NeighbourEntry, nowMs: number, timing: NeighbourTiming): Due {
  const { probes } = entry;
  if (probes >= timing.unicastProbes + timing.repeatedMulticastProbes) {
    const failed = { ...entry, mac: null, state: 'failed', updatedMs: nowMs, dueMs: null } as const;
    return { entry: failed, asks: null };
  }
  return {
    entry: { ...entry, dueMs: nowMs + timing.retransMs, probes: probes + 1 },
    asks: probes < timing.unicastProbes ? 'unicast' : 'multicast',
  };
}

/** What becomes of an entry at the time that it is due (neigh_timer_handler). */
export function whenDue(entry: NeighbourEntry, nowMs: number, timing: NeighbourTiming): Due {
  const { confirmedMs, usedMs } = entry;
  const changed = { ...entry, updatedMs: nowMs };
  const since = confirmedMs ?? Number.NEGATIVE_INFINITY;
  const reachableUntil = since + timing.reachableMs;
  switch (entry.state) {
    case 'reachable':
      if (nowMs < reachableUntil) return { entry: { ...entry, dueMs: reachableUntil }, asks: null };
      return nowMs <= usedMs + timing.delayMs
        ? { entry: { ...changed, state: 'delay', dueMs: nowMs + timing.delayMs }, asks: null }
        : { entry: { ...changed, state: 'stale', dueMs: null }, asks: null };
    case 'delay':
      if (nowMs <= since + timing.delayMs)
        return { entry: { ...changed, state: 'reachable', dueMs: reachableUntil }, asks: null };
      return probed({ ...changed, state: 'probe', probes: 0 }, nowMs, timing);
    case 'probe':
      return probed(entry, nowMs, timing);
    case 'stale':
    case 'failed':
      return { entry, asks: null };
  }
}

/** The entry of who was asked for in vain, and was not known before. */
export function failedEntry(nowMs: number): NeighbourEntry {
  return {
    mac: null,
    state: 'failed',
    updatedMs: nowMs,
    confirmedMs: null,
    usedMs: nowMs,
    dueMs: null,
    probes: 0,
  };
}
