/** Addresses from other IPAM plugins: what they give is in the pod, and they get it back whatever happens. */
import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { echo } from '../../../backends/linux/echo.ts';
import { parseIp } from '../../../model/ip.ts';
import { requirement } from '../../requirements.ts';
import { ipAddresses, kernelState, linkNames, mainRoutes, masqueraded } from './kernel-state.ts';
import { type Call, NO_RECORDS, type Node, errorOf, makeNode, recordsOf } from './node.ts';

const skip = requirement('root', 'iproute2', 'nftables', 'executable');
const skipReference = skip || requirement('cni-plugins');

/** What must be as it was: all but forwarding, which is never switched off again. */
function view(node: Node): unknown {
  return [{ ...kernelState(node.netns), forwarding: null }, recordsOf(node.dataDir)];
}

/** The routes of a netns as `destination via gateway`. */
function routesVia(netns: string): string[] {
  return mainRoutes(netns)
    .map((route) => JSON.parse(route) as { dst: string; gateway?: string })
    .map(({ dst, gateway }) => (gateway === undefined ? dst : `${dst} via ${gateway}`));
}

async function until(what: string, holds: () => boolean): Promise<void> {
  const end = performance.now() + 5000;
  while (!holds()) {
    if (performance.now() > end) throw new Error(`waited in vain until ${what}`);
    await Bun.sleep(5);
  }
}

/** A configuration whose addresses host-local gives, with its reservations in the node's folder. */
function hostLocal(node: Node, ipam: Readonly<Record<string, unknown>> = {}) {
  return node.config({
    ipam: {
      type: 'host-local',
      dataDir: join(node.folder, 'host-local'),
      ranges: [[{ subnet: '10.7.0.0/24' }], [{ subnet: 'fd07::/64' }]],
      routes: [{ dst: '0.0.0.0/0' }, { dst: '::/0' }, { dst: '10.99.0.0/16', gw: '10.7.0.9' }],
      ...ipam,
    },
  });
}

/** The addresses that host-local holds. */
function heldByHostLocal(node: Node): string[] {
  const folder = join(node.folder, 'host-local/podnet');
  if (!existsSync(folder)) return [];
  return readdirSync(folder)
    .filter((name) => /^[0-9a-f]/.test(name) && name !== 'lock')
    .filter((name) => !name.startsWith('last_'))
    .toSorted();
}

