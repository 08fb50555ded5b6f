import { readFile } from 'node:fs/promises';

/** The last lines of a log, or `(none)` when there is none. */
export async function logTail(file: string): Promise<string> {
  const text = await readFile(file, 'utf8').catch(() => '(none)');
  return text.trimEnd().split('\n').slice(-30).join('\n');
}
