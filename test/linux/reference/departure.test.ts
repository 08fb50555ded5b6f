// The reference plugins make a pod, our code removes it: what they made for it goes, what they made for others stays.
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import type { Ifname } from '../../../model/ifname.ts';
import { referenceNames } from '../../../plugin/reference/names.ts';
import { requirement } from '../../requirements.ts';
import { ipAddresses, linkNames } from '../executable/kernel-state.ts';
import { runIn } from '../executable/node.ts';
import { BRIDGE, type ReferenceNode, type ReferencePod, makeReferenceNode } from './chain.ts';

const skip = requirement('root', 'iproute2', 'nftables', 'iptables', 'cni-plugins');

const CHAIN = [
  BRIDGE,
  { type: 'portmap', capabilities: { portMappings: true } },
  { type: 'firewall', backend: 'iptables' },
  {
    type: 'bandwidth',
    ingressRate: 8_000_000,
    ingressBurst: 800_000,
    egressRate: 8_000_000,
    egressBurst: 800_000,
  },
];

function namesOf({ containerId, ifname }: ReferencePod) {
  return referenceNames({ network: 'podnet', containerId, ifname: ifname as Ifname });
}

/** The rules and chains that are a pod's, by its chains' names, its id and its addresses. */
function rulesOf(rules: readonly string[], pod: ReferencePod): string[] {
  const { masquerade, portMapping } = namesOf(pod);
  const addresses = pod.result.ips.map(({ address }) => address.split('/')[0] ?? '');
  const texts = [
    masquerade,
    portMapping,
    ...addresses.flatMap((ip) => [` ${ip}/32 `, ` ${ip}/128 `, `${ip}:`, `[${ip}]:`]),
  ];
  return rules.filter((line) => texts.some((text) => line.includes(text)));
}

function hostEnd({ result }: ReferencePod): string {
  return result.interfaces[1]?.name ?? '';
}

/** Everything of the node that departures could touch. */
function stateOf({ node, rules, reserved }: ReferenceNode): unknown {
  return { links: linkNames(node.netns), rules: rules(), reserved: reserved() };
}

