/** What becomes of a long run that somebody ends. */
import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { OWN_PREFIX, pidOf } from '../differential/place.ts';
import { requirement } from '../requirements.ts';

const SECONDS = 60;
const LOOK_MS = 50;

/** Each with what it says at its end. */
const RUNS = [
  { file: 'packets/fuzz.ts', signal: 'SIGINT', summary: /\d+ rulesets, .* parted\n/ },
  {
    file: 'differential/fuzz.ts',
    signal: 'SIGTERM',
    summary: /\d+ programs, .* distinct errnos\n/,
  },
] as const;

function childrenOf(pid: number): readonly number[] {
  const threads = readdirSync(`/proc/${pid}/task`);
  return threads.flatMap((thread) =>
    readFileSync(`/proc/${pid}/task/${thread}/children`, 'utf8')
      .split(' ')
      .filter(Boolean)
      .map(Number),
  );
}

function netnsOf(pids: readonly number[]): readonly string[] {
  return readdirSync('/run/netns').filter(
    (name) => name.startsWith(OWN_PREFIX) && pids.includes(pidOf(name)),
  );
}

/** Its processes, once they are at work in netns of theirs. */
async function workersOf({ pid = 0 }: ChildProcess): Promise<readonly number[]> {
  for (;;) {
    const workers = childrenOf(pid);
    if (workers.length > 0 && workers.every((each) => netnsOf([each]).length > 0)) return workers;
    await sleep(LOOK_MS);
  }
}

describe.skipIf(requirement('root', 'iproute2', 'nftables', 'iptables-nft'))('a long run', () => {
  it.each(RUNS)(
    'of $file tells what it has come to, and leaves nothing, when $signal ends it',
    async ({ file, signal, summary }) => {
      const words = [join(import.meta.dirname, '..', file), '--minutes', '10', '--keep'];
      const run = spawn(process.execPath, words, { stdio: ['ignore', 'pipe', 'inherit'] });
      let said = '';
      run.stdout.on('data', (bytes: Buffer) => (said += bytes.toString()));
      const ended = new Promise<number | null>((resolve) => run.on('close', resolve));
      const workers = await workersOf(run);
      run.kill(signal);
      expect(await ended).toBe(130);
      expect(said).toMatch(summary);
      expect(netnsOf(workers)).toEqual([]);
    },
    SECONDS * 1000,
  );
});
