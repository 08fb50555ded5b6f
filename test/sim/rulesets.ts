/** Rulesets for the routed host: chains at every hook, translations, marks, and frames on its bridges. */
import fc from 'fast-check';
import type { Ifname } from '../../model/ifname.ts';
import { parseIp } from '../../model/ip.ts';
import { parseMac } from '../../model/mac.ts';
import type {
  AddressField,
  ChainHook,
  NftCommand,
  NftFamily,
  PortKey,
  Rule,
  SetElement,
  Statement,
  Target,
  Verdict,
} from '../../model/nftables.ts';
import type { Op } from '../../model/op.ts';
import { parsePrefix } from '../../model/prefix.ts';

/** Where those who are probed listen, and under which port a service that nobody is stands for them. */
export const LISTEN_PORT = 7000;
export const SERVICE_PORT = 80;
export const SERVICES = ['10.96.0.1', 'fd96::1'].map(parseIp);

const HOSTS4 = ['10.244.1.1', '10.244.1.2', '10.244.1.3', '10.244.2.4', '10.244.3.2', '10.96.0.1'];
const HOSTS6 = ['fd00:1::1', 'fd00:1::2', 'fd00:2::4', 'fd00:3::2', 'fd96::1'];
const NETS4 = ['10.244.1.0/24', '10.244.2.0/24', '10.244.0.0/16'];
const NETS6 = ['fd00:1::/64', 'fd00:2::/64', 'fd00::/16'];
const LINKS = ['cni0', 'cni1', 'v-d', 'lo'] as Ifname[];
const PORTS = ['v-a', 'v-b', 'v-c'] as Ifname[];
const STATIONS = ['02:00:00:00:00:02', '02:00:00:00:00:04'].map(parseMac);
const BITS = [0x1, 0x4000];

const TABLE = 'fuzz';

function verdicts(isJump: boolean): fc.Arbitrary<Verdict> {
  const ends = fc.constantFrom<Verdict>(
    { verdict: 'accept' },
    { verdict: 'drop' },
    { verdict: 'drop' },
    { verdict: 'return' },
    { verdict: 'continue' },
  );
  const jumps = fc.constantFrom<Verdict>(
    { verdict: 'jump', chain: 'other' },
    { verdict: 'goto', chain: 'other' },
  );
  return isJump ? fc.oneof(ends, jumps) : ends;
}

function conditions(): fc.Arbitrary<Statement> {
  const negate = fc.boolean();
  const address = (fields: readonly AddressField[], values: readonly string[]) =>
    fc.record({
      kind: fc.constant('match' as const),
      field: fc.constantFrom(...fields),
      negate,
      value: fc
        .constantFrom(...values)
        .map((text) => (text.includes('/') ? parsePrefix(text) : parseIp(text))),
    });
  return fc.oneof<fc.Arbitrary<Statement>[]>(
    address(['ip saddr', 'ip daddr'], [...HOSTS4, ...NETS4]),
    address(['ip6 saddr', 'ip6 daddr'], [...HOSTS6, ...NETS6]),
    fc.record({
      kind: fc.constant('match' as const),
      field: fc.constantFrom('iifname' as const, 'oifname' as const),
      negate,
      value: fc.constantFrom(...LINKS),
    }),
    fc.record({
      kind: fc.constant('lookup' as const),
      field: fc.constantFrom('ip saddr' as const, 'ip daddr' as const),
      negate,
      set: fc.constant('hosts'),
    }),
    fc.constant<Statement>({ kind: 'local' }),
    fc.constantFrom(...BITS).map((bits): Statement => ({ kind: 'marked', bits })),
    fc.constant<Statement>({ kind: 'counter' }),
  );
}

function rules(isJump: boolean): fc.Arbitrary<Rule> {
  const marks = fc
    .tuple(fc.constantFrom(...BITS), fc.boolean())
    .map(([bits, on]): Statement => ({ kind: 'mark', bits, on }));
  const ends = fc.oneof<fc.Arbitrary<Statement>[]>(
    verdicts(isJump).map((verdict): Statement => ({ kind: 'verdict', ...verdict })),
    marks,
    fc.constant<Statement>({ kind: 'vmap', field: 'ip saddr', map: 'verdicts' }),
  );
  return fc
    .tuple(fc.array(conditions(), { maxLength: 2 }), ends)
    .map(([asked, end]) => ({ statements: [...asked, end], comment: '' }));
}

interface NamedChain {
  readonly name: string;
  readonly hook: ChainHook | null;
  readonly rules: readonly Rule[];
}

