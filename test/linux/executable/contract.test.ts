import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { requirement } from '../../requirements.ts';
import {
  ipAddresses,
  ipLink,
  kernelState,
  linkNames,
  mainRoutes,
  masqueraded,
} from './kernel-state.ts';
import {
  EXECUTABLE,
  NO_RECORDS,
  type Node,
  type Result,
  errorOf,
  makeNode,
  netnsPath,
  recordsOf,
  runIn,
} from './node.ts';

const skip = requirement('root', 'iproute2', 'nftables', 'executable');

const DUAL_STACK = {
  isDefaultGateway: true,
  ipam: {
    type: 'cube-ipam',
    ranges: [[{ subnet: '10.7.0.0/24' }], [{ subnet: 'fd07::/64' }]],
  },
};

/** The node as it is when nothing of ours is on it. Forwarding is left on: others rely on it. */
function emptyState(node: Node): unknown {
  return { ...kernelState(node.netns), forwarding: 'as it is' };
}

describe.skipIf(skip)('ADD', () => {
  test('1.0.0: prints the result, and the kernel has what it says', () => {
    const node = makeNode();
    const pod = node.addPod();
    const answer = node.call('ADD', { netns: pod });
    expect(answer).toMatchObject({ status: 0, stderr: '' });
    const result: Result = JSON.parse(answer.stdout);
    const [bridge, hostEnd, podEnd] = result.interfaces;
    expect(result).toEqual({
      cniVersion: '1.0.0',
      interfaces: [
        { name: 'cni0', mac: ipLink(node.netns, 'cni0')['address'] },
        {
          name: expect.stringMatching(/^veth[0-9a-f]{11}$/),
          mac: ipLink(node.netns, hostEnd?.name ?? '')['address'],
        },
        { name: 'eth0', mac: ipLink(pod, 'eth0')['address'], sandbox: pod },
      ],
      ips: [{ interface: 2, address: '10.7.0.2/24', gateway: '10.7.0.1' }],
      routes: [{ dst: '0.0.0.0/0', gw: '10.7.0.1' }],
    });
    expect(linkNames(node.netns)).toEqual(['cni0', hostEnd?.name]);
    expect(ipLink(node.netns, hostEnd?.name ?? '')).toMatchObject({
      master: bridge?.name,
      kind: 'veth',
      up: true,
      port: { hairpin: false },
    });
    expect(ipAddresses(node.netns, 'cni0')).toEqual(['10.7.0.1/24']);
    expect(ipAddresses(pod, podEnd?.name ?? '')).toEqual(['10.7.0.2/24']);
    expect(ipLink(pod, 'eth0')).toMatchObject({ up: true, mtu: 1500 });
    expect(mainRoutes(pod).map((route) => JSON.parse(route))).toEqual([
      { dst: '10.7.0.0/24', dev: 'eth0', scope: '253', prefsrc: '10.7.0.2' },
      { dst: 'default', gateway: '10.7.0.1', dev: 'eth0', scope: '0' },
    ]);
    expect(masqueraded(node.netns)).toEqual(['10.7.0.2']);
    expect(node.run('sysctl', '-n', 'net.ipv4.ip_forward').trim()).toBe('1');
  });

  test('0.4.0: says the family of each address', () => {
    const node = makeNode();
    const result = node.add({
      netns: node.addPod(),
      config: node.config({ cniVersion: '0.4.0' }),
    });
    expect(result).toMatchObject({
      cniVersion: '0.4.0',
      ips: [{ version: '4', interface: 2, address: '10.7.0.2/24', gateway: '10.7.0.1' }],
      dns: {},
    });
  });

  test('dual stack: both families can be used as soon as it returns', () => {
    const node = makeNode();
    const pod = node.addPod();
    const result = node.add({ netns: pod, config: node.config(DUAL_STACK) });
    expect(result.ips.map(({ address }) => address)).toEqual(['10.7.0.2/24', 'fd07::2/64']);
    expect(result.routes).toEqual([
      { dst: '0.0.0.0/0', gw: '10.7.0.1' },
      { dst: '::/0', gw: 'fd07::1' },
    ]);
    expect(ipAddresses(pod, 'eth0')).toEqual(['10.7.0.2/24', 'fd07::2/64']);
    expect(ipAddresses(node.netns, 'cni0')).toEqual(['10.7.0.1/24', 'fd07::1/64']);
    expect(runIn(pod, 'ip', '-6', 'address', 'show', 'tentative', 'scope', 'global')).toBe('');
    expect(masqueraded(node.netns)).toEqual(['10.7.0.2', 'fd07::2']);
  });

  test('1.1.0: routes have the metric, table, MTU, MSS and scope that they were given', () => {
    const node = makeNode();
    const pod = node.addPod();
    const routes = [
      { dst: '0.0.0.0/0' },
      { dst: '192.0.2.0/24', gw: '10.7.0.9', priority: 77, mtu: 1400, advmss: 1360 },
      { dst: '198.51.100.0/24', table: 100 },
      { dst: '203.0.113.0/24', scope: 253 },
      { dst: '::/0', mtu: 1300, table: 1000, priority: 5 },
    ];
    const ranges = [[{ subnet: '10.7.0.0/24' }], [{ subnet: 'fd07::/64' }]];
    const config = node.config({
      cniVersion: '1.1.0',
      ipam: { type: 'cube-ipam', ranges, routes },
    });
    const result = node.add({ netns: pod, config });
    expect(result.routes).toEqual([
      { dst: '0.0.0.0/0', gw: '10.7.0.1' },
      { dst: '192.0.2.0/24', gw: '10.7.0.9', mtu: 1400, advmss: 1360, priority: 77 },
      { dst: '198.51.100.0/24', gw: '10.7.0.1', table: 100 },
      { dst: '203.0.113.0/24', scope: 253 },
      { dst: '::/0', gw: 'fd07::1', mtu: 1300, priority: 5, table: 1000 },
    ]);
    const shown = (...args: string[]): string =>
      runIn(pod, 'ip', ...args).replaceAll(/ +\n/g, '\n');
    expect(shown('route', 'show', '192.0.2.0/24')).toBe(
      '192.0.2.0/24 via 10.7.0.9 dev eth0 proto 201 metric 77 mtu 1400 advmss 1360\n',
    );
    expect(shown('route', 'show', 'table', '100')).toBe(
      '198.51.100.0/24 via 10.7.0.1 dev eth0 proto 201\n',
    );
    expect(shown('route', 'show', '203.0.113.0/24')).toBe(
      '203.0.113.0/24 dev eth0 proto 201 scope link\n',
    );
    expect(shown('-6', 'route', 'show', 'table', '1000')).toBe(
      'default via fd07::1 dev eth0 proto 201 metric 5 mtu 1300 pref medium\n',
    );
    const check = { ...config, prevResult: result };
    expect(node.call('CHECK', { netns: pod, config: check })).toMatchObject({ status: 0 });
    runIn(pod, 'ip', 'route', 'del', '198.51.100.0/24', 'table', '100');
    expect(errorOf(node.call('CHECK', { netns: pod, config: check })).details).toContain(
      'route 198.51.100.0/24 via 10.7.0.1 dev eth0 proto 201 table 100 is missing',
    );
  });

  test('the MTU is that of the link that leads out, or the configured one', () => {
    const node = makeNode();
    node.run('ip', 'link', 'add', 'up0', 'mtu', '1400', 'type', 'veth', 'peer', 'name', 'away0');
    for (const end of ['up0', 'away0']) node.run('ip', 'link', 'set', end, 'up');
    node.run('ip', 'route', 'add', 'default', 'dev', 'up0');
    const [first, second] = [node.addPod(), node.addPod()];
    node.add({ netns: first });
    node.add({ netns: second, containerId: 'pod-b', config: node.config({ mtu: 1300 }) });
    expect([ipLink(first, 'eth0')['mtu'], ipLink(second, 'eth0')['mtu']]).toEqual([1400, 1300]);
  });

  test('a netns by /proc/PID/ns/net', () => {
    const node = makeNode();
    const sleeper = Bun.spawn(['nsenter', `--net=${node.addPod()}`, 'sleep', '30']);
    try {
      // nsenter is in the netns when it has become sleep.
      while (
        !Bun.spawnSync(['cat', `/proc/${sleeper.pid}/comm`])
          .stdout.toString()
          .startsWith('sleep')
      )
        Bun.sleepSync(1);
      const netns = `/proc/${sleeper.pid}/ns/net`;
      expect(node.add({ netns }).interfaces[2]).toMatchObject({ name: 'eth0', sandbox: netns });
      node.del({ netns });
      expect(linkNames(node.netns)).toEqual([]);
    } finally {
      sleeper.kill();
    }
  });

  test('what the kernel refuses is undone as a whole, and the address given back', () => {
    const node = makeNode();
    const netns = node.addPod();
    node.add({ netns });
    const before = [kernelState(node.netns), kernelState(netns), recordsOf(node.dataDir)];
    // The second default route of a netns.
    expect(errorOf(node.call('ADD', { netns, ifname: 'net1' }))).toMatchObject({
      code: 100,
      msg: `Cannot do "ip route add default via 10.7.0.1 dev net1 proto 201" in netns "${netns}": EEXIST`,
      details: 'everything was undone',
    });
    expect([kernelState(node.netns), kernelState(netns), recordsOf(node.dataDir)]).toEqual(before);
  });

  test('what the kernel refuses is undone on a bridge of somebody else too', () => {
    const node = makeNode();
    node.run('ip', 'link', 'add', 'cni0', 'up', 'type', 'bridge');
    node.run('ip', 'address', 'add', 'fd33::1/64', 'dev', 'cni0', 'nodad');
    const netns = node.addPod();
    // A name that the model does not know of.
    runIn(netns, 'ip', 'link', 'add', 'foreign', 'type', 'bridge');
    runIn(netns, 'ip', 'link', 'property', 'add', 'dev', 'foreign', 'altname', 'eth0');
    const before = [emptyState(node), kernelState(netns)];
    expect(errorOf(node.call('ADD', { netns }))).toMatchObject({
      code: 100,
      msg: expect.stringMatching(/EEXIST/),
      details: 'everything was undone',
    });
    expect([emptyState(node), kernelState(netns)]).toEqual(before);
    expect(recordsOf(node.dataDir)).toEqual(NO_RECORDS);
  });

  test('a second one of the same attachment names it and changes nothing', () => {
    const node = makeNode();
    const netns = node.addPod();
    node.add({ netns });
    const before = [kernelState(node.netns), kernelState(netns), recordsOf(node.dataDir)];
    expect(errorOf(node.call('ADD', { netns }))).toMatchObject({
      code: 101,
      msg: 'attachment podnet/pod-a/eth0 already exists',
      details: expect.stringContaining('10.7.0.2/24'),
    });
    expect([kernelState(node.netns), kernelState(netns), recordsOf(node.dataDir)]).toEqual(before);
  });

  test('two links of one container', () => {
    const node = makeNode();
    const netns = node.addPod();
    const config = node.config({ ipam: { type: 'cube-ipam', subnet: '10.7.0.0/24' } });
    const addresses = ['eth0', 'net1'].map(
      (ifname) => node.add({ netns, ifname, config }).ips[0]?.address,
    );
    expect(addresses).toEqual(['10.7.0.2/24', '10.7.0.3/24']);
    node.del({ netns, ifname: 'eth0' });
    expect(linkNames(netns)).toEqual(['net1']);
  });

  test('the own netns is refused before anything changes', () => {
    const node = makeNode();
    const before = kernelState(node.netns);
    for (const netns of ['/proc/self/ns/net', netnsPath(node.netns)]) {
      for (const verb of ['ADD', 'DEL']) {
        for (const args of [[], ['--plan']])
          expect(errorOf(node.call(verb, { netns, args }))).toMatchObject({
            code: 8,
            msg: "plugin's netns and netns from CNI_NETNS should not be the same",
          });
      }
    }
    expect(kernelState(node.netns)).toEqual(before);
    expect(recordsOf(node.dataDir)).toEqual(NO_RECORDS);
  });

  test('a result that nobody could read is taken back', () => {
    const node = makeNode();
    const before = emptyState(node);
    const { status } = node.call('ADD', {
      netns: node.addPod(),
      under: ['sh', '-c', 'exec "$@" >/dev/full', 'sh'],
    });
    expect(status).toBe(1);
    expect(emptyState(node)).toEqual(before);
    expect(recordsOf(node.dataDir)).toEqual(NO_RECORDS);
  });
});

