/** Programs that once parted the model from the kernel, with the kernel's answers: a verdict that needs no kernel. */
import { readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Host } from '../../model/host.ts';
import type { Op } from '../../model/op.ts';
import type { Answer } from './program-run.ts';

const FOLDER = join(import.meta.dirname, 'corpus');

/** One program, what the kernel answered to each operation (null: done), and what it then held. */
export interface CorpusEntry {
  /** What the kernel does here, in a sentence. */
  readonly fact: string;
  readonly ops: readonly Op[];
  readonly answers: readonly (Exclude<Answer, undefined> | null)[];
  /** With the profile of that kernel, where it matters. */
  readonly host: Host;
}

/** All entries by file name. */
export function readCorpus(): readonly (readonly [name: string, entry: CorpusEntry])[] {
  return readdirSync(FOLDER)
    .filter((name) => name.endsWith('.json'))
    .toSorted()
    .map((name) => [name, JSON.parse(readFileSync(join(FOLDER, name), 'utf8')) as CorpusEntry]);
}

/** Keeps an entry under a name without its ending. */
export function writeEntry(name: string, entry: CorpusEntry): void {
  writeFileSync(join(FOLDER, `${name}.json`), `${JSON.stringify(entry, undefined, 2)}\n`);
}
