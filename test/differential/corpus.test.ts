import { expect, test } from 'vitest';
import type { Host } from '../../model/host.ts';
import { applyOp } from '../../model/ops.ts';
import { readCorpus } from './corpus.ts';
import { compareRows, rowsOf } from './rows.ts';

test.each(readCorpus())('%s: the model answers as the kernel did', (_name, entry) => {
  const { kernel } = entry.host;
  let host: Host = { netns: {}, ...(kernel ? { kernel } : {}) };
  const answers = entry.ops.map((op) => {
    const outcome = applyOp(host, op);
    if (!outcome.ok) return outcome.fault.errno;
    host = outcome.host;
    return null;
  });
  expect(answers).toEqual(entry.answers);
  expect(compareRows(rowsOf(host), rowsOf(entry.host), ['model', 'kernel'])).toEqual([]);
});
