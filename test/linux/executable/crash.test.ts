/** SIGKILL at any point: the next ADD or DEL of the attachment heals it, and nothing is lost. */
import { closeSync, constants, openSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import type { Op } from '../../../model/op.ts';
import { formatScript } from '../../../model/plan-script.ts';
import { requirement } from '../../requirements.ts';
import { kernelState, linkNames, masqueraded } from './kernel-state.ts';
import {
  type Call,
  NO_RECORDS,
  type Node,
  type Running,
  addressOf,
  errorOf,
  makeNode,
  recordsOf,
  run,
} from './node.ts';

const skip = requirement('root', 'iproute2', 'nftables', 'executable');

const DUAL_STACK = {
  hairpinMode: true,
  ipam: {
    type: 'cube-ipam',
    ranges: [[{ subnet: '10.7.0.0/24' }], [{ subnet: 'fd07::/64' }]],
    routes: [{ dst: '0.0.0.0/0' }, { dst: '::/0' }],
  },
};

/** Every option that one attachment can have at once, but for the check for duplicates, which takes seconds. */
const EVERYTHING = {
  ...DUAL_STACK,
  isDefaultGateway: true,
  macspoofchk: true,
  ipspoofchk: true,
  portIsolation: true,
  podVerdict: 'drop',
  mtu: 1400,
  ingressPolicy: 'same-bridge',
  sysctl: { 'net.core.somaxconn': '512' },
  runtimeConfig: {
    mac: '02:00:00:00:77:01',
    portMappings: [{ hostPort: 8080, containerPort: 80, protocol: 'tcp' }],
    bandwidth: { ingressRate: 8e6, ingressBurst: 8e5, egressRate: 8e6, egressBurst: 8e5 },
  },
  ipam: {
    ...DUAL_STACK.ipam,
    routes: [
      { dst: '192.0.2.0/24', priority: 7, mtu: 1300, advmss: 1200 },
      { dst: '::/0', table: 100 },
    ],
  },
};

/** The same without a bridge. */
const ROUTED = {
  mode: 'ptp',
  ipMasq: true,
  ipspoofchk: true,
  mtu: 1400,
  isGateway: false,
  ipam: EVERYTHING.ipam,
};

/** The same options for another pod: no two can have one host port. */
function withOtherPort(options: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const { runtimeConfig } = options as Partial<typeof EVERYTHING>;
  const portMappings = [{ hostPort: 8081, containerPort: 80, protocol: 'tcp' }];
  return runtimeConfig
    ? { ...options, runtimeConfig: { ...runtimeConfig, portMappings } }
    : { ...options };
}

/** What must be as it was: all but forwarding, which is never switched off again. */
function view(node: Node): unknown {
  return [{ ...kernelState(node.netns), forwarding: null }, recordsOf(node.dataDir)];
}

/** The address that the record of an attachment holds, if there is a record. */
function recordedAddress(node: Node): string | undefined {
  const row = recordsOf(node.dataDir)['address']?.find(
    ({ container_id: id, ip }) => id === 'pod-a' && !String(ip).includes(':'),
  );
  return row && String(row['ip']);
}

function recordState(node: Node): unknown {
  return recordsOf(node.dataDir)['attachment']?.find((row) => row['container_id'] === 'pod-a')?.[
    'state'
  ];
}

/** Waits, watching, for less than a millisecond more than asked. */
function spin(durationMs: number): void {
  const end = performance.now() + durationMs;
  while (performance.now() < end);
}

async function until(what: string, holds: () => boolean): Promise<void> {
  const end = performance.now() + 5000;
  while (!holds()) {
    if (performance.now() > end) throw new Error(`waited in vain until ${what}`);
    await Bun.sleep(2);
  }
}

async function kill(running: Running): Promise<void> {
  running.kill();
  await running.answer;
}

/** Takes the lock between calls, as another call that takes long would; answers how to give it back. */
async function holdLock(node: Node): Promise<() => Promise<void>> {
  const holder = Bun.spawn(
    ['flock', '--no-fork', join(node.dataDir, 'lock'), 'sh', '-c', 'echo held; exec sleep 60'],
    {
      stdout: 'pipe',
    },
  );
  onTestFinished(() => holder.kill('SIGKILL'));
  await holder.stdout.getReader().read();
  return async () => {
    holder.kill('SIGKILL');
    await holder.exited;
  };
}

/** Starts an ADD and kills it when its record is written and the kernel is not touched yet. */
async function addUntilRecorded(node: Node, call: Call): Promise<void> {
  const release = await holdLock(node);
  const running = node.start('ADD', call);
  await until('the record is written', () => recordState(node) === 'pending');
  await kill(running);
  await release();
}

/** Starts an ADD and kills it when all is done but for the result, which nobody takes. */
async function addUntilResult(node: Node, call: Call): Promise<void> {
  const fifo = join(node.folder, `fifo-${performance.now()}`);
  run('mkfifo', fifo);
  const fd = openSync(fifo, constants.O_RDWR | constants.O_NONBLOCK);
  try {
    writeSync(fd, Buffer.alloc(65536));
    const running = node.start('ADD', {
      ...call,
      under: ['sh', '-c', `exec "$@" >${fifo}`, 'sh'],
    });
    await until('the kernel is changed', () => masqueraded(node.netns).length > 0);
    spin(20);
    await kill(running);
  } finally {
    closeSync(fd);
  }
}

/** The address that the killed ADD had recorded, if it came so far, and the one that the ADD after it got. */
interface Healed {
  readonly recorded: string | undefined;
  readonly address: string | undefined;
}

/** ADD again, after which CHECK must find nothing, and DEL; or DEL at once. */
function heal(node: Node, call: Call, way: 'by ADD' | 'by DEL' | 'by GC'): Healed {
  const recorded = recordedAddress(node);
  if (way === 'by GC') {
    const others = recordsOf(node.dataDir)['attachment'] ?? [];
    const valid = others
      .filter((row) => row['container_id'] !== 'pod-a')
      .map((row) => ({ containerID: row['container_id'], ifname: row['ifname'] }));
    const config = {
      ...(call.config as object),
      cniVersion: '1.1.0',
      'cni.dev/valid-attachments': valid,
    };
    const { status, stdout } = node.call('GC', { config });
    if (status !== 0) throw new Error(`GC answered ${stdout}`);
    return { recorded, address: recorded };
  }
  let address = recorded;
  if (way === 'by ADD') {
    const prevResult = node.add(call);
    address = addressOf(prevResult);
    const config = { ...(call.config as object), prevResult };
    const { status, stdout } = node.call('CHECK', { ...call, config });
    if (status !== 0) throw new Error(`CHECK answered ${stdout}`);
  }
  node.del(call);
  return { recorded, address };
}

describe.skipIf(skip)('an ADD that was killed', () => {
  test.each([
    ['the first pod', 'by ADD', 0, DUAL_STACK],
    ['the first pod', 'by DEL', 0, DUAL_STACK],
    ['the second pod', 'by ADD', 1, DUAL_STACK],
    ['the second pod', 'by DEL', 1, DUAL_STACK],
    ['the first pod with every option', 'by ADD', 0, EVERYTHING],
    ['the first pod with every option', 'by DEL', 0, EVERYTHING],
    ['the first pod with every option', 'by GC', 0, EVERYTHING],
    ['the second pod with every option', 'by ADD', 1, EVERYTHING],
    ['the second pod with every option', 'by GC', 1, EVERYTHING],
    ['a pod without a bridge', 'by ADD', 0, ROUTED],
    ['a pod without a bridge', 'by GC', 1, ROUTED],
  ] as const)(
    'after any of its operations (%s) is healed %s',
    async (_name, way, others, options) => {
      const node = makeNode();
      const config = node.config(options);
      for (let i = 0; i < others; i += 1)
        node.add({
          netns: node.addPod(),
          containerId: `other-${i}`,
          config: node.config(withOtherPort(options)),
        });
      node.del();
      const before = view(node);
      const call = { netns: node.addPod(), config };
      let length = 1;
      for (let done = 0; done <= length; done += 1) {
        const plan = node.call('ADD', { ...call, args: ['--plan=json'] }).stdout;
        const { operations } = JSON.parse(plan) as { operations: Op[] };
        length = operations.length;
        await addUntilRecorded(node, call);
        // The kernel as the dead process would have left it.
        const script = join(node.folder, 'begun.sh');
        writeFileSync(script, formatScript(operations.slice(0, done)));
        node.run('sh', script);
        const { recorded, address } = heal(node, call, way);
        expect(address).toBe(recorded);
        expect(view(node), `after ${done} operations`).toEqual(before);
        expect(linkNames(call.netns)).toEqual([]);
      }
      expect(length).toBeGreaterThan(8);
    },
  );

  test.each(['by ADD', 'by DEL'] as const)(
    'before its result was read is healed %s',
    async (way) => {
      const node = makeNode();
      const before = view(node);
      const call = { netns: node.addPod(), config: node.config(DUAL_STACK) };
      await addUntilResult(node, call);
      expect(recordState(node)).toBe('pending');
      const { recorded, address } = heal(node, call, way);
      expect(address).toBe(recorded);
      expect(view(node)).toEqual(before);
    },
  );

  test('is healed by an ADD whose configuration is another by now', async () => {
    const node = makeNode();
    const before = view(node);
    const netns = node.addPod();
    await addUntilResult(node, { netns, config: node.config(DUAL_STACK) });
    const config = node.config({
      bridge: 'other0',
      ipam: { type: 'cube-ipam', subnet: '10.8.0.0/24' },
    });
    expect(addressOf(node.add({ netns, config }))).toBe('10.8.0.2');
    expect(linkNames(node.netns)).toEqual(['other0', expect.stringMatching(/^veth/)]);
    expect(masqueraded(node.netns)).toEqual(['10.8.0.2']);
    node.del({ netns });
    expect(view(node)).toEqual(before);
  });

  test('is healed after its netns has gone', async () => {
    const node = makeNode();
    const before = view(node);
    const call = { netns: node.addPod(), config: node.config(DUAL_STACK) };
    await addUntilResult(node, call);
    run('ip', 'netns', 'del', call.netns.replace('/run/netns/', ''));
    heal(node, { ...call, netns: '' }, 'by DEL');
    expect(view(node)).toEqual(before);
  });

  test('while the state file was made leaves one that works', async () => {
    const node = makeNode();
    const netns = node.addPod();
    for (let i = 0; i < 12; i += 1) {
      const call = { netns, config: node.config({ dataDir: join(node.folder, `data-${i}`) }) };
      const running = node.start('ADD', call);
      spin(3 + i);
      await kill(running);
      node.del(call);
      expect(addressOf(node.add(call))).toMatch(/^10\.7\.0\.[23]$/);
      node.del(call);
      expect(linkNames(node.netns)).toEqual([]);
    }
  });

  test('while it lives, others are told to try again', async () => {
    const node = makeNode();
    node.del();
    const call = { netns: node.addPod() };
    const release = await holdLock(node);
    const running = node.start('ADD', call);
    await until('the record is written', () => recordState(node) === 'pending');
    for (const verb of ['ADD', 'DEL'])
      expect(errorOf(node.call(verb, call))).toMatchObject({
        code: 11,
        msg: `attachment podnet/pod-a/eth0 is being added by process ${running.pid}`,
      });
    await release();
    expect((await running.answer).status).toBe(0);
    node.del(call);
    expect(linkNames(node.netns)).toEqual([]);
  });

  test('at 60 moments, healed in turns by ADD and by DEL', { timeout: 60_000 }, async () => {
    const node = makeNode();
    const config = node.config(DUAL_STACK);
    node.add({ netns: node.addPod(), containerId: 'other', config });
    const before = view(node);
    const durations = [1, 2, 3, 4, 5].map(() => {
      const call = { netns: node.addPod(), config };
      const { durationMs } = node.call('ADD', call);
      node.del(call);
      return durationMs;
    });
    // The middle one: by the longest, which may be an accident, most kills would come too late.
    const usual = 1.2 * (durations.toSorted((a, b) => a - b)[2] ?? 0);
    const call = { netns: node.addPod(), config };
    let killed = 0;
    for (let i = 0; i < 60; i += 1) {
      const running = node.start('ADD', call);
      spin(0.5 + (i / 60) * usual);
      running.kill();
      const { status } = await running.answer;
      if (status !== 0) killed += 1;
      // Killed after the result was written, when only the log was left to write.
      const finished = status === 0 || recordState(node) === 'finished';
      const way = finished || i % 2 === 0 ? 'by DEL' : 'by ADD';
      const { recorded, address } = heal(node, call, way);
      expect(recorded ?? address).toBe(address);
      expect(linkNames(call.netns)).toEqual([]);
      expect(view(node)).toEqual(before);
    }
    expect(killed).toBeGreaterThan(20);
    node.del({ containerId: 'other' });
    expect(linkNames(node.netns)).toEqual([]);
    expect(recordsOf(node.dataDir)).toEqual(NO_RECORDS);
  });
});

describe.skipIf(skip)('a DEL that was killed', () => {
  test('at 20 moments is completed by the next', async () => {
    const node = makeNode();
    const config = node.config(DUAL_STACK);
    node.del();
    const before = view(node);
    const call = { netns: node.addPod(), config };
    for (let i = 0; i < 20; i += 1) {
      node.add(call);
      const running = node.start('DEL', call);
      spin(2 + i * 2);
      await kill(running);
      node.del(call);
      expect(view(node)).toEqual(before);
      expect(linkNames(call.netns)).toEqual([]);
    }
  });
});
