/** Limits of what pods send and are sent, judged by transfers, and by what is left when they go. */
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { requirement } from '../../requirements.ts';
import { kernelState, linkNames } from './kernel-state.ts';
import {
  type Call,
  NO_RECORDS,
  type Node,
  addressOf,
  errorOf,
  makeNode,
  netnsPath,
  recordsOf,
  run,
  runIn,
} from './node.ts';

const skip = requirement('root', 'iproute2', 'nftables', 'executable');

const TRANSFER = join(import.meta.dirname, 'transfer.ts');

type Changes = Readonly<Record<string, unknown>>;

/** What a full frame carries for TCP with timestamps, of what the limit counts (1,500 bytes and the Ethernet header). */
const PAYLOAD = { 4: 1448 / 1514, 6: 1428 / 1514 } as const;

const MEGABIT = 1_000_000;
const BURST = 400_000;

const BOTH = {
  ingressRate: 40 * MEGABIT,
  ingressBurst: BURST,
  egressRate: 16 * MEGABIT,
  egressBurst: BURST,
};

function configFor(node: Node, bandwidth: Changes, changes: Changes = {}): Changes {
  return node.config({ cniVersion: '1.0.0', runtimeConfig: { bandwidth }, ...changes });
}

/** The pod of a limit, its call, and the address that it has. */
function added(node: Node, config: Changes, containerId = 'pod-a') {
  const call: Call & { netns: string } = { netns: node.addPod(), config, containerId };
  const result = node.add(call);
  return { call, result, address: addressOf(result) };
}

function inNetns(netns: string, ...words: readonly string[]): string[] {
  return ['nsenter', `--net=${netnsPath(netns)}`, '--', process.execPath, TRANSFER, ...words];
}

let port = 5000;

/** How many megabits a second of frames go from one netns to an address in another. */
async function megabits(from: string, to: string, address: string): Promise<number> {
  port += 1;
  const receiver = Bun.spawn(inNetns(to, 'receive', String(port)), { stderr: 'inherit' });
  onTestFinished(() => receiver.kill());
  const lines: string[] = [];
  let sender: { readonly kill: () => void } | undefined;
  for await (const chunk of receiver.stdout) {
    lines.push(...new TextDecoder().decode(chunk).trim().split('\n'));
    if (!sender && lines.includes('ready')) {
      const child = Bun.spawn(inNetns(from, 'send', address, String(port)), { stderr: 'ignore' });
      onTestFinished(() => child.kill());
      sender = child;
    }
  }
  sender?.kill();
  const payload = PAYLOAD[address.includes(':') ? 6 : 4];
  return (Number(lines.at(-1)) * 8) / payload / MEGABIT;
}

const TENTH = 0.1;
const TRIES = 4;

/**
 * By how much of it a rate is missed. A machine that is busy makes a transfer slower, so that a slow one is tried again; none
 * may be faster.
 */
async function missed(
  megabitsPerSecond: number,
  from: string,
  to: string,
  address: string,
): Promise<number> {
  let excess = -1;
  for (let tries = 1; tries <= TRIES && excess < -TENTH; tries += 1)
    excess = (await megabits(from, to, address)) / megabitsPerSecond - 1;
  return Math.abs(excess);
}

function qdiscs(netns: string): string[] {
  return run('tc', '-n', netns, 'qdisc', 'show')
    .split('\n')
    .filter((line) => /tbf|clsact|ingress/.test(line));
}

const DUAL_STACK = {
  ipam: {
    type: 'cube-ipam',
    ranges: [[{ subnet: '10.7.0.0/24' }], [{ subnet: 'fd07::/64' }]],
  },
};

