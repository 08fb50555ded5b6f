import { readSync, writeSync } from 'node:fs';
import { CNI_ERROR, CniError } from '../cni/error.ts';

/** Far more than any configuration with its prevResult. */
const STDIN_MAX_BYTES = 1024 * 1024;

const CHUNK_BYTES = 64 * 1024;

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function isAgain(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === 'EAGAIN';
}

/** Everything on standard input, which must not be more than `STDIN_MAX_BYTES`. Throws a CniError. */
export function readStdin(): string {
  const chunks: Uint8Array[] = [];
  let length = 0;
  for (;;) {
    const chunk = new Uint8Array(CHUNK_BYTES);
    let count: number;
    try {
      count = readSync(0, chunk);
    } catch (error) {
      // A pipe that somebody made non-blocking has nothing yet.
      if (isAgain(error)) {
        Bun.sleepSync(1);
        continue;
      }
      throw new CniError(CNI_ERROR.io, `error reading from stdin: ${messageOf(error)}`);
    }
    if (count === 0) break;
    length += count;
    if (length > STDIN_MAX_BYTES)
      throw new CniError(
        CNI_ERROR.decode,
        `error unmarshall network config: it is larger than ${STDIN_MAX_BYTES} bytes`,
      );
    chunks.push(chunk.subarray(0, count));
  }
  return Buffer.concat(chunks).toString('utf8');
}

/** Writes all of a text to a file descriptor, by system calls: `process.stdout` costs milliseconds at start-up. */
export function writeAll(fd: number, text: string): void {
  const bytes = new TextEncoder().encode(text);
  for (let at = 0; at < bytes.length;) {
    try {
      at += writeSync(fd, bytes, at);
    } catch (error) {
      if (!isAgain(error)) throw error;
      Bun.sleepSync(1);
    }
  }
}