function filterChains(): fc.Arbitrary<NamedChain> {
  return fc
    .record({
      hook: fc.constantFrom<ChainHook['hook'][]>(
        'prerouting',
        'input',
        'forward',
        'output',
        'postrouting',
      ),
      priority: fc.constantFrom(-300, -150, 0, 10, 150),
      policy: fc.constantFrom(
        'accept' as const,
        'accept' as const,
        'accept' as const,
        'drop' as const,
      ),
      rules: fc.array(rules(true), { maxLength: 4 }),
    })
    .map(({ rules: own, ...hook }) => ({
      name: `${hook.hook}${hook.priority < 0 ? 'm' : 'p'}${Math.abs(hook.priority)}`,
      hook: { type: 'filter', ...hook },
      rules: own,
    }));
}

const SERVICE_RULES: readonly Rule[] = [
  {
    statements: [
      { kind: 'dnat', family: 4, field: 'ip daddr . meta l4proto . th dport', map: 'services4' },
    ],
    comment: '',
  },
  {
    statements: [
      { kind: 'dnat', family: 6, field: 'ip6 daddr . meta l4proto . th dport', map: 'services6' },
    ],
    comment: '',
  },
];

function natChain(
  name: string,
  hook: ChainHook['hook'],
  priority: number,
  own: readonly Rule[],
): NamedChain {
  return { name, hook: { type: 'nat', hook, priority, policy: 'accept' }, rules: own };
}

function natChains(): fc.Arbitrary<readonly NamedChain[]> {
  const masquerade = fc.array(conditions(), { maxLength: 2 }).map((asked): Rule => ({
    statements: [...asked, { kind: 'masquerade' }],
    comment: '',
  }));
  return fc
    .record({
      services: fc.boolean(),
      own: fc.boolean(),
      masquerades: fc.array(masquerade, { maxLength: 2 }),
    })
    .map(({ services, own, masquerades }) => [
      ...(services ? [natChain('services', 'prerouting', -100, SERVICE_RULES)] : []),
      ...(own ? [natChain('own', 'output', -100, SERVICE_RULES)] : []),
      ...(masquerades.length > 0 ? [natChain('masq', 'postrouting', 100, masquerades)] : []),
    ]);
}

function element(key: SetElement['key'], more: Partial<SetElement> = {}): SetElement {
  return { key, verdict: null, comment: '', ...more };
}

function service(ip: string, target: string): SetElement[] {
  return (['tcp', 'udp'] as const).map((protocol) =>
    element(`${parseIp(ip)} . ${protocol} . ${SERVICE_PORT}` as PortKey, {
      target: `${parseIp(target)} . ${LISTEN_PORT}` as Target,
    }),
  );
}

interface SetContent {
  readonly name: string;
  readonly keyType:
    | 'ipv4_addr'
    | 'ipv4_addr . inet_proto . inet_service'
    | 'ipv6_addr . inet_proto . inet_service';
  readonly holds: 'nothing' | 'verdict' | 'ipv4_addr . inet_service' | 'ipv6_addr . inet_service';
  readonly elements: readonly SetElement[];
}

function setContents(): fc.Arbitrary<readonly SetContent[]> {
  const hosts = fc.uniqueArray(fc.constantFrom(...HOSTS4.map(parseIp)), { maxLength: 3 });
  return fc
    .record({
      hosts,
      deciding: hosts,
      verdict: verdicts(false),
      backend4: fc.constantFrom('10.244.1.2', '10.244.1.3', '10.244.2.4', '10.244.3.2'),
      backend6: fc.constantFrom('fd00:1::2', 'fd00:1::3', 'fd00:2::4', 'fd00:3::2'),
    })
    .map((each) => [
      {
        name: 'hosts',
        keyType: 'ipv4_addr',
        holds: 'nothing',
        elements: each.hosts.map((ip) => element(ip)),
      },
      {
        name: 'verdicts',
        keyType: 'ipv4_addr',
        holds: 'verdict',
        elements: each.deciding.map((ip) => element(ip, { verdict: each.verdict })),
      },
      {
        name: 'services4',
        keyType: 'ipv4_addr . inet_proto . inet_service',
        holds: 'ipv4_addr . inet_service',
        elements: service('10.96.0.1', each.backend4),
      },
      {
        name: 'services6',
        keyType: 'ipv6_addr . inet_proto . inet_service',
        holds: 'ipv6_addr . inet_service',
        elements: service('fd96::1', each.backend6),
      },
    ]);
}

