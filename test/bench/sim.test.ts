import { describe, expect, it } from 'vitest';
import { measureBuilding, measureCluster } from '../../bench/sim/build.ts';
import { type Target, formatFigures, judgeFigure } from '../../bench/sim/figure.ts';
import { measureOperations } from '../../bench/sim/operations.ts';
import { measurePackets } from '../../bench/sim/packets.ts';
import { measurePlans } from '../../bench/sim/plan.ts';
import { NODE_OPS, attachmentOf, netnsOp, nodeWith, podOps } from '../../bench/sim/pods.ts';
import type { Sizes } from '../../bench/sim/sizes.ts';
import { planAttachment } from '../../plugin/call/attach.ts';
import { afterOps, makeMachine } from '../plugin/machine.ts';

const TINY: Sizes = { rounds: 1, pods: [1, 3], clusterHosts: 2, clusterPods: 2, kernelPods: 1 };

const PLAIN = {
  bold: (text: string) => text,
  dim: (text: string) => text,
  good: (text: string) => text,
  bad: (text: string) => text,
};

describe('the bench of the model', () => {
  it('measures everything, each value a number', async () => {
    const parts = [
      measurePlans,
      measureOperations,
      measurePackets,
      measureBuilding,
      measureCluster,
    ];
    const figures = [];
    for (const part of parts) figures.push(...(await part(TINY, () => Promise.resolve())));
    for (const { name, values } of figures) {
      expect(values, name).not.toEqual([]);
      expect(values.every(Number.isFinite), name).toBe(true);
    }
    const lines = formatFigures(figures, PLAIN).trimEnd().split('\n');
    expect(lines).toHaveLength(figures.length + 1);
  }, 60_000);

  it.each<[Target, boolean]>([
    [{ of: 'median', atMost: 2 }, true],
    [{ of: 'max', atMost: 2 }, false],
    [{ of: 'median', atLeast: 2 }, true],
    [{ of: 'min', atLeast: 2 }, false],
  ])('judges 1, 2 and 6 by %j', (target, met) => {
    const figure = { name: 'some', on: 'some', unit: 'ms', values: [1, 2, 6], target } as const;
    expect(judgeFigure(figure).met).toBe(met);
  });

  it('plans a pod as it would be planned beside all pods before it', () => {
    const count = 5;
    const [last] = podOps('node', count).slice(-1);
    const attachment = attachmentOf('node', count - 1);
    const machine = makeMachine(afterOps(nodeWith('node', count - 1), [netnsOp(attachment)]));
    const { ops } = planAttachment(machine.start(), { attachment, begun: undefined });
    expect(last).toEqual([netnsOp(attachment), ...ops]);
  });

  it('gives each pod a netns, a port of the bridge, an address, a route and its elements', () => {
    const { netns } = afterOps({ netns: {} }, [...NODE_OPS, ...podOps('node', 3).flat()]);
    expect(Object.keys(netns)).toEqual(['host', 'node-pod0', 'node-pod1', 'node-pod2']);
    const { links = {}, nftables = {} } = netns['host'] ?? {};
    const ports = Object.values(links).filter(({ port }) => port?.master === 'cni0');
    expect(ports).toHaveLength(3);
    const sets = Object.values(nftables).flatMap((table) => Object.values(table.sets));
    const masquerade = sets.find(({ name }) => name === 'masq4');
    expect(Object.keys(masquerade?.elements ?? {})).toEqual([
      '10.88.0.2',
      '10.88.0.3',
      '10.88.0.4',
    ]);
    const pod = netns['node-pod2'];
    expect(pod?.links['eth0']?.addresses.map(({ ip }) => ip)).toContain('10.88.0.4');
    expect(pod?.routes.map(({ destination }) => destination)).toContain('0.0.0.0/0');
  });
});
