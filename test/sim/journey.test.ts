import { describe, expect, it } from 'vitest';
import { parseIp } from '../../model/ip.ts';
import { formatCause } from '../../sim/cause.ts';
import { travel } from '../../sim/journey.ts';
import { makeWorld } from '../../sim/world.ts';
import { BROKEN_HOSTS } from './faults.ts';
import { ROUTED } from './hosts.ts';
import { applyAll } from './pods.ts';

describe('a journey', () => {
  it('is the hops there and those of the answer', () => {
    const journey = travel(makeWorld(ROUTED), { netns: 'a', destination: parseIp('10.244.2.4') });
    expect(journey).toMatchObject({ reachable: { there: true, back: true }, cause: null });
    expect(journey.forward.at(-1)).toMatchObject({ netns: 'c', stage: 'deliver' });
    expect(journey.return.at(0)).toMatchObject({ netns: 'c', stage: 'route' });
    expect(journey.return.at(-1)).toMatchObject({ netns: 'a', stage: 'deliver' });
  });

  it.each(BROKEN_HOSTS)('names whoever is to blame where $name', (broken) => {
    const { ops, from, to, payloadBytes, guilty } = broken;
    const journey = travel(makeWorld(applyAll(ROUTED, ops)), {
      netns: from,
      destination: parseIp(to),
      ...(payloadBytes === undefined ? {} : { payloadBytes }),
    });
    const { cause, reachable } = journey;
    expect(cause, cause ? formatCause(cause) : 'nobody').toMatchObject({
      netns: guilty[0],
      object: guilty[1],
    });
    expect(reachable.back).toBe(false);
    expect(reachable.there).toBe(
      broken.name.includes('answers') || broken.name.includes('way back'),
    );
  });
});
