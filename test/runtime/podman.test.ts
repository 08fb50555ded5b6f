// The plugin through podman's CNI backend: another client, which gives addresses by CNI_ARGS and calls DEL at stop.
import path from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, onTestFailed, test } from 'vitest';
import { NO_RECORDS } from '../linux/executable/node.ts';
import { requirement } from '../requirements.ts';
import { type Footprint, observeFootprint } from './footprint.ts';
import { BUSYBOX_IMAGE } from './image.ts';
import { startPodman, type Podman } from './podman.ts';
import { waitFor } from './wait.ts';
import { askHostname, serveFolder } from './web.ts';

const reason = requirement('root', 'iproute2', 'nftables', 'busybox', 'podman', 'executable');

const HOST_PORT = 18080;
const EXECUTABLE = path.join(import.meta.dirname, '../../dist/cube-cni');

/** A container that serves its own name on port 80. */
interface WebContainer {
  readonly id: string;
  readonly name: string;
  /** Its addresses, IPv4 first. */
  readonly addresses: readonly [string, string];
}

describe.skipIf(reason)('containers of podman', { timeout: 60_000 }, () => {
  let podman: Podman;
  let empty: Footprint;

  beforeAll(async () => {
    podman = await startPodman();
    empty = await observeFootprint(podman.node, 'netns-');
  }, 60_000);

  // A test that failed may have left some.
  afterEach(() => podman.removeContainers(), 60_000);

  afterAll(() => podman?.stop(), 60_000);

  test('reach one another, the gateway and themselves, by ping and TCP', async () => {
    explainFailure();
    const [a, b] = [await runWeb('a'), await runWeb('b')];
    expect(new Set([...a.addresses, ...b.addresses, ...podman.network.gateways]).size).toBe(6);
    for (const [from, to] of [
      [a, b],
      [b, a],
      [a, a],
    ] as const) {
      for (const address of to.addresses) {
        expect.soft(await ping(from, address)).toContain('1 packets received');
        expect.soft(await get(from, address, 80)).toBe(to.name);
      }
    }
    for (const gateway of podman.network.gateways)
      expect.soft(await ping(a, gateway)).toContain('1 packets received');
  });

  test('are reached by a host port, from the node and from other containers', async () => {
    explainFailure();
    const [a, b] = [await runWeb('a', '--publish', `${HOST_PORT}:80`), await runWeb('b')];
    // podman itself listens at the port, to keep others away from it: to be served is to be led past that.
    expect(await getFromNode('127.0.0.1', HOST_PORT)).toBe('a');
    for (const gateway of podman.network.gateways) {
      expect.soft(await getFromNode(gateway, HOST_PORT)).toBe('a');
      expect.soft(await get(b, gateway, HOST_PORT)).toBe('a');
      expect.soft(await get(a, gateway, HOST_PORT)).toBe('a');
    }
  });

  test('have the addresses that are asked for: one by CNI_ARGS, one of each family by runtimeConfig', async () => {
    explainFailure();
    const mac = '02:00:00:00:00:77';
    const a = await runWeb('a', '--ip', '10.88.0.77', '--mac-address', mac);
    const b = await runWeb('b', '--ip', '10.88.0.78', '--ip6', 'fd88::78');
    expect(a.addresses[0]).toBe('10.88.0.77');
    expect(b.addresses).toEqual(['10.88.0.78', 'fd88::78']);
    expect(await inContainer(a, 'busybox', 'cat', '/sys/class/net/eth0/address')).toBe(mac);
    expect(await inContainer(a, 'busybox', 'ip', 'address')).toContain('inet 10.88.0.77/24 ');
    expect(await get(b, '10.88.0.77', 80)).toBe('a');
    expect(await get(a, 'fd88::78', 80)).toBe('b');

    await expect(runWeb('c', '--ip', '10.88.0.77')).rejects.toThrow(
      'requested IP address 10.88.0.77 is not available',
    );
  });

  test('cannot have the host port of another, which is named and goes on serving', async () => {
    explainFailure();
    const publish = ['--publish', `${HOST_PORT}:80`];
    const a = await runWeb('a', ...publish);
    const [alone, records] = [
      await observeFootprint(podman.node, 'netns-'),
      podman.network.records(),
    ];
    await expect(runWeb('b', ...publish)).rejects.toThrow(
      `host port tcp ${HOST_PORT} is taken by podnet/${a.id}/eth0`,
    );
    expect(await observeFootprint(podman.node, 'netns-')).toEqual(alone);
    expect(podman.network.records()).toEqual(records);
    expect(await getFromNode('127.0.0.1', HOST_PORT)).toBe('a');

    await podman.podman('rm', '--force', '--time', '0', 'a');
    await podman.podman('start', 'b');
    await serves('b');
    expect(await getFromNode('127.0.0.1', HOST_PORT)).toBe('b');
  });

  test('leave nothing behind when they are removed by force', async () => {
    explainFailure();
    const [a, b] = [await runWeb('a', '--publish', `${HOST_PORT}:80`), await runWeb('b')];
    // What is looked for in vain below can be found here.
    const both = await observeFootprint(podman.node, 'netns-');
    expect(both.netns).toHaveLength(2);
    expect(both.links).toHaveLength(empty.links.length + 3);
    expect(both.results).toContain(`podnet-${a.id}-eth0`);
    expect(JSON.stringify(both.ruleset)).toContain(`"${a.addresses[0]}"`);
    expect(JSON.stringify(podman.network.records())).toContain(a.id);

    await podman.podman('rm', '--force', '--time', '0', 'a');
    const one = await observeFootprint(podman.node, 'netns-');
    expect(one.results).toEqual([`podnet-${b.id}-eth0`]);
    expect(JSON.stringify([one, podman.network.records()])).not.toContain(a.id);
    expect(JSON.stringify(one.ruleset)).not.toContain(`${HOST_PORT}`);
    expect(await getFromNode('127.0.0.1', HOST_PORT)).toBe('nobody');
    expect(await ping(b, podman.network.gateways[0])).toContain('1 packets received');

    await podman.podman('rm', '--force', '--time', '0', 'b');
    expect(await observeFootprint(podman.node, 'netns-')).toEqual(empty);
    expect(podman.network.records()).toEqual(NO_RECORDS);
  });

  test('can be stopped and started again', async () => {
    explainFailure();
    const a = await runWeb('a', '--publish', `${HOST_PORT}:80`);
    await podman.podman('stop', '--time', '0', 'a');
    expect(await getFromNode('127.0.0.1', HOST_PORT)).toBe('nobody');
    expect(await observeFootprint(podman.node, 'netns-')).toEqual(empty);
    expect(podman.network.records()).toEqual(NO_RECORDS);

    await podman.podman('start', 'a');
    await serves('a');
    expect(await getFromNode('127.0.0.1', HOST_PORT)).toBe('a');
    const calls = (await podman.network.calls()).filter((call) => call.containerId === a.id);
    expect(calls.map(({ command }) => command)).toEqual(['ADD', 'DEL', 'ADD']);
    expect(calls.map(({ netns }) => netns)).not.toContain('');
  });

  test('leave nothing behind when they end by themselves', async () => {
    explainFailure();
    const publish = ['--publish', `${HOST_PORT}:80`];
    const id = await podman.run(['--name', 'a', ...publish], ['busybox', 'true']);
    // By `podman container cleanup`, which conmon runs when it sees the end.
    await waitFor(
      'the network to be cleaned up',
      () => JSON.stringify(podman.network.records()),
      async () => (await observeFootprint(podman.node, 'netns-')).netns.length === 0,
    );
    expect(await observeFootprint(podman.node, 'netns-')).toEqual(empty);
    expect(podman.network.records()).toEqual(NO_RECORDS);
    const calls = (await podman.network.calls()).filter((call) => call.containerId === id);
    expect(calls.map(({ command }) => command)).toEqual(['ADD', 'DEL']);
  });

  test('are found by `trace` where no alias of ours names them, also without a network', async () => {
    explainFailure();
    const a = await runWeb('a');
    const traced = (from: string, to: string): Promise<string> =>
      podman.node.run(EXECUTABLE, 'trace', from, to);
    const [gateway] = podman.network.gateways;
    const alone = ['--network', 'none', '--cgroup-parent', `/${podman.node.name}`];
    const sleep = [BUSYBOX_IMAGE, 'busybox', 'sleep', '600'];
    const none = await podman.podman('run', '--detach', ...alone, ...sleep);
    // Twelve digits are what podman shows, and what no alias is compared with.
    expect(await traced(a.id.slice(0, 12), gateway)).toContain('✓');
    expect(await traced(none.slice(0, 12), '127.0.0.1')).toMatch(/\/proc\/\d+\/ns\/net lo/);
    await podman.podman('stop', '--time', '0', none);
    await expect(traced(none, '127.0.0.1')).rejects.toThrow('has no process that runs');
    await expect(traced('0123456789ab', '127.0.0.1')).rejects.toThrow(
      'files of containers were looked for in /run/containerd/',
    );
  });

  async function runWeb(name: string, ...options: string[]): Promise<WebContainer> {
    const names = ['--name', name, '--hostname', name];
    const id = await podman.run([...names, ...options], serveFolder('/etc', 80));
    await serves(name);
    const network = `(index .NetworkSettings.Networks "${podman.network.name}")`;
    const format = `{{${network}.IPAddress}} {{${network}.GlobalIPv6Address}}`;
    const [ip = '', ip6 = ''] = (await podman.podman('inspect', '--format', format, name)).split(
      ' ',
    );
    return { id, name, addresses: [ip, ip6] };
  }

  /** Waits for a container that has been started, but may not listen yet. */
  async function serves(name: string): Promise<void> {
    let answer = '';
    await waitFor(
      `${name} to serve`,
      () => answer,
      async () => (answer = await get({ name }, '127.0.0.1', 80)) === name,
    );
  }

  function inContainer({ name }: { name: string }, ...command: readonly string[]): Promise<string> {
    return podman.podman('exec', name, ...command);
  }

  /** One ping, without another try: the network has to work when ADD is done. Returns what ping says. */
  function ping(from: WebContainer, address: string): Promise<string> {
    return inContainer(from, 'busybox', 'ping', '-c1', '-W5', address).catch(String);
  }

  /** The name of what serves at an address, or why there is no answer. */
  function get(from: { name: string }, address: string, port: number): Promise<string> {
    return inContainer(from, ...askHostname(address, port)).catch(String);
  }

  /** The same for the node itself; `nobody` when there is no answer. */
  function getFromNode(address: string, port: number): Promise<string> {
    return podman.node.run(...askHostname(address, port)).catch(() => 'nobody');
  }

  function explainFailure(): void {
    onTestFailed(async () => {
      console.error(`The plugin's log ends:\n${await podman.network.log()}`);
    });
  }
});
