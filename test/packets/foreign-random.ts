/** Random rules in the words of nft and of iptables, for netns node of the routed host. */
import fc from 'fast-check';
import type { ForeignRuleset } from './foreign.ts';

type Family = 'ip' | 'ip6';

/** Conditions of nft; of each group a rule has at most one, since some exclude each other. */
const ADDRESSES: Readonly<Record<Family, readonly string[]>> = {
  ip: [
    'ip saddr 10.244.1.0/24',
    'ip saddr != 10.244.2.0/24',
    'ip daddr 10.244.2.4',
    'ip daddr != 10.244.1.1',
    'ip saddr { 10.244.1.2, 10.244.3.0/30 }',
    'ip daddr 10.244.1.2-10.244.2.200',
    'ip saddr . ip daddr { 10.244.1.2 . 10.244.2.4, 10.244.1.3 . 10.244.3.2 }',
    'ip saddr @hosts',
    'ip ttl < 3',
    'ip daddr & 255.255.0.255 == 10.244.0.4',
  ],
  ip6: [
    'ip6 saddr fd00:1::/64',
    'ip6 saddr != fd00:2::/64',
    'ip6 daddr fd00:2::4',
    'ip6 daddr { fd00:1::1, fd00:3::/126 }',
    'ip6 hoplimit > 63',
    'ip6 saddr . ip6 daddr { fd00:1::2 . fd00:2::4 }',
  ],
};
const TRANSPORTS: Readonly<Record<Family, readonly string[]>> = {
  ip: ['icmp type echo-request', 'icmp type != echo-reply', 'ip protocol udp'],
  ip6: ['icmpv6 type echo-request', 'icmpv6 type { echo-request, echo-reply }'],
};
const ANY_TRANSPORTS: readonly string[] = [
  'udp dport 7000',
  'udp sport 7000',
  'udp length > 1000',
  'tcp dport 7000',
  'tcp dport != 80',
  'tcp flags syn',
  'tcp flags & (syn | ack) == syn | ack',
  'th dport { 80, 6990-7010 }',
  'meta l4proto { tcp, udp }',
  'meta l4proto != tcp',
  'meta length > 1000',
];
const STATES: readonly string[] = [
  'ct state new',
  'ct state { established, related }',
  'ct state invalid',
  'ct state != invalid',
  'ct status dnat',
  'ct status & (snat | dnat) == 0',
  'ct direction reply',
  'meta mark 0x1',
  'meta mark & 0x4000 == 0x4000',
  'meta mark != 0x0-0x10',
  'iifname "cni*"',
  'iifname { "v-d", "cni1" }',
  'iif lo',
  'iif cni0',
  'oif { cni0, cni1 }',
  'iif != cni1',
  'oifname "v-d"',
  'oifname != "cni0"',
  'fib daddr type local',
  'fib saddr type != local',
  'meta pkttype host',
];
const ENDS: readonly string[] = [
  'accept',
  'drop',
  'return',
  'continue',
  'jump sub',
  'goto sub',
  'counter',
  'meta mark set 0x1',
  'meta mark set meta mark | 0x4000',
  'meta mark set meta mark & 0xfffffffe',
];
const TCP_RESET = 'reject with tcp reset';
const REJECTS: Readonly<Record<Family, readonly string[]>> = {
  ip: [
    'reject',
    TCP_RESET,
    'reject with icmp type admin-prohibited',
    'reject with icmp type host-unreachable',
  ],
  ip6: [
    'reject',
    TCP_RESET,
    'reject with icmpv6 type admin-prohibited',
    'reject with icmpv6 type no-route',
  ],
};

function optional(texts: readonly string[]): fc.Arbitrary<string> {
  return fc.option(fc.constantFrom('', ...texts), { nil: '' });
}

function conditions(family: Family): fc.Arbitrary<string> {
  return fc
    .tuple(
      optional(ADDRESSES[family]),
      optional([...TRANSPORTS[family], ...ANY_TRANSPORTS]),
      optional(STATES),
    )
    .map((texts) => texts.filter((text) => text !== '').join(' '));
}

