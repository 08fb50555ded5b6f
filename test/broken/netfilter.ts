/** Chains that drop packets, and chains that translate what they should not. */
import { parseIp } from '../../model/ip.ts';
import type { ChainHook, NftCommand, NftFamily, Statement } from '../../model/nftables.ts';
import type { Op } from '../../model/op.ts';
import { parsePrefix } from '../../model/prefix.ts';
import { HAIRPIN_CASES } from '../sim/hairpin.ts';
import { HANDSHAKES, HANDSHAKE_TABLE, handshakeHost } from '../sim/handshakes.ts';
import { LISTEN_PORT, SERVICE_PORT } from '../sim/rulesets.ts';
import { B4, type BrokenHost, C4, C6, name, sysctl } from './broken-host.ts';

function chain(
  netns: string,
  hook: ChainHook['hook'],
  policy: ChainHook['policy'],
  statements: readonly Statement[] = [],
  family: NftFamily = 'inet',
): Op {
  const ref = { family, table: 'fuzz' };
  const commands: NftCommand[] = [
    { ...ref, do: 'add table' },
    { ...ref, do: 'add chain', chain: hook, hook: { type: 'filter', hook, priority: 0, policy } },
    ...(statements.length > 0
      ? [{ ...ref, do: 'add rule', chain: hook, rule: { statements, comment: '' } } as const]
      : []),
  ];
  return { op: 'nft.batch', netns, commands };
}

const FILTER = { family: 'ip', table: 'filter' } as const;

const DROP: Statement = { kind: 'verdict', verdict: 'drop' };

/** Everything that pods of the first bridge send. */
const MASQUERADE: Op = {
  op: 'nft.batch',
  netns: 'node',
  commands: [
    { family: 'inet', table: 'fuzz', do: 'add table' },
    {
      family: 'inet',
      table: 'fuzz',
      do: 'add chain',
      chain: 'masq',
      hook: { type: 'nat', hook: 'postrouting', priority: 100, policy: 'accept' },
    },
    {
      family: 'inet',
      table: 'fuzz',
      do: 'add rule',
      chain: 'masq',
      rule: {
        statements: [
          { kind: 'match', field: 'ip saddr', negate: false, value: parsePrefix('10.244.1.0/24') },
          { kind: 'masquerade' },
        ],
        comment: '',
      },
    },
  ],
};

/** As iptables-nft writes it: `-A FORWARD -j DOCKER-USER`, `-A DOCKER-USER -d 10.244.2.4 -j DROP`. */
const DOCKER_USER: Op = {
  op: 'nft.batch',
  netns: 'node',
  commands: [
    { ...FILTER, do: 'add table' },
    { ...FILTER, do: 'add chain', chain: 'DOCKER-USER', hook: null },
    {
      ...FILTER,
      do: 'add chain',
      chain: 'FORWARD',
      hook: { type: 'filter', hook: 'forward', priority: 0, policy: 'accept' },
    },
    {
      ...FILTER,
      do: 'add rule',
      chain: 'FORWARD',
      rule: {
        statements: [
          { kind: 'counter' },
          { kind: 'verdict', verdict: 'jump', chain: 'DOCKER-USER' },
        ],
        comment: '',
      },
    },
    {
      ...FILTER,
      do: 'add rule',
      chain: 'DOCKER-USER',
      rule: {
        statements: [
          { kind: 'match', field: 'ip daddr', negate: false, value: parseIp(C4) },
          { kind: 'counter' },
          DROP,
        ],
        comment: '',
      },
    },
  ],
};

function hairpin(caseName: string): readonly Op[] {
  const found = HAIRPIN_CASES.find((each) => each.name === caseName);
  if (!found) throw new Error(`there is no case "${caseName}"`);
  return found.ops;
}

/** A command of iptables-legacy in the node, of which the model of a host knows nothing. */
function legacy(command: string): NonNullable<BrokenHost['beyond']> {
  return {
    host: (host) => host,
    commands: (real) => [`ip netns exec ${real('node')} ${command}`.split(' ')],
  };
}

/** A handshake of which the node sees only what one side sends, and a rule that drops what is invalid then. */
function halfOpen(): Omit<BrokenHost, 'name'> {
  const [handshake] = HANDSHAKES.filter(
    ({ opening, ops }) => opening === 'half open' && ops.length > 0,
  );
  if (!handshake) throw new Error('every handshake goes the same way');
  const { family, name: table } = HANDSHAKE_TABLE;
  const chainWords = `${family} ${table} forward`;
  const hook = '{ type filter hook forward priority 0; }';
  const commands = [
    `add table ${family} ${table}`,
    `add chain ${chainWords} ${hook}`,
    `add rule ${chainWords} ${handshake.rule}`,
  ];
  return {
    ops: handshake.ops,
    beyond: {
      host: () => handshakeHost(handshake),
      commands: (real) =>
        commands.map((command) => ['ip', 'netns', 'exec', real('node'), 'nft', command]),
    },
    trace: { from: 'a', to: `${C4}:${LISTEN_PORT}/tcp` },
    guilty: ['node', `chain ${chainWords}`],
  };
}

