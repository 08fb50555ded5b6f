// The plugin through a real client: containerd's CRI, asked for pods as a kubelet asks, on a node that starts out empty.
import path from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, onTestFailed, test } from 'vitest';
import { NO_RECORDS } from '../linux/executable/node.ts';
import { requirement } from '../requirements.ts';
import { startContainerd, type Containerd } from './containerd.ts';
import type { Pod, PortMapping } from './cri.ts';
import { type Footprint, observeFootprint } from './footprint.ts';
import { BUSYBOX_IMAGE } from './image.ts';
import { type Network, writeNetwork } from './network.ts';
import { waitFor } from './wait.ts';
import { askHostname, serveFolder } from './web.ts';

const NODE_PORT = 8080;
const EXECUTABLE = path.join(import.meta.dirname, '../../dist/cube-cni');

/** How a kubelet's pod says its limits, in bits a second; containerd adds a burst of half a gigabyte. */
const LIMITED = {
  'kubernetes.io/ingress-bandwidth': '20M',
  'kubernetes.io/egress-bandwidth': '10M',
};

const reason = requirement(
  'root',
  'iproute2',
  'nftables',
  'gcc',
  'busybox',
  'containerd',
  'executable',
);

/** A pod with a container that serves its own name on port 80, at all of its addresses. */
interface WebPod extends Pod {
  readonly container: string;
  readonly addresses: readonly string[];
}

