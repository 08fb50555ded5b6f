/** Who gets an address that somebody had before is not taken for him: neither by neighbours nor by the host's connections. */
import { describe, expect, test } from 'vitest';
import { echo } from '../../../backends/linux/echo.ts';
import { parseIp } from '../../../model/ip.ts';
import { requirement } from '../../requirements.ts';
import { ipAddresses, ipLink } from './kernel-state.ts';
import { type Call, type Node, makeNode, run, runIn } from './node.ts';

const skip = requirement('root', 'iproute2', 'nftables', 'conntrack', 'executable');

/** One address for who watches, one of each family for the others. */
const CONFIG = {
  isDefaultGateway: true,
  ipam: {
    type: 'cube-ipam',
    ranges: [
      [{ subnet: '10.7.0.0/24', rangeStart: '10.7.0.2', rangeEnd: '10.7.0.3' }],
      [{ subnet: 'fd07::/64', rangeStart: 'fd07::2', rangeEnd: 'fd07::3' }],
    ],
  },
};
const WATCHER = ['10.7.0.2', 'fd07::2'] as const;
const HANDED_ON = ['10.7.0.3', 'fd07::3'] as const;

function addPod(
  node: Node,
  containerId: string,
  runtimeConfig: object = {},
): Required<Pick<Call, 'netns' | 'containerId'>> {
  const netns = node.addPod();
  node.add({ netns, containerId, config: node.config({ ...CONFIG, runtimeConfig }) });
  return { netns, containerId };
}

function mustReach(netns: string, destination: string): void {
  const name = netns.replace('/run/netns/', '');
  expect(echo({ netns: name, destination: parseIp(destination), timeoutMs: 5000 })).toMatchObject({
    ok: true,
  });
}

function macOf({ netns }: { readonly netns: string }): unknown {
  return ipLink(netns, 'eth0')['address'];
}

/** The MAC address that a netns knows of a neighbour. */
function neighbourOf(netns: string, ip: string): string | undefined {
  return /lladdr (\S+)/.exec(runIn(netns, 'ip', 'neighbour', 'show', ip))?.[1];
}

/** The addresses of the host's tracked connections that are among these, each once. */
function tracked(node: Node, ips: readonly string[]): string[] {
  const lists = ['ipv4', 'ipv6'].map((family) => node.run('conntrack', '-L', '-f', family));
  const text = `${lists.join('\n')} `;
  return ips.filter((ip) => text.includes(`src=${ip} `) || text.includes(`dst=${ip} `));
}

/** Makes the host track a connection of an address. */
function track(node: Node, ip: string): void {
  const far = ip.includes(':') ? 'fd99::9' : '192.0.2.9';
  const ports = ['-p', 'udp', '--sport', '4000', '--dport', '53'];
  node.run('conntrack', '-I', '-s', ip, '-d', far, ...ports, '-t', '100');
}

describe.skipIf(skip)('an address that was given back', () => {
  test('neighbours know at once who has it now', () => {
    const node = makeNode();
    const watcher = addPod(node, 'watcher');
    const first = addPod(node, 'first');
    for (const ip of HANDED_ON) {
      mustReach(watcher.netns, ip);
      mustReach(node.netns, ip);
      for (const netns of [watcher.netns, node.netns])
        expect(neighbourOf(netns, ip)).toBe(macOf(first));
    }
    const before = macOf(first);
    node.del(first);
    const second = addPod(node, 'second');
    expect(ipAddresses(second.netns, 'eth0')).toEqual(['10.7.0.3/24', 'fd07::3/64']);
    expect(macOf(second)).not.toBe(before);
    for (const ip of HANDED_ON) {
      // Nobody has sent anything since.
      for (const netns of [watcher.netns, node.netns])
        expect(neighbourOf(netns, ip)).toBe(macOf(second));
      mustReach(watcher.netns, ip);
      mustReach(node.netns, ip);
    }
  });

  test('the host forgets its connections when another has it', () => {
    const node = makeNode();
    const watcher = addPod(node, 'watcher');
    const first = addPod(node, 'first');
    for (const ip of [...WATCHER, ...HANDED_ON]) track(node, ip);
    for (const { netns } of [watcher, first])
      for (const gateway of ['10.7.0.1', 'fd07::1']) mustReach(netns, gateway);
    expect(tracked(node, [...WATCHER, ...HANDED_ON])).toEqual([...WATCHER, ...HANDED_ON]);
    node.del(first);
    addPod(node, 'second');
    expect(tracked(node, [...WATCHER, ...HANDED_ON])).toEqual(WATCHER);
  });

  test('the host forgets its connections at once where datagrams are sent to a port, also of a netns that is gone', () => {
    const node = makeNode();
    addPod(node, 'watcher');
    const portMappings = [{ hostPort: 53, containerPort: 53, protocol: 'udp' }];
    const first = addPod(node, 'first', { portMappings });
    for (const ip of HANDED_ON) track(node, ip);
    run('ip', 'netns', 'del', first.netns.replace('/run/netns/', ''));
    node.del({ ...first, netns: '' });
    expect(tracked(node, HANDED_ON)).toEqual([]);
  });
});
