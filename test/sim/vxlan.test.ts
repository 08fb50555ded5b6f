import { describe, expect, it } from 'vitest';
import { formatCause } from '../../sim/cause.ts';
import { formatJourney, travel } from '../../sim/journey.ts';
import { makeWorld } from '../../sim/world.ts';
import { ROUTED } from './hosts.ts';
import { applyAll } from './pods.ts';
import { TUNNEL_CASES, TUNNEL_TARGET } from './tunnels.ts';

describe('a vxlan (K-9.3, K-9.4)', () => {
  it.each(TUNNEL_CASES)('where $name: $reaches', ({ ops, reaches, guilty }) => {
    const world = makeWorld(applyAll(ROUTED, ops));
    const journey = travel(world, { netns: 'a', destination: TUNNEL_TARGET });
    const { cause, reachable } = journey;
    expect(reachable.back, formatJourney(journey).join('\n')).toBe(reaches);
    if (guilty)
      expect(cause, cause ? formatCause(cause) : 'nobody').toMatchObject({
        netns: guilty[0],
        object: guilty[1],
      });
  });
});
