/**
 * What links know while time passes, beside the kernel: random pings and pauses on the routed host, whose neighbours and
 * bridges forget within seconds, and after each pause the state of every neighbour and what the bridges know.
 */
import { execFileSync } from 'node:child_process';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import * as z from 'zod';
import { echo } from '../../backends/linux/echo.ts';
import type { NetnsName } from '../../model/host.ts';
import type { Ip } from '../../model/ip.ts';
import type { Op } from '../../model/op.ts';
import { elapse } from '../../sim/elapse.ts';
import { probe } from '../../sim/probe.ts';
import { type World, makeWorld } from '../../sim/world.ts';
import { type RoutedHost, buildHost } from '../packets/routed-kernel.ts';
import { requirement } from '../requirements.ts';
import { ROUTED, ROUTED_DESTINATIONS, ROUTED_SENDERS } from '../sim/hosts.ts';
import { applyAll } from '../sim/pods.ts';

const AGEING_MS = 2000;

/** By chance neighbours are reachable for half of it to three halves. */
const REACHABLE_MS = 2400;

/** The kernel's timers are late by up to an eighth of a second, and a busy machine is. */
const LATE_MS = 200;

const NODE = 'node';
const BRIDGES = ['cni0', 'cni1'];

function neighbourOps(): Op[] {
  const settings = {
    base_reachable_time_ms: `${REACHABLE_MS}`,
    delay_first_probe_time: '1',
    retrans_time_ms: '100',
  };
  return Object.entries(ROUTED.netns).flatMap(([netns, { links }]) =>
    Object.keys(links).flatMap((ifname) =>
      ['ipv4', 'ipv6'].flatMap((family) =>
        Object.entries(settings).map(([name, value]): Op => ({
          op: 'sysctl.set',
          netns,
          key: `net/${family}/neigh/${ifname}/${name}`,
          value,
        })),
      ),
    ),
  );
}

/** Pings one after the other, and then so long nothing. */
interface Step {
  readonly pings: readonly (readonly [from: NetnsName, to: Ip])[];
  readonly pauseMs: number;
}

const steps: fc.Arbitrary<readonly Step[]> = fc.array(
  fc.record({
    pings: fc.array(
      fc.tuple(fc.constantFrom(...ROUTED_SENDERS), fc.constantFrom(...ROUTED_DESTINATIONS)),
      { maxLength: 3 },
    ),
    pauseMs: fc.integer({ min: 700, max: 3000 }),
  }),
  { minLength: 2, maxLength: 5 },
);

/** What is known, in words, by what it is about. */
type Known = ReadonlyMap<string, string>;

const NEIGHBOURS = z.array(
  z.object({
    dst: z.string(),
    dev: z.string(),
    lladdr: z.optional(z.string()),
    state: z.array(z.string()),
  }),
);

const ENTRIES = z.array(z.object({ mac: z.string(), ifname: z.string(), state: z.string() }));

function json(command: string, ...words: readonly string[]): unknown {
  const text = execFileSync(command, words, { encoding: 'utf8' });
  return text.trim() === '' ? [] : JSON.parse(text);
}

/** Who was asked for in vain is not told: when the kernel forgets that hangs on how many neighbours the whole machine has. */
function onKernel({ places }: RoutedHost): Known {
  const known = new Map<string, string>();
  for (const netns of ROUTED_SENDERS) {
    const real = places.real(netns);
    const neighbours = NEIGHBOURS.parse(json('ip', '-j', '-n', real, 'neigh'));
    for (const { dst, dev, lladdr, state } of neighbours)
      if (lladdr !== undefined && state[0] !== 'FAILED')
        known.set(`${netns} ${dev} ${dst}`, `${lladdr} ${state[0]?.toLowerCase()}`);
  }
  for (const bridge of BRIDGES) {
    const words = ['-j', '-n', places.real(NODE), 'fdb', 'show', 'br', bridge];
    for (const { mac, ifname, state } of ENTRIES.parse(json('bridge', ...words)))
      if (state === '') known.set(`${bridge} ${mac}`, ifname);
  }
  return known;
}

function inWorld({ neighbours, fdb }: World): Known {
  const known = new Map<string, string>();
  for (const [netns, links] of Object.entries(neighbours))
    for (const [ifname, table] of Object.entries(links))
      for (const [ip, { mac, state }] of Object.entries(table))
        if (mac !== null) known.set(`${netns} ${ifname} ${ip}`, `${mac} ${state}`);
  for (const bridge of BRIDGES)
    for (const [mac, { port }] of Object.entries(fdb[NODE]?.[bridge] ?? {}))
      known.set(`${bridge} ${mac}`, port);
  return known;
}

/** What happened on the kernel, at what time, in milliseconds: a ping, or a look at what is known then. */
type Happening =
  | { readonly atMs: number; readonly netns: NetnsName; readonly destination: Ip }
  | { readonly atMs: number; readonly untilMs: number; readonly known: Known };

