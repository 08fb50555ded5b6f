/** What rules of others may do, as one writes it for nft. */
import fc from 'fast-check';
import { type About, ANY_TRANSPORT } from './foreign-conditions.ts';
import {
  type Text,
  either,
  words,
  type At,
  address4,
  address6,
  port,
  mark,
  between,
  prefix4,
  prefix6,
  links,
  elements,
  SLOTS,
} from './foreign-values.ts';

/** What becomes of a packet. */
export const verdicts: Text = fc.constantFrom(
  'accept',
  'drop',
  'jump other',
  'goto other',
  'continue',
  'return',
);

/** Elements with a verdict each. */
function verdictMap(at: At, slots = SLOTS): Text {
  const element: At = (slot) =>
    fc.tuple(at(slot), verdicts).map(([key, held]) => `${key} : ${held}`);
  return either(
    elements(element, 1, slots, 10),
    words(
      elements(element, 1, slots, 5).map((text) => text.replace(/ \}$/, ', *')),
      ':',
      verdicts,
      '}',
    ),
  );
}

/** What lets every packet go on. */
export function steps({ chain, family, network }: About): Text[] {
  return [
    fc.constantFrom('counter', 'log', 'log prefix "a: b" level debug', 'counter packets 5 bytes 6'),
    words(
      'meta mark set',
      either(
        mark(2),
        fc.constantFrom(
          'meta mark | 0x10',
          'meta mark & 0xff',
          'meta mark ^ 0x7',
          'meta mark & 0xff0f | 0x40',
          'numgen inc mod 3 offset 2',
        ),
      ),
    ),
    ...(network && (family === 'inet' || family === network)
      ? [
          words(
            'meta mark set',
            network,
            'saddr map',
            elements((slot) =>
              words(network === 'ip' ? address4(slot) : address6(slot), ':', mark(slot)),
            ),
          ),
        ]
      : []),
    ...(chain === 'early' ? [fc.constant('notrack')] : []),
    fc.constantFrom('ct mark set 0x5', 'ct mark set meta mark', 'meta priority set 1:2'),
  ];
}

const REJECT4 = [
  'net-unreachable',
  'host-unreachable',
  'prot-unreachable',
  'port-unreachable',
  'net-prohibited',
  'host-prohibited',
  'admin-prohibited',
];
const REJECT6 = [
  'no-route',
  'admin-prohibited',
  'addr-unreachable',
  'port-unreachable',
  'policy-fail',
  'reject-route',
];
const REJECT_ANY = ['port-unreachable', 'admin-prohibited', 'no-route', 'host-unreachable'];

/** What a sender is told that can be told in that table. */
export function rejects({ family, network, transport }: About): Text {
  const own =
    network === 'ip'
      ? REJECT4.map((code) => `reject with icmp ${code}`)
      : network === 'ip6'
        ? REJECT6.map((code) => `reject with icmpv6 ${code}`)
        : [];
  return fc.constantFrom(
    'reject',
    ...own,
    ...(transport === 'tcp' && !(family === 'inet' && network) ? ['reject with tcp reset'] : []),
    ...(family === 'inet' ? REJECT_ANY.map((code) => `reject with icmpx ${code}`) : []),
  );
}

/** What is decided by what a packet has. */
export function decisions(about: About): Text[] {
  const { network, transport } = about;
  const at = network === 'ip' ? address4 : address6;
  const prefix = network === 'ip' ? prefix4 : prefix6;
  const isPorted = transport === 'tcp' || transport === 'udp';
  return [
    words(
      'meta mark vmap',
      verdictMap((slot) => either(mark(slot), between(mark, slot))),
    ),
    words(
      'ct state vmap',
      verdictMap(
        (slot) => fc.constant(['new', 'established', 'related', 'invalid'][slot] ?? ''),
        4,
      ),
    ),
    words(
      'meta l4proto vmap',
      verdictMap((slot) => fc.constant(ANY_TRANSPORT[slot] ?? ''), 7),
    ),
    ...(about.chain === 'late' ? [] : [words('iifname vmap', verdictMap(links, 8))]),
    ...(network
      ? [
          words(
            network,
            'saddr vmap',
            verdictMap((slot) => either(at(slot), prefix(slot), between(at, slot))),
          ),
        ]
      : []),
    ...(isPorted
      ? [
          words(
            transport,
            'dport vmap',
            verdictMap((slot) => either(port(slot), between(port, slot))),
          ),
        ]
      : []),
    ...(network && isPorted
      ? [
          words(
            network,
            'daddr .',
            transport,
            'dport vmap',
            verdictMap((slot) => words(either(at(slot), prefix(slot)), '.', port(slot))),
          ),
        ]
      : []),
  ];
}

const howPorts: Text = fc.constantFrom(
  '',
  '',
  'random',
  'fully-random',
  'random,persistent',
  'persistent',
);

/** Translations, in a chain for that. */
export function translations({ family, chain, network, transport }: About): Text[] {
  const isPorted = transport === 'tcp' || transport === 'udp';
  const ports = either(port(3), between(port, 3));
  if (network === undefined && family === 'inet')
    return chain === 'late' ? [words('masquerade', howPorts)] : [fc.constant('redirect')];
  const protocol = network ?? (family === 'ip6' ? 'ip6' : 'ip');
  const of = family === 'inet' ? protocol : '';
  const at = protocol === 'ip' ? address4 : address6;
  const prefixOf: At = (slot) =>
    fc.constant(protocol === 'ip' ? `10.${slot}.0.0/16` : `fd00:${slot}::/32`);
  const to = either(at(5), between(at, 6));
  const ofIts = isPorted ? `meta l4proto ${transport}` : '';
  const verb = chain === 'late' ? 'snat' : 'dnat';
  const withPort = (address: Text): Text =>
    fc.tuple(address, ports).map(([ip, number]) =>
      protocol === 'ip'
        ? `${ip}:${number}`
        : `${ip
            .split('-')
            .map((each) => `[${each}]`)
            .join('-')}:${number}`,
    );
  return [
    words(verb, of, 'to', to, howPorts),
    words(
      verb,
      of,
      'to numgen inc mod 3 map',
      elements((slot) => words(fc.constant(`${slot}`), ':', at(slot)), 2, 3),
    ),
    words(
      verb,
      of,
      'prefix to',
      protocol,
      'daddr map',
      elements((slot) => words(prefixOf(slot), ':', prefixOf(slot + SLOTS))),
    ),
    words(
      verb,
      of,
      'to',
      protocol,
      'daddr map',
      elements((slot) => words(at(slot), ':', between(at, slot))),
    ),
    words(
      verb,
      of,
      'to',
      protocol,
      'daddr map',
      elements((slot) => words(at(slot), ':', at(slot))),
    ),
    ...(isPorted
      ? [
          words(ofIts, verb, of, 'to', withPort(to), howPorts),
          words(
            verb,
            of,
            'to',
            protocol,
            `daddr . ${transport} dport map`,
            elements((slot) => words(at(slot), '.', port(slot), ':', at(slot), '.', port(slot))),
          ),
        ]
      : []),
    chain === 'late'
      ? words(
          ofIts,
          'masquerade',
          ...(isPorted ? ['to', ports.map((each) => `:${each}`)] : []),
          howPorts,
        )
      : words(
          ofIts,
          'redirect',
          ...(isPorted ? ['to', ports.map((each) => `:${each}`)] : []),
          howPorts,
        ),
  ];
}
