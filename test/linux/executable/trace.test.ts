/** `cube-cni trace` on broken hosts: one fault each, seen by a ping, and whoever is to blame is named. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeEach, describe, expect, test } from 'vitest';
import { makeAddress } from '../../../model/address.ts';
import { parseIfname } from '../../../model/ifname.ts';
import { parsePrefixedIp } from '../../../model/prefix.ts';
import { capture } from '../../../sim/capture.ts';
import type { Journey } from '../../../sim/journey.ts';
import { pcap } from '../../../sim/pcap.ts';
import { type RoutedHost, buildHost } from '../../packets/routed-kernel.ts';
import { requirement } from '../../requirements.ts';
import { BROKEN_HOSTS } from '../../sim/faults.ts';

const ETH0 = parseIfname('eth0');
const EXECUTABLE = join(import.meta.dirname, '../../../dist/cube-cni');

interface Ended {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

function run(...args: readonly string[]): Ended {
  return spawnSync(EXECUTABLE, args, { encoding: 'utf8', maxBuffer: 1 << 28 });
}

/** What it says where it refuses. */
function refusal(...args: readonly string[]): string {
  const { status, stdout, stderr } = run('trace', ...args);
  expect(stdout).toBe('');
  expect(stderr).not.toContain('mistake');
  expect(status).toBe(2);
  return stderr;
}

describe.skipIf(requirement('root', 'busybox', 'executable'))('cube-cni trace', () => {
  let host: RoutedHost | undefined;
  const folder = mkdtempSync(join(tmpdir(), 'cube-trace-'));

  beforeEach(() => {
    host = buildHost();
  });
  afterEach(() => host?.tearDown());
  afterAll(() => rmSync(folder, { recursive: true }));

  function built(): RoutedHost {
    if (!host) throw new Error('there is no host');
    return host;
  }
  const real = (netns: string): string => built().places.real(netns);

  function isReached(netns: string, to: string, payloadBytes: number): boolean {
    const family = to.includes(':') ? '-6' : '-4';
    const ping = ['ping', family, '-c', '1', '-W', '1', '-s', `${payloadBytes}`, to];
    const words = ['netns', 'exec', real(netns), 'busybox', 'timeout', '2', 'busybox', ...ping];
    return spawnSync('ip', words).status === 0;
  }

  test.each(BROKEN_HOSTS)('names whoever is to blame where $name', (broken) => {
    const { ops, from, to, payloadBytes, guilty } = broken;
    for (const op of ops) built().execute(op);
    // A router fragments what ping lets it, and the trace does not: there the kernel is not asked.
    if (payloadBytes === undefined) expect(isReached(from, to, 56)).toBe(false);
    const size = payloadBytes === undefined ? [] : ['--size', `${payloadBytes}`];
    const { status, stdout, stderr } = run('trace', real(from), to, '--json', ...size);
    expect(stderr).toBe('');
    const journey = JSON.parse(stdout) as Journey;
    expect(journey.cause).toMatchObject({ netns: real(guilty[0]), object: guilty[1] });
    expect(status).toBe(1);
    const text = run('trace', real(from), to, ...size);
    expect(text.stdout).toContain(`netns ${real(guilty[0])}: ${guilty[1]} `);
  });

  test('follows a packet there and back, from whatever names its origin', () => {
    // Others that run at the same time have the addresses of the routed host too.
    const own = makeAddress(parsePrefixedIp('10.244.1.213/24'));
    built().execute({ op: 'address.add', netns: 'a', ifname: ETH0, address: own });
    for (const from of [real('a'), `/run/netns/${real('a')}`, own.ip]) {
      const { status, stdout } = run('trace', from, '10.244.2.4:80/tcp');
      const asked = from === own.ip ? own.ip : '10.244.1.2';
      expect(stdout).toContain(`tcp syn ack 10.244.2.4:80 > ${asked}:40000`);
      expect(stdout).toContain('it arrives, and the answer too');
      expect(status).toBe(0);
    }
    expect(isReached('a', '10.244.2.4', 56)).toBe(true);
  });

  test('does the same on a saved host', () => {
    const file = join(folder, 'host.json');
    writeFileSync(file, run('snapshot', '--all').stdout);
    built().execute({
      op: 'link.set',
      netns: 'node',
      ifname: parseIfname('cni0'),
      set: { up: false },
    });
    const args = [real('a'), '10.244.2.4'] as const;
    expect(run('trace', ...args).status).toBe(1);
    expect(run('trace', '--snapshot', file, ...args).status).toBe(0);

    const text = readFileSync(file, 'utf8');
    const damaged = join(folder, 'damaged.json');
    const damage = (content: string): string => {
      writeFileSync(damaged, content);
      return refusal('--snapshot', damaged, ...args);
    };
    expect(damage(text.slice(0, -100))).toContain('is no whole snapshot');
    expect(damage('{}')).toContain('is no snapshot: it has no formatVersion');
    expect(damage(text.replace('"formatVersion": "1.0"', '"formatVersion": "7.0"'))).toContain(
      'is a snapshot of format 7.0, and this program reads 1.0',
    );
    expect(damage(text.replace('"mtuBytes": 1500', '"mtuBytes": "big"'))).toContain('mtuBytes');
  });

  test('writes the frames of the trace to a file', () => {
    const file = join(folder, 'trace.pcapng');
    const args = [real('a'), '10.244.2.4', '--json'] as const;
    const { status, stdout } = run('trace', ...args, '--pcap', file);
    expect(status).toBe(0);
    expect(stdout).toBe(run('trace', ...args).stdout);
    const { forward, return: back } = JSON.parse(stdout) as Journey;
    const captured = capture([...forward, ...back], 0);
    expect(captured.map(({ link }) => link)).toContain(`${real('c')}/eth0`);
    expect(Buffer.from(pcap(captured)).equals(readFileSync(file))).toBe(true);
    const nowhere = join(folder, 'nowhere', 'trace.pcapng');
    expect(refusal(...args, '--pcap', nowhere)).toContain(
      `cannot write the capture file ${nowhere}: ENOENT`,
    );
  });

  test('says what it does not understand about its arguments', () => {
    expect(refusal(real('a'), 'somewhere')).toContain('"somewhere" is no destination');
    expect(refusal(real('a'), '10.0.0.1:80/sctp')).toContain('neither tcp nor udp');
    expect(refusal(real('a'), '10.0.0.1:70000/tcp')).toContain('ports are 1 to 65535');
    expect(refusal('nobody', '10.0.0.1')).toContain('"nobody" is no network namespace');
    expect(refusal('lo', '10.0.0.1')).toContain('name the network namespace instead');
    expect(refusal(real('a'), '10.0.0.1', '--ttl', 'x')).toContain('a TTL is a whole number');
    expect(refusal(real('a'))).toContain("missing required argument 'to'");
    expect(refusal('--snapshot', '/nowhere.json', 'a', '10.0.0.1')).toContain('/nowhere.json');
  });
});
