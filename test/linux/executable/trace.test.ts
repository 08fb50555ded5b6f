/** `cube-cni trace` and `cube-cni check` on broken hosts: one fault each, where a packet dies of it seen by a ping, and whoever is to blame is named. */
import { spawn, spawnSync } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeEach, describe, expect, test } from 'vitest';
import { makeAddress } from '../../../model/address.ts';
import { parseIfname } from '../../../model/ifname.ts';
import { parsePrefixedIp } from '../../../model/prefix.ts';
import { capture } from '../../../sim/capture.ts';
import { within } from '../../../sim/cause.ts';
import type { HostFinding, Severity } from '../../../sim/findings/finding.ts';
import type { Journey } from '../../../sim/journey.ts';
import { pcap } from '../../../sim/pcap.ts';
import { BROKEN_HOSTS } from '../../broken/all.ts';
import type { BrokenHost, Guilty } from '../../broken/broken-host.ts';
import { type RoutedHost, buildHost } from '../../packets/routed-kernel.ts';
import { requirement } from '../../requirements.ts';
import { ROUTED_SENDERS } from '../../sim/hosts.ts';

const ETH0 = parseIfname('eth0');
const EXECUTABLE = join(import.meta.dirname, '../../../dist/cube-cni');

type Asked = NonNullable<BrokenHost['trace']>;

interface Ended {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

function run(...args: readonly string[]): Ended {
  return spawnSync(EXECUTABLE, args, { encoding: 'utf8', maxBuffer: 1 << 28 });
}

/** The same of any program, while others run. */
function ended(program: string, args: readonly string[]): Promise<Ended> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    let [stdout, stderr] = ['', ''];
    child.stdout.on('data', (data: Buffer) => (stdout += data.toString()));
    child.stderr.on('data', (data: Buffer) => (stderr += data.toString()));
    child.once('error', reject);
    child.once('close', (status) => resolve({ status, stdout, stderr }));
  });
}

/** What it says where it refuses. */
function refusal(...args: readonly string[]): string {
  const { status, stdout, stderr } = run('trace', ...args);
  expect(stdout).toBe('');
  expect(stderr).not.toContain('mistake');
  expect(status).toBe(2);
  return stderr;
}

