import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Host } from '../../model/host.ts';
import { parseIp } from '../../model/ip.ts';
import { hiddenCopies } from '../../sim/copies.ts';
import { formatJourney, hopsOf, travel } from '../../sim/journey.ts';
import { makeWorld } from '../../sim/world.ts';
import { ROUTED, ROUTED_DESTINATIONS, ROUTED_SENDERS, breakageLists, carriedOut } from './hosts.ts';
import { TWO_PODS, addressOps, applyAll, netnsOps, vethOps } from './pods.ts';

const PODS = 60;

/** As many more pods on the bridge of the two, from .10 on. */
function crowded(): Host {
  const ops = Array.from({ length: PODS }, (_, index) => {
    const [pod, hex] = [`p${index}`, (index + 16).toString(16)];
    return [
      ...netnsOps(pod),
      ...vethOps(
        'node',
        `v-${pod}`,
        `02:00:00:00:03:${hex}`,
        'cni0',
        pod,
        'eth0',
        `02:00:00:00:04:${hex}`,
      ),
      ...addressOps(pod, 'eth0', `10.244.1.${index + 10}/24`),
    ];
  });
  return applyAll(TWO_PODS, ops.flat());
}

describe('a trace over a bridge of many', () => {
  const journey = travel(makeWorld(crowded()), { netns: 'a', destination: parseIp('10.244.1.3') });

  it('shows a few of the copies for others, and counts the rest', () => {
    const lines = formatJourney(journey);
    expect(lines.length).toBeLessThan(40);
    expect(lines.filter((line) => line.includes(': no answer'))).toHaveLength(3);
    // Of the bridge itself one is too.
    expect(lines.join('\n')).toContain(`... and ${PODS + 1 - 3} others like these`);
    expect(Math.max(...lines.map((line) => line.length))).toBeLessThan(250);
  });

  it('names some of the ports that a frame is flooded to', () => {
    const text = formatJourney(journey).join('\n');
    expect(text).toMatch(/floods to (v-\w+, ){7}v-\w+ and \d+ others/);
  });

  it('shows whoever answers', () => {
    expect(formatJourney(journey).join('\n')).toContain('10.244.1.3 is its own: answers');
  });
});

describe('hidden copies', () => {
  it('are none on a small host, and never a hop of a packet that somebody takes', () => {
    fc.assert(
      fc.property(
        breakageLists(),
        fc.constantFrom(...ROUTED_SENDERS),
        fc.constantFrom(...ROUTED_DESTINATIONS),
        fc.boolean(),
        (ops, netns, destination, isCrowded) => {
          const start = isCrowded ? crowded() : ROUTED;
          const from = start.netns[netns] ? netns : 'a';
          const { host } = carriedOut(start, ops);
          const hops = hopsOf(travel(makeWorld(host), { netns: from, destination }));
          const { hops: hidden, counts } = hiddenCopies(hops);
          if (!isCrowded) expect(hidden.size).toBe(0);
          for (const index of hidden) {
            const hop = hops[index];
            expect(hop?.stage).toMatch(/^(transmit|arp|nd|receive)$/);
            expect(hop?.decision).toMatch(/: no answer|^dropped, OTHERHOST|through the veth to/);
          }
          const counted = [...counts.values()].reduce((sum, count) => sum + count, 0);
          const ends = [...hidden].filter((index) => hops[index]?.stage !== 'transmit');
          expect(ends).toHaveLength(counted);
        },
      ),
      { numRuns: 60 },
    );
  });
});
