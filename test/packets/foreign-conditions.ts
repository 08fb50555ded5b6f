/** What rules of others may ask, as one writes it for nft. */
import fc from 'fast-check';
import {
  type Text,
  either,
  words,
  maybe,
  address4,
  address6,
  port,
  mark,
  between,
  prefix4,
  prefix6,
  link,
  links,
  elements,
  negation,
  values,
} from './foreign-values.ts';

/** What a rule is about, so that its conditions fit each other. */
export interface About {
  readonly family: 'ip' | 'ip6' | 'inet';
  readonly chain: 'passing' | 'early' | 'late';
  readonly network: 'ip' | 'ip6' | undefined;
  readonly transport: 'tcp' | 'udp' | 'icmp' | undefined;
}

const states: Text = fc
  .subarray(['new', 'established', 'related', 'invalid', 'untracked'], {
    minLength: 1,
    maxLength: 4,
  })
  .map((all) => all.join(','));
const statuses: Text = fc
  .subarray(['seen-reply', 'assured', 'confirmed', 'snat', 'dnat'], { minLength: 1, maxLength: 3 })
  .map((all) => all.join(','));
const tcpFlags: Text = fc
  .subarray(['fin', 'syn', 'rst', 'psh', 'ack', 'urg'], { minLength: 1, maxLength: 4 })
  .map((all) => all.join(' | '));

/** Protocols above IP. */
export const ANY_TRANSPORT = ['tcp', 'udp', 'sctp', 'icmp', 'ipv6-icmp', 'gre', 'esp'];

/** What can be asked of every packet. */
export function ofAll({ chain, family, network }: About): Text[] {
  const incoming = words(
    'iifname',
    negation,
    either(links(1), links(4), elements(link, 2, 8), elements(links, 2, 8)),
  );
  const outgoing = words('oifname', negation, either(links(2), links(5), elements(links, 2, 8)));
  return [
    ...(chain === 'late' ? [] : [incoming]),
    ...(chain === 'early' ? [] : [outgoing]),
    words('meta mark', values(mark, mark)),
    words('meta mark &', mark(3), fc.constantFrom('==', '!='), mark(3)),
    words('ct state', negation, states),
    fc.constantFrom('iif "lo"', 'iif != "lo"', 'meta random < 5'),
    ...(family === 'inet'
      ? [
          fc.constantFrom(
            'meta protocol != arp',
            'meta nfproto != ipv6',
            'meta protocol { ip, ip6 }',
          ),
        ]
      : []),
    ...(family === 'inet' && network
      ? [fc.constant(`meta nfproto ipv${network === 'ip' ? 4 : 6}`)]
      : []),
    words(
      'ct state',
      elements(
        (slot) => fc.constant(['new', 'established', 'related', 'invalid'][slot] ?? ''),
        2,
        4,
      ),
    ),
    words(
      'ct status',
      states.chain(() => statuses),
    ),
    fc.constantFrom(
      'ct status & dnat == dnat',
      'ct state ! new',
      'ct status != snat',
      'ct state == new',
    ),
    words('ct direction', fc.constantFrom('original', 'reply', '!= reply')),
    words(
      'fib',
      fc.constantFrom('saddr', 'daddr'),
      'type',
      negation,
      fc.constantFrom('local', 'broadcast', 'unicast', '{ local, multicast }'),
    ),
    words(
      'meta pkttype',
      negation,
      fc.constantFrom('host', 'broadcast', 'multicast', '{ host, other }'),
    ),
    words(
      'meta length',
      values(
        (slot) => fc.constant(`${slot * 7 + 20}`),
        (slot) => fc.constant(`${slot * 7 + 21}`),
      ),
    ),
    words(
      'numgen',
      fc.constantFrom('random', 'inc'),
      'mod 10',
      maybe(fc.constant('offset 3')),
      fc.constantFrom('< 8', '5', '{ 3, 5-7 }'),
    ),
    words(
      'meta mark . meta l4proto',
      elements((slot) => words(mark(slot), '.', fc.constantFrom('tcp', 'udp')), 2),
    ),
  ];
}