describe.skipIf(skip)('a pod of bridge, host-local, portmap, firewall and bandwidth', () => {
  test.each<[string, (chain: ReferenceNode, pod: ReferencePod) => void]>([
    ['with netns and result', (chain, pod) => void chain.depart(pod)],
    ['without netns', (chain, pod) => void chain.depart(pod, { netns: '' })],
    ['without result', (chain, pod) => void chain.depart(pod, { prevResult: undefined })],
    [
      'with a netns that is gone',
      (chain, pod) => {
        Bun.spawnSync(['ip', 'netns', 'del', pod.netns.replace('/run/netns/', '')]);
        chain.depart(pod);
      },
    ],
    [
      'when its link has another name on the host',
      (chain, pod) => {
        for (const args of [['down'], ['name', 'renamed0'], ['up']])
          chain.node.run(
            'ip',
            'link',
            'set',
            args[0] === 'up' ? 'renamed0' : hostEnd(pod),
            ...args,
          );
        chain.depart(pod, { prevResult: undefined });
      },
    ],
  ])('%s: all of it goes, nothing of another', (_how, depart) => {
    const chain = makeReferenceNode(CHAIN);
    const other = chain.add('other');
    const before = stateOf(chain);
    const pod = chain.add('pod');
    expect(rulesOf(chain.rules(), pod).length).toBeGreaterThan(20);
    expect(linkNames(chain.node.netns)).toContain(namesOf(pod).shaper);

    depart(chain, pod);
    expect(stateOf(chain)).toEqual(before);
    expect(existsSync(pod.netns) ? linkNames(pod.netns) : []).toEqual([]);
    expect(linkNames(chain.node.netns)).toEqual(
      ['cni0', hostEnd(other), namesOf(other).shaper].toSorted(),
    );
    expect(ipAddresses(chain.node.netns, 'cni0')).toEqual(['10.7.0.1/24', 'fd07::1/64']);
    expect(rulesOf(chain.rules(), other).length).toBeGreaterThan(20);
  });

  test('after half of it went, the rest goes', () => {
    const chain = makeReferenceNode(CHAIN);
    const pod = chain.add('pod');
    chain.node.run('ip', 'link', 'del', hostEnd(pod));
    chain.node.run('iptables', '-t', 'nat', '-F', 'POSTROUTING');
    chain.depart(pod);
    expect(rulesOf(chain.rules(), pod)).toEqual([]);
    expect(linkNames(chain.node.netns)).toEqual(['cni0']);
    expect(chain.reserved()).toEqual([]);
  });

  test('says what it does, and does it once', () => {
    const chain = makeReferenceNode(CHAIN);
    const pod = chain.add('pod');
    expect(chain.plan(pod)).toEqual([
      `ip link del ${hostEnd(pod)}`,
      `ip link del ${namesOf(pod).shaper}`,
    ]);
    const { links, rules, addresses, log } = chain.depart(pod);
    expect(links).toHaveLength(2);
    expect(addresses).toEqual(['10.7.0.2', 'fd07::2']);
    const { masquerade, portMapping } = namesOf(pod);
    expect(rules).toContain(
      `iptables -t nat -D POSTROUTING -s 10.7.0.2/32 -m comment --comment "name: \\"podnet\\" id: \\"pod\\"" -j ${masquerade}`,
    );
    expect(rules).toContain(`ip6tables -t nat -X ${portMapping}`);
    expect(rules).toContain('ip6tables -t filter -D CNI-FORWARD -s fd07::2/128 -j ACCEPT');
    expect(log).toHaveLength(links.length + rules.length + addresses.length);

    expect(chain.plan(pod)).toEqual([]);
    expect(chain.depart(pod)).toEqual({ links: [], rules: [], addresses: [], log: [] });
  });

  test('late, when somebody else has its address: that one keeps everything', () => {
    const chain = makeReferenceNode(CHAIN);
    const pod = chain.add('pod');
    chain.depart(pod);
    for (const [set, ip] of ['10.7.0.1', 'fd07::1'].entries())
      writeFileSync(join(chain.hostLocal, `last_reserved_ip.${set}`), ip);
    const next = chain.add('next');
    expect(next.result.ips).toEqual(pod.result.ips);
    const before = stateOf(chain);
    expect(chain.depart(pod)).toMatchObject({ links: [], rules: [], addresses: [] });
    // The same when it is our own address book that knows.
    const taken = ['10.7.0.2', 'fd07::2'];
    expect(chain.depart(pod, { hostLocal: undefined }, taken)).toMatchObject({ rules: [] });
    expect(stateOf(chain)).toEqual(before);
  });

  test('of two links of one container the other keeps the chains that they share', () => {
    const chain = makeReferenceNode([BRIDGE, { type: 'firewall', backend: 'iptables' }]);
    const first = chain.add('pod');
    const before = stateOf(chain);
    const second = chain.add('pod', { ifname: 'net1', netns: first.netns });
    chain.depart(second);
    // Of each of the chain's subnets there is one rule, which both links had asked for.
    expect(stateOf(chain)).toEqual(before);
    expect(linkNames(first.netns)).toEqual(['eth0']);
    chain.depart(first);
    expect(rulesOf(chain.rules(), first)).toEqual([]);
    expect(chain.reserved()).toEqual([]);
  });

  test('leaves a link that only has the name', () => {
    const chain = makeReferenceNode([BRIDGE]);
    const pod = chain.add('pod');
    chain.depart(pod);
    const { shaper } = namesOf(pod);
    chain.node.run('ip', 'link', 'add', hostEnd(pod), 'type', 'veth', 'peer', 'name', 'away0');
    chain.node.run('ip', 'link', 'add', shaper, 'type', 'bridge');
    runIn(pod.netns, 'ip', 'link', 'add', 'eth0', 'type', 'bridge');
    const before = stateOf(chain);
    expect(chain.depart(pod).links).toEqual([]);
    expect(stateOf(chain)).toEqual(before);
    expect(linkNames(pod.netns)).toEqual(['eth0']);
  });

  test('waits for host-local, which holds the lock of its folder', () => {
    const chain = makeReferenceNode([BRIDGE]);
    const pod = chain.add('pod');
    const holder = Bun.spawn(['flock', join(chain.hostLocal, 'lock'), 'sh', '-c', 'echo; sleep 1']);
    const started = performance.now();
    Bun.sleepSync(200);
    expect(chain.depart(pod).addresses).toEqual(['10.7.0.2', 'fd07::2']);
    expect(performance.now() - started).toBeGreaterThan(900);
    holder.kill();
    expect(readFileSync(join(chain.hostLocal, 'last_reserved_ip.0'), 'utf8')).toBe('10.7.0.2');
  });
});

