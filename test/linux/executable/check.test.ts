/** CHECK right after ADD, while somebody listens, after later plugins of the chain, and after faults of every kind at once. */
import { rmSync } from 'node:fs';
import { describe, expect, onTestFinished, test } from 'vitest';
import { requirement } from '../../requirements.ts';
import { type Node, type Result, errorOf, makeNode, resultOf, runIn } from './node.ts';

const skip = requirement('root', 'iproute2', 'nftables', 'tcpdump', 'executable');

const EVERYTHING = {
  isDefaultGateway: true,
  hairpinMode: true,
  portIsolation: true,
  macspoofchk: true,
  ipspoofchk: true,
  mtu: 1400,
  ipam: {
    type: 'cube-ipam',
    ranges: [[{ subnet: '10.7.0.0/24' }], [{ subnet: 'fd07::/64' }]],
    routes: [{ dst: '192.0.2.0/24' }],
  },
};

interface Pod {
  readonly node: Node;
  readonly netns: string;
  readonly config: Record<string, unknown>;
  readonly result: Result;
}

function makePod(changes: Readonly<Record<string, unknown>> = EVERYTHING): Pod {
  const node = makeNode();
  const netns = node.addPod();
  const config = node.config(changes);
  return { node, netns, config, result: node.add({ netns, config }) };
}

function check({ node, netns, config, result }: Pod, prevResult: unknown = result) {
  return node.call('CHECK', { netns, config: { ...config, prevResult } });
}

const PASSES = { status: 0, stdout: '', stderr: '' };

describe.skipIf(skip)('CHECK', () => {
  test.each(['0.4.0', '1.0.0', '1.1.0'])('passes right after ADD in version %s', (cniVersion) => {
    expect(check(makePod({ ...EVERYTHING, cniVersion }))).toMatchObject(PASSES);
  });

  test('passes while tcpdump listens on every link', async () => {
    const pod = makePod();
    const [bridge, host] = pod.result.interfaces.map(({ name }) => name);
    for (const [netns, ifname] of [
      [pod.node.netns, bridge],
      [pod.node.netns, host],
      [pod.netns, 'eth0'],
    ] as const) {
      const path = netns.startsWith('/') ? netns : `/run/netns/${netns}`;
      const listener = Bun.spawn(
        ['nsenter', `--net=${path}`, '--', 'tcpdump', '-n', '-i', `${ifname}`, '-w', '/dev/null'],
        { stdout: 'ignore', stderr: 'pipe' },
      );
      onTestFinished(() => listener.kill('SIGKILL'));
      // It says so when it listens, and the link is promiscuous then.
      await listener.stderr.getReader().read();
    }
    expect(check(pod)).toMatchObject(PASSES);
  });

  test('reports faults of every kind at once, with what would mend them', () => {
    const pod = makePod();
    const { node, netns } = pod;
    const host = pod.result.interfaces[1]?.name ?? '';
    const inPod = (...command: string[]): string => runIn(netns, ...command);
    node.run('bridge', 'link', 'set', 'dev', host, 'hairpin', 'off');
    node.run('bridge', 'link', 'set', 'dev', host, 'isolated', 'off');
    node.run('ip', 'link', 'set', host, 'mtu', '1300');
    node.run('ip', 'address', 'del', '10.7.0.1/24', 'dev', 'cni0');
    node.run('sysctl', '-qw', 'net.ipv4.ip_forward=0');
    node.run('nft', 'delete', 'element', 'inet', 'cube-cni', 'masq4', '{ 10.7.0.2 }');
    node.run('nft', 'delete', 'element', 'inet', 'cube-cni', 'pods6', '{ fd07::2 }');
    node.run('nft', 'delete', 'element', 'bridge', 'cube-cni', 'macspoofchk', `{ "${host}" }`);
    node.run('nft', 'flush', 'chain', 'bridge', 'cube-cni', 'spoof-check');
    inPod('ip', 'link', 'set', 'eth0', 'mtu', '1350');
    inPod('ip', 'link', 'set', 'eth0', 'address', '02:00:00:00:00:99');
    inPod('ip', 'address', 'del', 'fd07::2/64', 'dev', 'eth0');
    inPod('ip', 'route', 'del', '192.0.2.0/24');
    inPod('sysctl', '-qw', 'net.ipv6.conf.eth0.accept_dad=1');
    const { code, msg, details = '' } = errorOf(check(pod));
    expect(code).toBe(103);
    expect(msg).toMatch(/^attachment podnet\/pod-a\/eth0 has \d+ differences: /);
    for (const wanted of [
      `bridge port "${host}": hairpin is off, should be on`,
      `bridge port "${host}": isolated is off, should be on`,
      `link "${host}": mtu is 1300, should be 1400`,
      'link "cni0": address 10.7.0.1/24 is missing',
      'sysctl net/ipv4/ip_forward is 0, should be 1',
      'masq4 has no such element for 10.7.0.2',
      'pods6 has no such element for fd07::2',
      `macspoofchk has no such element for ${host}`,
      'the rules of chain spoof-check are others',
      'link "eth0": mtu is 1350, should be 1400',
      'link "eth0": address is 02:00:00:00:00:99, should be',
      'link "eth0": address fd07::2/64 is missing',
      'route 192.0.2.0/24 via 10.7.0.1 dev eth0 proto 201 is missing',
      'sysctl net/ipv6/conf/eth0/accept_dad is 1, should be 0',
      `  + ip link set ${host} mtu 1400`,
    ])
      expect(details).toContain(wanted);
  });

  test('says that the netns is gone, and what of the host is not', () => {
    const pod = makePod();
    pod.node.run('ip', 'netns', 'del', pod.netns.replace('/run/netns/', ''));
    expect(errorOf(check(pod))).toMatchObject({
      code: 103,
      msg: expect.stringContaining(pod.netns),
    });
  });

  test('wants what prevResult says, whatever its version', () => {
    const pod = makePod();
    const { interfaces, ips, routes } = pod.result;
    const older = {
      cniVersion: '0.4.0',
      interfaces,
      ips: ips.map((ip) => ({ version: ip.address.includes(':') ? '6' : '4', ...ip })),
      routes,
      dns: {},
    };
    expect(check(pod, older)).toMatchObject(PASSES);
    expect(errorOf(check(pod, { ...older, ips: [] })).details).toContain(
      'address 10.7.0.2/24 of the attachment is not in prevResult',
    );
    expect(errorOf(check(pod, 5))).toMatchObject({ code: 6 });
    expect(errorOf(check(pod, null))).toMatchObject({
      code: 7,
      msg: 'Required prevResult missing',
    });
  });
});