/** What can be asked of packets of one protocol of the network. */
export function ofNetwork(protocol: 'ip' | 'ip6'): Text[] {
  const [at, prefix] = protocol === 'ip' ? [address4, prefix4] : [address6, prefix6];
  const side = fc.constantFrom(`${protocol} saddr`, `${protocol} daddr`);
  const lifetime = protocol === 'ip' ? 'ip ttl' : 'ip6 hoplimit';
  return [
    words(side, values(at, prefix)),
    words(side, values(at, prefix)),
    words(
      side,
      '. meta mark',
      elements((slot) => words(at(slot), '.', mark(slot)), 2),
    ),
    words(
      protocol,
      'saddr .',
      protocol,
      'daddr',
      elements(
        (slot) =>
          words(
            either(at(slot), prefix(slot), between(at, slot)),
            '.',
            either(at(slot), prefix(slot)),
          ),
        2,
      ),
    ),
    words(
      lifetime,
      values(
        (slot) => fc.constant(`${slot * 9 + 1}`),
        (slot) => fc.constant(`${slot * 9 + 2}`),
      ),
    ),
    words(
      'ct',
      fc.constantFrom('original', 'reply'),
      protocol,
      fc.constantFrom('saddr', 'daddr'),
      negation,
      either(at(4), prefix(3)),
    ),
    words(protocol, 'length', values(port, port)),
    protocol === 'ip'
      ? fc.constantFrom('ip saddr & 255.0.255.0 == 10.0.1.0', '@nh,16,16 0x5', 'ip id 7 ip ttl 5')
      : fc.constantFrom('ip6 saddr & ffff::ff == fd00::1', '@nh,32,16 > 0x5'),
  ];
}

/** What can be asked of the transport's protocol, and its header. */
export function ofTransport({ transport, network }: About): Text[] {
  if (transport === undefined)
    return [
      words(
        'meta l4proto',
        // nft dies of ports behind a protocol that has none.
        fc.constantFrom('tcp', 'udp', '!= ipv6-icmp', '{ tcp, udp }', '!= 47', '!= 200'),
      ),
      words(
        'meta l4proto',
        elements((slot) => fc.constant(ANY_TRANSPORT[slot] ?? ''), 2, 7),
        'th dport',
        values(port, port),
      ),
    ];
  if (transport === 'icmp')
    return network === 'ip6'
      ? [
          words(
            'icmpv6 type',
            negation,
            fc.constantFrom(
              'echo-request',
              'nd-neighbor-solicit',
              '{ echo-reply, 77, packet-too-big }',
              '99',
            ),
          ),
          words('icmpv6 code', negation, fc.constantFrom('no-route', '3', '17')),
        ]
      : [
          words(
            'icmp type',
            negation,
            fc.constantFrom('echo-request', 'redirect', '{ echo-reply, 77, time-exceeded }', '99'),
          ),
          words('icmp code', negation, fc.constantFrom('net-unreachable', '3', '17')),
        ];
  const flags = words(
    'tcp flags',
    either(
      tcpFlags.map((all) => `== ( ${all} )`),
      tcpFlags.map((all) => `!= ( ${all} )`),
      tcpFlags.map((all) => all.replaceAll(' | ', ',')),
      fc
        .tuple(tcpFlags, tcpFlags, fc.constantFrom('==', '!='))
        .map(([mask, value, sign]) => `& ( ${mask} ) ${sign} ( ${value} )`),
      fc.constantFrom('{ syn, ack }', '! syn'),
    ),
  );
  const side = fc.constantFrom(`${transport} dport`, `${transport} sport`);
  const protocol = network === 'ip' ? 'ip protocol' : 'ip6 nexthdr';
  return [
    words(side, values(port, port)),
    words(side, values(port, port)),
    words(
      `${transport} sport . ${transport} dport`,
      elements((slot) => words(either(port(slot), between(port, slot)), '.', port(slot)), 2),
    ),
    words(`meta l4proto ${transport}`),
    words(
      'meta l4proto',
      transport,
      'ct original',
      fc.constantFrom('proto-src', 'proto-dst'),
      negation,
      port(7),
    ),
    ...(transport === 'tcp' ? [flags] : [words('udp length', values(port, port))]),
    ...(network
      ? [
          words(
            protocol,
            negation.map(() => ''),
            transport,
          ),
          words(
            `${network} saddr . ${transport} dport`,
            elements(
              (slot) =>
                words(
                  network === 'ip'
                    ? either(address4(slot), prefix4(slot))
                    : either(address6(slot), prefix6(slot)),
                  '.',
                  either(port(slot), between(port, slot)),
                ),
              2,
            ),
          ),
        ]
      : []),
  ];
}

const NOT_UNDERSTOOD: readonly Text[] = [
  words('ct mark', fc.constantFrom('0x5', '!= 0x6', '& 0xff == 0x7')),
  words('meta skuid', fc.constantFrom('0', '!= 5')),
  words('limit rate', fc.constantFrom('5/second', 'over 10/minute burst 3 packets')),

  words('meta priority', fc.constantFrom('1:2', 'none')),
  words('ct helper "ftp"'),
  words('rt classid 5'),
];

/** What the simulator does not understand. */
export function notUnderstood({ chain }: About): readonly Text[] {
  // By which link something would leave is not asked of what leaves.
  return chain === 'late'
    ? NOT_UNDERSTOOD
    : [...NOT_UNDERSTOOD, fc.constant('fib saddr . iif oif missing')];
}
