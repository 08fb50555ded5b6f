/** VLANs of the model and the simulator against those of the kernel: random programs compared step by step, and pings. */
import fc from 'fast-check';
import { afterEach, describe, expect, it } from 'vitest';
import { makeLinuxBackend } from '../../backends/linux/linux.ts';
import type { Host } from '../../model/host.ts';
import type { Op } from '../../model/op.ts';
import { applyOp } from '../../model/ops.ts';
import { type VlanRange, vlan } from '../../model/vlan.ts';
import { drawFrom } from '../arbitraries/draw.ts';
import { BRIDGES, MACS, VETHS } from '../arbitraries/names.ts';
import { opSeeds } from '../arbitraries/program.ts';
import { vlanAdd, vlanDel } from '../arbitraries/vlan-op.ts';
import { requirement } from '../requirements.ts';
import {
  MEMBERS,
  VLAN_PODS_OPS,
  access,
  memberOps,
  reachedIn,
  vlanHost,
} from '../sim/vlan-pods.ts';

const NETNS = `cube-vlan-${process.pid}`;
const [MAC] = MACS as [(typeof MACS)[0]];

function bridge(ifname: (typeof BRIDGES)[0], vlanFiltering: object): Op {
  const link = { kind: 'bridge', ifname, mac: MAC, mtuBytes: 1500, up: true } as const;
  return { op: 'link.add', netns: NETNS, link: { ...link, ...vlanFiltering } };
}

/** Two bridges, of which one filters, with a port each, and a link that is none. */
function prologue(): Op[] {
  const [br0, br1] = BRIDGES as [(typeof BRIDGES)[0], (typeof BRIDGES)[0]];
  const [v0, v1, v2, v3] = VETHS as [typeof br0, typeof br0, typeof br0, typeof br0];
  const end = { mac: MAC, mtuBytes: 1500, up: true };
  const pair = (ifname: typeof br0, peer: typeof br0, master: typeof br0 | null): Op => ({
    op: 'link.add',
    netns: NETNS,
    link: { kind: 'veth', ifname, ...end, master, peer: { ifname: peer, netns: NETNS, ...end } },
  });
  return [
    { op: 'netns.add', netns: NETNS },
    bridge(br0, { vlanFiltering: true }),
    bridge(br1, {}),
    pair(v0, v1, br0),
    pair(v2, v3, br1),
  ];
}

function nextOp(host: Host, seed: readonly number[]): Op {
  const draw = drawFrom(seed, 'any');
  const kind = draw.of(['add', 'add', 'add', 'del', 'del', 'master', 'filter'] as const);
  if (kind === 'add') return vlanAdd(NETNS, host, draw);
  if (kind === 'del') return vlanDel(NETNS, host, draw);
  if (kind === 'master') {
    const set = { master: draw.of([null, ...BRIDGES]) };
    return { op: 'link.set', netns: NETNS, ifname: draw.of(VETHS), set };
  }
  const set = { vlanFiltering: draw.oneIn(2) };
  return { op: 'link.set', netns: NETNS, ifname: draw.of([...BRIDGES, ...BRIDGES, ...VETHS]), set };
}

function place(netns: string): string {
  return `${NETNS}-${netns}`;
}

/** The operation in netns that nobody else has. */
function placed(op: Op): Op {
  const { netns } = op;
  if (op.op !== 'link.add' || op.link.kind !== 'veth') return { ...op, netns: place(netns) };
  const peer = { ...op.link.peer, netns: place(op.link.peer.netns) };
  return { ...op, netns: place(netns), link: { ...op.link, peer } };
}

/** VLANs of one member: few, so that members meet, some of them each way by another. */
function memberships(): fc.Arbitrary<readonly VlanRange[]> {
  const ids = fc.constantFrom(1, 10, 20);
  return fc
    .tuple(fc.option(ids), fc.uniqueArray(fc.record({ id: ids, untagged: fc.boolean() })))
    .map(([pvid, others]) => [
      ...others.filter(({ id }) => id !== pvid).map(({ id, untagged }) => vlan(id, { untagged })),
      ...(pvid === null ? [] : [access(pvid)]),
    ]);
}

