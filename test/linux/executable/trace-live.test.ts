/** `cube-cni trace --live`: a real probe beside its prediction, and nothing left behind. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeEach, describe, expect, test } from 'vitest';
import { makeLinuxBackend } from '../../../backends/linux/linux.ts';
import { parseIfname } from '../../../model/ifname.ts';
import { parseIp } from '../../../model/ip.ts';
import type { NftCommand } from '../../../model/nftables.ts';
import type { Op } from '../../../model/op.ts';
import { WHOLE, observeWhole } from '../../../plugin/process/whole-host.ts';
import { probeKernel } from '../../packets/live.ts';
import { type RoutedHost, buildHost } from '../../packets/routed-kernel.ts';
import { requirement } from '../../requirements.ts';
import { ROUTED, ROUTED_SENDERS } from '../../sim/hosts.ts';

const EXECUTABLE = join(import.meta.dirname, '../../../dist/cube-cni');
const B = '10.244.1.3';
const C = '10.244.2.4';
const NOBODY = '10.244.1.250';

interface Ended {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

interface Answer {
  readonly agrees: boolean;
  readonly seen: readonly { readonly netns: string; readonly link: string }[];
  readonly drops: readonly { readonly netns: string; readonly reason: string }[];
  readonly outcome: { readonly kind: string; readonly errno?: string };
}

function run(...args: readonly string[]): Ended {
  return spawnSync(EXECUTABLE, ['trace', '--live', ...args], { encoding: 'utf8' });
}

const FORWARD_DROP: readonly NftCommand[] = [
  { family: 'inet', table: 't', do: 'add table' },
  {
    family: 'inet',
    table: 't',
    do: 'add chain',
    chain: 'forward',
    hook: { type: 'filter', hook: 'forward', priority: 0, policy: 'drop' },
  },
];

describe.skipIf(requirement('root', 'tracefs', 'executable'))('cube-cni trace --live', () => {
  let host: RoutedHost | undefined;
  const folder = mkdtempSync(join(tmpdir(), 'cube-tracefs-'));
  const children: ChildProcess[] = [];

  beforeEach(() => {
    host = buildHost();
  });
  afterEach(() => {
    for (const child of children.splice(0)) child.kill('SIGKILL');
    host?.tearDown();
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  function built(): RoutedHost {
    if (!host) throw new Error('there is no host');
    return host;
  }
  const real = (netns: string): string => built().places.real(netns);
  const change = (op: Op): void => built().execute(op);

  function ask(from: string, to: string, ...args: readonly string[]): Answer & Ended {
    const ended = run('--json', real(from), to, ...args);
    expect(ended.stderr).toBe('');
    return { ...ended, ...(JSON.parse(ended.stdout) as Answer) };
  }

  /** The instances that there are, through a mount that nobody else sees. */
  function instances(): string[] {
    const script = 'mount -t tracefs nodev "$0" && ls "$0/instances"';
    const listed = spawnSync('unshare', ['--mount', 'sh', '-c', script, folder], {
      encoding: 'utf8',
    });
    expect(listed.stderr).toBe('');
    return listed.stdout.split('\n');
  }

  /** A probe that waits for an answer that nobody gives. */
  async function startWaiting(): Promise<{ readonly child: ChildProcess; readonly name: string }> {
    const child = spawn(EXECUTABLE, ['trace', '--live', real('a'), NOBODY], { stdio: 'ignore' });
    children.push(child);
    const name = `cube-cni-${child.pid}`;
    for (let tries = 0; !instances().includes(name); tries += 1) {
      if (tries > 200) throw new Error('it makes no instance');
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    return { child, name };
  }

  test('sees a probe and its answer on every link', () => {
    const { status, agrees, seen, outcome } = ask('a', C);
    expect(seen.map(({ netns, link }) => `${built().places.logical(netns)} ${link}`)).toEqual(
      [
        ['a eth0', 'node v-a', 'node cni0', 'node cni1', 'node v-c', 'c eth0'],
        ['c eth0', 'node v-c', 'node ifb0', 'node v-c', 'node cni1', 'node cni0', 'node v-a'],
        ['a eth0'],
      ].flat(),
    );
    expect({ status, agrees, outcome }).toEqual({
      status: 0,
      agrees: true,
      outcome: { kind: 'answered' },
    });
    const text = run(real('a'), `${C}:81/tcp`).stdout;
    expect(text).toContain(
      '✓ prediction and kernel agree: the answer came: nobody there has the port',
    );
    expect(text).not.toMatch(/^✗/m);
    expect(ask('a', 'fd00:2::4')).toMatchObject({ status: 0, agrees: true });
    expect(ask('a', `${B}:81/udp`)).toMatchObject({ status: 0, agrees: true });
  });

  test('names the drops of the kernel', () => {
    change({ op: 'nft.batch', netns: 'node', commands: FORWARD_DROP });
    const dropped = ask('a', C, '--wait', '0.1');
    expect(dropped).toMatchObject({ status: 1, agrees: true });
    expect(dropped.drops).toMatchObject([{ netns: real('node'), reason: 'NETFILTER_DROP' }]);

    change({
      op: 'nft.batch',
      netns: 'b',
      commands: FORWARD_DROP.map((each): NftCommand => {
        if (each.do !== 'add chain' || !each.hook) return each;
        return { ...each, chain: 'output', hook: { ...each.hook, hook: 'output' } };
      }),
    });
    const unanswered = ask('node', B, '--wait', '0.1');
    expect(unanswered).toMatchObject({ status: 1, agrees: true });
    expect(unanswered.drops).toMatchObject([{ netns: real('b'), reason: 'NETFILTER_DROP' }]);

    const route = ROUTED.netns['a']?.routes.find(({ destination }) => destination === '0.0.0.0/0');
    if (!route) throw new Error('a has no default route');
    change({ op: 'route.del', netns: 'a', route });
    expect(ask('a', C)).toMatchObject({
      status: 1,
      agrees: true,
      seen: [],
      outcome: { kind: 'refused', errno: 'ENETUNREACH' },
    });

    change({ op: 'link.set', netns: 'node', ifname: parseIfname('v-b'), set: { up: false } });
    change({
      op: 'sysctl.set',
      netns: 'a',
      key: 'net/ipv4/neigh/eth0/retrans_time_ms',
      value: '50',
    });
    const down = ask('a', B);
    expect(down).toMatchObject({ status: 1, agrees: true, outcome: { errno: 'EHOSTUNREACH' } });
    expect(down.drops).toMatchObject([{ netns: real('a'), reason: 'NEIGH_FAILED' }]);
  });

  test('agrees that nobody is told where echoes are ignored', () => {
    change({ op: 'sysctl.set', netns: 'c', key: 'net/ipv4/icmp_echo_ignore_all', value: '1' });
    change({ op: 'sysctl.set', netns: 'c', key: 'net/ipv6/icmp/echo_ignore_all', value: '1' });
    for (const to of [C, 'fd00:2::4'])
      expect(ask('a', to, '--wait', '0.1')).toMatchObject({ status: 1, agrees: true });
    expect(ask('a', `${C}:81/tcp`)).toMatchObject({ status: 0, agrees: true });
  });

  test('says where the kernel does otherwise', () => {
    // Whoever is known before is not asked: then the bridge has no port for it.
    spawnSync(EXECUTABLE, ['trace', '--live', real('a'), B]);
    change({ op: 'link.set', netns: 'node', ifname: parseIfname('v-b'), set: { up: false } });
    const { status, stdout } = run(real('a'), B, '--wait', '0.1');
    expect(stdout).toContain('✗ prediction and kernel part: NEIGH_FAILED');
    expect(stdout).toContain(`the kernel: dropped in ${real('node')} v-a: `);
    expect(status).toBe(4);
  });

  test.skipIf(requirement('iptables-legacy'))(
    'lets the kernel answer for tables that it cannot read',
    () => {
      const inNode = (command: string): void => {
        const words = `netns exec ${real('node')} iptables-legacy ${command}`.split(' ');
        expect(spawnSync('ip', words).status).toBe(0);
      };
      inNode('-A FORWARD -p icmp -j ACCEPT');
      const accepted = run(real('a'), C);
      expect(accepted.stdout).toContain('? it arrives, and the answer too, unless a table');
      expect(accepted.stdout).toContain('✓ prediction and kernel agree: the answer came\n');
      expect(accepted.status).toBe(0);
      inNode('-R FORWARD 1 -p icmp -j DROP');
      const { status, stdout } = run(real('a'), C, '--wait', '0.1');
      const [line = ''] = stdout.trimEnd().split('\n').slice(-1);
      expect(line).toBe(
        `  it may be of table filter of iptables-legacy in netns ${real('node')}, which is not read`,
      );
      expect(stdout).toContain(`the kernel: dropped in ${real('node')} cni0: NETFILTER_DROP`);
      expect(status).toBe(4);
    },
  );

  test.skipIf(requirement('nftables'))('lets the kernel answer for chains at links', () => {
    for (const command of [
      'add table netdev f',
      'add chain netdev f c { type filter hook ingress device "v-a" priority 0; }',
      'add rule netdev f c ip protocol icmp drop',
    ])
      expect(spawnSync('ip', ['netns', 'exec', real('node'), 'nft', command]).status).toBe(0);
    const { status, stdout } = run(real('a'), C, '--wait', '0.1');
    const [line = ''] = stdout.trimEnd().split('\n').slice(-1);
    expect(line).toBe(`  it may be of table netdev f in netns ${real('node')}, which is not read`);
    expect(status).toBe(4);
  });

  test.each(['SIGINT', 'SIGTERM'] as const)('leaves nothing after %s', async (signal) => {
    const { child, name } = await startWaiting();
    child.kill(signal);
    const [status] = (await once(child, 'exit')) as [number];
    expect(status).toBe(signal === 'SIGINT' ? 130 : 143);
    expect(instances()).not.toContain(name);
    expect(readFileSync('/proc/mounts', 'utf8')).not.toContain(`cube-cni`);
  });

  test('removes what one left that was killed', async () => {
    const { child, name } = await startWaiting();
    child.kill('SIGKILL');
    await once(child, 'exit');
    expect(instances()).toContain(name);
    expect(ask('a', B)).toMatchObject({ agrees: true });
    expect(instances()).not.toContain(name);
  });

  test('can be asked by tests', async () => {
    const backend = makeLinuxBackend(WHOLE);
    const whole = observeWhole(backend, ROUTED_SENDERS.map(real));
    backend.close();
    const request = { netns: real('a'), destination: parseIp(B), payloadBytes: 91 };
    const { answered, seenLinks, dropReasons } = await probeKernel(whole, request, 1000);
    expect(answered).toBe(true);
    // The kernel gives a raw socket a copy of the reply, and drops the reply itself, for which it has no ping socket.
    expect(dropReasons.filter((each) => !each.endsWith(' NO_SOCKET'))).toEqual([]);
    expect(seenLinks).toHaveLength(8);
  });

  test('says what cannot be', () => {
    const refusal = (...args: readonly string[]): string => {
      const { status, stdout, stderr } = spawnSync(EXECUTABLE, ['trace', ...args], {
        encoding: 'utf8',
      });
      expect(stdout).toBe('');
      expect(status).toBe(2);
      return stderr;
    };
    expect(refusal('--live', '--snapshot', 'x', 'a', B)).toContain('--snapshot a saved host');
    expect(refusal('--wait', '3', 'a', B)).toContain('--wait is for --live');
    expect(refusal('--live', '--wait', '0', 'a', B)).toContain('more than 0 and up to 60');
    expect(refusal('--live', '--size', '3', 'a', `${B}:80/tcp`)).toContain('leave --size out');
    const large = ['--live', '--no-df', '--size', '2000', real('a'), B] as const;
    expect(refusal(...large)).toContain('--live follows no fragments, and it is split in');
    const { stderr } = spawnSync(
      'setpriv',
      ['--reuid=65534', EXECUTABLE, 'trace', '--live', 'a', B],
      {
        encoding: 'utf8',
      },
    );
    expect(stderr).toContain('--live needs root');
  });
});
