/**
 * The simulator against the kernel: the same hosts are built with iproute2 in netns of their own, and
 * everybody pings everybody with busybox. Each netns is tried from one shell, all netns at once.
 */
import { execFile, execFileSync, spawnSync } from 'node:child_process';
import { promisify } from 'node:util';
import fc from 'fast-check';
import { afterEach, describe, expect, it } from 'vitest';
import type { Host } from '../../model/host.ts';
import { type Ip, familyOf } from '../../model/ip.ts';
import type { Op } from '../../model/op.ts';
import { describeOp } from '../../model/ops.ts';
import { probe } from '../../sim/probe.ts';
import { type Trace, formatTrace } from '../../sim/trace.ts';
import { type World, makeWorld } from '../../sim/world.ts';
import { requirement } from '../requirements.ts';
import {
  FDB_BREAKAGES,
  POLICY_RULE_BREAKAGES,
  ROUTED,
  ROUTED_DESTINATIONS,
  ROUTED_OPS,
  ROUTED_SENDERS,
  TRAFFIC_CONTROL_BREAKAGES,
  breakageLists,
  carriedOut,
} from '../sim/hosts.ts';

const run = promisify(execFile);

/** A name of its own in /run/netns for every netns of the model. */
function kernelName(netns: string): string {
  return `cube-sim-${process.pid}-${netns}`;
}

/** The operation in the kernel's netns. A peer goes up by an operation of its own: it is in another netns, where nobody types the veth's lines. */
function renamed(op: Op): Op[] {
  const netns = kernelName(op.netns);
  if (op.op !== 'link.add' || op.link.kind !== 'veth') return [{ ...op, netns }];
  const peer = { ...op.link.peer, netns: kernelName(op.link.peer.netns) };
  return [
    { ...op, netns, link: { ...op.link, peer: { ...peer, up: false } } },
    { op: 'link.set', netns: peer.netns, ifname: peer.ifname, set: { up: peer.up } },
  ];
}

/** Settings that a netns takes over from the host (K-2.2), and limits on errors that pings would run into (K-7.8). */
const PINS = [
  'rp_filter',
  'arp_ignore',
  'arp_filter',
  'proxy_arp',
  'accept_local',
  'route_localnet',
]
  .flatMap((name) => ['all', 'default', 'lo'].map((of) => `net/ipv4/conf/${of}/${name}=0`))
  .concat('net/ipv4/icmp_ratemask=0')
  .join(' ');

/** What the kernel says by itself bridges learn from, and nobody may say again where that is. */
const FORGETTING = ['cni0', 'cni1'].map((bridge) => `ip link set ${bridge} type bridge fdb_flush`);

/** Lines to be run one by one, each in the netns of its operation; one that fails ends the script with its text. */
function scriptOf(ops: readonly Op[]): string {
  return ops
    .flatMap(renamed)
    .flatMap((op) => {
      if (op.op === 'netns.add') {
        return [`ip netns add ${op.netns}`, `ip netns exec ${op.netns} sysctl -qw ${PINS}`];
      }
      const lines = op.op === 'fdb.add' ? [...FORGETTING, ...describeOp(op)] : describeOp(op);
      return lines.map((line) => `ip netns exec ${op.netns} ${line}`);
    })
    .join('\n');
}

function build(ops: readonly Op[]): void {
  const { status, stderr } = spawnSync('sh', ['-exc', scriptOf(ops)], { encoding: 'utf8' });
  // The last lines are the command that failed and what it said.
  if (status !== 0) throw new Error(stderr.trimEnd().split('\n').slice(-2).join('\n'));
}

function tearDown(): void {
  for (const name of ROUTED_SENDERS) {
    execFileSync('sh', ['-c', `ip netns del ${kernelName(name)} 2>/dev/null; true`]);
  }
}