describe.skipIf(skip)('limits', { timeout: 120_000 }, () => {
  test('are kept within a tenth, in both directions and families', async () => {
    const node = makeNode();
    const { call, address, result } = added(node, configFor(node, BOTH, DUAL_STACK));
    const [host, host6] = ['10.7.0.1', 'fd07::1'];
    expect(await missed(40, node.netns, call.netns, address)).toBeLessThan(TENTH);
    expect(await missed(16, call.netns, node.netns, host)).toBeLessThan(TENTH);
    const address6 = result.ips[1]?.address.split('/')[0] ?? '';
    expect(await missed(40, node.netns, call.netns, address6)).toBeLessThan(TENTH);
    expect(await missed(16, call.netns, node.netns, host6)).toBeLessThan(TENTH);
  });

  test('of one direction leave the other as it is, and other pods alone', async () => {
    const node = makeNode();
    const { ingressRate, ingressBurst, egressRate, egressBurst } = BOTH;
    const heard = added(node, configFor(node, { ingressRate, ingressBurst }));
    const told = added(node, configFor(node, { egressRate, egressBurst }), 'pod-b');
    expect(await missed(16, told.call.netns, heard.call.netns, heard.address)).toBeLessThan(TENTH);
    expect(await megabits(heard.call.netns, told.call.netns, told.address)).toBeGreaterThan(200);
    const free = added(node, configFor(node, {}), 'pod-c');
    expect(await missed(40, free.call.netns, heard.call.netns, heard.address)).toBeLessThan(TENTH);
    expect(await megabits(free.call.netns, told.call.netns, told.address)).toBeGreaterThan(200);
  });

  test('hold for a pod without a bridge, through which others reach it', async () => {
    const node = makeNode();
    const changes = { mode: 'ptp', isGateway: false };
    const a = added(node, configFor(node, BOTH, changes));
    const b = added(node, configFor(node, {}, changes), 'pod-b');
    expect(await missed(40, b.call.netns, a.call.netns, a.address)).toBeLessThan(TENTH);
    expect(await missed(16, a.call.netns, b.call.netns, b.address)).toBeLessThan(TENTH);
  });

  test('are in the answer, pass CHECK, and go with the pod, whatever DEL is told', () => {
    const node = makeNode();
    added(node, node.config(), 'stays');
    const before = kernelState(node.netns);
    const records = recordsOf(node.dataDir);
    for (const how of ['as it was', 'netns is gone', 'no runtimeConfig', 'twice']) {
      const { call, result } = added(node, configFor(node, BOTH));
      const ifb = linkNames(node.netns).filter((name) => name.startsWith('ifb'));
      expect(result.interfaces.at(-1)?.name, how).toBe(ifb[0]);
      expect(qdiscs(node.netns), how).toHaveLength(3);
      const config = { ...(call.config as Changes), prevResult: result };
      expect(node.call('CHECK', { ...call, config })).toMatchObject({ status: 0, stdout: '' });
      if (how === 'netns is gone') run('ip', 'netns', 'del', call.netns.replace(/.*\//, ''));
      const later = how === 'no runtimeConfig' ? node.config() : call.config;
      node.del({ ...call, config: later, netns: how === 'as it was' ? call.netns : '' });
      if (how === 'twice') node.del({ ...call, netns: '' });
      expect(kernelState(node.netns), how).toEqual(before);
      expect(recordsOf(node.dataDir), how).toMatchObject({ attachment: records['attachment'] });
      if (how === 'netns is gone') run('ip', 'netns', 'add', call.netns.replace(/.*\//, ''));
    }
  });

  test('that somebody changed are named by CHECK, all at once, and mended', () => {
    const node = makeNode();
    const { call, result } = added(node, configFor(node, BOTH));
    const config = { ...(call.config as Changes), prevResult: result };
    const [ifb = ''] = linkNames(node.netns).filter((name) => name.startsWith('ifb'));
    const [end = ''] = linkNames(node.netns).filter((name) => name.startsWith('veth'));
    const words = ['rate', '1mbit', 'burst', '10000', 'limit', '20000'];
    node.run('tc', 'qdisc', 'replace', 'dev', end, 'root', 'handle', '1:', 'tbf', ...words);
    node.run('tc', 'qdisc', 'del', 'dev', ifb, 'root');
    node.run('tc', 'filter', 'del', 'dev', end, 'ingress');
    const findings = (): string[] => {
      const { msg, details = '' } = errorOf(node.call('CHECK', { ...call, config }));
      return [msg, ...details.split('\n').filter((line) => !line.startsWith('  + '))].map((line) =>
        line.replaceAll(ifb, 'IFB').replaceAll(end, 'END'),
      );
    };
    const mend = (): void => {
      const { stdout } = node.call('CHECK', { ...call, config, args: ['--plan=sh'] });
      node.run('sh', '-ec', stdout);
      expect(node.call('CHECK', { ...call, config })).toMatchObject({ status: 0, stdout: '' });
    };
    expect(findings()).toMatchInlineSnapshot(`
      [
        "attachment podnet/pod-a/eth0 has 3 differences: netns "host": link "IFB": what leaves is not limited, should be rate 16000000bit burst 50000b limit 100000b",
        "netns "host": link "IFB": what leaves is not limited, should be rate 16000000bit burst 50000b limit 100000b",
        "netns "host": link "END": what leaves is rate 1000000bit burst 10000b limit 20000b, should be rate 40000000bit burst 50000b limit 175000b",
        "netns "host": link "END": what comes in is not redirected, should be to IFB",
      ]
    `);
    mend();
    node.run('ip', 'link', 'del', ifb);
    expect(findings()).toMatchInlineSnapshot(`
      [
        "attachment podnet/pod-a/eth0 has 2 differences: netns "host": link "IFB" is missing",
        "netns "host": link "IFB" is missing",
        "netns "host": link "END": what comes in is redirected to a link that is gone, should be to IFB",
      ]
    `);
    mend();
  });

  test('of a lost state file are found in the kernel again', () => {
    const node = makeNode();
    const before = kernelState(node.netns);
    const { call } = added(node, configFor(node, BOTH));
    run('rm', '-r', node.dataDir);
    node.del({ ...call, netns: '' });
    expect(kernelState(node.netns)).toMatchObject({ links: before['links'] });
    expect(recordsOf(node.dataDir)).toEqual(NO_RECORDS);
  });

  test('are looked after by GC', () => {
    const node = makeNode();
    const config = configFor(node, BOTH, { cniVersion: '1.1.0' });
    added(node, config);
    const gc = node.call('GC', { config: { ...config, 'cni.dev/valid-attachments': [] } });
    expect(gc).toMatchObject({ status: 0, stdout: '' });
    expect(linkNames(node.netns)).toEqual([]);
    expect(recordsOf(node.dataDir)).toMatchObject({ attachment: [], usage: [], address: [] });
  });

  test('do not take a name that somebody else has', () => {
    const node = makeNode();
    const { call } = added(node, configFor(node, BOTH));
    const [ifb = ''] = linkNames(node.netns).filter((name) => name.startsWith('ifb'));
    node.del(call);
    node.run('ip', 'link', 'add', ifb, 'type', 'ifb');
    expect(errorOf(node.call('ADD', call))).toMatchObject({
      code: 101,
      msg: `link "${ifb}" already exists and is not ours`,
    });
    expect(linkNames(node.netns)).toEqual([ifb]);
    expect(runIn(call.netns, 'ip', '-o', 'link')).not.toContain('eth0');
  });
});
