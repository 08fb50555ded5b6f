import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { DIVERGENCES } from './divergences.ts';

test('docs/divergences.md tells of every known divergence, and of its rule', () => {
  const text = readFileSync(join(import.meta.dirname, '../../docs/divergences.md'), 'utf8');
  const told = [...text.matchAll(/^\| `([^`]+)` \| (K-\S+) \|/gm)].map(
    ([, id, rule]) => `${id} ${rule}`,
  );
  expect(told.toSorted()).toEqual(DIVERGENCES.map(({ id, rule }) => `${id} ${rule}`).toSorted());
});