describe.skipIf(skipReference)('host-local', () => {
  test('what it gives is in the pod and in the result, and DEL gives it back', () => {
    const node = makeNode();
    const before = view(node);
    const netns = node.addPod();
    const resolvConf = join(node.folder, 'resolv.conf');
    writeFileSync(resolvConf, 'nameserver 10.7.0.53\nsearch pods.test\n');
    const config = hostLocal(node, { resolvConf });
    const result = node.add({ netns, config });
    expect(result).toMatchObject({
      ips: [
        { interface: 2, address: '10.7.0.2/24', gateway: '10.7.0.1' },
        { interface: 2, address: 'fd07::2/64', gateway: 'fd07::1' },
      ],
      routes: [
        { dst: '0.0.0.0/0', gw: '10.7.0.1' },
        { dst: '::/0', gw: 'fd07::1' },
        { dst: '10.99.0.0/16', gw: '10.7.0.9' },
      ],
      dns: { nameservers: ['10.7.0.53'], search: ['pods.test'] },
    });
    expect(ipAddresses(netns, 'eth0')).toEqual(['10.7.0.2/24', 'fd07::2/64']);
    expect(ipAddresses(node.netns, 'cni0')).toEqual(['10.7.0.1/24', 'fd07::1/64']);
    expect(routesVia(netns)).toEqual([
      '10.7.0.0/24',
      '10.99.0.0/16 via 10.7.0.9',
      'default via 10.7.0.1',
      'default via fd07::1',
      'fd07::/64',
    ]);
    expect(masqueraded(node.netns)).toEqual(['10.7.0.2', 'fd07::2']);
    expect(heldByHostLocal(node)).toEqual(['10.7.0.2', 'fd07::2']);
    const call = { netns, config: { ...config, prevResult: result } };
    expect(node.call('CHECK', call)).toMatchObject({ status: 0, stdout: '', stderr: '' });
    node.del(call);
    expect([heldByHostLocal(node), view(node)]).toEqual([[], before]);
    node.del(call);
    expect([heldByHostLocal(node), view(node)]).toEqual([[], before]);
  });

  test('DEL of a netns that is gone, and without prevResult', () => {
    const node = makeNode();
    const before = view(node);
    const netns = node.addPod();
    node.add({ netns, config: hostLocal(node) });
    Bun.spawnSync(['ip', 'netns', 'del', netns.replace('/run/netns/', '')]);
    node.del({ netns: '', config: hostLocal(node) });
    expect(heldByHostLocal(node)).toEqual([]);
    expect(view(node)).toEqual(before);
  });

  test('DEL asks the plugin that gave, whatever the configuration says by now', () => {
    const node = makeNode();
    const netns = node.addPod();
    node.add({ netns, config: hostLocal(node) });
    node.del({ netns });
    expect(heldByHostLocal(node)).toEqual([]);
  });

  test('CHECK tells that the reservation is gone', () => {
    const node = makeNode();
    const netns = node.addPod();
    const config = hostLocal(node);
    const prevResult = node.add({ netns, config });
    for (const name of heldByHostLocal(node))
      Bun.spawnSync(['rm', join(node.folder, 'host-local/podnet', name)]);
    const error = errorOf(node.call('CHECK', { netns, config: { ...config, prevResult } }));
    expect(error.msg).toContain('host-local: Failed to find address added by container pod-a');
  });

  test('has nothing left: its own error comes back, and nothing stays', () => {
    const node = makeNode();
    const config = hostLocal(node, {
      ranges: [[{ subnet: '10.7.0.0/24', rangeStart: '10.7.0.2', rangeEnd: '10.7.0.2' }]],
      routes: [],
    });
    node.add({ netns: node.addPod(), config });
    const before = view(node);
    const netns = node.addPod();
    const error = errorOf(node.call('ADD', { netns, containerId: 'pod-b', config }));
    expect(error).toMatchObject({
      code: 999,
      msg: expect.stringContaining('no IP addresses available in range set: 10.7.0.2-10.7.0.2'),
    });
    expect(view(node)).toEqual(before);
    expect(linkNames(netns)).toEqual([]);
    expect(heldByHostLocal(node)).toEqual(['10.7.0.2']);
  });

  test('in mode ptp', () => {
    const node = makeNode();
    const before = view(node);
    const netns = node.addPod();
    const config = { ...hostLocal(node, { routes: [{ dst: '0.0.0.0/0' }] }), mode: 'ptp' };
    expect(node.add({ netns, config }).ips.map(({ address }) => address)).toEqual([
      '10.7.0.2/32',
      'fd07::2/128',
    ]);
    expect(ipAddresses(netns, 'eth0')).toEqual(['10.7.0.2/32', 'fd07::2/128']);
    node.del({ netns, config });
    expect(heldByHostLocal(node)).toEqual([]);
    expect(view(node)).toEqual(before);
  });
});

