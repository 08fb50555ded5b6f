/** How long a router keeps connections, beside the kernel: echoes and datagrams through it, with pauses, and what it knows after each. */
import { execFileSync } from 'node:child_process';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { openProbe } from '../../backends/linux/probe.ts';
import { isFault } from '../../backends/linux/socket.ts';
import { type Ip, parseIp } from '../../model/ip.ts';
import type { Op } from '../../model/op.ts';
import { elapse } from '../../sim/elapse.ts';
import { type ProbeRequest, probe } from '../../sim/probe.ts';
import { type World, makeWorld } from '../../sim/world.ts';
import { type RoutedHost, buildHost, pinned } from '../packets/routed-kernel.ts';
import { inNetns, openSocket } from '../packets/sockets.ts';
import { requirement } from '../requirements.ts';
import { ROUTED } from '../sim/hosts.ts';
import { MASQUERADE } from '../sim/icmp-errors.ts';
import { applyAll } from '../sim/pods.ts';
import { LISTEN_PORT } from '../sim/rulesets.ts';

const TIMEOUTS = { icmp_timeout: 1, udp_timeout: 1, udp_timeout_stream: 3 } as const;

const OPS: readonly Op[] = [
  MASQUERADE,
  ...Object.entries(TIMEOUTS).map(([name, seconds]): Op => ({
    op: 'sysctl.set',
    netns: 'node',
    key: `net/netfilter/nf_conntrack_${name}`,
    value: `${seconds}`,
  })),
];

const HOST = pinned(applyAll(ROUTED, OPS));

/** The kernel counts in its own units, and a busy machine is late. */
const LATE_MS = 100;

const FIRST_PORT = 41_000;

/** Somebody who answers, and an address that nobody has. */
const TARGETS = ['10.244.2.4', '10.244.2.99'].map(parseIp);

interface Step {
  readonly port: number;
  readonly protocol: 'icmp' | 'udp';
  readonly destination: Ip;
  readonly pauseMs: number;
}

const steps = fc.array(
  fc.record<Step>({
    port: fc.integer({ min: 0, max: 1 }).map((index) => FIRST_PORT + index),
    protocol: fc.constantFrom('icmp', 'udp'),
    destination: fc.constantFrom(...TARGETS),
    pauseMs: fc.integer({ min: 20, max: 1500 }),
  }),
  { minLength: 2, maxLength: 9 },
);

function requestOf({ port, protocol, destination }: Step): ProbeRequest {
  const base = { netns: 'a', destination, sourcePort: port, payloadBytes: 8 };
  return protocol === 'icmp' ? base : { ...base, to: { protocol, port: LISTEN_PORT } };
}

/** Somebody who answers every datagram, when asked to look. */
function answerer({ places }: RoutedHost): {
  readonly look: () => void;
  readonly close: () => void;
} {
  const socket = inNetns(places.real('c'), () => {
    const opened = openSocket('udp', 4);
    opened.forAnswering('udp', LISTEN_PORT);
    return opened;
  });
  const look = (): void => {
    for (let heard = socket.receiveFrom(); heard; heard = socket.receiveFrom())
      socket.answer(heard, 'yes');
  };
  return { look, close: () => socket.close() };
}

async function send(
  { places }: RoutedHost,
  request: ProbeRequest,
  look: () => void,
): Promise<void> {
  const { sourcePort = FIRST_PORT, payloadBytes = 8 } = request;
  const opened = openProbe({
    ...request,
    netns: places.real(request.netns),
    sourcePort,
    payloadBytes,
  });
  if (isFault(opened)) throw new Error(opened.errno);
  opened.send();
  for (let tries = 0; tries < 10 && !opened.poll(); tries += 1) {
    look();
    await Bun.sleep(1);
  }
  opened.close();
}

/** The words of `conntrack -L` about one connection, up to the second tuple. */
const LINE =
  /^(?<protocol>udp|icmp) .*? dst=(?<ip>[\d.]+) (?:sport=(?<port>\d+)|type=8 code=0 id=(?<id>\d+)) /;

/** What a router keeps: protocol, who asked from which port, whom, and whether that was answered. */
function onKernel({ places }: RoutedHost): string {
  const words = ['netns', 'exec', places.real('node'), 'conntrack', '-L'];
  const text = execFileSync('ip', words, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
  const lines = text.split('\n').flatMap((line) => {
    const { protocol, ip, port, id } = LINE.exec(line)?.groups ?? {};
    if (protocol === undefined) return [];
    return [`${protocol} ${port ?? id} ${ip}${line.includes('[UNREPLIED]') ? '' : ' answered'}`];
  });
  return lines.toSorted().join(', ');
}

function inWorld({ connections, nowMs }: World): string {
  return Object.values(connections['node'] ?? {})
    .filter(({ direction, untilMs }) => direction === 'original' && nowMs < untilMs)
    .map(({ connection: { original }, isAnswered }) => {
      const { protocol, sourcePort, destination } = original;
      return `${protocol} ${sourcePort} ${destination}${isAnswered ? ' answered' : ''}`;
    })
    .toSorted()
    .join(', ');
}

function later(world: World, atMs: number): World {
  return elapse(world, Math.max(0, atMs - world.nowMs));
}

/** Answers how often it was certain what is kept, and where the two part. */
async function follow(program: readonly Step[]): Promise<{ certain: number; partings: string[] }> {
  const kernel = buildHost();
  const someone = answerer(kernel);
  try {
    for (const op of OPS) kernel.execute(op);
    const startMs = performance.now();
    let world = makeWorld(HOST);
    let certain = 0;
    for (const step of program) {
      const request = requestOf(step);
      ({ world } = probe(later(world, performance.now() - startMs), request));
      await send(kernel, request, someone.look);
      await Bun.sleep(Math.max(0, world.nowMs - (performance.now() - startMs)));
      await Bun.sleep(step.pauseMs);
      const beforeMs = performance.now() - startMs;
      const kept = onKernel(kernel);
      const afterMs = performance.now() - startMs;
      const [early, late] = [beforeMs - LATE_MS, afterMs + LATE_MS].map((ms) =>
        inWorld(later(world, ms)),
      );
      if (early !== late) continue;
      certain += 1;
      if (kept === early) continue;
      const text = `${JSON.stringify(program)}: the kernel keeps ${kept || 'nothing'}, the simulator ${early || 'nothing'}`;
      return { certain, partings: [text] };
    }
    return { certain, partings: [] };
  } finally {
    someone.close();
    kernel.tearDown();
  }
}

const PROGRAMS = 16;

describe.skipIf(requirement('root', 'conntrack'))('connections that nobody uses', () => {
  it('are kept as long as the kernel keeps them', async () => {
    const programs = fc.sample(steps, PROGRAMS);
    const done = await Promise.all(programs.map(follow));
    expect(done.flatMap(({ partings }) => partings).join('\n')).toBe('');
    const certain = done.reduce((sum, each) => sum + each.certain, 0);
    expect(certain).toBeGreaterThan(PROGRAMS);
  }, 60_000);
});
