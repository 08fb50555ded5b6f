/** By which links a real probe goes, and where and for what reason it ends, beside what the simulator says. */
import { readyProbe } from '../../plugin/process/live-probe.ts';
import { compare } from '../../plugin/trace/comparison.ts';
import { formatJourney, travel } from '../../sim/journey.ts';
import type { ProbeRequest } from '../../sim/probe.ts';
import type { World } from '../../sim/world.ts';
import { type Places, called } from '../differential/place.ts';
import { exclusively } from './turns.ts';

/** No other packet on this machine is as long, by which the kernel tells this one. */
const PAYLOAD_BYTES = 733;
const WAIT_MS = 100;
/** A busy machine may be too late with an answer. */
const TRIES = 4;

/** A world with the names that its netns have on this machine. */
function placed(world: World, { real }: Places): World {
  const renamed = <T>(tables: Readonly<Record<string, T>>): Record<string, T> =>
    Object.fromEntries(Object.entries(tables).map(([netns, table]) => [real(netns), table]));
  return {
    ...world,
    host: called(world.host, real),
    legacyTables: renamed(world.legacyTables),
    fdb: renamed(world.fdb),
    neighbours: renamed(world.neighbours),
    remotes: renamed(world.remotes),
    connections: renamed(world.connections),
  };
}

/** Where the two part on the way of a probe, in words; empty where they do not. */
export function pathPartings(
  places: Places,
  world: World,
  asked: ProbeRequest,
): Promise<readonly string[]> {
  const here = placed(world, places);
  const { to } = asked;
  const payload = to?.protocol === 'tcp' ? {} : { payloadBytes: PAYLOAD_BYTES };
  return exclusively(async () => {
    let words: readonly string[] = [];
    for (let tries = 0; tries < TRIES; tries += 1) {
      const probe = readyProbe({ ...asked, ...payload, netns: places.real(asked.netns) });
      try {
        const journey = travel(here, probe.request);
        const observed = await probe.observe(here.host, WAIT_MS);
        const { parting } = compare(here.host, journey, observed, to?.protocol ?? 'icmp');
        if (parting === null) return [];
        const seen = observed.seen.map(
          ({ netns, link, direction }) => `${netns} ${link} ${direction}`,
        );
        const drops = observed.drops.map((each) => JSON.stringify(each));
        words = [parting, ...seen, ...drops, ...formatJourney(journey)];
      } finally {
        probe.close();
      }
    }
    return [words.join('\n')];
  });
}
