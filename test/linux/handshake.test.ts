/** Connections over TCP beside the kernel: how far their handshakes come where only part of them meets a rule. */
import { execFileSync } from 'node:child_process';
import { afterEach, describe, expect, it } from 'vitest';
import { getNetns } from '../../model/host.ts';
import { parseIp } from '../../model/ip.ts';
import { readRules } from '../packets/compare.ts';
import { type RoutedKernel, buildRouted } from '../packets/routed-kernel.ts';
import type { Answer, Question } from '../packets/stations.ts';
import { requirement } from '../requirements.ts';
import {
  HANDSHAKES,
  HANDSHAKE_TABLE,
  type Handshake,
  type Opening,
  handshakeHost,
} from '../sim/handshakes.ts';
import { LISTEN_PORT } from '../sim/rulesets.ts';

const TO_C: Question = {
  netns: 'a',
  protocol: 'tcp',
  destination: parseIp('10.244.2.4'),
  port: LISTEN_PORT,
};

const WAIT_MS = 500;

/** Whoever accepts a connection greets: what is not greeted is open for one side only. */
function openingOf({ as }: Answer): Opening {
  if (as === null) return 'none';
  return as === '' ? 'half open' : 'open';
}

function setUp(kernel: RoutedKernel, { ops, rule }: Handshake): string {
  for (const op of ops) kernel.execute(op);
  const { family, name } = HANDSHAKE_TABLE;
  const netns = kernel.places.real('node');
  const chain = `chain forward {\ntype filter hook forward priority 0\n${rule ?? ''}\n}`;
  const input = `table ${family} ${name} {\n${chain}\n}\n`;
  execFileSync('ip', ['netns', 'exec', netns, 'nft', '-f', '-'], { input });
  return netns;
}

describe.skipIf(requirement('root', 'iproute2', 'nftables'))('a connection over TCP', () => {
  let kernel: RoutedKernel | undefined;

  afterEach(() => kernel?.tearDown());

  it.each(HANDSHAKES)('$name: $opening', async (handshake) => {
    kernel = buildRouted();
    const netns = setUp(kernel, handshake);
    const simulated = getNetns(handshakeHost(handshake), 'node').nftables;
    expect(readRules(netns).nftables).toEqual(simulated);
    const [answer] = await kernel.ask([TO_C], WAIT_MS);
    expect(answer && openingOf(answer)).toBe(handshake.opening);
  });
});
