import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import type { Reporter } from 'vitest/reporters';

declare module 'vitest' {
  interface ProvidedContext {
    readonly skipFile: string;
  }
}

/** What `requirement()` writes, one JSON line per unmet requirement, for the end of the run. */
export interface Skip {
  readonly file: string;
  readonly reason: string;
}

/**
 * Prints one line per suite that was left out and why, before vitest's own summary: a run that tested half of the
 * project must not look like a run that tested all of it.
 */
export function skipReporter(): Reporter {
  let root = '';
  let folder = '';
  return {
    onInit(vitest) {
      root = vitest.config.root;
      // A file, since describe.skipIf takes no reason and the tests run in processes of their own.
      folder = mkdtempSync(join(tmpdir(), 'cube-cni-test-'));
      vitest.provide('skipFile', join(folder, 'skips.jsonl'));
    },
    onTestRunEnd() {
      for (const line of skipLines(join(folder, 'skips.jsonl'), root)) {
        process.stdout.write(`${line}\n`);
      }
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

function skipLines(skipFile: string, root: string): readonly string[] {
  if (!existsSync(skipFile)) return [];
  const skips = readFileSync(skipFile, 'utf8')
    .split('\n')
    .filter((line) => line !== '')
    .map((line): Skip => JSON.parse(line))
    .map(({ file, reason }) => ` SKIPPED  ${relative(root, file)}: ${reason}`);
  return ['', ...new Set(skips.toSorted())];
}
