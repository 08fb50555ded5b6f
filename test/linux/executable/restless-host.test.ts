/** `cube-cni trace` and `snapshot` while network namespaces come and go: what is asked is answered, and nothing has another's name. */
import { spawn, spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { SnapshotFile } from '../../../plugin/format/snapshot-file.ts';
import { requirement } from '../../requirements.ts';

const EXECUTABLE = join(import.meta.dirname, '../../../dist/cube-cni');
const RUNS = 30;
const NAME = `cube-churn-${process.pid}`;
const [NODE, POD] = [`${NAME}-node`, `${NAME}-pod`];
const CHURNED = [1, 2, 3];

/**
 * Makes a netns with a bridge that has a port, and a link to the node, all with its number in their names, and removes it, again
 * and again. So its name stands for another netns each time, and what is in it comes one by one.
 */
const CHURN = `while :; do
  ip netns add $1-$2
  ip -n $1-$2 link add in-$2 type bridge
  ip -n $1-$2 link add port-$2 type veth peer name end-$2
  ip -n $1-$2 link set port-$2 master in-$2
  ip -n $1-$2 link add up-$2 type veth peer name down-$2 netns $1-node
  ip -n $1-$2 address add 10.99.$2.1/24 dev up-$2
  ip netns del $1-$2
done`;

function ip(words: string): void {
  const { status, stderr } = spawnSync('ip', words.split(' '), { encoding: 'utf8' });
  if (status !== 0) throw new Error(`ip ${words}: ${stderr}`);
}

function cube(...args: readonly string[]): {
  status: number | null;
  stdout: string;
  stderr: string;
} {
  return spawnSync(EXECUTABLE, args, { encoding: 'utf8', maxBuffer: 1 << 28 });
}

describe.skipIf(requirement('root', 'iproute2', 'executable'))('on a host that never rests', () => {
  let churns: ReturnType<typeof spawn>[];
  beforeEach(() => {
    for (const netns of [NODE, POD]) ip(`netns add ${netns}`);
    ip(`-n ${POD} link add eth0 type veth peer name v-a netns ${NODE}`);
    ip(`-n ${NODE} link add cni0 type bridge`);
    ip(`-n ${NODE} link set v-a master cni0`);
    ip(`-n ${NODE} address add 10.98.0.1/24 dev cni0`);
    ip(`-n ${POD} address add 10.98.0.2/24 dev eth0`);
    for (const [netns, link] of [
      [NODE, 'cni0'],
      [NODE, 'v-a'],
      [POD, 'eth0'],
    ])
      ip(`-n ${netns} link set ${link} up`);
    churns = CHURNED.map((number) =>
      spawn('sh', ['-c', CHURN, 'sh', NAME, String(number)], { stdio: 'ignore', detached: true }),
    );
  });
  afterEach(async () => {
    await Promise.all(
      churns.map(
        (churn) =>
          new Promise((resolve) => {
            churn.once('close', resolve);
            // With the command that it runs, which would go on making a netns.
            process.kill(-(churn.pid ?? 0), 'SIGKILL');
          }),
      ),
    );
    for (const name of [...CHURNED.map((number) => `${NAME}-${number}`), NODE, POD])
      spawnSync('ip', ['netns', 'del', name]);
  });

  it('a trace between those that stay is answered, and one from those that go is answered or refused', () => {
    const statuses = new Set<number | null>();
    for (let runs = 0; runs < RUNS; runs += 1) {
      const stays = cube('trace', POD, '10.98.0.1');
      expect(stays.stderr).toBe('');
      expect(stays.status).toBe(0);
      expect(stays.stdout).toContain('it arrives, and the answer too');
      const number = CHURNED[runs % CHURNED.length];
      const goes = cube('trace', `${NAME}-${number}`, `10.99.${number}.1`);
      if (goes.status === 2) expect(goes.stderr).toContain('is no network namespace');
      else expect(goes.stderr).toBe('');
      expect([0, 1, 2]).toContain(goes.status);
      statuses.add(goes.status);
    }
    // It was met, now and then.
    expect([...statuses].some((status) => status !== 2)).toBe(true);
  }, 120_000);

  it('a snapshot has what stays, and of what goes nothing under another name', () => {
    let met = 0;
    for (let runs = 0; runs < RUNS; runs += 1) {
      const { status, stdout, stderr } = cube('snapshot', '--all');
      expect(stderr).toBe('');
      expect(status).toBe(0);
      const { host } = JSON.parse(stdout) as SnapshotFile;
      expect(Object.keys(host.netns[POD]?.links ?? {})).toEqual(['lo', 'eth0']);
      const kept = Object.values(host.netns[NODE]?.links ?? {});
      expect(kept.find(({ ifname }) => ifname === 'v-a')?.port?.master).toBe('cni0');
      for (const number of CHURNED) {
        const name = `${NAME}-${number}`;
        const links = Object.values(host.netns[name]?.links ?? {});
        met += links.length > 1 ? 1 : 0;
        for (const link of links)
          expect([
            'lo',
            ...['in', 'port', 'end', 'up'].map((each) => `${each}-${number}`),
          ]).toContain(link.ifname);
        const far = kept.find(({ ifname }) => ifname === `down-${number}`);
        // Its other end may have gone since, or have come after its netns was read.
        const peer = far?.kind === 'veth' ? far.peer : null;
        if (peer) expect(peer).toEqual({ netns: name, ifname: `up-${number}` });
      }
    }
    expect(met).toBeGreaterThan(0);
  }, 120_000);
});
