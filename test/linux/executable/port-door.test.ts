/** Host ports with conditions and other bits of the mark, judged by who is let in, and by what is left when they go. */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { requirement } from '../../requirements.ts';
import { hostState } from './kernel-state.ts';
import { NO_RECORDS, type Node, errorOf, recordsOf } from './node.ts';
import {
  CLIENT,
  type Changes,
  NODE,
  TCP,
  UDP,
  addClient,
  addPod,
  ask,
  configFor,
  makeOutside,
  serve,
  watchMarks,
} from './outside.ts';

const skip = requirement('root', 'iproute2', 'nftables', 'executable', 'conntrack');

/** The node's addresses on a second link, and who is behind it. */
const NODE_BESIDE = { 4: '203.0.113.1', 6: '2001:db8:3::1' } as const;
const STRANGER = { 4: '203.0.113.2', 6: '2001:db8:3::2' } as const;

/** A node with a client on one link and a stranger on another. */
function makeTwoSides(): {
  readonly node: Node;
  readonly client: string;
  readonly stranger: string;
} {
  const { node, client } = makeOutside();
  return { node, client, stranger: addClient(node, 'out1', NODE_BESIDE, STRANGER) };
}

type Asker = 'client' | 'stranger' | 'host' | 'localhost' | 'pod' | 'beside';

/** Who is answered at the node's port 8080, by either protocol and family; who asks as `localhost` asks 127.0.0.1. */
async function answered(conditions: Changes): Promise<Record<4 | 6, Asker[]>> {
  const { node, client, stranger } = makeTwoSides();
  const pod = addPod(node, 'a', configFor(node, [TCP, UDP], conditions));
  const beside = addPod(node, 'b', configFor(node, []));
  await serve(pod.netns, 'a');
  const askers: readonly (readonly [Asker, string, Readonly<Record<4 | 6, string>>])[] = [
    ['client', client, NODE],
    ['stranger', stranger, NODE],
    ['host', node.netns, NODE],
    ['localhost', node.netns, { ...NODE, 4: '127.0.0.1' }],
    ['pod', pod.netns, NODE],
    ['beside', beside.netns, NODE],
  ];
  const letIn = (family: 4 | 6): Asker[] =>
    askers.flatMap(([asker, netns, at]) => {
      const tcp = ask(netns, 'tcp', at[family], 8080);
      expect(ask(netns, 'udp', at[family], 8080), asker).toBe(tcp);
      return tcp === undefined ? [] : [asker];
    });
  return { 4: letIn(4), 6: letIn(6) };
}

const ALL: readonly Asker[] = ['client', 'stranger', 'host', 'localhost', 'pod', 'beside'];

describe.skipIf(skip)('conditions of host ports', () => {
  test.each<[string, Changes, readonly Asker[], readonly Asker[]]>([
    // From here the host asks its own address by that address.
    [
      'a source, in words of iptables',
      { conditionsV4: ['-s', '192.0.2.0/24'], conditionsV6: ['!', '-s', '2001:db8:3::/64'] },
      ['client', 'host'],
      ALL.filter((asker) => asker !== 'stranger'),
    ],
    [
      'a source, in words of nft, of one family',
      { conditionsV6: ['ip6', 'saddr', STRANGER[6]] },
      ALL,
      ['stranger'],
    ],
    [
      'a destination',
      { conditionsV4: ['ip daddr != 127.0.0.0/8'], conditionsV6: ['-d', NODE_BESIDE[6]] },
      ALL.filter((asker) => asker !== 'localhost'),
      [],
    ],
    [
      'a link',
      { conditionsV4: ['-i', 'out0'], conditionsV6: ['iifname', 'out1'] },
      ['client'],
      ['stranger'],
    ],
    [
      'any other link, which the host itself comes by too',
      { conditionsV4: ['!', '-i', 'out1'], conditionsV6: ['iifname != "cni0"'] },
      ALL.filter((asker) => asker !== 'stranger'),
      ALL.filter((asker) => asker !== 'pod' && asker !== 'beside'),
    ],
    [
      'both a source and a link',
      {
        conditionsV4: ['!', '-i', 'out1', '!', '-s', CLIENT[4]],
        conditionsV6: ['iifname', 'out0', 'ip6', 'saddr', STRANGER[6]],
      },
      ALL.filter((asker) => asker !== 'stranger' && asker !== 'client'),
      [],
    ],
  ])('let in whom they say: %s', async (_what, conditions, four, six) => {
    expect(await answered(conditions)).toEqual({ 4: four, 6: six });
  });
});

/** Forgets all records of the node. */
function loseRecords({ dataDir }: Node): void {
  for (const file of ['state.db', 'state.db-wal', 'state.db-shm'])
    rmSync(join(dataDir, file), { force: true });
}

const ON_BIT_5 = { markMasqBit: 5 };
const ON_BIT_31 = { markMasqBit: 31, conditionsV4: ['!', '-s', STRANGER[4]] };
const MASQ_ALL = { conditionsV6: ['!', '-i', 'out1'], masqAll: true };

