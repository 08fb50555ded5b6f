import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import type { Host } from '../../model/host.ts';
import { applyOp } from '../../model/ops.ts';
import { randomProgram } from './program.ts';
import { OUT_OF_REACH, reachableRules, rulesOf } from './rules.ts';
import seeded from './seed.json';

const KERNEL = { bridgeVlans: true };

/** Enough for all but what is rarer than one program in a thousand. */
const PROGRAMS = 1500;

/** Rules that a program in some ten thousand puts to work. */
const RARE = ['K-1.14 EBUSY', 'K-5.4 EACCES', 'K-9.1 EPERM'];

/** Refused by other kernels only. */
const ELSEWHERE = ['K-1.3 EBUSY', 'K-6.6 EOPNOTSUPP'];

/** A rule without its errno. */
function numberOf(rule: string): string {
  return rule.split(' ')[0] ?? '';
}

test('every rule is told from its effects, or out of reach for a reason', () => {
  const text = readFileSync(join(import.meta.dirname, '../../docs/kernel-rules.md'), 'utf8');
  const documented = [...text.matchAll(/^## (K-\S+)/gm)].map((match) => match[1] ?? '');
  const known = new Set([...reachableRules().map(numberOf), ...Object.keys(OUT_OF_REACH)]);
  expect([...known].toSorted()).toEqual(documented.toSorted());
  expect(Object.keys(OUT_OF_REACH).filter((rule) => reachableRules().includes(rule))).toEqual([]);
});

test('random programs put every rule to work', () => {
  const seen = new Set<string>();
  for (let number = 0; number < PROGRAMS; number += 1) {
    let host: Host = { netns: {}, kernel: KERNEL };
    for (const op of randomProgram(seeded.seed, number, KERNEL)) {
      const before = host;
      const outcome = applyOp(host, op);
      if (outcome.ok) host = outcome.host;
      const errno = outcome.ok ? undefined : outcome.fault.errno;
      for (const rule of rulesOf({ op, before, after: host, errno })) seen.add(rule);
    }
  }
  const missed = reachableRules().filter((rule) => !seen.has(rule));
  expect(missed.filter((rule) => !RARE.includes(rule) && !ELSEWHERE.includes(rule))).toEqual([]);
}, 60_000);
