/** The ports that rules of others send elsewhere, as those write them and the kernel tells them: docker, kube-proxy, firewalld, netavark. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { getNetns } from '../../model/host.ts';
import { formatPublished, publishedPorts } from '../../sim/published.ts';
import { readRules, withForeign, withRules } from '../packets/compare.ts';
import { FOREIGN_RULESETS, type ForeignRuleset } from '../packets/foreign.ts';
import { type RoutedHost, buildHost } from '../packets/routed-kernel.ts';
import { requirement } from '../requirements.ts';
import { type Cluster, iptablesRules, nftablesRules } from './executable/kube-proxy-rules.ts';

const CLUSTER: Cluster = {
  services: [
    {
      name: 'default/web',
      clusterIp: { 4: '10.96.0.10', 6: 'fd96::10' },
      nodePort: 30_080,
      policy: 'Cluster',
    },
  ],
  port: 80,
  endpoint: { ip: { 4: '10.7.0.2', 6: 'fd07::2' }, port: 8080 },
  podCidr: { 4: '10.7.0.0/16', 6: 'fd07::/48' },
  nodeIp: { 4: '192.0.2.1', 6: '2001:db8:2::1' },
};

const OF_SERVICE = {
  4: ['tcp 30080 at any address', 'tcp 80 at 10.96.0.10'],
  6: ['tcp 30080 at any address of IPv6', 'tcp 80 at fd96::10'],
};

/** What is published by rulesets that packets are sent through, by their names. */
const PUBLISHED: Readonly<Record<string, readonly string[]>> = {
  docker: ['tcp 80 at any address', 'tcp 80 at fd96::1', 'udp 80 at any address'],
  'kube-proxy by iptables': ['tcp 80 at 10.96.0.1', 'tcp 80 at any address'],
  'kube-proxy by nft': ['tcp 80 at 10.244.1.1', 'tcp 80 at 10.96.0.1'],
  firewalld: [],
  // What it sends on by the address alone names no port.
  'what else there is': ['udp 80 at any address'],
};

const OTHERS: readonly (readonly [ForeignRuleset, readonly string[]])[] = [
  [{ name: 'kube-proxy by iptables', iptables: iptablesRules(CLUSTER, 4) }, OF_SERVICE[4]],
  [{ name: 'kube-proxy by ip6tables', ip6tables: iptablesRules(CLUSTER, 6) }, OF_SERVICE[6]],
  [
    {
      name: 'kube-proxy by nft',
      nft: nftablesRules(CLUSTER, 4) + nftablesRules(CLUSTER, 6),
    },
    [
      'tcp 30080 at 192.0.2.1',
      'tcp 30080 at 2001:db8:2::1',
      OF_SERVICE[4][1],
      OF_SERVICE[6][1],
    ] as string[],
  ],
  [
    {
      name: 'a port of the docker daemon at one address',
      iptables: `*nat
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
-A DOCKER -i docker0 -j RETURN
-A DOCKER -d 127.0.0.1/32 ! -i docker0 -p tcp -m tcp --dport 5432 -j DNAT --to-destination 172.17.0.2:5432
-A DOCKER ! -i docker0 -p udp -m udp --dport 53 -j DNAT --to-destination 172.17.0.3:53
COMMIT
`,
    },
    ['tcp 5432 at 127.0.0.1', 'udp 53 at any address'],
  ],
  [
    {
      name: "the reference's portmap",
      iptables: `*nat
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:CNI-DN-1 - [0:0]
:CNI-HOSTPORT-DNAT - [0:0]
:CNI-HOSTPORT-SETMARK - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-A OUTPUT -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-A CNI-HOSTPORT-DNAT -p tcp -m comment --comment "dnat name" -m multiport --dports 8080,8443 -j CNI-DN-1
-A CNI-DN-1 -s 10.7.0.0/24 -p tcp -m tcp --dport 8080 -j CNI-HOSTPORT-SETMARK
-A CNI-DN-1 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.7.0.2:80
-A CNI-DN-1 -d 192.0.2.1/32 -p tcp -m tcp --dport 8443 -j DNAT --to-destination 10.7.0.2:443
COMMIT
`,
    },
    ['tcp 8080 at any address', 'tcp 8443 at 192.0.2.1'],
  ],
  [
    {
      name: 'forwarded ports of firewalld, and of netavark',
      nft: `table inet firewalld {
  chain nat_PREROUTING { type nat hook prerouting priority dstnat + 10; policy accept; jump nat_PREROUTING_ZONES; }
  chain nat_PREROUTING_ZONES { iifname "cni0" goto nat_PRE_public; goto nat_PRE_public; }
  chain nat_PRE_public { jump nat_PRE_public_allow; }
  chain nat_PRE_public_allow {
    meta nfproto ipv4 tcp dport 8080 dnat ip to 10.7.0.2:80
    tcp dport 8443 redirect to :443
    meta nfproto ipv6 udp dport 6000-6002 dnat ip6 to [fd07::2]:6000
  }
}
table inet netavark {
  chain NETAVARK-HOSTPORT-DNAT {
    ip daddr 192.0.2.1 tcp dport 9000-9100 jump nv_dnat
    udp dport { 53, 67-68 } jump nv_dnat
  }
  chain nv_dnat {
    ip daddr { 192.0.2.1, 192.0.2.2 } tcp dport 9000-9100 dnat ip to 10.88.0.2
    udp dport 53 dnat ip to 10.88.0.2:53
    udp dport 67 dnat ip to 10.88.0.2:67
  }
  chain PREROUTING { type nat hook prerouting priority dstnat; policy accept; fib daddr type local jump NETAVARK-HOSTPORT-DNAT; }
  chain OUTPUT { type nat hook output priority -100; policy accept; fib daddr type local jump NETAVARK-HOSTPORT-DNAT; }
}
`,
    },
    [
      'tcp 8080 at any address',
      'tcp 8443 at any address',
      'tcp 8443 at any address of IPv6',
      'tcp 9000 at 192.0.2.1',
      'tcp 9100 at 192.0.2.1',
      'udp 53 at any address',
      ...[6000, 6001, 6002].map((port) => `udp ${port} at any address of IPv6`),
      'udp 67 at any address',
    ],
  ],
];

const ALL = [
  ...FOREIGN_RULESETS.map((each) => [each, PUBLISHED[each.name] ?? []] as const),
  ...OTHERS,
].map(([ruleset, expected]) => ({ ...ruleset, ruleset, expected }));

describe.skipIf(requirement('root', 'iproute2', 'nftables', 'iptables-nft'))(
  'ports that rules of others send elsewhere',
  () => {
    let host: RoutedHost | undefined;

    beforeAll(() => {
      host = buildHost();
    });

    afterAll(() => host?.tearDown());

    it.each(ALL)('are read off: $name', async ({ ruleset, expected }) => {
      if (!host) throw new Error('there is no host');
      const read = withRules(await withForeign(host, ruleset, readRules));
      const names = publishedPorts(getNetns(read, 'node')).map(formatPublished);
      expect(new Set(names)).toEqual(new Set(expected));
    });
  },
);