/** What of a netns the reference plugins and ours must make alike. */
function comparable(netns: string): unknown {
  const { links, forwarding } = kernelState(netns) as {
    links: Record<string, Record<string, unknown>>;
    forwarding: unknown;
  };
  const linkView = (link: Record<string, unknown>): unknown => [
    String(link['ifname']).replace(/^veth.*/, 'veth'),
    ...['kind', 'master', 'mtu', 'up', 'port', 'promiscuous'].map((key) => link[key]),
    ipAddresses(netns, String(link['ifname'])),
  ];
  return { routes: mainRoutes(netns), links: Object.values(links).map(linkView), forwarding };
}

describe.skipIf(skip || requirement('cni-plugins'))(
  'as the reference bridge and host-local',
  () => {
    test.each([
      ['a gateway', { isGateway: true, hairpinMode: true }],
      ['a default gateway, two families', { ...DUAL_STACK, mtu: 1400 }],
      ['no gateway', { isGateway: false, promiscMode: true }],
    ])('%s', (_name, changes) => {
      const views = ['cube-cni', 'bridge'].map((type) => {
        const node = makeNode();
        const pod = node.addPod();
        const config = node.config({ ipMasq: false, ...changes, type });
        if (type === 'bridge') {
          const ipam = { ...(config['ipam'] as object), type: 'host-local', dataDir: node.dataDir };
          node.add({ netns: pod, config: { ...config, ipam }, program: '/usr/lib/cni/bridge' });
        } else {
          node.add({ netns: pod, config });
        }
        return [comparable(node.netns), comparable(pod)];
      });
      expect(views[0]).toEqual(views[1]);
    });
  },
);