/** A connection is refused only where the rule says that it is about TCP, and nothing else. */
function resetOf(asked: string): string {
  if (/udp|icmp|l4proto|th dport/.test(asked)) return 'reject';
  return asked.includes('tcp') ? TCP_RESET : `meta l4proto tcp ${TCP_RESET}`;
}

function rules(family: Family, ends: readonly string[], maxLength: number): fc.Arbitrary<string[]> {
  return fc.array(
    fc
      .tuple(conditions(family), fc.constantFrom(...ends))
      .map(([asked, end]) => `${asked} ${end === TCP_RESET ? resetOf(asked) : end}`),
    { maxLength },
  );
}

function chain(name: string, hook: string, own: readonly string[]): string {
  return [`chain ${name} {`, hook, ...own, '}'].join('\n');
}

/** The hooks of type filter, each with a priority, and whether a packet may be rejected there. */
const HOOKS = [
  ['prerouting', -300, false],
  ['prerouting', -150, false],
  ['prerouting', 10, false],
  ['input', 0, true],
  ['forward', 0, true],
  ['forward', 5, true],
  ['output', -150, true],
  ['output', 0, true],
  ['postrouting', 0, false],
  ['postrouting', 120, false],
] as const;

function filterChain(family: Family): fc.Arbitrary<string> {
  return fc
    .constantFrom(...HOOKS)
    .chain(([hook, priority, rejects]) =>
      fc.tuple(
        fc.constantFrom(`type filter hook ${hook} priority ${priority}`),
        fc.constantFrom('accept', 'accept', 'accept', 'drop'),
        rules(family, rejects ? [...ENDS, ...REJECTS[family]] : ENDS, 4),
      ),
    )
    .map(([hook, otherwise, own]) =>
      chain(hook.replaceAll(/[^a-z0-9]/g, '_'), `${hook}; policy ${otherwise}`, own),
    );
}

const NAT: Readonly<
  Record<Family, { readonly to: readonly string[]; readonly from: readonly string[] }>
> = {
  ip: {
    to: [
      'ip daddr 10.96.0.1 tcp dport 80 dnat to 10.244.2.4:7000',
      'ip daddr 10.96.0.1 udp dport 80 dnat to 10.244.1.3:7000',
      'ip daddr 10.96.0.1 dnat to 10.244.3.2',
      'udp dport 80 redirect to :7000',
      'fib daddr type local tcp dport 80 dnat to 10.244.1.2:7000',
      'meta l4proto { tcp, udp } dnat to ip daddr . th dport map { 10.96.0.1 . 80 : 10.244.1.2 . 7000 }',
    ],
    from: [
      'masquerade',
      'oifname "v-d" masquerade',
      'ip saddr 10.244.1.0/24 snat to 10.244.2.1',
      'meta mark & 0x4000 != 0 masquerade',
      'ct status dnat masquerade',
    ],
  },
  ip6: {
    to: [
      'ip6 daddr fd96::1 tcp dport 80 dnat to [fd00:2::4]:7000',
      'ip6 daddr fd96::1 udp dport 80 dnat to [fd00:1::3]:7000',
      'udp dport 80 redirect to :7000',
    ],
    from: ['masquerade', 'ip6 saddr fd00:2::/64 masquerade', 'oifname "v-d" snat to fd00:3::1'],
  },
};

function some(texts: readonly string[]): fc.Arbitrary<string[]> {
  return fc.subarray([...texts], { maxLength: 2 });
}

function natChains(family: Family): fc.Arbitrary<string[]> {
  const { to, from } = NAT[family];
  return fc
    .tuple(some(to), some(to), some(from))
    .map(([pre, out, post]) => [
      ...(pre.length > 0 ? [chain('pre', 'type nat hook prerouting priority -100', pre)] : []),
      ...(out.length > 0 ? [chain('out', 'type nat hook output priority -100', out)] : []),
      ...(post.length > 0 ? [chain('post', 'type nat hook postrouting priority 100', post)] : []),
    ]);
}