describe.skipIf(skipReference)('static', () => {
  test.each([
    ['0.2.0', { ip4: { ip: '10.7.0.5/24', gateway: '10.7.0.1' }, dns: {} }],
    ['0.3.1', { ips: [{ version: '4', address: '10.7.0.5/24', gateway: '10.7.0.1' }] }],
    ['1.0.0', { ips: [{ address: '10.7.0.5/24', gateway: '10.7.0.1' }] }],
  ])('version %s', (cniVersion, result) => {
    const node = makeNode();
    const before = view(node);
    const netns = node.addPod();
    const addresses = [{ address: '10.7.0.5/24', gateway: '10.7.0.1' }];
    const config = node.config({ cniVersion, ipam: { type: 'static', addresses } });
    expect(node.add({ netns, config })).toMatchObject({ cniVersion, ...result });
    expect(ipAddresses(netns, 'eth0')).toEqual(['10.7.0.5/24']);
    node.del({ netns, config });
    expect(view(node)).toEqual(before);
  });

  test('an address that another pod has: that pod keeps all of it', () => {
    const node = makeNode();
    const before = view(node);
    const ipam = { type: 'static', addresses: [{ address: '10.7.0.5/24', gateway: '10.7.0.1' }] };
    const [a, b] = [node.addPod(), node.addPod()];
    const config = node.config({ ipam });
    node.add({ netns: a, containerId: 'a', config });
    const one = view(node);
    const answer = node.call('ADD', { netns: b, containerId: 'b', config });
    expect(errorOf(answer)).toMatchObject({
      code: 101,
      msg: 'address 10.7.0.5 of IPAM plugin static is taken',
      details: 'by podnet/a/eth0',
    });
    expect(view(node)).toEqual(one);
    expect(linkNames(b)).toEqual([]);
    node.del({ netns: a, containerId: 'a', config });
    expect(view(node)).toEqual(before);
  });

  test.each([
    { macspoofchk: true, ipspoofchk: true },
    { mode: 'ptp', ipspoofchk: true },
  ])('what the pod may send is known when the address is: %o', (changes) => {
    const node = makeNode();
    const before = view(node);
    const netns = node.addPod();
    const addresses = [
      { address: '10.7.0.5/24', gateway: '10.7.0.1' },
      { address: 'fd07::5/64', gateway: 'fd07::1' },
    ];
    const config = node.config({ ...changes, ipam: { type: 'static', addresses } });
    const prevResult = node.add({ netns, config });
    const name = netns.replace('/run/netns/', '');
    for (const gateway of ['10.7.0.1', 'fd07::1'])
      expect(echo({ netns: name, destination: parseIp(gateway), timeoutMs: 5000 })).toMatchObject({
        ok: true,
      });
    const call = { netns, config: { ...config, prevResult } };
    expect(node.call('CHECK', call)).toMatchObject({ status: 0, stdout: '' });
    node.del(call);
    expect(view(node)).toEqual(before);
  });

  test('what it gives is in the pod and in the result', () => {
    const node = makeNode();
    const before = view(node);
    const netns = node.addPod();
    const config = node.config({
      ipam: {
        type: 'static',
        addresses: [
          { address: '10.8.0.5/16', gateway: '10.8.0.254' },
          { address: 'fd08::5/64', gateway: 'fd08::fe' },
        ],
        routes: [{ dst: '0.0.0.0/0' }, { dst: '192.0.2.0/24', gw: '10.8.0.7' }],
        dns: { nameservers: ['10.8.0.53'], domain: 'pods.test' },
      },
    });
    const result = node.add({ netns, config });
    expect(result).toMatchObject({
      ips: [
        { interface: 2, address: '10.8.0.5/16', gateway: '10.8.0.254' },
        { interface: 2, address: 'fd08::5/64', gateway: 'fd08::fe' },
      ],
      routes: [
        { dst: '0.0.0.0/0', gw: '10.8.0.254' },
        { dst: '192.0.2.0/24', gw: '10.8.0.7' },
      ],
      dns: { nameservers: ['10.8.0.53'], domain: 'pods.test' },
    });
    expect(ipAddresses(netns, 'eth0')).toEqual(['10.8.0.5/16', 'fd08::5/64']);
    expect(ipAddresses(node.netns, 'cni0')).toEqual(['10.8.0.254/16', 'fd08::fe/64']);
    expect(routesVia(netns)).toEqual([
      '10.8.0.0/16',
      '192.0.2.0/24 via 10.8.0.7',
      'default via 10.8.0.254',
      'fd08::/64',
    ]);
    const call = { netns, config: { ...config, prevResult: result } };
    expect(node.call('CHECK', call)).toMatchObject({ status: 0, stdout: '', stderr: '' });
    node.del(call);
    node.del(call);
    expect(view(node)).toEqual(before);
  });
});

/** Starts a program in the node's netns that ends with the test. */
function serve(node: Node, command: readonly string[]): void {
  const child = Bun.spawn(['nsenter', `--net=/run/netns/${node.netns}`, '--', ...command], {
    stdin: 'ignore',
    stdout: 'ignore',
    stderr: 'ignore',
  });
  onTestFinished(() => {
    child.kill('SIGKILL');
  });
}