/** The tables of the nftables backends, which these plugins are too old for, as newer ones write them. */
const NFT_TABLES = `
table inet cni_plugins_masquerade {
  chain masq_checks {
    ip saddr 10.7.0.2 ip daddr != 10.7.0.0/24 masquerade comment "OWN, net: podnet, if: eth0, id: pod"
    ip saddr 10.7.0.3 ip daddr != 10.7.0.0/24 masquerade comment "OTHER, net: podnet, if: eth0, id: other"
  }
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    ip daddr 224.0.0.0/4 return
    goto masq_checks
  }
}
table ip cni_hostport {
  chain hostports {
    tcp dport 8081 dnat to 10.7.0.2:80 comment "pod"
    tcp dport 8082 dnat to 10.7.0.3:80 comment "other"
    tcp dport 8083 dnat to 10.8.0.2:80 comment "pod"
  }
  chain masquerading {
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr 10.7.0.2 ip daddr 10.7.0.2 masquerade comment "pod"
    ip saddr 127.0.0.1 ip daddr 10.7.0.2 masquerade comment "pod"
  }
}
table ip6 cni_hostport {
  chain hostports {
    tcp dport 8081 dnat to [fd07::2]:80 comment "pod"
  }
}
`;

describe.skipIf(skip)('rules in nft tables', () => {
  test('go by comment, of port mappings those with the address', () => {
    const chain = makeReferenceNode([{ ...BRIDGE, macspoofchk: true }]);
    const pod = chain.add('pod');
    const other = chain.add('other');
    const file = join(chain.node.folder, 'tables.nft');
    writeFileSync(
      file,
      NFT_TABLES.replace('OWN', namesOf(pod).masqueradeComment).replace(
        'OTHER',
        namesOf(other).masqueradeComment,
      ),
    );
    chain.node.run('nft', '-f', file);
    expect(chain.rules().filter((rule) => rule.startsWith('nft bridge'))).toHaveLength(8);

    const { rules } = chain.depart(pod);
    expect(rules.filter((rule) => rule.startsWith('nft'))).toHaveLength(11);
    expect(rules).toContain('nft delete chain bridge nat cni-br-iface-pod-eth0-mac');
    const left = chain.rules().filter((rule) => rule.startsWith('nft') && !rule.includes('name: '));
    expect(left.filter((rule) => !rule.startsWith('nft bridge'))).toEqual([
      'nft ip tcp dport 8082 dnat to 10.7.0.3:80 comment "other"',
      'nft ip tcp dport 8083 dnat to 10.8.0.2:80 comment "pod"',
      expect.stringContaining('id: other'),
    ]);
    expect(left.filter((rule) => rule.startsWith('nft bridge'))).toHaveLength(4);
    expect(chain.depart(pod).rules).toEqual([]);
  });
});
