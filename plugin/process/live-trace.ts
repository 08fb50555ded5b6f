/** A prediction and a real probe, side by side. */
import { type Journey, isOfFragment, travel } from '../../sim/journey.ts';
import type { WholeHost } from '../../sim/legacy-table.ts';
import type { ProbeRequest } from '../../sim/probe.ts';
import { type Verdict, formatPlace } from '../../sim/trace.ts';
import { type World, makeWorld } from '../../sim/world.ts';
import { type Comparison, type Observation, compare } from '../trace/comparison.ts';
import { LiveError, readyProbe } from './live-probe.ts';

const WAIT_MS = 1000;

/** A neighbour is asked three times, a second apart (net.ipv4.neigh.default.mcast_solicit and .retrans_time_ms). */
const NEIGHBOUR_WAIT_MS = 4000;

const DEFAULT_PAYLOAD_BYTES = 56;

/** Of a hundred endpoints one is missed in two of a hundred times; a busy service has fewer. */
const DRAWS_TRIED = 400;

/** A size that other echoes hardly have, so that events tell ours from theirs. */
function distinctiveBytes(pid: number): number {
  return DEFAULT_PAYLOAD_BYTES + 1 + (pid % 61);
}

/** Where ports begin that clients have (net.ipv4.ip_local_port_range), and how many of them are used here. */
const FIRST_PORT = 32_768;
const PORTS = 28_000;

function waitFor(verdict: Verdict): number {
  return verdict.kind === 'dropped' && verdict.reason === 'NEIGH_FAILED'
    ? NEIGHBOUR_WAIT_MS
    : WAIT_MS;
}

/** Throws where the probe would be split: what tracepoints tell of fragments is not put together again. */
function refuseFragments({ forward }: Journey): void {
  const hop = forward.find(isOfFragment);
  if (!hop) return;
  const text = `it is split in ${formatPlace(hop)}`;
  throw new LiveError(`--live follows no fragments, and ${text}: give a smaller --size`, 2);
}

/** The comparison with what is predicted where rules draw as the kernel has drawn; undefined where no draw agrees. */
function redrawn(
  world: World,
  request: ProbeRequest,
  observed: Observation,
  protocol: 'icmp' | 'udp' | 'tcp',
): Comparison | undefined {
  for (let seed = 0; seed < DRAWS_TRIED; seed += 1) {
    const prediction = travel({ ...world, seed }, request);
    const comparison = compare(world.host, prediction, observed, protocol);
    if (comparison.parting === null) return { ...comparison, isRedrawn: true };
  }
  return undefined;
}

/**
 * Predicts what becomes of the probe on the host as it was read, sends it, and compares. Without `waitMs` it is waited for a
 * second, and for four where nobody is predicted to answer for the next hop. Throws as `readyProbe` does, and before anything is
 * sent where fragments are predicted.
 */
export async function traceLive(
  { host, legacyTables }: WholeHost,
  asked: ProbeRequest,
  waitMs?: number,
): Promise<Comparison> {
  const payloadBytes = asked.payloadBytes ?? (asked.to ? 0 : distinctiveBytes(process.pid));
  const sourcePort = FIRST_PORT + (process.pid % PORTS);
  const probe = readyProbe({ ...asked, payloadBytes, sourcePort });
  try {
    const { request } = probe;
    const world = makeWorld(host, legacyTables);
    const prediction = travel(world, request);
    refuseFragments(prediction);
    const observed = await probe.observe(host, waitMs ?? waitFor(prediction.verdict));
    const protocol = request.to?.protocol ?? 'icmp';
    const comparison = compare(host, prediction, observed, protocol);
    return comparison.parting !== null && prediction.chance
      ? (redrawn(world, request, observed, protocol) ?? comparison)
      : comparison;
  } finally {
    probe.close();
  }
}