/** How long the kernel may take to notice that a bridge has its carrier (K-1.9). */
const SETTLE_MS = 1200;

/** Whom everybody reaches by one ping, all at once. */
async function reachedInKernel(): Promise<Record<string, string[]>> {
  const names = Object.keys(MEMBERS);
  const answers = names.map(async (netns): Promise<[string, string[]]> => {
    const probes = names
      .filter((other) => other !== netns)
      .map((other) => `{ busybox ping -c 1 -W 2 ${MEMBERS[other]} >&2 && echo ${other}; } &`);
    const command = ['ip', 'netns', 'exec', place(netns), 'sh', '-c', `${probes.join('\n')}\nwait`];
    const { stdout } = Bun.spawn(command, { stderr: 'ignore' });
    const reached = (await new Response(stdout).text()).split('\n');
    return [netns, names.filter((other) => reached.includes(other))];
  });
  return Object.fromEntries(await Promise.all(answers));
}

/** The VLANs of every link, as far as it has any. */
function vlansIn(host: Host): unknown {
  return Object.values(host.netns[NETNS]?.links ?? {}).map((link) => [
    link.ifname,
    link.kind === 'bridge' ? link.vlans : link.port?.vlans,
  ]);
}

describe.skipIf(requirement('root', 'iproute2', 'busybox', 'bridge-vlans'))('VLANs', () => {
  const linux = makeLinuxBackend();
  const scope = {
    [NETNS]: { links: 'all', routes: 'none', sysctls: [], nftables: [], vlans: true },
  } as const;

  afterEach(() => {
    linux.execute({ op: 'netns.del', netns: NETNS });
  });

  it('let pass in the simulator whom they let pass in the kernel', async () => {
    const members = fc.record(
      Object.fromEntries(Object.keys(MEMBERS).map((name) => [name, memberships()])),
    );
    let parted = 0;
    await fc.assert(
      fc.asyncProperty(members, async (ranges) => {
        const ops = Object.entries(ranges).flatMap(([name, each]) => memberOps(name, each));
        const predicted = reachedIn(vlanHost(ops));
        const names = Object.keys(MEMBERS).map((name) => ({ op: 'netns.del', netns: place(name) }));
        try {
          for (const op of [...VLAN_PODS_OPS, ...ops])
            expect([op, linux.execute(placed(op))]).toEqual([op, undefined]);
          await Bun.sleep(SETTLE_MS);
          await reachedInKernel();
          expect(await reachedInKernel()).toEqual(predicted);
        } finally {
          for (const op of names) linux.execute(op as Op);
        }
        if (Object.values(predicted).some(({ length }) => length < 3)) parted += 1;
      }),
      { numRuns: 8, endOnFailure: true },
    );
    expect(parted).toBeGreaterThan(1);
  }, 120_000);

  it('are in the model what they are in the kernel', () => {
    const tally = { done: 0, refused: 0 };
    fc.assert(
      fc.property(fc.array(opSeeds(), { minLength: 10, maxLength: 30 }), (seeds) => {
        let host: Host = { netns: {}, kernel: { bridgeVlans: true } };
        const step = (op: Op): void => {
          const outcome = applyOp(host, op);
          if (outcome.ok) host = outcome.host;
          const fault = linux.execute(op);
          expect([op, fault?.errno]).toEqual([op, outcome.ok ? undefined : outcome.fault.errno]);
          expect([op, vlansIn(linux.observe(scope))]).toEqual([op, vlansIn(host)]);
          tally[outcome.ok ? 'done' : 'refused'] += 1;
        };
        try {
          for (const op of prologue()) step(op);
          for (const seed of seeds) step(nextOp(host, seed));
        } finally {
          linux.execute({ op: 'netns.del', netns: NETNS });
        }
      }),
      { numRuns: 40 },
    );
    expect(tally.done).toBeGreaterThan(300);
    expect(tally.refused).toBeGreaterThan(50);
  }, 120_000);
});