describe.skipIf(requirement('root', 'busybox', 'executable'))('cube-cni trace and check', () => {
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

  async function isReached(netns: string, to: string): Promise<boolean> {
    const family = to.includes(':') ? '-6' : '-4';
    const ping = ['ping', family, '-c', '1', '-W', '1', '-s', '56', to];
    const words = ['netns', 'exec', real(netns), 'busybox', 'timeout', '2', 'busybox', ...ping];
    return (await ended('ip', words)).status === 0;
  }

  /** Breaks the host. What a netns is kept by is closed by what this answers. */
  function breakHost({ ops, beyond }: BrokenHost): () => void {
    for (const op of ops) built().execute(op);
    // A netns that loses its name stays for as long as somebody has it open.
    const kept = beyond ? [...ROUTED_SENDERS] : [];
    const open = kept.map((netns) => openSync(`/run/netns/${real(netns)}`, 'r'));
    for (const command of beyond?.commands(real) ?? []) {
      const [program = '', ...args] = command;
      const { status, stderr } = spawnSync(program, args, { encoding: 'utf8' });
      expect(status, `${command.join(' ')}: ${stderr}`).toBe(0);
    }
    return () => open.forEach((fd) => closeSync(fd));
  }

  async function traceNames(asked: Asked, broken: BrokenHost): Promise<void> {
    const { guilty, legacyTables, traceMends, traceSays = () => '' } = broken;
    const { from, to, payloadBytes } = asked;
    const size = payloadBytes === undefined ? [] : ['--size', `${payloadBytes}`];
    const args = [real(from), to, ...size];
    // A router fragments what ping lets it, and the trace does not: there the kernel is not asked.
    const isPing = payloadBytes === undefined && !to.includes('/');
    const [reached, json, text] = await Promise.all([
      isPing && isReached(from, to),
      ended(EXECUTABLE, ['trace', ...args, '--json']),
      ended(EXECUTABLE, ['trace', ...args]),
    ]);
    expect(reached).toBe(false);
    expect(json.stderr).toBe('');
    const journey = JSON.parse(json.stdout) as Journey;
    const named = { netns: real(guilty[0]), object: guilty[1] };
    if (legacyTables) expect(journey).toMatchObject({ cause: null, unread: [named] });
    else expect(journey.cause).toMatchObject(named);
    if (traceMends)
      expect(journey.cause?.mend).toEqual(
        traceMends.map((command) => within(real(guilty[0]), command)),
      );
    expect(json.status).toBe(legacyTables ? 3 : 1);
    expect(text.stdout).toContain(`netns ${real(guilty[0])}: ${guilty[1]} `);
    expect(text.stdout).toContain(traceSays(real));
  }

  /** What is found. Others that run at the same time have hosts of their own, so that only what is found on this one counts. */
  async function found(): Promise<readonly HostFinding[]> {
    const { status, stdout, stderr } = await ended(EXECUTABLE, ['check', '--json']);
    expect(stderr).toBe('');
    const { findings } = JSON.parse(stdout) as { readonly findings: readonly HostFinding[] };
    const isError = findings.some(({ severity }) => severity === 'error');
    expect(status).toBe(isError ? 1 : 0);
    const own = ROUTED_SENDERS.map(real);
    return findings.filter(({ netns }) => own.includes(netns));
  }

  async function checkNames(severity: Severity, guilty: Guilty): Promise<HostFinding | undefined> {
    const findings = await found();
    expect(findings.map((each) => [each.severity, each.netns, each.object])).toEqual([
      [severity, real(guilty[0]), guilty[1]],
    ]);
    return findings[0];
  }

  /** Does what the finding says, after which it is none any more. */
  async function mend({ netns, object, mend: commands }: HostFinding): Promise<void> {
    for (const command of commands) {
      const { status, stderr } = spawnSync('sh', ['-c', command], { encoding: 'utf8' });
      expect(status, `${command}: ${stderr}`).toBe(0);
    }
    const still = (await found()).filter((each) => each.netns === netns && each.object === object);
    expect(still).toEqual([]);
  }

  const lacksLegacy = requirement('iptables-legacy') !== undefined;
  const possible = BROKEN_HOSTS.filter(({ legacyTables }) => !legacyTables || !lacksLegacy);

  test.each(possible)('names whoever is to blame where $name', async (broken) => {
    const { guilty, trace, check, checkNames: checked = guilty } = broken;
    expect.hasAssertions();
    const close = breakHost(broken);
    try {
      const [finding] = await Promise.all([
        check && checkNames(check, checked),
        trace && traceNames(trace, broken),
      ]);
      // Where a packet dies of it, that is what says whether it is mended; the others have nothing else.
      if (finding && !trace && broken.mends !== false) await mend(finding);
    } finally {
      close();
    }
  });

  test('follows a packet there and back, from whatever names its origin', async () => {
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
    expect(await isReached('a', '10.244.2.4')).toBe(true);
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
    const later = text.replace(/"formatVersion": "[^"]*"/, '"formatVersion": "7.0"');
    expect(damage(later)).toMatch(/is a snapshot of format 7\.0, and this program reads 1\.\d+/);
    expect(damage(text.replace('"mtuBytes": 1500', '"mtuBytes": "big"'))).toContain('mtuBytes');
  });

  test.skipIf(lacksLegacy)('saves which tables it cannot read', () => {
    const file = join(folder, 'legacy.json');
    const inNode = (command: string): void => {
      const words = `netns exec ${real('node')} iptables-legacy ${command}`.split(' ');
      expect(spawnSync('ip', words).status).toBe(0);
    };
    inNode('-A FORWARD -j ACCEPT');
    writeFileSync(file, run('snapshot', '--all').stdout);
    const args = [real('a'), '10.244.2.4'] as const;
    expect(run('trace', ...args).status).toBe(3);
    inNode('-D FORWARD -j ACCEPT');
    expect(run('trace', ...args).status).toBe(0);
    const saved = run('trace', '--snapshot', file, ...args);
    expect(saved.status).toBe(3);
    expect(saved.stdout).toContain(`${real('node')}' iptables-legacy -t filter -S`);
    expect(run('check', '--snapshot', file).stdout).toContain('table filter of iptables-legacy');
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

  test('lets the packet be fragmented where that is asked for', () => {
    const args = [real('a'), '10.244.2.4', '--size', '2000'] as const;
    expect(run('trace', ...args).stdout).toContain('PKT_TOO_BIG: 2028 bytes, and the mtu is 1500');
    const { status, stdout } = run('trace', ...args, '--no-df');
    expect(status).toBe(0);
    expect(stdout).toContain('2 fragments of 1480 and 528 bytes (K-7.9)');
    const { forward } = JSON.parse(run('trace', ...args, '--no-df', '--json').stdout) as Journey;
    const parts = forward.flatMap(({ data }) => (data.kind === 'ip' ? [data.fragment] : []));
    expect(parts).toContainEqual({
      identification: 1,
      offsetBytes: 1480,
      dataBytes: 528,
      hasMore: false,
    });
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