describe.skipIf(reason)('pods of containerd', { timeout: 60_000 }, () => {
  let containerd: Containerd<Network>;
  let empty: Footprint;

  beforeAll(async () => {
    containerd = await startContainerd((node) => writeNetwork(node, ['portMappings', 'bandwidth']));
    empty = await observeFootprint(containerd.node, 'cni-');
    const website = path.join(containerd.node.folder, 'website');
    await containerd.node.run('sh', '-c', `mkdir ${website} && echo node >${website}/hostname`);
    containerd.node.serve(...serveFolder(website, NODE_PORT));
  }, 60_000);

  // A test that failed may have left some.
  afterEach(() => containerd.removePods(), 60_000);

  afterAll(() => containerd?.stop(), 60_000);

  test('have an address of each range, each its own', async () => {
    explainFailure();
    const pods = [await containerd.cri.runPod('a'), await containerd.cri.runPod('b')];
    const statuses = await Promise.all(pods.map((pod) => containerd.cri.podStatus(pod.id)));

    for (const status of statuses) {
      expect(status.ready).toBe(true);
      expect(status.ip).toMatch(/^10\.88\.0\.\d+$/);
      expect(status.additionalIps).toEqual([expect.stringMatching(/^fd88::[0-9a-f]+$/)]);
    }
    const addresses = statuses.flatMap((status) => [status.ip, ...status.additionalIps]);
    expect(new Set([...addresses, ...containerd.network.gateways]).size).toBe(6);
  });

  test('reach one another, the gateway, the node and themselves, by ping and TCP', async () => {
    explainFailure();
    const [a, b] = [await runWebPod('a'), await runWebPod('b')];

    for (const [from, to] of [
      [a, b],
      [b, a],
      [a, a],
    ] as const) {
      for (const address of to.addresses) {
        expect
          .soft(await ping(from, address), `${from.name} pings ${to.name}`)
          .toContain('1 packets received');
        expect.soft(await get(from, address, 80), `${from.name} asks ${to.name}`).toBe(to.name);
      }
    }
    for (const gateway of containerd.network.gateways) {
      expect.soft(await ping(a, gateway)).toContain('1 packets received');
      expect.soft(await get(a, gateway, NODE_PORT)).toBe('node');
    }
    // As the kubelet does for its probes.
    for (const address of a.addresses) {
      expect.soft(await getFromNode(address, 80)).toBe('a');
    }
  });

  test('are asked by `trace` from the netns of their containers, whose ids no alias holds', async () => {
    explainFailure();
    const { node, network } = containerd;
    // Where containerd keeps it by default.
    const tasks = 'io.containerd.runtime.v2.task';
    await node.run('mkdir', '-p', '/run/containerd');
    await node.run(
      'ln',
      '-sfn',
      path.join(node.folder, 'state', tasks),
      `/run/containerd/${tasks}`,
    );
    const { container, addresses } = await runWebPod('a');
    for (const from of [container, container.slice(0, 12)]) {
      const told = await node.run(EXECUTABLE, 'trace', from, network.gateways[0]);
      expect(told).toContain(`echo request ${addresses[0]} > ${network.gateways[0]}`);
      expect(told).toContain('✓');
    }
  });

  test('leave nothing behind: stop does it all, remove says DEL once more', async () => {
    explainFailure();
    const [a, b] = [await runWebPod('a'), await runWebPod('b')];
    const { netns } = await containerd.cri.podStatus(a.id);
    // What is looked for in vain below can be found here.
    const both = await observeFootprint(containerd.node, 'cni-');
    expect(both.netns).toHaveLength(2);
    expect(both.results).toContain(`podnet-${a.id}-eth0`);
    for (const pod of [a, b]) {
      expect(JSON.stringify(both)).toContain(`"${pod.addresses[0]}"`);
      expect(JSON.stringify(containerd.network.records())).toContain(pod.id);
    }
    expect(await portCount()).toBe(2);

    await containerd.cri.stopPod(a.id);
    expect(await portCount()).toBe(1);
    expect(JSON.stringify(await observeFootprint(containerd.node, 'cni-'))).not.toContain(
      `"${a.addresses[0]}"`,
    );
    expect(JSON.stringify(containerd.network.records())).not.toContain(a.id);
    expect(await ping(b, containerd.network.gateways[0])).toContain('1 packets received');

    const one = await observeFootprint(containerd.node, 'cni-');
    await containerd.cri.removePod(a.id);
    expect(await observeFootprint(containerd.node, 'cni-')).toEqual(one);
    expect(await callsFor(a)).toEqual([
      ['ADD', netns],
      ['DEL', netns],
      ['DEL', ''],
    ]);

    await containerd.cri.stopPod(b.id);
    expect(await observeFootprint(containerd.node, 'cni-')).toEqual(empty);
    expect(JSON.stringify(containerd.network.records())).not.toContain(b.id);
    await containerd.cri.removePod(b.id);
    expect(await observeFootprint(containerd.node, 'cni-')).toEqual(empty);
  });

  test('are reached by host ports, from the node and from pods, until they are stopped', async () => {
    explainFailure();
    const hostPort = 18080;
    const mapping = portMapping(hostPort);
    const [a, b] = [await runWebPod('a', [mapping]), await runWebPod('b')];
    const fromNode = (): Promise<string> => getFromNode('127.0.0.1', hostPort);
    expect(await fromNode()).toBe('a');
    for (const gateway of containerd.network.gateways) {
      expect.soft(await get(a, gateway, hostPort)).toBe('a');
      expect.soft(await get(b, gateway, hostPort)).toBe('a');
    }
    const second = containerd.cri.runPod('c', { portMappings: [mapping] });
    await expect(second).rejects.toThrow(
      `host port tcp ${hostPort} is taken by podnet/${a.id}/eth0`,
    );
    await containerd.cri.stopPod(a.id);
    expect(await fromNode()).toBe('nobody');
    const c = await runWebPod('c', [mapping]);
    expect(await fromNode()).toBe('c');
    for (const pod of [a, b, c]) await remove(pod.id);
    await containerd.removePods();
    expect(await observeFootprint(containerd.node, 'cni-')).toEqual(empty);
  });

  test('can be many at once, with host ports and limits', async () => {
    explainFailure();
    const names = Array.from({ length: 50 }, (_, index) => `many-${index}`);
    const pods = await Promise.all(
      names.map((name, i) =>
        containerd.cri.runPod(name, {
          portMappings: [portMapping(20_000 + i)],
          annotations: LIMITED,
        }),
      ),
    );
    const statuses = await Promise.all(pods.map((pod) => containerd.cri.podStatus(pod.id)));
    const addresses = statuses.flatMap((status) => [status.ip, ...status.additionalIps]);
    expect(new Set(addresses).size).toBe(100);
    expect(await portCount()).toBe(50);
    const { qdiscs } = await observeFootprint(containerd.node, 'cni-');
    const limits = qdiscs.filter((line) => line.startsWith('qdisc tbf '));
    expect(limits.filter((line) => line.includes('rate 20Mbit'))).toHaveLength(50);
    expect(limits.filter((line) => line.includes('rate 10Mbit'))).toHaveLength(50);

    await Promise.all(pods.map((pod) => remove(pod.id)));
    expect(await observeFootprint(containerd.node, 'cni-')).toEqual(empty);
    expect(containerd.network.records()).toEqual(NO_RECORDS);
  });

  test('are removed also when somebody took their netns away', async () => {
    explainFailure();
    const [a, b] = [await runWebPod('a', [portMapping(18080)]), await runWebPod('b')];
    const { netns = '' } = await containerd.cri.podStatus(a.id);
    await containerd.node.run('umount', netns);
    await containerd.node.run('rm', netns);
    await containerd.cri.stopPod(a.id);
    expect(await callsFor(a)).toEqual([
      ['ADD', netns],
      ['DEL', ''],
    ]);
    expect(await getFromNode('127.0.0.1', 18080)).toBe('nobody');
    expect(await ping(b, containerd.network.gateways[0])).toContain('1 packets received');
    await containerd.cri.removePod(a.id);
    await remove(b.id);
    expect(await observeFootprint(containerd.node, 'cni-')).toEqual(empty);
    expect(containerd.network.records()).toEqual(NO_RECORDS);
  });

  test('can be stopped and removed more than once', async () => {
    explainFailure();
    const [a, b] = [await runWebPod('a', [portMapping(18080)]), await runWebPod('b')];
    const { netns } = await containerd.cri.podStatus(a.id);
    await containerd.cri.stopPod(a.id);
    const [one, records] = [
      await observeFootprint(containerd.node, 'cni-'),
      containerd.network.records(),
    ];
    await containerd.cri.stopPod(a.id);
    await containerd.cri.removePod(a.id);
    await containerd.cri.removePod(a.id); // of which containerd knows nothing any more
    expect(await observeFootprint(containerd.node, 'cni-')).toEqual(one);
    expect(containerd.network.records()).toEqual(records);
    expect(await callsFor(a)).toEqual([
      ['ADD', netns],
      ['DEL', netns],
      ['DEL', ''],
      ['DEL', ''],
    ]);
    await remove(b.id);
    expect(await observeFootprint(containerd.node, 'cni-')).toEqual(empty);
    expect(containerd.network.records()).toEqual(NO_RECORDS);
  });

  test('outlive a containerd that is killed, and can be removed by the next one', async () => {
    explainFailure();
    const [a, b] = [await runWebPod('a'), await runWebPod('b', [portMapping(18080)])];
    await containerd.cri.stopPod(a.id);
    await containerd.kill();
    const expectWork = async (): Promise<void> => {
      expect(await getFromNode(b.addresses[0]!, 80)).toBe('b');
      expect(await getFromNode('127.0.0.1', 18080)).toBe('b');
    };
    await expectWork();

    await containerd.restart();
    await expectWork();
    expect(await ping(b, containerd.network.gateways[0])).toContain('1 packets received');
    await containerd.cri.removePod(a.id);
    await containerd.cri.stopPod(b.id);
    expect(await getFromNode('127.0.0.1', 18080)).toBe('nobody');
    expect(await observeFootprint(containerd.node, 'cni-')).toEqual(empty);
    expect(containerd.network.records()).toEqual(NO_RECORDS);
    await containerd.cri.removePod(b.id);
    expect(await containerd.cri.list()).toEqual([]);
  });

  test.each([1, 5, 10])(
    'leave nothing when containerd was killed while ten started, at ADD number %i',
    async (number) => {
      explainFailure();
      const before = (await containerd.network.calls()).length;
      const added = async (): Promise<number> => (await containerd.network.calls()).length - before;
      const started = Array.from({ length: 10 }, (_, i) =>
        containerd.cri.runPod(`half-${i}`, { portMappings: [portMapping(20_000 + i)] }),
      );
      const settled = Promise.allSettled(started);
      await waitFor(
        `ADD number ${number}`,
        () => 'there were fewer',
        async () => (await added()) >= number,
      );
      await containerd.kill();
      // Nobody was told of all of them; what plugins were doing they went on with.
      expect((await settled).map(({ status }) => status)).toContain('rejected');
      await containerd.restart();
      expect(await observeFootprint(containerd.node, 'cni-')).not.toEqual(empty);

      // What a kubelet does with pods that it did not start: it finds them in the list.
      await containerd.removePods();
      expect(containerd.network.records()).toEqual(NO_RECORDS);
      const { netns, ...left } = await observeFootprint(containerd.node, 'cni-');
      expect({ ...left, netns: [] }).toEqual(empty);
      // containerd writes down a pod's netns after ADD only: those it has forgotten, and DEL came without.
      for (const file of netns) {
        const links = await containerd.node.run('nsenter', `--net=${file}`, 'ip', 'link');
        expect(links).not.toContain('eth0');
        await containerd.node.run('umount', file);
      }
    },
  );

  async function runWebPod(
    name: string,
    portMappings: readonly PortMapping[] = [],
  ): Promise<WebPod> {
    const pod = await containerd.cri.runPod(name, { portMappings });
    const { ip, additionalIps } = await containerd.cri.podStatus(pod.id);
    const web = {
      ...pod,
      container: await containerd.cri.startContainer(pod, BUSYBOX_IMAGE, serveFolder('/etc', 80)),
      addresses: [ip, ...additionalIps],
    };
    // It has been started, but may not listen yet.
    let answer = '';
    await waitFor(
      `${name} to serve`,
      () => answer,
      async () => (answer = await get(web, '127.0.0.1', 80)) === name,
    );
    return web;
  }

  async function remove(id: string): Promise<void> {
    await containerd.cri.stopPod(id);
    await containerd.cri.removePod(id);
  }

  /** The plugin's calls for a pod: the verb and the netns of each. */
  async function callsFor({ id }: Pod): Promise<[string, string][]> {
    const calls = (await containerd.network.calls()).filter((call) => call.containerId === id);
    return calls.map(({ command, netns }) => [command, netns]);
  }

  /** One ping, without another try: a pod's network has to work when ADD is done. Returns what ping says. */
  async function ping(from: WebPod, address: string): Promise<string> {
    const { stdout, stderr } = await containerd.cri.exec(from.container, [
      'busybox',
      'ping',
      '-c1',
      '-W5',
      address,
    ]);
    return stdout + stderr;
  }

  /** The name of what serves at an address, or why there is no answer. */
  async function get(from: WebPod, address: string, port: number): Promise<string> {
    const command = askHostname(address, port);
    const { code, stdout, stderr } = await containerd.cri.exec(from.container, command);
    return code === 0 ? stdout.trim() : `exit ${code}: ${stderr}`;
  }

  /** The name of what serves at an address, for the node itself; `nobody` when there is no answer. */
  function getFromNode(address: string, port: number): Promise<string> {
    return containerd.node.run(...askHostname(address, port)).catch(() => 'nobody');
  }

  /** How many links are ports of the bridge. */
  async function portCount(): Promise<number> {
    const { links } = await observeFootprint(containerd.node, 'cni-');
    return links.filter((link) => link.master === containerd.network.bridge).length;
  }

  function explainFailure(): void {
    onTestFailed(async () => {
      console.error(`containerd's log ends:\n${await containerd.log()}`);
      console.error(`The plugin's log ends:\n${await containerd.network.log()}`);
    });
  }
});

/** A port of the node that leads to where pods serve. */
function portMapping(hostPort: number): PortMapping {
  return { protocol: 'TCP', hostPort, containerPort: 80 };
}