function tableCommands(
  family: NftFamily,
  sets: readonly SetContent[],
  chains: readonly NamedChain[],
): NftCommand[] {
  const ref = { family, table: TABLE };
  return [
    { ...ref, do: 'add table' },
    ...sets.flatMap(({ name, keyType, holds, elements }): NftCommand[] => [
      { ...ref, do: 'add set', set: name, keyType, holds },
      ...elements.map((each): NftCommand => ({
        ...ref,
        do: 'add element',
        set: name,
        element: each,
      })),
    ]),
    ...chains.map(({ name, hook }): NftCommand => ({ ...ref, do: 'add chain', chain: name, hook })),
    ...chains.flatMap(({ name, rules: own }) =>
      own.map((rule): NftCommand => ({ ...ref, do: 'add rule', chain: name, rule })),
    ),
  ];
}

/** Chains that see the frames on bridges. */
function frameChains(): fc.Arbitrary<NamedChain> {
  const asked = fc.oneof<fc.Arbitrary<Statement>[]>(
    fc.record({
      kind: fc.constant('match' as const),
      field: fc.constantFrom('iifname' as const, 'oifname' as const),
      negate: fc.boolean(),
      value: fc.constantFrom(...PORTS),
    }),
    fc.record({
      kind: fc.constant('lookup' as const),
      field: fc.constant('ether saddr' as const),
      negate: fc.boolean(),
      set: fc.constant('stations'),
    }),
  );
  return fc
    .record({
      hook: fc.constantFrom<ChainHook['hook'][]>(
        'prerouting',
        'input',
        'forward',
        'output',
        'postrouting',
      ),
      rules: fc.array(
        fc.tuple(asked, verdicts(false)).map(([condition, verdict]): Rule => ({
          statements: [condition, { kind: 'verdict', ...verdict }],
          comment: '',
        })),
        { maxLength: 2 },
      ),
    })
    .map(({ hook, rules: own }) => ({
      name: hook,
      hook: { type: 'filter', hook, priority: 0, policy: 'accept' },
      rules: own,
    }));
}

/** What makes the ruleset of netns node, and whether its bridges hand packets to the chains of IP. */
export function rulesets(): fc.Arbitrary<readonly Op[]> {
  return fc
    .record({
      sets: setContents(),
      other: fc.array(rules(false), { maxLength: 3 }),
      filters: fc.uniqueArray(filterChains(), { maxLength: 4, selector: ({ name }) => name }),
      nats: natChains(),
      frames: fc.option(frameChains(), { freq: 3 }),
      isBridged: fc.boolean(),
    })
    .map(({ sets, other, filters, nats, frames, isBridged }): Op[] => [
      ...['iptables', 'ip6tables'].map((name): Op => ({
        op: 'sysctl.set',
        netns: 'node',
        key: `net/bridge/bridge-nf-call-${name}`,
        value: isBridged ? '1' : '0',
      })),
      {
        op: 'nft.batch',
        netns: 'node',
        commands: [
          ...tableCommands('inet', sets, [
            { name: 'other', hook: null, rules: other },
            ...filters,
            ...nats,
          ]),
          ...(frames
            ? [
                { family: 'bridge', table: TABLE, do: 'add table' } as const,
                {
                  family: 'bridge',
                  table: TABLE,
                  do: 'add set',
                  set: 'stations',
                  keyType: 'ether_addr',
                  holds: 'nothing',
                } as const,
                ...STATIONS.map((mac): NftCommand => ({
                  family: 'bridge',
                  table: TABLE,
                  do: 'add element',
                  set: 'stations',
                  element: element(mac),
                })),
                ...tableCommands('bridge', [], [frames]).slice(1),
              ]
            : []),
        ],
      },
    ]);
}

/** What takes the ruleset away again. */
export const NO_RULESET: Op = {
  op: 'nft.batch',
  netns: 'node',
  commands: (['inet', 'bridge'] as const).flatMap((family): NftCommand[] => [
    { family, table: TABLE, do: 'add table' },
    { family, table: TABLE, do: 'delete table' },
  ]),
};

/** What comes in by the bridge is masqueraded, which what it only forwards has not when it leaves. */
export const BRIDGED_MASQUERADE: readonly Op[] = [
  { op: 'sysctl.set', netns: 'node', key: 'net/bridge/bridge-nf-call-iptables', value: '1' },
  {
    op: 'nft.batch',
    netns: 'node',
    commands: tableCommands(
      'inet',
      [],
      [
        natChain('masq', 'postrouting', 100, [
          {
            statements: [
              { kind: 'match', field: 'iifname', negate: false, value: 'cni0' as Ifname },
              { kind: 'masquerade' },
            ],
            comment: '',
          },
        ]),
      ],
    ),
  },
];