/** How the kernel's chance may have fallen. */
const SEEDS = 32;
const MORE_SEEDS = 1000;

const HOST = applyAll(ROUTED, neighbourOps());

function later(world: World, atMs: number): World {
  return elapse(world, Math.max(0, atMs - world.nowMs));
}

/** What may be known at each look, by one seed: a moment before, and at its end. */
function simulated(happenings: readonly Happening[], seed: number): readonly (readonly Known[])[] {
  let world = makeWorld(HOST, {}, { seed, ageingMs: AGEING_MS });
  return happenings.flatMap((each) => {
    if ('destination' in each) {
      ({ world } = probe(later(world, each.atMs), each));
      return [];
    }
    return [[each.atMs - LATE_MS, each.untilMs].map((ms) => inWorld(later(world, ms)))];
  });
}

interface Judged {
  /** Of how many things only one could be known. */
  readonly certain: number;
  readonly all: number;
  readonly partings: readonly string[];
}

/** Where the kernel knows what it would know by no chance. */
function judge(happenings: readonly Happening[], seeds: number): Judged {
  const bySeed = Array.from({ length: seeds }, (_, seed) => simulated(happenings, seed));
  const looks = happenings.flatMap((each) => ('known' in each ? [each] : []));
  const judged = looks.flatMap(({ known, atMs }, look) => {
    const worlds = bySeed.flatMap((told) => told[look] ?? []);
    const subjects = new Set([known, ...worlds].flatMap((each) => [...each.keys()]));
    return [...subjects].map((subject) => {
      const possible = new Set(worlds.map((each) => each.get(subject) ?? 'nothing'));
      const real = known.get(subject) ?? 'nothing';
      const text = `after ${atMs.toFixed(0)} ms ${subject}: the kernel knows ${real}, the simulator ${[...possible].join(' or ')}`;
      return { isCertain: possible.size === 1, text: possible.has(real) ? [] : [text] };
    });
  });
  return {
    certain: judged.filter(({ isCertain }) => isCertain).length,
    all: judged.length,
    partings: judged.flatMap(({ text }) => text),
  };
}

/** How long the kernel tells others by itself which groups it listens to (MLD), of which bridges learn. */
const GREETING_MS = 2500;

function setBridges({ places }: RoutedHost, ...words: readonly string[]): void {
  for (const bridge of BRIDGES) {
    const named = ['-n', places.real(NODE), 'link', 'set', bridge, 'type', 'bridge'];
    execFileSync('ip', [...named, ...words]);
  }
}

/** Lets all of it happen on the kernel. */
async function carryOut(program: readonly Step[]): Promise<readonly Happening[]> {
  const host = buildHost();
  try {
    for (const op of neighbourOps()) host.execute(op);
    setBridges(host, 'ageing_time', `${AGEING_MS / 10}`);
    await Bun.sleep(GREETING_MS);
    setBridges(host, 'fdb_flush');
    const startMs = performance.now();
    const sinceMs = (): number => performance.now() - startMs;
    const happenings: Happening[] = [];
    let world = makeWorld(HOST, {}, { ageingMs: AGEING_MS });
    for (const { pings, pauseMs } of program) {
      for (const [netns, destination] of pings) {
        const atMs = sinceMs();
        happenings.push({ atMs, netns, destination });
        echo({ netns: host.places.real(netns), destination, timeoutMs: 5 });
        // In the simulator nobody else sends while a ping waits for a neighbour in vain.
        ({ world } = probe(later(world, atMs), { netns, destination }));
        await Bun.sleep(Math.max(0, world.nowMs - sinceMs()));
      }
      await Bun.sleep(pauseMs);
      const atMs = sinceMs();
      const known = onKernel(host);
      happenings.push({ atMs, untilMs: sinceMs(), known });
    }
    return happenings;
  } finally {
    host.tearDown();
  }
}

const PROGRAMS = Number(process.env['TIME_PROGRAMS'] ?? 24);

describe.skipIf(requirement('root', 'iproute2'))('what links know while time passes', () => {
  it('is what the kernel knows', async () => {
    const programs = fc.sample(steps, PROGRAMS);
    const done = await Promise.all(programs.map(carryOut));
    let [certain, all] = [0, 0];
    const parted = done.flatMap((happenings, index) => {
      const judged = judge(happenings, SEEDS);
      certain += judged.certain;
      all += judged.all;
      if (judged.partings.length === 0) return [];
      const { partings } = judge(happenings, MORE_SEEDS);
      return partings.length === 0 ? [] : [JSON.stringify(programs[index]), ...partings];
    });
    expect(parted.join('\n')).toBe('');
    // What chance decides is no proof.
    expect(certain).toBeGreaterThan(all / 2);
  }, 120_000);
});