function nftTable(family: Family): fc.Arbitrary<string> {
  const filters = fc.uniqueArray(filterChain(family), {
    maxLength: 3,
    selector: (text) => text.split(' ')[1],
  });
  const hosts = family === 'ip' ? 'set hosts { type ipv4_addr; elements = { 10.244.1.3 }; }' : '';
  return fc
    .tuple(
      rules(
        family,
        ENDS.filter((end) => !end.endsWith('sub')),
        3,
      ),
      filters,
      natChains(family),
    )
    .map(([sub, own, nats]) =>
      [`table ${family} others {`, hosts, chain('sub', '', sub), ...own, ...nats, '}'].join('\n'),
    );
}

/** Conditions of iptables, by family and by whether the packet's link out is known. */
const XT_PROTOCOLS: Readonly<Record<Family, readonly string[]>> = {
  ip: ['-p icmp -m icmp --icmp-type 8', '-p icmp -m icmp ! --icmp-type 0'],
  ip6: ['-p ipv6-icmp -m icmp6 --icmpv6-type 128'],
};
const XT_TRANSPORTS: readonly string[] = [
  '-p udp -m udp --dport 7000',
  '-p udp -m udp ! --sport 7000',
  '-p tcp -m tcp --dport 7000',
  '-p tcp -m tcp --tcp-flags SYN,ACK SYN',
  '! -p tcp',
  '-p udp -m multiport --dports 53,6000:7000',
  '-p tcp -m multiport ! --ports 7000',
];
const XT_ADDRESSES: Readonly<Record<Family, readonly string[]>> = {
  ip: ['-s 10.244.1.0/24', '! -s 10.244.2.0/24', '-d 10.244.2.4/32', '! -d 10.244.1.2/32'],
  ip6: ['-s fd00:1::/64', '-d fd00:2::4/128', '! -d fd00:3::2/128'],
};
const XT_MATCHES: readonly string[] = [
  '-m conntrack --ctstate NEW',
  '-m conntrack ! --ctstate RELATED,ESTABLISHED',
  '-m conntrack --ctstate DNAT',
  '-m conntrack --ctstate INVALID',
  '-m conntrack --ctdir REPLY',
  '-m addrtype --dst-type LOCAL',
  '-m addrtype ! --src-type LOCAL',
  '-m mark --mark 0x1/0x1',
  '-m mark ! --mark 0x4000/0x4000',
  '-m comment --comment "of others"',
];
const XT_IN: readonly string[] = ['-i cni0', '! -i cni1', '-i v+'];
const XT_OUT: readonly string[] = ['-o cni0', '! -o v-d', '-o cni+'];
const XT_TARGETS: readonly string[] = ['ACCEPT', 'DROP', 'DROP', 'RETURN', 'SUB'];
const XT_MARKS: readonly string[] = ['MARK --set-xmark 0x1/0x1', 'MARK --set-xmark 0x4000/0x4000'];
const XT_REJECTS: Readonly<Record<Family, readonly string[]>> = {
  ip: ['REJECT --reject-with icmp-port-unreachable', 'REJECT --reject-with icmp-admin-prohibited'],
  ip6: ['REJECT --reject-with icmp6-adm-prohibited', 'REJECT --reject-with icmp6-no-route'],
};

interface XtChain {
  readonly name: string;
  readonly links: readonly string[];
  readonly targets: (family: Family) => readonly string[];
}

const XT_FILTER: readonly XtChain[] = [
  {
    name: 'INPUT',
    links: XT_IN,
    targets: (family) => [...XT_TARGETS, ...XT_REJECTS[family]],
  },
  {
    name: 'FORWARD',
    links: [...XT_IN, ...XT_OUT],
    targets: (family) => [...XT_TARGETS, ...XT_REJECTS[family]],
  },
  {
    name: 'OUTPUT',
    links: XT_OUT,
    targets: (family) => [...XT_TARGETS, ...XT_REJECTS[family]],
  },
];
const XT_MANGLE: readonly XtChain[] = [
  { name: 'PREROUTING', links: XT_IN, targets: () => [...XT_TARGETS, ...XT_MARKS] },
  { name: 'FORWARD', links: [...XT_IN, ...XT_OUT], targets: () => [...XT_TARGETS, ...XT_MARKS] },
  { name: 'POSTROUTING', links: XT_OUT, targets: () => [...XT_TARGETS, ...XT_MARKS] },
];