export const BROKEN_NETFILTER: readonly BrokenHost[] = [
  { name: 'answers go another way, and what is invalid is dropped', ...halfOpen() },
  {
    name: 'a rule of iptables-legacy drops what is for the node',
    ops: [],
    beyond: legacy('iptables-legacy -A INPUT -p icmp -j DROP'),
    legacyTables: {
      node: [
        { family: 'ip', name: 'filter', chains: [{ hook: 'input', rules: 1, policy: 'accept' }] },
      ],
    },
    trace: { from: 'a', to: '10.244.1.1' },
    guilty: ['node', 'table filter of iptables-legacy'],
    check: 'note',
  },
  {
    name: 'a policy of ip6tables-legacy drops what is forwarded',
    ops: [],
    beyond: legacy('ip6tables-legacy -P FORWARD DROP'),
    legacyTables: {
      node: [
        { family: 'ip6', name: 'filter', chains: [{ hook: 'forward', rules: 0, policy: 'drop' }] },
      ],
    },
    trace: { from: 'a', to: C6 },
    guilty: ['node', 'table filter of ip6tables-legacy'],
    check: 'note',
  },
  {
    name: 'a chain of nft at a link drops what comes in by it',
    ops: [],
    beyond: {
      host: (host) => host,
      commands: (real) => [
        [
          'ip',
          'netns',
          'exec',
          real('node'),
          'nft',
          'add table netdev f; add chain netdev f c { type filter hook ingress device "v-a" priority 0; }; add rule netdev f c ip protocol icmp drop',
        ],
      ],
    },
    legacyTables: {
      node: [
        {
          program: 'nft',
          family: 'netdev',
          name: 'f',
          chains: [{ hook: 'ingress', devices: ['v-a'], rules: 1, policy: 'accept' }],
        },
      ],
    },
    trace: { from: 'a', to: '10.244.1.1' },
    guilty: ['node', 'table netdev f'],
    check: 'note',
  },
  {
    name: 'the policy of forward is drop',
    ops: [chain('node', 'forward', 'drop')],
    trace: { from: 'a', to: C4 },
    check: 'error',
    guilty: ['node', 'chain inet fuzz forward'],
  },
  {
    name: 'a rule of iptables-nft drops what goes to the other end',
    ops: [DOCKER_USER],
    trace: { from: 'a', to: C4 },
    guilty: ['node', 'chain ip filter DOCKER-USER'],
    traceMends: ['iptables-nft -S DOCKER-USER'],
  },
  {
    name: 'a rule drops what goes to the other end',
    ops: [
      chain('node', 'forward', 'accept', [
        { kind: 'match', field: 'ip6 daddr', negate: false, value: parseIp(C6) },
        DROP,
      ]),
    ],
    trace: { from: 'a', to: C6 },
    guilty: ['node', 'chain inet fuzz forward'],
  },
  {
    name: 'a rule drops what the other end answers',
    ops: [
      chain('node', 'postrouting', 'accept', [
        { kind: 'match', field: 'ip saddr', negate: false, value: parseIp(C4) },
        DROP,
      ]),
    ],
    trace: { from: 'a', to: C4 },
    guilty: ['node', 'chain inet fuzz postrouting'],
  },
  {
    name: 'the node takes nothing in',
    ops: [chain('node', 'input', 'drop')],
    trace: { from: 'a', to: '10.244.1.1' },
    guilty: ['node', 'chain inet fuzz input'],
  },
  {
    name: 'the sender lets nothing out',
    ops: [chain('a', 'output', 'drop')],
    trace: { from: 'a', to: C4 },
    guilty: ['a', 'chain inet fuzz output'],
  },
  {
    name: 'a chain of frames drops what comes in by a port',
    ops: [
      chain(
        'node',
        'prerouting',
        'accept',
        [{ kind: 'match', field: 'iifname', negate: false, value: name('v-a') }, DROP],
        'bridge',
      ),
    ],
    trace: { from: 'a', to: B4 },
    guilty: ['node', 'chain bridge fuzz prerouting'],
  },
  {
    name: 'a pod asks a service that it is itself, and its port is no hairpin',
    ops: hairpin('itself, masqueraded, plain, bridge-nf-call-iptables 1'),
    trace: { from: 'a', to: `10.96.0.1:${SERVICE_PORT}/udp` },
    guilty: ['node', 'bridge port v-a'],
    check: 'warning',
    checkNames: ['node', 'chain inet fuzz masq'],
  },
  {
    name: 'a service answers by its bridge as the pod that it is',
    ops: hairpin('another, as it is, plain, bridge-nf-call-iptables 0'),
    trace: { from: 'a', to: `10.96.0.1:${SERVICE_PORT}/udp` },
    check: 'warning',
    guilty: ['node', 'sysctl net.bridge.bridge-nf-call-iptables'],
    traceMends: ['sysctl -w net.bridge.bridge-nf-call-iptables=1'],
  },
  {
    name: 'a service is asked for a port that it has not',
    ops: hairpin('another, as it is, plain, bridge-nf-call-iptables 1'),
    trace: { from: 'a', to: `10.96.0.1:${SERVICE_PORT}/tcp` },
    guilty: ['node', 'route to 10.96.0.1'],
    traceSays: (real) =>
      `no rule of netns ${real('node')} translates 10.96.0.1:${SERVICE_PORT}/tcp; ${SERVICE_PORT}/udp is translated`,
  },
  {
    name: 'a service is sent a ping',
    ops: hairpin('another, as it is, plain, bridge-nf-call-iptables 1'),
    trace: { from: 'a', to: '10.96.0.1' },
    guilty: ['node', 'route to 10.96.0.1'],
    traceSays: (real) =>
      `no rule of netns ${real('node')} translates a ping of 10.96.0.1; ${SERVICE_PORT}/udp is translated`,
  },
  {
    name: 'what pods of a bridge send each other is masqueraded',
    ops: [sysctl('node', 'net/bridge/bridge-nf-call-iptables', '1'), MASQUERADE],
    check: 'warning',
    mends: false,
    guilty: ['node', 'chain inet fuzz masq'],
  },
];