/** A node with a DHCP server on its bridge, and the reference's daemon, which asks it in the pods' names. */
async function makeDhcpNode(timeout = '3s') {
  const node = makeNode();
  node.run('ip', 'link', 'add', 'cni0', 'address', '02:00:00:00:00:10', 'up', 'type', 'bridge');
  node.run('ip', 'address', 'add', '10.7.0.1/24', 'dev', 'cni0');
  const leases = join(node.folder, 'leases');
  const daemonSocketPath = join(node.folder, 'dhcp.sock');
  serve(node, [
    'dnsmasq',
    '--keep-in-foreground',
    '--port=0',
    '--no-ping',
    '--conf-file=/dev/null',
    '--pid-file',
    '--user=root',
    '--interface=cni0',
    '--bind-interfaces',
    '--dhcp-authoritative',
    '--dhcp-range=10.7.0.50,10.7.0.60,1h',
    '--dhcp-option=option:router,10.7.0.1',
    '--dhcp-option=option:classless-static-route,192.0.2.0/24,10.7.0.7,0.0.0.0/0,10.7.0.1',
    `--dhcp-leasefile=${leases}`,
  ]);
  serve(node, [
    '/usr/lib/cni/dhcp',
    'daemon',
    '-broadcast',
    `-socketpath=${daemonSocketPath}`,
    `-pidfile=${join(node.folder, 'dhcp.pid')}`,
    `-timeout=${timeout}`,
    `-resendmax=${timeout}`,
  ]);
  await until('the daemon and the server are there', () =>
    [daemonSocketPath, leases].every((file) => existsSync(file)),
  );
  return {
    node,
    config: node.config({
      ipam: {
        type: 'dhcp',
        daemonSocketPath,
        // Classless static routes.
        request: [{ option: '121' }],
      },
    }),
    leased: (): string[] =>
      readFileSync(leases, 'utf8')
        .split('\n')
        .flatMap((line) => line.split(' ')[2] ?? []),
  };
}

describe.skipIf(skipReference || requirement('dnsmasq'))('dhcp', () => {
  test('what the server leases is in the pod, and DEL releases it', async () => {
    const { node, config, leased } = await makeDhcpNode();
    const before = view(node);
    const netns = node.addPod();
    const result = node.add({ netns, config });
    const [address] = result.ips;
    expect(address).toMatchObject({
      interface: 2,
      address: expect.stringMatching(/^10\.7\.0\.(5\d|60)\/24$/),
      gateway: '10.7.0.1',
    });
    expect(ipAddresses(netns, 'eth0')).toEqual([address?.address]);
    expect(leased()).toEqual([address?.address.replace('/24', '')]);
    expect(routesVia(netns)).toEqual([
      '10.7.0.0/24',
      '192.0.2.0/24 via 10.7.0.7',
      'default via 10.7.0.1',
    ]);
    const call = { netns, config: { ...config, prevResult: result } };
    expect(node.call('CHECK', call)).toMatchObject({ status: 0, stdout: '', stderr: '' });
    node.del(call);
    await until('the lease is released', () => leased().length === 0);
    node.del(call);
    expect(view(node)).toEqual(before);
    expect(linkNames(netns)).toEqual([]);
  });

  test('DEL of a netns that is gone', async () => {
    const { node, config } = await makeDhcpNode();
    const before = view(node);
    const netns = node.addPod();
    node.add({ netns, config });
    Bun.spawnSync(['ip', 'netns', 'del', netns.replace('/run/netns/', '')]);
    node.del({ netns: '', config });
    expect(view(node)).toEqual(before);
  });

  test('a server that does not answer: nothing stays', { timeout: 30_000 }, async () => {
    const { node, config } = await makeDhcpNode('200ms');
    node.run('nft', 'add table inet deaf');
    node.run('nft', 'add chain inet deaf in { type filter hook input priority 0; }');
    node.run('nft', 'add rule inet deaf in udp dport 67 drop');
    const before = view(node);
    const netns = node.addPod();
    const answer = await node.start('ADD', { netns, config }).answer;
    const error = errorOf(answer);
    expect(error).toMatchObject({ code: 999, msg: expect.stringContaining('no more tries') });
    expect(view(node)).toEqual(before);
    expect(linkNames(netns)).toEqual([]);
  });
});

