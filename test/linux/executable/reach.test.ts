/** `cube-cni plan --reach`: what it says of a plan is what pings say when the plan has been carried out. */
import { describe, expect, test } from 'vitest';
import type { Pair, ReachDelta } from '../../../sim/reach.ts';
import { requirement } from '../../requirements.ts';
import { type Node, makeNode, netnsPath } from './node.ts';

/** What is said of the node's own netns: other tests have theirs on the same machine. */
function ofNode(node: Node, pods: readonly string[], verb: 'add' | 'del', pod: string): ReachDelta {
  const words = ['plan', verb, '--config', '-', '--netns', pod, '--container-id', nameOf(pod)];
  const { status, stdout, stderr } = node.cli(
    [...words, '--format', 'json', '--reach', '2000'],
    JSON.stringify(node.config()),
  );
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  const { reach } = JSON.parse(stdout) as { readonly reach: ReachDelta };
  const own = new Set<string | null>(['host', ...pods.map(nameOf)]);
  const some = (pairs: readonly Pair[]): Pair[] =>
    pairs.filter(({ from, to }) => own.has(from.netns) && own.has(to.netns));
  const { connected, cut, unclear } = reach;
  return { ...reach, connected: some(connected), cut: some(cut), unclear: some(unclear) };
}

function nameOf(pod: string): string {
  return pod.slice(pod.lastIndexOf('/') + 1);
}

async function isAnswered(node: Node, { from, to }: Pair): Promise<boolean> {
  const netns = netnsPath(from.netns === 'host' ? node.netns : from.netns);
  const ping = ['busybox', 'ping', '-c', '1', '-W', '1', to.ip];
  const child = Bun.spawn(['nsenter', `--net=${netns}`, '--', ...ping], {
    stdout: 'ignore',
    stderr: 'ignore',
  });
  return (await child.exited) === 0;
}

/** Of each pair, whether a ping is answered, asked all at once. */
function answers(node: Node, pairs: readonly Pair[]): Promise<boolean[]> {
  return Promise.all(pairs.map((pair) => isAnswered(node, pair)));
}

const ALL_OF_SIX = Array.from({ length: 6 }, () => true);
const NONE_OF_SIX = ALL_OF_SIX.map(() => false);

describe.skipIf(requirement('root', 'iproute2', 'nftables', 'busybox', 'executable'))(
  'cube-cni plan --reach',
  () => {
    test('says what pings say after ADD, and after DEL', async () => {
      const node = makeNode();
      const pods = [node.addPod(), node.addPod(), node.addPod()];
      const [first = '', , last = ''] = pods;
      for (const netns of pods.slice(0, 2)) node.add({ netns, containerId: nameOf(netns) });

      const added = ofNode(node, pods, 'add', last);
      expect(added).toMatchObject({ cut: [], unclear: [] });
      // With each of two pods and the bridge, both ways.
      expect(await answers(node, added.connected)).toEqual(NONE_OF_SIX);
      node.add({ netns: last, containerId: nameOf(last) });
      expect(await answers(node, added.connected)).toEqual(ALL_OF_SIX);

      const removed = ofNode(node, pods, 'del', first);
      expect(removed).toMatchObject({ connected: [], unclear: [] });
      expect(await answers(node, removed.cut)).toEqual(ALL_OF_SIX);
      node.del({ netns: first, containerId: nameOf(first) });
      expect(await answers(node, removed.cut)).toEqual(NONE_OF_SIX);
    });
  },
);