describe.skipIf(skip)('doors to host ports', () => {
  test('stand beside each other: each with its bit, and with sources replaced as behind any', async () => {
    const { node, client, stranger } = makeTwoSides();
    const doors = [{}, ON_BIT_5, ON_BIT_31, MASQ_ALL];
    const pods = doors.map((door, i) =>
      addPod(node, `pod${i}`, configFor(node, [{ ...TCP, hostPort: 8080 + i }], door)),
    );
    for (const [i, pod] of pods.entries()) await serve(pod.netns, `pod${i}`);
    const marks = watchMarks(node);
    const bits = [13, 5, 31, 13].map((bit) => 2 ** bit);
    for (const [i, pod] of pods.entries()) {
      const port = 8080 + i;
      const seen = doors[i] === MASQ_ALL ? '10.7.0.1' : CLIENT[4];
      marks.seen();
      expect(ask(client, 'tcp', NODE[4], port)).toBe(`pod${i} ${seen}`);
      expect(ask(node.netns, 'tcp', '127.0.0.1', port)).toBe(`pod${i} 10.7.0.1`);
      expect(ask(pod.netns, 'tcp', NODE[4], port)).toBe(`pod${i} 10.7.0.1`);
      expect(ask(pod.netns, 'tcp', NODE[6], port)).toBe(`pod${i} fd07::1`);
      expect(marks.seen()).toEqual([bits[i]]);
    }
    expect(ask(stranger, 'tcp', NODE[4], 8081)).toBe(`pod1 ${STRANGER[4]}`);
    expect(ask(stranger, 'tcp', NODE[4], 8082)).toBeUndefined();
    expect(ask(stranger, 'tcp', NODE[6], 8082)).toBe(`pod2 ${STRANGER[6]}`);
    expect(ask(stranger, 'tcp', NODE[6], 8083)).toBeUndefined();
    // What asks a pod itself has no mark, and is seen as who it is.
    marks.seen();
    expect(ask(client, 'tcp', '10.7.0.2', 80)).toBe(`pod0 ${CLIENT[4]}`);
    expect(marks.seen()).toEqual([0]);
  });

  test('go with the last pod behind them, and leave the others as they were', async () => {
    const { node, client } = makeTwoSides();
    const states = [hostState(node.netns)];
    const calls = [{}, ON_BIT_5, ON_BIT_31, ON_BIT_5].map((door, i) => {
      const call = addPod(node, `pod${i}`, configFor(node, [{ ...UDP, hostPort: 8080 + i }], door));
      states.push(hostState(node.netns));
      return call;
    });
    const bare = node.config({ cniVersion: '1.1.0' });
    for (const call of calls.slice(1).toReversed()) {
      node.del({ ...call, netns: '', config: bare });
      states.pop();
      expect(hostState(node.netns)).toEqual(states.at(-1));
    }
    const [first] = calls;
    await serve(first?.netns ?? '', 'pod0');
    expect(ask(client, 'udp', NODE[4], 8080)).toBe(`pod0 ${CLIENT[4]}`);
    node.del({ containerId: 'pod0', config: bare });
    expect(hostState(node.netns)).toEqual(states[0]);
    expect(recordsOf(node.dataDir)).toEqual(NO_RECORDS);
  });

  test('stay while the pods of the default one go', async () => {
    const { node, client } = makeTwoSides();
    const before = hostState(node.netns);
    const first = addPod(node, 'a', configFor(node, [TCP]));
    const second = addPod(node, 'b', configFor(node, [{ ...TCP, hostPort: 8081 }], ON_BIT_31));
    node.del(first);
    expect(node.run('nft', 'list', 'chains')).not.toMatch(/host-ports-(in|out|snat) /);
    await serve(second.netns, 'b');
    expect(ask(client, 'tcp', NODE[4], 8081)).toBe(`b ${CLIENT[4]}`);
    expect(ask(node.netns, 'tcp', '127.0.0.1', 8081)).toBe('b 10.7.0.1');
    node.del(second);
    expect(hostState(node.netns)).toEqual(before);
  });

  test('are what CHECK wants, and known again when the state file is lost', () => {
    const { node } = makeTwoSides();
    const before = hostState(node.netns);
    const doors = [
      ON_BIT_5,
      ON_BIT_31,
      MASQ_ALL,
      { conditionsV4: ['-i', 'out0', '-d', '0.0.0.0/0'] },
    ];
    const calls = doors.map((door, i) => {
      const config = configFor(node, [{ ...TCP, hostPort: 8080 + i }], door);
      const call = { netns: node.addPod(), containerId: `pod${i}`, config };
      const prevResult = node.add(call);
      return { ...call, config: { ...config, prevResult } };
    });
    const check = (): void => {
      for (const call of calls)
        expect(node.call('CHECK', call)).toMatchObject({ status: 0, stdout: '', stderr: '' });
    };
    check();
    loseRecords(node);
    check();
    for (const [i, call] of calls.entries()) {
      const config = configFor(node, [{ ...TCP, hostPort: 8080 + i }]);
      const answer = node.call('ADD', { netns: node.addPod(), containerId: 'other', config });
      expect(errorOf(answer).msg).toBe(`host port tcp ${8080 + i} is taken by podnet/pod${i}/eth0`);
      node.del(call);
    }
    expect(hostState(node.netns)).toEqual(before);
  });

  test('whose conditions somebody took away are found by CHECK', () => {
    const { node } = makeTwoSides();
    const config = configFor(node, [TCP], { conditionsV4: ['-s', '192.0.2.0/24'] });
    const call = { netns: node.addPod(), config };
    const checked = { ...call, config: { ...config, prevResult: node.add(call) } };
    const chain =
      /chain (host-ports-[0-9a-f]{8}) /.exec(node.run('nft', 'list', 'ruleset'))?.[1] ?? '';
    node.run('nft', 'flush', 'chain', 'inet', 'cube-cni', chain);
    expect(errorOf(node.call('CHECK', checked))).toMatchObject({
      code: 103,
      details: expect.stringContaining(`the rules of chain ${chain} are others`) as string,
    });
  });
});