/** An IPAM plugin of a few lines: notes each call and runs the lines of the verb, which `printf` an answer. */
function makeScript(node: Node, lines: Readonly<Record<string, string>>) {
  const folder = join(node.folder, 'plugins');
  const notes = join(node.folder, 'notes');
  for (const each of [folder, notes]) mkdirSync(each, { recursive: true });
  const cases = Object.entries(lines).map(([verb, line]) => `${verb}) ${line} ;;`);
  writeFileSync(
    join(folder, 'script'),
    [
      '#!/bin/sh',
      `cd ${notes}`,
      'cat >"stdin-$CNI_COMMAND"',
      'env >"env-$CNI_COMMAND"',
      'echo "$CNI_COMMAND" >>calls',
      'case "$CNI_COMMAND" in',
      ...cases,
      'esac',
      '',
    ].join('\n'),
    { mode: 0o755 },
  );
  const read = (file: string): string =>
    existsSync(join(notes, file)) ? readFileSync(join(notes, file), 'utf8') : '';
  return {
    config: (changes: Readonly<Record<string, unknown>> = {}) =>
      node.config({ ipam: { type: 'script', own: { deep: [1, null, 'é'] } }, ...changes }),
    env: { CNI_PATH: `/nowhere:${folder}:/usr/lib/cni`, CNI_ARGS: 'IgnoreUnknown=1;K8S=x' },
    calls: () => read('calls').split('\n').filter(Boolean),
    read,
    environment: (verb: string) =>
      Object.fromEntries(
        read(`env-${verb}`)
          .split('\n')
          .filter((line) => line.startsWith('CNI_'))
          .map((line) => line.split(/=(.*)/s).slice(0, 2)),
      ) as Record<string, string>,
    /** Makes the verb do something else from now on. */
    change: (verb: string, line: string) => makeScript(node, { ...lines, [verb]: line }),
  };
}

function answering(answer: unknown): string {
  return `printf '%s' '${JSON.stringify(answer)}'`;
}

function failing(code: number, msg: string): string {
  return `${answering({ cniVersion: '1.0.0', code, msg, details: 'its own' })}; exit 1`;
}

const GIVES = answering({
  cniVersion: '1.0.0',
  ips: [{ address: '10.7.0.77/24', gateway: '10.7.0.1' }],
  routes: [{ dst: '0.0.0.0/0' }],
});