function xtRule(family: Family, { name, links, targets }: XtChain): fc.Arbitrary<string> {
  return fc
    .tuple(
      optional(XT_ADDRESSES[family]),
      optional(links),
      optional([...XT_PROTOCOLS[family], ...XT_TRANSPORTS]),
      optional(XT_MATCHES),
      fc.constantFrom(...targets(family)),
    )
    .map(([address, link, protocol, match, target]) =>
      ['-A', name, address, link, protocol, match, '-j', target]
        .filter((word) => word !== '')
        .join(' '),
    );
}

function xtTable(
  table: string,
  family: Family,
  chains: readonly XtChain[],
): fc.Arbitrary<readonly string[]> {
  return fc
    .tuple(
      fc.tuple(...chains.map(({ name }) => policy(name))),
      fc.tuple(...chains.map((each) => fc.array(xtRule(family, each), { maxLength: 3 }))),
      fc.array(
        xtRule(family, { name: 'SUB', links: [], targets: () => ['ACCEPT', 'DROP', 'RETURN'] }),
        { maxLength: 2 },
      ),
    )
    .map(([policies, own, sub]) => [
      `*${table}`,
      ...policies,
      ':SUB - [0:0]',
      ...own.flat(),
      ...sub,
      'COMMIT',
    ]);
}

function policy(name: string): fc.Arbitrary<string> {
  const isFilter = ['INPUT', 'FORWARD', 'OUTPUT'].includes(name);
  return fc
    .constantFrom('ACCEPT', 'ACCEPT', 'ACCEPT', isFilter ? 'DROP' : 'ACCEPT')
    .map((word) => `:${name} ${word} [0:0]`);
}

const XT_NAT: Readonly<Record<Family, readonly string[]>> = {
  ip: [
    '-A PREROUTING -d 10.96.0.1/32 -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.244.2.4:7000',
    '-A PREROUTING -d 10.96.0.1/32 -p udp -m udp --dport 80 -j DNAT --to-destination 10.244.1.3:7000',
    '-A PREROUTING -p udp -m udp --dport 80 -j REDIRECT --to-ports 7000',
    '-A OUTPUT -d 10.96.0.1/32 -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.244.1.2:7000',
    '-A POSTROUTING -s 10.244.1.0/24 ! -o cni0 -j MASQUERADE',
    '-A POSTROUTING -m mark --mark 0x4000/0x4000 -j MASQUERADE',
    '-A POSTROUTING -s 10.244.2.0/24 -o v-d -j SNAT --to-source 10.244.3.1',
  ],
  ip6: [
    '-A PREROUTING -d fd96::1/128 -p tcp -m tcp --dport 80 -j DNAT --to-destination [fd00:2::4]:7000',
    '-A POSTROUTING -s fd00:1::/64 ! -o cni0 -j MASQUERADE',
  ],
};

function xtNat(family: Family): fc.Arbitrary<readonly string[]> {
  const chains = ['PREROUTING', 'INPUT', 'OUTPUT', 'POSTROUTING'].map(
    (name) => `:${name} ACCEPT [0:0]`,
  );
  return fc
    .subarray([...XT_NAT[family]])
    .map((own) => (own.length > 0 ? ['*nat', ...chains, ...own, 'COMMIT'] : []));
}

function xtRules(family: Family): fc.Arbitrary<string> {
  return fc
    .tuple(
      xtTable('filter', family, XT_FILTER),
      fc.option(xtTable('mangle', family, XT_MANGLE), { nil: [] }),
      xtNat(family),
    )
    .map((tables) => `${tables.flat().join('\n')}\n`);
}

/** Rulesets of others with chains at all hooks, by nft or by iptables, for both families. */
export function foreignRulesets(): fc.Arbitrary<ForeignRuleset> {
  const isBridged = fc.boolean();
  return fc.oneof(
    fc
      .tuple(nftTable('ip'), nftTable('ip6'), isBridged)
      .map(([four, six, bridged]) => ({ name: 'nft', nft: `${four}\n${six}\n`, bridged })),
    fc.tuple(xtRules('ip'), xtRules('ip6'), isBridged).map(([iptables, ip6tables, bridged]) => ({
      name: 'iptables',
      iptables,
      ip6tables,
      bridged,
    })),
  );
}
