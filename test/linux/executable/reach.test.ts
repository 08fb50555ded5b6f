/** `cube-cni plan --reach`: what it says of a plan is what pings say when the plan has been carried out. */
import { describe, expect, onTestFinished, test } from 'vitest';
import type { ReachChange } from '../../../sim/reach-change.ts';
import type { Asker, PortChange } from '../../../sim/reach-ports.ts';
import type { Pair, ReachDelta } from '../../../sim/reach.ts';
import { requirement } from '../../requirements.ts';
import { type Node, makeNode, netnsPath, run, runIn } from './node.ts';
import { type Changes, TCP, UDP, addClient, addPod, ask, configFor, serve } from './outside.ts';

/** What `plan` prints. */
function planned(
  node: Node,
  verb: 'add' | 'del' | 'check',
  pod: string,
  config: Changes,
  ...more: readonly string[]
): string {
  const words = ['plan', verb, '--config', '-', '--netns', pod, '--container-id', nameOf(pod)];
  const { status, stdout, stderr } = node.cli([...words, ...more], JSON.stringify(config));
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  return stdout;
}

/** What `plan` says of the reach. */
function reachOf(
  node: Node,
  verb: 'add' | 'del' | 'check',
  pod: string,
  config: Changes = node.config(),
): ReachChange {
  const text = planned(node, verb, pod, config, '--format', 'json', '--reach', '2000');
  const { reach } = JSON.parse(text) as { readonly reach: ReachChange };
  return reach;
}

/** What is said of the node's own netns: other tests have theirs on the same machine. */
function ofNode(node: Node, pods: readonly string[], verb: 'add' | 'del', pod: string): ReachDelta {
  const reach = reachOf(node, verb, pod);
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

/** The node's addresses outside, and the router's there. */
const NODE = { 4: '198.51.100.1', 6: '2001:db8:5::1' } as const;
const ROUTER = { 4: '198.51.100.9', 6: '2001:db8:5::9' } as const;
/** Who asks from outside. */
const OUTSIDE = { 4: '192.0.2.1', 6: '2001:db8::1' } as const;

/** A node whose way out leads to a netns that has no name, so that nobody looks at it; answers its path. */
function makeSurrounded(): { readonly node: Node; readonly outside: string } {
  const node = makeNode();
  node.run('ip', 'link', 'set', 'lo', 'up');
  const named = addClient(node, 'out0', NODE, ROUTER);
  node.run('ip', 'route', 'add', 'default', 'via', ROUTER[4]);
  node.run('ip', '-6', 'route', 'add', 'default', 'via', ROUTER[6]);
  runIn(named, 'ip', 'address', 'add', `${OUTSIDE[4]}/32`, 'dev', 'in0');
  runIn(named, 'ip', 'address', 'add', `${OUTSIDE[6]}/128`, 'dev', 'in0', 'nodad');
  // It asks by these.
  const [on4, on6] = ['198.51.100.0/24', '2001:db8:5::/64'];
  runIn(named, 'ip', 'route', 'replace', on4, 'dev', 'in0', 'src', OUTSIDE[4]);
  runIn(named, 'ip', '-6', 'route', 'replace', on6, 'dev', 'in0', 'src', OUTSIDE[6], 'metric', '1');
  const child = Bun.spawn(['nsenter', `--net=${named}`, '--', 'sleep', '300']);
  onTestFinished(() => child.kill());
  // It has to be in there before the name goes.
  while (!Bun.spawnSync(['ip', 'netns', 'pids', nameOf(named)]).stdout.includes(`${child.pid}`))
    Bun.sleepSync(10);
  run('ip', 'netns', 'del', nameOf(named));
  return { node, outside: `/proc/${child.pid}/ns/net` };
}

describe.skipIf(requirement('root', 'iproute2', 'nftables', 'executable', 'conntrack'))(
  'cube-cni plan --reach, of published ports and of translation',
  () => {
    test('says who is answered by whom as whom, after ADD and after DEL', async () => {
      const { node, outside } = makeSurrounded();
      const beside = addPod(node, 'beside', configFor(node, []));
      const pod = node.addPod();
      const config = configFor(node, [TCP, { ...UDP, hostIP: NODE[4] }]);
      const netnsOf = ({ netns }: Asker): string =>
        netns === null ? outside : netns === 'host' ? node.netns : netns;
      const answer = ({ from, protocol, ip, port }: PortChange): string | undefined =>
        ask(netnsOf(from), protocol, ip, port);

      const { ports: added } = reachOf(node, 'add', pod, config);
      expect(added.changes.every(({ was }) => was === null)).toBe(true);
      expect(added.changes.map(({ from }) => from.netns)).toEqual(
        expect.arrayContaining(['host', null, nameOf(beside.netns)]),
      );
      // TCP by each of both families, at the addresses of uplink and bridge and for the host at 127.0.0.1, UDP at one.
      expect(added.changes).toHaveLength(2 + 2 + 1 + 1 + 2 + 2 + 1 + 3);
      node.add({ netns: pod, containerId: nameOf(pod), config });
      await serve(pod, 'pod');
      const promised = added.changes.map(({ is }) =>
        is === null || is === 'unknown' ? undefined : `pod ${is.seenAs}`,
      );
      expect(added.changes.map(answer)).toEqual(promised);
      // What is not promised nobody answers.
      expect(ask(outside, 'udp', NODE[6], 8080)).toBeUndefined();

      const { ports: removed } = reachOf(node, 'del', pod, config);
      const back = added.changes.map(({ was, is, ...asked }) => ({ ...asked, was: is, is: was }));
      expect(removed.changes).toEqual(back);
      node.del({ netns: pod, containerId: nameOf(pod), config });
      expect(removed.changes.filter((_, at) => at % 5 === 0).map(answer)).toEqual(
        removed.changes.filter((_, at) => at % 5 === 0).map(() => undefined),
      );
    }, 120_000);

    test('says whose address the outside sees once the pod is masqueraded again', async () => {
      const { node, outside } = makeSurrounded();
      const config = configFor(node, []);
      const pod = node.addPod();
      node.add({ netns: pod, containerId: nameOf(pod), config });
      node.run('nft', 'flush', 'chain', 'inet', 'cube-cni', 'postrouting');
      await serve(outside, 'outside');
      const own = '10.7.0.2';
      expect(ask(pod, 'tcp', OUTSIDE[4], 80)).toBe(`outside ${own}`);

      const reach = reachOf(node, 'check', pod, config);
      expect(reach.translated).toContainEqual({
        from: { netns: nameOf(pod), ip: own },
        to: { netns: null, ip: OUTSIDE[4] },
        was: own,
        is: NODE[4],
      });
      node.run('sh', '-c', planned(node, 'check', pod, config, '--format', 'sh'));
      expect(ask(pod, 'tcp', OUTSIDE[4], 80)).toBe(`outside ${NODE[4]}`);
    }, 60_000);
  },
);