describe.skipIf(skip || requirement('cni-plugins'))(
  'CHECK after later plugins of the chain',
  () => {
    test('tuning, which changes MAC address and MTU of the pod end alone', () => {
      const pod = makePod();
      const tuned = resultOf(
        pod.node.call('ADD', {
          netns: pod.netns,
          program: '/usr/lib/cni/tuning',
          config: {
            cniVersion: '1.0.0',
            name: 'podnet',
            type: 'tuning',
            mac: '02:00:00:00:00:77',
            mtu: 1300,
            prevResult: pod.result,
          },
        }),
      );
      onTestFinished(() => rmSync('/run/cni/tuning/pod-a_eth0.json', { force: true }));
      expect(check(pod, tuned)).toMatchObject(PASSES);
      // What tuning does not touch is still looked at.
      pod.node.run('ip', 'link', 'set', pod.result.interfaces[1]?.name ?? '', 'mtu', '1300');
      expect(errorOf(check(pod, tuned)).details).toContain('mtu is 1300, should be 1400');
    });

    test('sbr, which moves routes into a table of its own', () => {
      const pod = makePod({ ...EVERYTHING, macspoofchk: false });
      // It tells on standard error all that it does.
      const { status } = pod.node.call('ADD', {
        netns: pod.netns,
        program: '/usr/lib/cni/sbr',
        config: { cniVersion: '1.0.0', name: 'podnet', type: 'sbr', prevResult: pod.result },
      });
      expect(status).toBe(0);
      expect(runIn(pod.netns, 'ip', 'route', 'show', 'table', 'main')).toBe('');
      expect(check(pod)).toMatchObject(PASSES);
    });
  },
);