/** A configuration for CHECK, whose prevResult the runtime has kept. */
function checkedConfig(node: Node, prevResult?: Result): Record<string, unknown> {
  const kept = prevResult === undefined ? {} : { prevResult };
  return node.config({ ...DUAL_STACK, hairpinMode: true, ...kept });
}

describe.skipIf(skip)('CHECK', () => {
  test('passes right after ADD and says nothing', () => {
    const node = makeNode();
    const netns = node.addPod();
    const prevResult = node.add({ netns, config: checkedConfig(node) });
    expect(node.call('CHECK', { netns, config: checkedConfig(node, prevResult) })).toMatchObject({
      status: 0,
      stdout: '',
      stderr: '',
    });
  });

  test('names every difference at once', () => {
    const node = makeNode();
    const netns = node.addPod();
    const prevResult = node.add({ netns, config: checkedConfig(node) });
    const hostEnd = prevResult.interfaces[1]?.name ?? '';
    const element = 'delete element inet cube-cni masq4 { 10.7.0.2 }';
    node.run('ip', 'link', 'set', hostEnd, 'down');
    node.run('bridge', 'link', 'set', 'dev', hostEnd, 'hairpin', 'off');
    node.run('nft', element);
    runIn(netns, 'ip', 'link', 'set', 'eth0', 'mtu', '1400');
    runIn(netns, 'ip', 'route', 'del', 'default');
    runIn(netns, 'ip', '-6', 'address', 'del', 'fd07::2/64', 'dev', 'eth0');
    const error = errorOf(node.call('CHECK', { netns, config: checkedConfig(node, prevResult) }));
    expect(error).toMatchObject({
      code: 103,
      msg: expect.stringMatching(/^attachment podnet\/pod-a\/eth0 has \d+ differences: netns "/),
    });
    for (const text of [
      `netns "host": link "${hostEnd}": is down, should be up`,
      `netns "host": bridge port "${hostEnd}": hairpin is off, should be on`,
      'netns "host": nftables table inet cube-cni: masq4 has no such element for 10.7.0.2',
      `netns "${netns}": link "eth0": mtu is 1400, should be 1500`,
      `netns "${netns}": route default via 10.7.0.1 dev eth0 proto 201 is missing`,
      `netns "${netns}": link "eth0": address fd07::2/64 is missing`,
    ])
      expect(error.details?.split('\n')).toContain(text);
    node.del({ netns });
    expect(linkNames(node.netns)).toEqual([]);
  });

  test.each([
    ['the link', ['ip', 'link', 'del', 'eth0'], 'link "eth0" is missing'],
    ['the MAC', ['ip', 'link', 'set', 'eth0', 'address', '02:00:00:00:00:99'], 'address is 02:'],
    [
      'an address',
      ['ip', 'address', 'flush', 'dev', 'eth0', 'scope', 'global'],
      '10.7.0.2/24 is missing',
    ],
  ])('notices that %s is another', (_what, command, text) => {
    const node = makeNode();
    const netns = node.addPod();
    const prevResult = node.add({ netns, config: checkedConfig(node) });
    runIn(netns, ...command);
    const error = errorOf(node.call('CHECK', { netns, config: checkedConfig(node, prevResult) }));
    expect(error.code).toBe(103);
    expect(error.details).toContain(text);
  });

  test('a netns that is gone, and an attachment that never was', () => {
    const node = makeNode();
    const netns = node.addPod();
    const prevResult = node.add({ netns, config: checkedConfig(node) });
    const call = { netns, config: checkedConfig(node, prevResult) };
    expect(errorOf(node.call('CHECK', { ...call, containerId: 'other' }))).toMatchObject({
      code: 3,
      msg: 'there is no attachment podnet/other/eth0',
    });
    Bun.spawnSync(['ip', 'netns', 'del', netns.replace('/run/netns/', '')]);
    expect(errorOf(node.call('CHECK', call))).toMatchObject({
      code: 103,
      msg: expect.stringContaining(netns),
    });
  });

  test('needs prevResult, and one that agrees', () => {
    const node = makeNode();
    const netns = node.addPod();
    const prevResult = node.add({ netns, config: checkedConfig(node) });
    expect(errorOf(node.call('CHECK', { netns, config: checkedConfig(node) }))).toMatchObject({
      code: 7,
      msg: 'Required prevResult missing',
    });
    const other = { ...prevResult, ips: [{ interface: 2, address: '10.9.9.9/24' }] };
    expect(
      errorOf(node.call('CHECK', { netns, config: { ...checkedConfig(node), prevResult: other } })),
    ).toMatchObject({ code: 103, msg: expect.stringContaining('10.7.0.2/24') });
  });
});

describe.skipIf(skip)('DEL', () => {
  const otherConfig = { bridge: 'other0', ipMasq: false, ipam: { type: 'somebody-elses' } };

  test.each<[string, (node: Node, netns: string, result: Result) => void]>([
    [
      'with the netns and prevResult',
      (node, netns, prevResult) =>
        node.del({ netns, config: node.config({ ...DUAL_STACK, prevResult }) }),
    ],
    ['with an empty CNI_NETNS, without prevResult', (node) => node.del({ netns: '' })],
    [
      'with a netns that is gone',
      (node, netns) => {
        Bun.spawnSync(['ip', 'netns', 'del', netns.replace('/run/netns/', '')]);
        node.del({ netns });
      },
    ],
    [
      'with a changed configuration',
      (node, netns) => node.del({ netns, config: node.config(otherConfig) }),
    ],
    [
      'twice',
      (node, netns) => {
        node.del({ netns });
        node.del({ netns });
      },
    ],
    [
      'when somebody has removed the link',
      (node, netns) => {
        runIn(netns, 'ip', 'link', 'del', 'eth0');
        node.del({ netns });
      },
    ],
    [
      'when somebody has removed the bridge and the table',
      (node, netns) => {
        node.run('ip', 'link', 'del', 'cni0');
        node.run('nft', 'delete table inet cube-cni');
        node.del({ netns });
      },
    ],
  ])('%s: nothing is left', (_how, del) => {
    const node = makeNode();
    const before = emptyState(node);
    const netns = node.addPod();
    const result = node.add({ netns, config: node.config(DUAL_STACK) });
    del(node, netns, result);
    expect(emptyState(node)).toEqual(before);
    expect(existsSync(netns) ? linkNames(netns) : []).toEqual([]);
    expect(recordsOf(node.dataDir)).toEqual(NO_RECORDS);
  });

  test('of what was never added', () => {
    const node = makeNode();
    const before = kernelState(node.netns);
    node.del();
    expect(kernelState(node.netns)).toEqual(before);
    expect(recordsOf(node.dataDir)).toEqual(NO_RECORDS);
  });

  test('leaves what another attachment uses, and removes it with the last', () => {
    const node = makeNode();
    const empty = emptyState(node);
    const [a, b] = [node.addPod(), node.addPod()];
    node.add({ netns: a });
    const one = kernelState(node.netns);
    node.add({ netns: b, containerId: 'pod-b' });
    node.del({ netns: b, containerId: 'pod-b' });
    expect(kernelState(node.netns)).toEqual(one);
    node.del({ netns: a });
    expect(emptyState(node)).toEqual(empty);
  });

  test('leaves a bridge that was there before, as it was', () => {
    const node = makeNode();
    node.run('ip', 'link', 'add', 'cni0', 'address', '02:00:00:00:00:10', 'type', 'bridge');
    node.run('ip', 'link', 'set', 'cni0', 'up');
    const before = emptyState(node);
    const netns = node.addPod();
    const result = node.add({ netns });
    expect(result.interfaces[0]).toEqual({ name: 'cni0', mac: '02:00:00:00:00:10' });
    node.del({ netns });
    expect(emptyState(node)).toEqual(before);
    expect(recordsOf(node.dataDir)).toEqual(NO_RECORDS);
  });

  test('gives the address back, which is handed out again last', () => {
    const node = makeNode();
    const netns = node.addPod();
    const addresses = ['a', 'b', 'c'].map((containerId) => {
      const result = node.add({ netns, containerId });
      node.del({ netns, containerId });
      return result.ips[0]?.address;
    });
    expect(addresses).toEqual(['10.7.0.2/24', '10.7.0.3/24', '10.7.0.4/24']);
  });
});

describe.skipIf(skip)('the executable', () => {
  test('is one file that needs nothing beside it', () => {
    const node = makeNode();
    const copy = join(node.folder, 'renamed');
    Bun.spawnSync(['cp', EXECUTABLE, copy]);
    const netns = node.addPod();
    expect(node.add({ netns, program: copy }).ips).toHaveLength(1);
  });

  test('obeys nothing in the folder that it is started in', () => {
    const node = makeNode();
    const cwd = join(node.folder, 'hostile');
    const marker = join(node.folder, 'was-here');
    const evil = `require('node:fs').writeFileSync(${JSON.stringify(marker)}, 'preload');\n`;
    mkdirSync(join(cwd, 'node_modules/pino'), { recursive: true });
    for (const [file, text] of Object.entries({
      '.env': 'CNI_COMMAND=DEL\nCNI_NETNS=/nowhere\nBUN_BE_BUN=1\n',
      '.env.local': 'CNI_CONTAINERID=from-dotenv\n',
      '.env.production': 'CNI_CONTAINERID=from-dotenv\n',
      'bunfig.toml': 'preload = ["./evil.js"]\n[run]\nbun = true\n',
      'evil.js': evil,
      'index.js': evil,
      'tsconfig.json': '{"compilerOptions":{"paths":{"*":["./evil.js"]},"jsx":',
      'package.json': '{"main":"evil.js","imports":{"#x":"./evil.js"},"type":"commonjs",',
      'node_modules/pino/package.json': '{"name":"pino","main":"index.js"}',
      'node_modules/pino/index.js': evil,
    }))
      writeFileSync(join(cwd, file), text);
    const netns = node.addPod();
    expect(node.call('', { cwd })).toMatchObject({ status: 0, stdout: '' });
    expect(node.add({ netns, cwd }).interfaces[2]?.sandbox).toBe(netns);
    expect(recordsOf(node.dataDir)['attachment']).toMatchObject([{ container_id: 'pod-a' }]);
    node.del({ netns, cwd });
    expect(linkNames(node.netns)).toEqual([]);
    expect(existsSync(marker)).toBe(false);
  });

  test('with an unknown argument is refused', () => {
    const node = makeNode();
    expect(errorOf(node.call('DEL', { args: ['--nonsense'] }))).toEqual({
      cniVersion: '1.1.0',
      code: 4,
      msg: 'unknown argument --nonsense',
      details: expect.stringContaining('--plan=json'),
    });
  });
});
