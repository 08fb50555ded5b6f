import { describe, expect, test } from 'vitest';
import { requirement } from '../../requirements.ts';
import { ipAddresses, kernelState, linkNames, masqueraded } from './kernel-state.ts';
import {
  type Answer,
  NO_RECORDS,
  type Node,
  addressOf,
  errorOf,
  makeNode,
  recordsOf,
  resultOf,
} from './node.ts';

const skip = requirement('root', 'iproute2', 'nftables', 'executable');

interface Pod {
  readonly containerId: string;
  readonly netns: string;
}

function makePods(node: Node, count: number, name: string): Pod[] {
  return Array.from({ length: count }, (_, i) => ({
    containerId: `${name}-${i}`,
    netns: node.addPod(),
  }));
}

function startAll(node: Node, verb: string, pods: readonly Pod[]) {
  return Promise.all(pods.map((pod) => node.start(verb, pod).answer));
}

function failed(answers: readonly Answer[]): Answer[] {
  return answers.filter(({ status }) => status !== 0);
}

function view(node: Node): unknown {
  return { ...kernelState(node.netns), forwarding: null };
}

describe.skipIf(skip)('at once', () => {
  test('20 ADDs on a bridge that is yet to be made, 20 DELs', async () => {
    const node = makeNode();
    const before = view(node);
    const pods = makePods(node, 20, 'pod');

    const addresses = (await startAll(node, 'ADD', pods)).map(resultOf).map(addressOf);
    expect(new Set(addresses).size).toBe(20);
    expect(masqueraded(node.netns)).toEqual(addresses.toSorted());
    const links = linkNames(node.netns);
    expect(links.filter((name) => !name.startsWith('veth'))).toEqual(['cni0']);
    expect(links).toHaveLength(21);
    expect(ipAddresses(node.netns, 'cni0')).toEqual(['10.7.0.1/24']);
    for (const [i, { netns }] of pods.entries())
      expect(ipAddresses(netns, 'eth0')).toEqual([`${addresses[i]}/24`]);
    expect(recordsOf(node.dataDir)['attachment']?.map(({ state }) => state)).toEqual(
      pods.map(() => 'finished'),
    );

    for (const answer of await startAll(node, 'DEL', pods))
      expect(answer).toMatchObject({ status: 0, stdout: '', stderr: '' });
    expect(view(node)).toEqual(before);
    expect(recordsOf(node.dataDir)).toEqual(NO_RECORDS);
  });

  test('10 ADDs and 10 DELs', async () => {
    const node = makeNode();
    const before = view(node);
    const [leaving, coming] = [makePods(node, 10, 'leaving'), makePods(node, 10, 'coming')];
    await startAll(node, 'ADD', leaving);
    const answers = await Promise.all([
      startAll(node, 'DEL', leaving),
      startAll(node, 'ADD', coming),
    ]);
    for (const answer of answers.flat()) expect(answer).toMatchObject({ status: 0, stderr: '' });
    const addresses = (answers[1] ?? []).map(resultOf).map(addressOf);
    expect(masqueraded(node.netns)).toEqual(addresses.toSorted());
    expect(new Set(addresses).size).toBe(10);
    expect(linkNames(node.netns)).toHaveLength(11);
    expect(recordsOf(node.dataDir)['attachment']).toHaveLength(10);
    for (const pod of leaving) expect(linkNames(pod.netns)).toEqual([]);

    // The last of these takes the bridge along, while the first of the others need it.
    const [gone, back] = await Promise.all([
      startAll(node, 'DEL', coming),
      startAll(node, 'ADD', leaving),
    ]);
    for (const answer of [...gone, ...back]) expect(answer).toMatchObject({ status: 0 });
    expect(ipAddresses(node.netns, 'cni0')).toEqual(['10.7.0.1/24']);
    expect(linkNames(node.netns)).toHaveLength(11);
    await startAll(node, 'DEL', leaving);
    expect(view(node)).toEqual(before);
    expect(recordsOf(node.dataDir)).toEqual(NO_RECORDS);
  });

  test('ADDs of one attachment: one succeeds', async () => {
    const node = makeNode();
    const [pod] = makePods(node, 1, 'pod') as [Pod];
    for (let round = 0; round < 8; round += 1) {
      const answers = await startAll(node, 'ADD', [pod, pod, pod]);
      const succeeded = answers.filter((answer) => !failed(answers).includes(answer));
      expect(succeeded).toHaveLength(1);
      for (const answer of failed(answers)) expect([11, 101]).toContain(errorOf(answer).code);
      expect(linkNames(pod.netns)).toEqual(['eth0']);
      expect(linkNames(node.netns)).toHaveLength(2);
      expect(masqueraded(node.netns)).toEqual(succeeded.map(resultOf).map(addressOf));
      node.del(pod);
    }
  });

  test('DELs of one attachment: all succeed', async () => {
    const node = makeNode();
    const before = view(node);
    const [pod] = makePods(node, 1, 'pod') as [Pod];
    for (let round = 0; round < 4; round += 1) {
      node.add(pod);
      for (const answer of await startAll(node, 'DEL', [pod, pod, pod]))
        expect(answer).toMatchObject({ status: 0, stdout: '', stderr: '' });
      expect(view(node)).toEqual(before);
    }
  });

  test('an address is given once, however few there are', async () => {
    const node = makeNode();
    const ipam = { type: 'cube-ipam', subnet: '10.7.0.0/29' };
    const pods = makePods(node, 8, 'pod');
    const answers = await Promise.all(
      pods.map((pod) => node.start('ADD', { ...pod, config: node.config({ ipam }) }).answer),
    );
    const refused = failed(answers);
    const addresses = answers
      .filter((a) => !refused.includes(a))
      .map((a) => addressOf(resultOf(a)));
    expect(addresses.toSorted()).toEqual([2, 3, 4, 5, 6].map((last) => `10.7.0.${last}`));
    expect(refused.map((answer) => errorOf(answer).code)).toEqual([102, 102, 102]);
    expect(recordsOf(node.dataDir)['attachment']).toHaveLength(5);
  });

  test(
    '200 pods: all ADDs, then half of the DELs beside half of the ADDs again',
    { timeout: 240_000 },
    async () => {
      const node = makeNode();
      const before = view(node);
      const pods = makePods(node, 200, 'pod');
      const addresses = (await startAll(node, 'ADD', pods)).map(resultOf).map(addressOf);
      expect(new Set(addresses).size).toBe(200);
      expect(masqueraded(node.netns)).toEqual(addresses.toSorted());
      expect(linkNames(node.netns)).toHaveLength(201);

      const [half, other] = [pods.slice(0, 100), pods.slice(100)];
      for (const answer of await startAll(node, 'DEL', half))
        expect(answer).toMatchObject({ status: 0, stdout: '', stderr: '' });
      const [back, gone] = await Promise.all([
        startAll(node, 'ADD', half),
        startAll(node, 'DEL', other),
      ]);
      for (const answer of gone)
        expect(answer).toMatchObject({ status: 0, stdout: '', stderr: '' });
      const again = back.map(resultOf).map(addressOf);
      expect(new Set(again).size).toBe(100);
      expect(masqueraded(node.netns)).toEqual(again.toSorted());
      expect(linkNames(node.netns)).toHaveLength(101);
      for (const answer of await startAll(node, 'DEL', half))
        expect(answer).toMatchObject({ status: 0, stdout: '', stderr: '' });
      expect(view(node)).toEqual(before);
      expect(recordsOf(node.dataDir)).toEqual(NO_RECORDS);
    },
  );
});
