/** Host ports, judged by who answers whom: from outside, from the host, from pods; and by what is left when they go. */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { requirement } from '../../requirements.ts';
import { hostState } from './kernel-state.ts';
import { NO_RECORDS, errorOf, joinTo, netnsPath, recordsOf, runIn } from './node.ts';
import {
  CLIENT,
  type Changes,
  type Mapping,
  NODE,
  TCP,
  UDP,
  addPod,
  ask,
  configFor,
  hear,
  makeOutside,
  runLines,
  serve,
  start,
} from './outside.ts';

const skip = requirement('root', 'iproute2', 'nftables', 'executable', 'conntrack');

const TALK_SCTP = join(import.meta.dirname, 'talk-sctp.ts');

const FAR = '198.51.100.2';

/** The same by SCTP. */
function askSctp(netns: string, address: string, port: number): string | undefined {
  return hear(netns, TALK_SCTP, 'ask', address, String(port));
}

const SCTP = { ...TCP, protocol: 'sctp' };

describe.skipIf(skip)('host ports', () => {
  test('lead to the pod from outside, from the host, from other pods and from itself', async () => {
    const { node, client } = makeOutside();
    const pod = addPod(node, 'a', configFor(node, [TCP, UDP]));
    const other = addPod(node, 'b', configFor(node, []));
    await serve(pod.netns, 'a');
    for (const protocol of ['tcp', 'udp'] as const) {
      // From outside with the sender's own address.
      expect(ask(client, protocol, NODE[4], 8080)).toBe(`a ${CLIENT[4]}`);
      expect(ask(client, protocol, NODE[6], 8080)).toBe(`a ${CLIENT[6]}`);
      // Of who could not be answered through the host, with the host's.
      expect(ask(node.netns, protocol, '127.0.0.1', 8080)).toBe('a 10.7.0.1');
      expect(ask(node.netns, protocol, NODE[4], 8080)).toMatch(/^a /);
      expect(ask(node.netns, protocol, NODE[6], 8080)).toMatch(/^a /);
      expect(ask(other.netns, protocol, NODE[4], 8080)).toBe('a 10.7.0.1');
      expect(ask(other.netns, protocol, NODE[6], 8080)).toBe('a fd07::1');
      expect(ask(pod.netns, protocol, NODE[4], 8080)).toBe('a 10.7.0.1');
      // Beside the pod nothing is translated.
      expect(ask(other.netns, protocol, '10.7.0.2', 80)).toBe('a 10.7.0.3');
    }
    expect(ask(client, 'tcp', NODE[4], 8081)).toBeUndefined();
  });

  test('of SCTP lead to the pod, and their answers back', async () => {
    const { node, client } = makeOutside();
    const pod = addPod(node, 'a', configFor(node, [SCTP]));
    const other = addPod(node, 'b', configFor(node, []));
    for (const peer of [CLIENT[4], CLIENT[6], '10.7.0.1', 'fd07::1', '10.7.0.3'])
      await start(pod.netns, TALK_SCTP, 'serve', 'a', '80', peer);
    expect(askSctp(client, NODE[4], 8080)).toBe(`a ${CLIENT[4]}`);
    expect(askSctp(client, NODE[6], 8080)).toBe(`a ${CLIENT[6]}`);
    expect(askSctp(other.netns, NODE[4], 8080)).toBe('a 10.7.0.1');
    expect(askSctp(other.netns, NODE[6], 8080)).toBe('a fd07::1');
    expect(askSctp(other.netns, '10.7.0.2', 80)).toBe('a 10.7.0.3');
    expect(askSctp(client, NODE[4], 8081)).toBeUndefined();
    // The port of another protocol is another port.
    expect(ask(client, 'tcp', NODE[4], 8080)).toBeUndefined();
  });

  test("never take another host's port for one of ours", async () => {
    const { node, client } = makeOutside();
    const far = node.addPod();
    joinTo(node, 'out1', far);
    runLines(node.netns, ['address add 198.51.100.1/24 dev out1', 'link set out1 up']);
    runLines(far, [
      `address add ${FAR}/24 dev in0`,
      'link set in0 up',
      'route add default via 198.51.100.1',
    ]);
    const pod = addPod(node, 'a', configFor(node, [TCP]));
    await serve(pod.netns, 'a');
    await serve(far, 'far', 8080);
    expect(ask(client, 'tcp', FAR, 8080)).toBe(`far ${CLIENT[4]}`);
    expect(ask(pod.netns, 'tcp', FAR, 8080)).toMatch(/^far /);
    expect(ask(client, 'tcp', NODE[4], 8080)).toBe(`a ${CLIENT[4]}`);
  });

  test('at one address are not at another', async () => {
    const { node, client } = makeOutside();
    node.run('ip', 'address', 'add', '192.0.2.9/24', 'dev', 'out0');
    const pod = addPod(node, 'a', configFor(node, [{ ...TCP, hostIP: NODE[4] }]));
    await serve(pod.netns, 'a');
    expect(ask(client, 'tcp', NODE[4], 8080)).toBe(`a ${CLIENT[4]}`);
    expect(ask(client, 'tcp', '192.0.2.9', 8080)).toBeUndefined();
    expect(ask(client, 'tcp', NODE[6], 8080)).toBeUndefined();
    // Another pod may have it at the other address.
    const second = addPod(node, 'b', configFor(node, [{ ...TCP, hostIP: '192.0.2.9' }]));
    await serve(second.netns, 'b');
    expect(ask(client, 'tcp', '192.0.2.9', 8080)).toBe(`b ${CLIENT[4]}`);
    expect(ask(client, 'tcp', NODE[4], 8080)).toBe(`a ${CLIENT[4]}`);
  });

  test.each<[string, Changes, (string | undefined)[]]>([
    ['snat', {}, [`a ${CLIENT[4]}`, 'a 10.7.0.1', 'a 10.7.0.1']],
    ['masqAll', { masqAll: true }, ['a 10.7.0.1', 'a 10.7.0.1', 'a 10.7.0.1']],
    ['no snat', { snat: false }, [`a ${CLIENT[4]}`, undefined, undefined]],
  ])('show the pod who is asking as %s says', async (_what, changes, expected) => {
    const { node, client } = makeOutside();
    const pod = addPod(node, 'a', configFor(node, [TCP], changes));
    await serve(pod.netns, 'a');
    expect([
      ask(client, 'tcp', NODE[4], 8080),
      ask(node.netns, 'tcp', '127.0.0.1', 8080),
      ask(pod.netns, 'tcp', NODE[4], 8080),
    ]).toEqual(expected);
  });

  test('let nobody outside reach what listens on 127.0.0.1', async () => {
    const { node, client } = makeOutside();
    const pod = addPod(node, 'a', configFor(node, [TCP]));
    await serve(node.netns, 'host', 9090);
    node.run('sysctl', '-qw', 'net.ipv4.conf.out0.route_localnet=1');
    for (const netns of [pod.netns, client]) {
      const device = netns === client ? 'in0' : 'eth0';
      const gateway = netns === client ? NODE[4] : '10.7.0.1';
      runIn(netns, 'sysctl', '-qw', `net.ipv4.conf.${device}.route_localnet=1`);
      runIn(
        netns,
        'ip',
        'route',
        'add',
        'table',
        '99',
        '127.0.0.1/32',
        'via',
        gateway,
        'dev',
        device,
      );
      runIn(netns, 'ip', 'rule', 'add', 'pref', '0', 'to', '127.0.0.1', 'lookup', '99');
      runIn(netns, 'ip', 'rule', 'add', 'pref', '1', 'lookup', 'local');
      Bun.spawnSync([
        'nsenter',
        `--net=${netnsPath(netns)}`,
        '--',
        'ip',
        'rule',
        'del',
        'pref',
        '0',
        'lookup',
        'local',
      ]);
      expect(ask(netns, 'tcp', '127.0.0.1', 9090)).toBeUndefined();
    }
    expect(ask(node.netns, 'tcp', '127.0.0.1', 9090)).toBe('host 127.0.0.1');
  });

  test.each([
    [
      'as containerd writes them',
      [{ HostPort: 8080, ContainerPort: 80, Protocol: 'tcp', HostIP: '' }],
    ],
    ['as a range', [{ hostPort: 8079, containerPort: 79, protocol: 'TCP', range: 3 }]],
    ['of every address of one family', [{ ...TCP, hostIP: '0.0.0.0' }]],
  ])('are read %s', async (_what, mappings) => {
    const { node, client } = makeOutside();
    const pod = addPod(node, 'a', configFor(node, mappings));
    await serve(pod.netns, 'a');
    expect(ask(client, 'tcp', NODE[4], 8080)).toBe(`a ${CLIENT[4]}`);
    const expected = mappings.some((each) => 'hostIP' in each) ? undefined : `a ${CLIENT[6]}`;
    expect(ask(client, 'tcp', NODE[6], 8080)).toBe(expected);
  });

  test.each<[string, Mapping, Mapping, string]>([
    ['everywhere', TCP, TCP, 'at every address of this host'],
    ['at an address of it', TCP, { ...TCP, hostIP: NODE[4] }, 'at every address of this host'],
    ['of which one is at every address', { ...TCP, hostIP: NODE[4] }, TCP, `at ${NODE[4]}`],
  ])('that lead to another pod are refused: the same %s', (_what, first, second, details) => {
    const { node } = makeOutside();
    addPod(node, 'a', configFor(node, [first]));
    const before = hostState(node.netns);
    const records = recordsOf(node.dataDir);
    const config = configFor(node, [{ ...UDP, hostPort: 9 }, second]);
    const answer = errorOf(node.call('ADD', { netns: node.addPod(), containerId: 'b', config }));
    expect(answer).toMatchObject({ code: 101, details });
    expect(answer.msg).toMatch(/^host port tcp 8080( at \S+)? is taken by podnet\/a\/eth0$/);
    expect(hostState(node.netns)).toEqual(before);
    expect(recordsOf(node.dataDir)).toEqual(records);
    // Of another protocol it is another port.
    addPod(node, 'c', configFor(node, [UDP]));
  });

  test('go with the pod: by DEL alone, with nothing but its name', async () => {
    const { node, client } = makeOutside();
    const before = hostState(node.netns);
    const first = addPod(node, 'a', configFor(node, [TCP, UDP]));
    const alone = hostState(node.netns);
    const second = addPod(
      node,
      'b',
      configFor(node, [{ ...TCP, hostPort: 8081 }], { masqAll: true }),
    );
    const bare = node.config({ cniVersion: '1.1.0' });
    node.del({ containerId: 'b', config: bare });
    expect(hostState(node.netns)).toEqual(alone);
    await serve(first.netns, 'a');
    expect(ask(client, 'tcp', NODE[4], 8080)).toBe(`a ${CLIENT[4]}`);
    node.del({ containerId: 'a', config: bare });
    expect(hostState(node.netns)).toEqual(before);
    expect(recordsOf(node.dataDir)).toEqual(NO_RECORDS);
    expect(second.netns).not.toBe(first.netns);
  });

  test('of a bridge that stays leave no door to 127.0.0.1', () => {
    const { node } = makeOutside();
    const localnet = (): string =>
      node.run('sysctl', '-n', 'net.ipv4.conf.cni0.route_localnet').trim();
    addPod(node, 'a', configFor(node, []));
    expect(localnet()).toBe('0');
    const before = hostState(node.netns);
    const call = addPod(node, 'b', configFor(node, [TCP]));
    expect(localnet()).toBe('1');
    node.del(call);
    expect(localnet()).toBe('0');
    expect(hostState(node.netns)).toEqual(before);
  });

  test('of a bridge that stays leave no door to 127.0.0.1, also when the state file was lost', () => {
    const { node } = makeOutside();
    addPod(node, 'a', configFor(node, []));
    const before = hostState(node.netns);
    const call = addPod(node, 'b', configFor(node, [TCP]));
    for (const file of ['state.db', 'state.db-wal', 'state.db-shm'])
      rmSync(join(node.dataDir, file), { force: true });
    node.del(call);
    expect(node.run('sysctl', '-n', 'net.ipv4.conf.cni0.route_localnet').trim()).toBe('0');
    expect(hostState(node.netns)).toEqual(before);
  });

  test('let connections elsewhere to the same port live on', async () => {
    const { node, client } = makeOutside();
    const pod = addPod(node, 'a', configFor(node, [], { ipMasq: true }));
    await serve(client, 'far', 8080);
    expect(ask(pod.netns, 'tcp', CLIENT[4], 8080)).toMatch(/^far /);
    const flows = (): string[] =>
      node
        .run('conntrack', '-L', '-p', 'tcp', '--orig-port-dst', '8080')
        .split('\n')
        .filter((line) => line.includes(CLIENT[4]));
    expect(flows()).toHaveLength(1);
    addPod(node, 'b', configFor(node, [TCP]));
    expect(flows()).toHaveLength(1);
  });

  test('of UDP lead to the pod also who sent to them before it was there, and after it was another', async () => {
    const { node, client } = makeOutside();
    // The host tracks connections already.
    addPod(node, 'first', configFor(node, []));
    for (const id of ['a', 'b']) {
      expect(ask(client, 'udp', NODE[4], 8080, 5000)).toBeUndefined();
      const pod = addPod(node, id, configFor(node, [UDP]));
      await serve(pod.netns, id);
      expect(ask(client, 'udp', NODE[4], 8080, 5000)).toBe(`${id} ${CLIENT[4]}`);
      node.del(pod);
    }
  });

  test('that somebody removed are found by CHECK, with what mends it', () => {
    const { node } = makeOutside();
    const config = configFor(node, [TCP]);
    const call = { netns: node.addPod(), config };
    const prevResult = node.add(call);
    const check = () => node.call('CHECK', { ...call, config: { ...config, prevResult } });
    expect(check()).toMatchObject({ status: 0, stdout: '', stderr: '' });
    node.run('nft', 'delete', 'element', 'inet', 'cube-cni', 'ports4', '{ tcp . 8080 }');
    node.run('nft', 'flush', 'chain', 'inet', 'cube-cni', 'host-ports');
    node.run('sysctl', '-qw', 'net.ipv4.conf.cni0.route_localnet=0');
    const { code, details = '' } = errorOf(check());
    expect(code).toBe(103);
    expect(details).toContain('ports4 has no such element for tcp . 8080');
    expect(details).toContain('the rules of chain host-ports are others');
    expect(details).toContain('route_localnet is 0, should be 1');
    for (const line of new Set(details.split('\n').filter((each) => each.startsWith('  + '))))
      node.run('sh', '-c', line.slice(4));
    expect(check()).toMatchObject({ status: 0, stdout: '', stderr: '' });
  });

  test('are known again when the state file is lost, and refused to others', () => {
    const { node } = makeOutside();
    const before = hostState(node.netns);
    const config = configFor(node, [TCP, { ...UDP, hostIP: NODE[4] }]);
    const call = { netns: node.addPod(), containerId: 'a', config };
    const prevResult = node.add(call);
    for (const file of ['state.db', 'state.db-wal', 'state.db-shm'])
      rmSync(join(node.dataDir, file), { force: true });
    const checked = { ...call, config: { ...config, prevResult } };
    expect(node.call('CHECK', checked)).toMatchObject({ status: 0, stdout: '', stderr: '' });
    const other = { netns: node.addPod(), containerId: 'b', config };
    expect(errorOf(node.call('ADD', other)).msg).toBe(
      'host port tcp 8080 is taken by podnet/a/eth0',
    );
    node.del(call);
    expect(hostState(node.netns)).toEqual(before);
  });

  test.each<[string, Changes, Mapping[], number, string]>([
    [
      'conditions of more than addresses and links',
      { conditionsV4: ['tcp sport 53'] },
      [TCP],
      2,
      'unsupported field: conditionsV4 = ["tcp sport 53"]',
    ],
    [
      'a bit of kube-proxy',
      { markMasqBit: 14 },
      [TCP],
      7,
      'invalid network configuration: markMasqBit: it must not be 14 or 15, which are bits of kube-proxy (0x4000, 0x8000)',
    ],
    [
      'a port that is none',
      {},
      [{ ...TCP, hostPort: 65_536 }],
      7,
      'invalid network configuration: runtimeConfig.portMappings[0].hostPort: it must be a port from 1 to 65535, not 65536',
    ],
    [
      'a protocol that is none',
      {},
      [{ ...TCP, protocol: 'icmp' }],
      7,
      'invalid network configuration: runtimeConfig.portMappings[0].protocol: it must be tcp, udp or sctp, not "icmp"',
    ],
    [
      'no address',
      { isDefaultGateway: false, ipMasq: false, ipam: {} },
      [TCP],
      7,
      'invalid network configuration: runtimeConfig.portMappings: host port 8080/tcp leads nowhere',
    ],
    [
      'one port for two',
      {},
      [TCP, { ...TCP, containerPort: 81 }],
      7,
      'invalid network configuration: runtimeConfig.portMappings: host port 8080/tcp is there twice, for ports 80 and 81',
    ],
  ])('that cannot be are refused: %s', (_what, changes, mappings, code, msg) => {
    const { node } = makeOutside();
    const before = hostState(node.netns);
    const config = configFor(node, mappings, changes);
    expect(errorOf(node.call('ADD', { netns: node.addPod(), config }))).toMatchObject({
      code,
      msg,
    });
    expect(hostState(node.netns)).toEqual(before);
    expect(recordsOf(node.dataDir)).toEqual(NO_RECORDS);
  });

  test('lead to pods that are routed to, without a bridge', async () => {
    const { node, client } = makeOutside();
    const before = hostState(node.netns);
    const call = addPod(node, 'a', configFor(node, [TCP], { mode: 'ptp' }));
    await serve(call.netns, 'a');
    expect(ask(client, 'tcp', NODE[4], 8080)).toBe(`a ${CLIENT[4]}`);
    expect(ask(client, 'tcp', NODE[6], 8080)).toBe(`a ${CLIENT[6]}`);
    expect(ask(node.netns, 'tcp', '127.0.0.1', 8080)).toMatch(/^a /);
    node.del(call);
    expect(hostState(node.netns)).toEqual(before);
  });
});
