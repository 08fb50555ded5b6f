/** A snapshot as large as one of a thousand pods with long rules: read in seconds, and refused by a sentence where its end is missing. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Netns, getNetns } from '../../../model/host.ts';
import { formatSnapshot } from '../../../plugin/format/snapshot-file.ts';
import { requirement } from '../../requirements.ts';
import { TWO_PODS_OPS, applyAll } from '../../sim/pods.ts';

const EXECUTABLE = join(import.meta.dirname, '../../../dist/cube-cni');
const LARGE_BYTES = 100_000_000;
/** Some seconds; several times what it takes, since others may want the processor too. */
const MOST_MS = 20_000;

/** Two pods, and beside them as many netns of the same as make a large file. */
function largeSnapshot(): string {
  const host = applyAll({ netns: {} }, TWO_PODS_OPS);
  const pod = getNetns(host, 'a');
  const netns: Record<string, Netns> = { ...host.netns };
  const oneBytes = JSON.stringify(pod, null, 2).length;
  for (let number = 0; number * oneBytes < LARGE_BYTES; number += 1)
    netns[`filler-${number}`] = {
      ...pod,
      links: Object.fromEntries(
        Object.entries(pod.links).map(([name, link]) => [
          name,
          link.kind === 'veth' ? { ...link, peer: null } : link,
        ]),
      ),
    };
  return formatSnapshot({ host: { ...host, netns }, legacyTables: {} });
}

describe.skipIf(requirement('linux', 'executable'))('a snapshot of 100 MB', () => {
  const folder = mkdtempSync(join(tmpdir(), 'cube-large-'));
  const file = join(folder, 'host.json');

  beforeAll(() => writeFileSync(file, largeSnapshot()), 60_000);
  afterAll(() => rmSync(folder, { recursive: true }));

  function trace() {
    const began = performance.now();
    const args = ['trace', '--snapshot', file, 'a', '10.244.1.3'];
    const { status, stdout, stderr } = spawnSync(EXECUTABLE, args, { encoding: 'utf8' });
    return { status, stdout, stderr, tookMs: performance.now() - began };
  }

  it('is asked within seconds', { timeout: 60_000 }, () => {
    expect(statSync(file).size).toBeGreaterThan(LARGE_BYTES);
    const { status, stdout, stderr, tookMs } = trace();
    expect(stderr).toBe('');
    expect(stdout).toContain('it arrives, and the answer too');
    expect(status).toBe(0);
    expect(tookMs).toBeLessThan(MOST_MS);
  });

  it('is refused as quickly where its end is missing', { timeout: 60_000 }, () => {
    truncateSync(file, statSync(file).size - 1000);
    const { status, stdout, stderr, tookMs } = trace();
    expect(stdout).toBe('');
    expect(stderr).toContain(`${file} is no whole snapshot: `);
    expect(stderr.length).toBeLessThan(1000);
    expect(status).toBe(2);
    expect(tookMs).toBeLessThan(MOST_MS);
  });
});
