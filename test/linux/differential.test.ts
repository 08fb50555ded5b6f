import { describe, expect, it } from 'vitest';
import type { Op } from '../../model/op.ts';
import { readCorpus } from '../differential/corpus.ts';
import { DIVERGENCES } from '../differential/divergences.ts';
import { clearNetns, kernelProfile, runOnBoth } from '../differential/program-run.ts';
import { randomProgram } from '../differential/program.ts';
import seeded from '../differential/seed.json';
import { WORLDS, standingPrograms } from '../differential/worlds.ts';
import { requirement } from '../requirements.ts';

const CHUNK = 50;

describe.skipIf(requirement('root', 'iproute2', 'nftables'))('the model and the kernel', () => {
  const chunks = Array.from({ length: Math.ceil(seeded.programs / CHUNK) }, (_, i) => i * CHUNK);

  it.each(chunks)(
    `agree on ${CHUNK} programs of the fixed seed, from number %i on`,
    (first) => {
      const last = Math.min(first + CHUNK, seeded.programs);
      for (let number = first; number < last; number += 1) {
        const { divergence } = runOnBoth(
          randomProgram(seeded.seed, number, kernelProfile()),
          'backend and commands',
        );
        const lines = divergence?.known === undefined ? divergence?.lines : [];
        // `npm run fuzz -- --seed SEED --only NUMBER` makes the program minimal.
        expect({ number, lines: lines ?? [] }).toEqual({ number, lines: [] });
      }
    },
    180_000,
  );

  it.each(WORLDS.map((world) => [world.name, world] as const))(
    'agree on all programs of two operations: %s',
    (_name, world) => {
      const leftovers = new Set<string>();
      try {
        for (const ops of standingPrograms(world, 2, kernelProfile())) {
          const { divergence } = runOnBoth(ops, 'backend', leftovers);
          const lines = divergence?.known === undefined ? divergence?.lines : [];
          expect({ ops, lines: lines ?? [] }).toEqual({ ops, lines: [] });
        }
      } finally {
        clearNetns(leftovers);
      }
    },
    180_000,
  );

  it.each(DIVERGENCES.map((each) => [each.id, each] as const))(
    'part as is known: %s',
    (id, { ops, signatures, cause }) => {
      const { divergence } = runOnBoth(ops, 'backend');
      const found = divergence?.signatures ?? [];
      // Not all that such a divergence can show has to be in the smallest program.
      expect(found.filter((signature) => !signatures.includes(signature))).toEqual([]);
      expect(found.length).toBeGreaterThan(0);
      expect(divergence?.known).toBe(cause ? id : undefined);
    },
  );

  it('are known to part also where what the kernel did brings IPv6 back to a link', () => {
    const known = DIVERGENCES.find(({ id }) => id === 'refused-master-releases');
    const ops = (known?.ops ?? []).map((op): Op => {
      if (op.op !== 'link.add' || op.link.kind !== 'veth') return op;
      // Its bridge is as small, and too small for IPv6 until it leaves.
      return { ...op, link: { ...op.link, mtuBytes: 1279 } };
    });
    expect(runOnBoth(ops, 'backend').divergence?.known).toBe(known?.id);
  });

  it.each(readCorpus())('still agree on %s', (_name, { ops }) => {
    expect(runOnBoth(ops, 'backend and commands').divergence?.lines ?? []).toEqual([]);
  });
});
