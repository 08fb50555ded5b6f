// The plugin through a real client: containerd's CRI, asked for pods as a kubelet asks, on a node that starts out empty.
import { Database } from 'bun:sqlite';
import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, onTestFailed, test } from 'vitest';
import { requirement } from '../requirements.ts';
import { startContainerd, type Containerd, type Network } from './containerd.ts';
import type { Pod, PortMapping } from './cri.ts';
import { BUSYBOX_IMAGE } from './image.ts';

const dataDir = (folder: string): string => path.join(folder, 'data');
const logFile = (folder: string): string => path.join(folder, 'plugin.log');

const EXECUTABLE = path.join(import.meta.dirname, '../../dist/cube-cni');

const NETWORK: Network = {
  plugin: { type: 'cube-cni', executable: EXECUTABLE },
  // Under that name it is the reference's plugin, which containerd calls for every pod.
  others: { loopback: EXECUTABLE },
  conflist: (folder) => ({
    cniVersion: '1.0.0',
    name: 'podnet',
    plugins: [
      {
        type: 'cube-cni',
        capabilities: { portMappings: true },
        bridge: 'cni0',
        isDefaultGateway: true,
        ipMasq: true,
        hairpinMode: true,
        dataDir: dataDir(folder),
        logFile: logFile(folder),
        ipam: {
          type: 'cube-ipam',
          ranges: [[{ subnet: '10.88.0.0/24' }], [{ subnet: 'fd88::/64' }]],
        },
      },
    ],
  }),
};
const GATEWAYS = ['10.88.0.1', 'fd88::1'];
const NODE_PORT = 8080;

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
  let containerd: Containerd;
  let empty: object;

  beforeAll(async () => {
    containerd = await startContainerd(NETWORK);
    empty = await observeNode();
    const website = path.join(containerd.folder, 'website');
    await containerd.run('sh', '-c', `mkdir ${website} && echo node >${website}/hostname`);
    containerd.serve('busybox', 'httpd', '-f', '-p', `${NODE_PORT}`, '-h', website);
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
    expect(new Set([...addresses, ...GATEWAYS]).size).toBe(6);
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
    for (const gateway of GATEWAYS) {
      expect.soft(await ping(a, gateway)).toContain('1 packets received');
      expect.soft(await get(a, gateway, NODE_PORT)).toBe('node');
    }
    // As the kubelet does for its probes.
    for (const address of a.addresses) {
      expect.soft(await containerd.run('busybox', ...wget(address, 80))).toBe('a');
    }
  });

  test('leave nothing behind: stop does it all, remove says DEL once more', async () => {
    explainFailure();
    const [a, b] = [await runWebPod('a'), await runWebPod('b')];
    const { netns } = await containerd.cri.podStatus(a.id);
    const both = JSON.stringify(await observeNode());
    for (const pod of [a, b]) {
      // What is looked for in vain below can be found here.
      expect(both).toContain(`"${pod.addresses[0]}"`);
      expect(await readRecords()).toContain(pod.id);
    }
    expect(await portCount()).toBe(2);

    await containerd.cri.stopPod(a.id);
    expect(await portCount()).toBe(1);
    expect(JSON.stringify(await observeNode())).not.toContain(`"${a.addresses[0]}"`);
    expect(await readRecords()).not.toContain(a.id);
    expect(await ping(b, GATEWAYS[0]!)).toContain('1 packets received');

    const one = await observeNode();
    await containerd.cri.removePod(a.id);
    expect(await observeNode()).toEqual(one);
    const calls = (await containerd.calls()).filter((call) => call.containerId === a.id);
    expect(calls.map((call) => [call.command, call.netns])).toEqual([
      ['ADD', netns],
      ['DEL', netns],
      ['DEL', ''],
    ]);

    await containerd.cri.stopPod(b.id);
    expect(await observeNode()).toEqual(empty);
    expect(await readRecords()).not.toContain(b.id);
    await containerd.cri.removePod(b.id);
    expect(await observeNode()).toEqual(empty);
  });

  test('are reached by host ports, from the node and from pods, until they are stopped', async () => {
    explainFailure();
    const [hostPort, containerPort] = [18080, 80];
    const mapping = { protocol: 'TCP', hostPort, containerPort } as const;
    const [a, b] = [await runWebPod('a', [mapping]), await runWebPod('b')];
    const fromNode = (): Promise<string> =>
      containerd.run('busybox', ...wget('127.0.0.1', hostPort)).catch(() => 'nobody');
    expect(await fromNode()).toBe('a');
    for (const gateway of GATEWAYS) {
      expect.soft(await get(a, gateway, hostPort)).toBe('a');
      expect.soft(await get(b, gateway, hostPort)).toBe('a');
    }
    const second = containerd.cri.runPod('c', [mapping]);
    await expect(second).rejects.toThrow(
      `host port tcp ${hostPort} is taken by podnet/${a.id}/eth0`,
    );
    await containerd.cri.stopPod(a.id);
    expect(await fromNode()).toBe('nobody');
    const c = await runWebPod('c', [mapping]);
    expect(await fromNode()).toBe('c');
    for (const pod of [a, b, c]) await remove(pod.id);
    await containerd.removePods();
    expect(await observeNode()).toEqual(empty);
  });

  test('can be many at once', async () => {
    explainFailure();
    const names = Array.from({ length: 50 }, (_, index) => `many-${index}`);
    const pods = await Promise.all(
      names.map((name, i) =>
        containerd.cri.runPod(name, [{ protocol: 'TCP', hostPort: 20_000 + i, containerPort: 80 }]),
      ),
    );
    const statuses = await Promise.all(pods.map((pod) => containerd.cri.podStatus(pod.id)));
    const addresses = statuses.flatMap((status) => [status.ip, ...status.additionalIps]);
    expect(new Set(addresses).size).toBe(100);
    expect(await portCount()).toBe(50);

    await Promise.all(pods.map((pod) => remove(pod.id)));
    expect(await observeNode()).toEqual(empty);
    const records = await readRecords();
    for (const pod of pods) expect(records).not.toContain(pod.id);
  });

  test('outlive a containerd that is killed, and can be removed by the next one', async () => {
    explainFailure();
    const [a, b] = [await runWebPod('a'), await runWebPod('b')];
    await containerd.cri.stopPod(a.id);
    await containerd.kill();
    expect(await containerd.run('busybox', ...wget(b.addresses[0]!, 80))).toBe('b');

    await containerd.restart();
    expect(await ping(b, GATEWAYS[0]!)).toContain('1 packets received');
    await containerd.cri.removePod(a.id);
    await remove(b.id);
    expect(await containerd.cri.list()).toEqual([]);
    expect(await observeNode()).toEqual(empty);
    const records = await readRecords();
    for (const pod of [a, b]) expect(records).not.toContain(pod.id);
  });

  async function runWebPod(name: string, ports: readonly PortMapping[] = []): Promise<WebPod> {
    const pod = await containerd.cri.runPod(name, ports);
    const { ip, additionalIps } = await containerd.cri.podStatus(pod.id);
    const command = ['busybox', 'httpd', '-f', '-p', '80', '-h', '/etc'];
    const web = {
      ...pod,
      container: await containerd.cri.startContainer(pod, BUSYBOX_IMAGE, command),
      addresses: [ip, ...additionalIps],
    };
    // It has been started, but may not listen yet.
    for (let tries = 0; tries < 50 && (await get(web, '127.0.0.1', 80)) !== name; tries++)
      await sleep(20);
    return web;
  }

  async function remove(id: string): Promise<void> {
    await containerd.cri.stopPod(id);
    await containerd.cri.removePod(id);
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
    const { code, stdout, stderr } = await containerd.cri.exec(from.container, [
      'busybox',
      ...wget(address, port),
    ]);
    return code === 0 ? stdout.trim() : `exit ${code}: ${stderr}`;
  }

  /** What CNI may change on the node outside of pods. */
  async function observeNode(): Promise<{
    links: { ifname: string; master?: string }[];
    routes: object[];
    ruleset: object[];
  }> {
    const [links, routes4, routes6, nft] = await Promise.all([
      containerd.run('ip', '-json', 'link'),
      containerd.run('ip', '-json', '-4', 'route', 'show', 'table', 'all'),
      containerd.run('ip', '-json', '-6', 'route', 'show', 'table', 'all'),
      containerd.run('nft', '-j', 'list', 'ruleset'),
    ]);
    return {
      links: JSON.parse(links),
      routes: [...JSON.parse(routes4), ...JSON.parse(routes6)],
      ruleset: JSON.parse(nft).nftables,
    };
  }

  /** How many links are ports of the bridge. */
  async function portCount(): Promise<number> {
    return (await observeNode()).links.filter((link) => link.master === 'cni0').length;
  }

  /** All that the plugin has stored, as text. */
  async function readRecords(): Promise<string> {
    const folder = dataDir(containerd.folder);
    const files = (await readdir(folder, { recursive: true, withFileTypes: true }))
      .filter((entry) => entry.isFile())
      .map((entry) => path.join(entry.parentPath, entry.name));
    const texts = await Promise.all(
      files.map(async (file) => {
        const text = await readFile(file, 'latin1');
        // Pages of a database keep deleted rows, so look at its tables.
        if (text.startsWith('SQLite format 3\0')) return dumpDatabase(file);
        return /-(wal|shm)$/.test(file) ? '' : text;
      }),
    );
    return texts.join('\n');
  }

  function explainFailure(): void {
    onTestFailed(async () => {
      const plugin = await readFile(logFile(containerd.folder), 'utf8').catch(() => '(none)');
      console.error(`containerd's log ends:\n${await containerd.log()}`);
      console.error(`The plugin's log ends:\n${plugin.split('\n').slice(-30).join('\n')}`);
    });
  }
});

/** A busybox command that prints the name of what serves at an address. */
function wget(address: string, port: number): string[] {
  const host = address.includes(':') ? `[${address}]` : address;
  // Not wget's own -T: it crashes in Debian 12's busybox-static.
  return ['timeout', '5', 'busybox', 'wget', '-q', '-O-', `http://${host}:${port}/hostname`];
}

function dumpDatabase(file: string): string {
  using database = new Database(file, { readonly: true });
  const tables = database
    .query<{ name: string }, []>("SELECT name FROM sqlite_master WHERE type = 'table'")
    .all();
  return tables
    .map(({ name }) => `${name} ${JSON.stringify(database.query(`SELECT * FROM "${name}"`).all())}`)
    .join('\n');
}
