/** Who reaches pods with an ingress policy, by pings; and what is left when they go. */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { requirement } from '../../requirements.ts';
import { kernelState } from './kernel-state.ts';
import {
  type Call,
  NO_RECORDS,
  type Node,
  addressOf,
  errorOf,
  joinTo,
  makeNode,
  recordsOf,
  runIn,
} from './node.ts';

const skip = requirement('root', 'iproute2', 'nftables', 'executable', 'busybox');

interface Pod {
  readonly call: Call & { readonly netns: string };
  readonly ip: string;
}

/** A network with a bridge and a subnet of its own. */
function configFor(node: Node, number: number, ingressPolicy: string): Record<string, unknown> {
  return node.config({
    name: `net${number}`,
    bridge: `cni${number}`,
    isDefaultGateway: true,
    ipMasq: false,
    ingressPolicy,
    ipam: { type: 'cube-ipam', subnet: `10.7.${number}.0/24` },
  });
}

function addPod(node: Node, containerId: string, config: unknown): Pod {
  const call = { netns: node.addPod(), containerId, config };
  return { call, ip: addressOf(node.add(call)) };
}

/** From which of these addresses does one ping come back? All are asked at once. */
function reached(netns: string, addresses: readonly string[]): string[] {
  const probes = addresses.map((ip) => `{ busybox ping -c 1 -W 1 ${ip} >&2 && echo ${ip}; } &`);
  const lines = runIn(netns, 'sh', '-c', `${probes.join('\n')}\nwait`).split('\n');
  return addresses.filter((ip) => lines.includes(ip));
}

function stateOf({ netns }: Node): unknown {
  return { ...kernelState(netns), forwarding: null };
}

describe.skipIf(skip)('an ingress policy', () => {
  test('keeps pods of other bridges out, and where they are isolated those of the same', () => {
    const node = makeNode();
    const outside = node.addPod();
    joinTo(node, 'out0', outside);
    node.run('ip', 'address', 'add', '192.0.2.1/24', 'dev', 'out0');
    node.run('ip', 'link', 'set', 'out0', 'up');
    runIn(outside, 'ip', 'address', 'add', '192.0.2.2/24', 'dev', 'in0');
    runIn(outside, 'ip', 'link', 'set', 'in0', 'up');
    runIn(outside, 'ip', 'route', 'add', 'default', 'via', '192.0.2.1');
    const [same, isolated, open] = ['same-bridge', 'isolated', 'open'].map((policy, i) => {
      const config = configFor(node, i, policy);
      return [addPod(node, `${policy}-1`, config), addPod(node, `${policy}-2`, config)];
    }) as [[Pod, Pod], [Pod, Pod], [Pod, Pod]];
    const all = [...same, ...isolated, ...open].map(({ ip }) => ip);
    const from = ({ call, ip }: Pod): string[] =>
      reached(
        call.netns,
        all.filter((other) => other !== ip),
      );
    const [opened, others] = [open.map(({ ip }) => ip), '192.0.2.2'];
    expect(from(same[0])).toEqual([same[1].ip, ...opened]);
    expect(from(isolated[0])).toEqual(opened);
    expect(from(open[0])).toEqual(all.filter((ip) => ip !== open[0].ip));
    // The host and what is outside come in, and pods go out.
    expect(reached(node.netns, all)).toEqual(all);
    expect(reached(outside, all)).toEqual(all);
    for (const pod of [same[0], isolated[0]])
      expect(reached(pod.call.netns, [others])).toEqual([others]);
  });

  test('goes with the last pod that has it', () => {
    const node = makeNode();
    const before = stateOf(node);
    const first = addPod(node, 'a', configFor(node, 1, 'same-bridge'));
    const alone = stateOf(node);
    const second = addPod(node, 'b', configFor(node, 2, 'isolated'));
    expect(reached(first.call.netns, [second.ip])).toEqual([]);
    node.del(second.call);
    expect(stateOf(node)).toEqual(alone);
    node.del(first.call);
    expect(stateOf(node)).toEqual(before);
    expect(recordsOf(node.dataDir)).toEqual(NO_RECORDS);
  });

  test('is checked, and known again when the state file is lost', () => {
    const node = makeNode();
    const before = stateOf(node);
    const config = { ...configFor(node, 1, 'isolated'), cniVersion: '1.1.0' };
    const call = { netns: node.addPod(), config };
    const checked = { ...call, config: { ...config, prevResult: node.add(call) } };
    for (const file of ['state.db', 'state.db-wal', 'state.db-shm'])
      rmSync(join(node.dataDir, file), { force: true });
    expect(node.call('CHECK', checked)).toMatchObject({ status: 0, stdout: '', stderr: '' });
    node.run('nft', 'delete', 'element', 'inet', 'cube-cni', 'policed', '{ "cni1" }');
    expect(errorOf(node.call('CHECK', checked))).toMatchObject({
      code: 103,
      details: expect.stringContaining('policed has no such element for cni1'),
    });
    node.del(call);
    expect(stateOf(node)).toEqual(before);
  });

  test.each([
    [
      'that is none',
      { ingressPolicy: 'closed' },
      'ingressPolicy: it must be one of open, same-bridge, isolated, not "closed"',
    ],
    [
      'without a bridge',
      { mode: 'ptp' },
      'ingressPolicy: it is about a bridge, which mode "ptp" has not',
    ],
  ])('is refused: one %s', (_what, changes, problem) => {
    const node = makeNode();
    const config = { ...configFor(node, 1, 'isolated'), ...changes };
    expect(errorOf(node.call('ADD', { netns: node.addPod(), config }))).toMatchObject({
      code: 7,
      msg: `invalid network configuration: ${problem}`,
    });
  });
});