describe.skipIf(skip)('a plugin', () => {
  test('gets the environment and the whole configuration of the call', () => {
    const node = makeNode();
    const script = makeScript(node, { ADD: GIVES });
    const netns = node.addPod();
    const call = (verb: string, config: unknown): Call => ({
      netns,
      config,
      env: { ...script.env, CNI_ARGS: `IgnoreUnknown=1;VERB=${verb}` },
    });
    const config = script.config({ unknownKey: { a: [true] } });
    const prevResult = node.add(call('ADD', config));
    node.call('CHECK', call('CHECK', { ...config, prevResult }));
    node.del(call('DEL', { ...config, prevResult }));
    expect(script.calls()).toEqual(['ADD', 'CHECK', 'DEL']);
    for (const verb of ['ADD', 'CHECK', 'DEL']) {
      expect(script.environment(verb)).toEqual({
        CNI_COMMAND: verb,
        CNI_CONTAINERID: 'pod-a',
        CNI_NETNS: netns,
        CNI_IFNAME: 'eth0',
        CNI_ARGS: `IgnoreUnknown=1;VERB=${verb}`,
        CNI_PATH: script.env.CNI_PATH,
      });
      expect(JSON.parse(script.read(`stdin-${verb}`))).toEqual(
        verb === 'ADD' ? config : { ...config, prevResult },
      );
    }
  });

  test('that has not read its standard input', () => {
    const node = makeNode();
    const script = makeScript(node, {});
    writeFileSync(
      join(node.folder, 'plugins/script'),
      `#!/bin/sh\nexec <&-\n[ "$CNI_COMMAND" = ADD ] || exit 0\n${GIVES}\n`,
    );
    const config = script.config({ unknownKey: 'x'.repeat(1_000_000) });
    const call = { netns: node.addPod(), config, env: script.env };
    expect(node.add(call).ips[0]?.address).toBe('10.7.0.77/24');
    node.del(call);
  });

  test.each([
    ['is killed', 'kill -9 $$', 999, /script failed without an error of its own: SIGKILL/],
    ['says nothing', 'exit 3', 999, /script failed without an error of its own: exit status 3/],
    ['does not answer JSON', 'echo hello', 6, /script did not answer JSON/],
    ['answers nothing', ':', 6, /script is not a CNI result/],
  ])('that %s: nothing stays', (_what, line, code, msg) => {
    const node = makeNode();
    const script = makeScript(node, { ADD: line });
    const before = view(node);
    const netns = node.addPod();
    const call = { netns, config: script.config(), env: script.env };
    expect(errorOf(node.call('ADD', call))).toMatchObject({
      code,
      msg: expect.stringMatching(msg),
    });
    expect(script.calls()).toEqual(['ADD', 'DEL']);
    expect(view(node)).toEqual(before);
    expect(linkNames(netns)).toEqual([]);
  });

  test('that hands an address out again before who gave it back is gone', async () => {
    const node = makeNode();
    const script = makeScript(node, { ADD: GIVES, DEL: 'exec sleep 0.4' });
    const [a, b] = [node.addPod(), node.addPod()];
    const call = { config: script.config(), env: script.env };
    node.add({ ...call, netns: a, containerId: 'a' });
    const del = node.start('DEL', { ...call, netns: a, containerId: 'a' });
    await until('it is asked to take it back', () => script.calls().includes('DEL'));
    const answer = await node.start('ADD', { ...call, netns: b, containerId: 'b' }).answer;
    expect(answer).toMatchObject({ status: 0, stderr: '' });
    expect(await del.answer).toMatchObject({ status: 0, stdout: '' });
    expect(ipAddresses(b, 'eth0')).toEqual(['10.7.0.77/24']);
    expect(masqueraded(node.netns)).toEqual(['10.7.0.77']);
    expect(recordsOf(node.dataDir)['address']).toMatchObject([{ container_id: 'b' }]);
  });

  test('is not asked again for an attachment that exists', () => {
    const node = makeNode();
    const script = makeScript(node, { ADD: GIVES });
    const call = { netns: node.addPod(), config: script.config(), env: script.env };
    node.add(call);
    expect(errorOf(node.call('ADD', call))).toMatchObject({ code: 101 });
    expect(script.calls()).toEqual(['ADD']);
  });

  test('that fails: its own code and words come back, and nothing stays', () => {
    const node = makeNode();
    const script = makeScript(node, { ADD: failing(4711, 'no address today') });
    const before = view(node);
    const netns = node.addPod();
    const call = { netns, config: script.config(), env: script.env };
    expect(errorOf(node.call('ADD', call))).toEqual({
      cniVersion: '1.0.0',
      code: 4711,
      msg: 'no address today',
      details: 'its own',
    });
    expect(script.calls()).toEqual(['ADD', 'DEL']);
    expect(view(node)).toEqual(before);
    expect(linkNames(netns)).toEqual([]);
  });

  test('that is missing: nothing stays', () => {
    const node = makeNode();
    const before = view(node);
    const netns = node.addPod();
    const config = node.config({ ipam: { type: 'nobody' } });
    expect(errorOf(node.call('ADD', { netns, config }))).toMatchObject({
      code: 7,
      msg: 'failed to find plugin "nobody" in path [/usr/lib/cni]',
    });
    expect(view(node)).toEqual(before);
    expect(linkNames(netns)).toEqual([]);
  });

  test.each([
    ['an address that the kernel refuses', { ips: [{ address: '224.0.0.9/24' }] }, 100],
    [
      'a route whose gateway cannot be reached',
      {
        ips: [{ address: '10.7.0.77/24' }],
        routes: [{ dst: '192.0.2.0/24', gw: '203.0.113.1' }],
      },
      100,
    ],
    ['no address', { ips: [] }, 6],
    ['no result', ['nonsense'], 6],
    ['an address that is none', { ips: [{ address: '10.7.0.300/24' }] }, 6],
    ['a route that is none', { ips: [{ address: '10.7.0.77/24' }], routes: [{ dst: 'x' }] }, 6],
  ])('that gives %s: it gets it back, and nothing stays', (_what, given, code) => {
    const node = makeNode();
    const answer = Array.isArray(given) ? given : { cniVersion: '1.0.0', ...given };
    const script = makeScript(node, { ADD: answering(answer) });
    const before = view(node);
    const netns = node.addPod();
    const call = { netns, config: script.config(), env: script.env };
    expect(errorOf(node.call('ADD', call))).toMatchObject({ code });
    expect(script.calls()).toEqual(['ADD', 'DEL']);
    expect(view(node)).toEqual(before);
    expect(linkNames(netns)).toEqual([]);
  });

  test('that does not take its addresses back: DEL asks again', () => {
    const node = makeNode();
    const script = makeScript(node, {
      ADD: answering({ cniVersion: '1.0.0', ips: [] }),
      DEL: failing(11, 'not now'),
    });
    const before = view(node);
    const netns = node.addPod();
    const call = { netns, config: script.config(), env: script.env };
    expect(errorOf(node.call('ADD', call))).toMatchObject({ code: 6 });
    expect(linkNames(netns)).toEqual([]);
    expect(errorOf(node.call('DEL', call))).toMatchObject({ code: 11, msg: 'not now' });
    script.change('DEL', ':');
    node.del(call);
    expect(script.calls()).toEqual(['ADD', 'DEL', 'DEL', 'DEL']);
    expect(view(node)).toEqual(before);
  });

  test.each(['ADD', 'DEL'])('SIGKILL while it works: the next %s heals', async (verb) => {
    const node = makeNode();
    const before = view(node);
    const script = makeScript(node, { ADD: 'exec sleep 2' });
    const netns = node.addPod();
    const call = { netns, config: script.config(), env: script.env };
    const running = node.start('ADD', call);
    await until('the plugin is asked', () => script.calls().length > 0);
    running.kill();
    // Not its answer: the plugin holds the other ends of the pipes for as long as it lives.
    await until('it is dead', () => !existsSync(`/proc/${running.pid}/fd/0`));
    expect(linkNames(netns)).toEqual(['eth0']);
    script.change('ADD', GIVES);
    if (verb === 'ADD') {
      expect(node.add(call).ips[0]?.address).toBe('10.7.0.77/24');
      expect(ipAddresses(netns, 'eth0')).toEqual(['10.7.0.77/24']);
      expect(script.calls()).toEqual(['ADD', 'DEL', 'ADD']);
    }
    node.del(call);
    expect(script.calls().at(-1)).toBe('DEL');
    expect(view(node)).toEqual(before);
    expect(linkNames(netns)).toEqual([]);
  });

  test('is told of STATUS and GC', () => {
    const node = makeNode();
    const script = makeScript(node, { ADD: GIVES, STATUS: failing(51, 'the pool is low') });
    const config = script.config({ cniVersion: '1.1.0' });
    const valid = { ...config, 'cni.dev/valid-attachments': [] };
    expect(errorOf(node.call('STATUS', { config, env: script.env }))).toMatchObject({
      code: 51,
      msg: 'the pool is low',
    });
    script.change('STATUS', ':');
    expect(node.call('STATUS', { config, env: script.env })).toMatchObject({ status: 0 });
    const netns = node.addPod();
    node.add({ netns, config, env: script.env });
    expect(node.call('GC', { config: valid, env: script.env })).toMatchObject({ status: 0 });
    expect(script.calls()).toEqual(['STATUS', 'STATUS', 'ADD', 'DEL', 'GC']);
    expect(JSON.parse(script.read('stdin-GC'))).toEqual(valid);
    expect(linkNames(netns)).toEqual([]);
    expect(recordsOf(node.dataDir)).toEqual(NO_RECORDS);
  });

  test('of an older version, which knows neither verb, stands in the way of neither', () => {
    const node = makeNode();
    const unknown = failing(4, 'unknown CNI_COMMAND: X');
    const script = makeScript(node, { STATUS: unknown, GC: unknown });
    const config = script.config({ cniVersion: '1.1.0', 'cni.dev/valid-attachments': [] });
    for (const verb of ['STATUS', 'GC'])
      expect(node.call(verb, { config, env: script.env })).toMatchObject({ status: 0, stdout: '' });
    expect(script.calls()).toEqual(['STATUS', 'GC']);
  });

  test('is not asked by a plan, which says so', () => {
    const node = makeNode();
    const before = view(node);
    const script = makeScript(node, { ADD: GIVES });
    const call = { netns: node.addPod(), config: script.config(), env: script.env };
    const { status, stdout } = node.call('ADD', { ...call, args: ['--plan'] });
    expect(status).toBe(0);
    expect(stdout).toContain('note: addresses: known after script ADD\n');
    expect(stdout).not.toContain('would be reserved');
    expect(script.calls()).toEqual([]);
    expect(view(node)).toEqual(before);
    node.add(call);
    expect(node.call('DEL', { ...call, args: ['--plan'] })).toMatchObject({ status: 0 });
    expect(script.calls()).toEqual(['ADD']);
  });
});