/** Which destinations answer one ping from a netns, asked all at once. */
async function reached(netns: string, destinations: readonly Ip[]): Promise<ReadonlySet<Ip>> {
  const probes = destinations.map(
    (ip) => `{ busybox ping -${familyOf(ip)} -c 1 -W 1 ${ip} >/dev/null 2>&1 && echo ${ip}; } &`,
  );
  const { stdout } = await run('ip', [
    'netns',
    'exec',
    kernelName(netns),
    'sh',
    '-c',
    `${probes.join('\n')}\nwait`,
  ]);
  return new Set(stdout.split('\n') as Ip[]);
}

/** Everybody pings everybody at once. */
function round(): Promise<ReadonlySet<Ip>[]> {
  return Promise.all(ROUTED_SENDERS.map((netns) => reached(netns, ROUTED_DESTINATIONS)));
}

const PAIRS = ROUTED_SENDERS.flatMap((netns) =>
  ROUTED_DESTINATIONS.map((destination) => ({ netns, destination })),
);

/** The trace of every pair, each in the world that those before it left. */
function tracePairs(world: World): readonly Trace[] {
  let last = world;
  return PAIRS.map((pair) => {
    const trace = probe(last, { ...pair, isConnected: false });
    last = trace.world;
    return trace;
  });
}

/**
 * Every pair on which the kernel and the simulator do not agree, with the trace. Both do a first round
 * for nothing: all pings at once teach neighbours in no certain order, and a router without link-local
 * addresses knows those that asked it before, while it cannot ask by itself.
 */
async function disagreements(host: Host): Promise<string[]> {
  await round();
  const answers = await round();
  const warm = tracePairs(makeWorld(host)).at(-1)?.world ?? makeWorld(host);
  const traces = tracePairs(warm);
  return PAIRS.flatMap(({ netns, destination }, index) => {
    const trace = traces[index];
    const kernel = answers[ROUTED_SENDERS.indexOf(netns)]?.has(destination) === true;
    if (trace === undefined || kernel === (trace.verdict.kind === 'delivered')) return [];
    const words = kernel ? 'delivers' : 'does not deliver';
    return [`${netns} to ${destination}: the kernel ${words}\n${formatTrace(trace)}`];
  });
}

/** How long the kernel may take to notice that a bridge gained or lost its carrier (K-1.9). */
const SETTLE_MS = 1200;

async function compare(ops: readonly Op[]): Promise<string[]> {
  try {
    const { ops: done, host } = carriedOut(ROUTED, ops);
    build([...ROUTED_OPS, ...done]);
    await new Promise((resolve) => setTimeout(resolve, SETTLE_MS));
    return await disagreements(host);
  } finally {
    tearDown();
  }
}

const CASES = Number(process.env['CUBE_PING_CASES'] ?? 4);

describe.skipIf(requirement('root', 'iproute2', 'busybox'))('reachability', () => {
  afterEach(tearDown);

  it('is the same in the simulator and in the kernel on a working host', async () => {
    expect(await compare([])).toEqual([]);
  });

  it.each(TRAFFIC_CONTROL_BREAKAGES.map((ops) => [ops]))(
    'is the same where traffic control ends packets, %#',
    async (ops) => {
      expect(await compare(ops)).toEqual([]);
    },
  );

  it.each(FDB_BREAKAGES.map((ops) => [ops]))(
    'is the same where somebody says where MACs are, %#',
    async (ops) => {
      expect(await compare(ops)).toEqual([]);
    },
  );

  it.each(POLICY_RULE_BREAKAGES.map((ops) => [ops]))(
    'is the same where policy rules choose, %#',
    async (ops) => {
      expect(await compare(ops)).toEqual([]);
    },
  );

  it('is the same after random changes', { timeout: CASES * 10_000 + 30_000 }, async () => {
    await fc.assert(
      fc.asyncProperty(breakageLists(), async (ops) => {
        expect(await compare(ops)).toEqual([]);
      }),
      { numRuns: CASES, endOnFailure: true },
    );
  });
});
