/** Rules on what pods send through a bridge, judged by what arrives: each one alone stops what it is for, and nothing else. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Backend } from '../../backends/backend.ts';
import { echo } from '../../backends/linux/echo.ts';
import { makeLinuxBackend } from '../../backends/linux/linux.ts';
import { makeAddress } from '../../model/address.ts';
import { parseIfname } from '../../model/ifname.ts';
import { type Ip, familyOf, parseIp } from '../../model/ip.ts';
import { type Mac, parseMac } from '../../model/mac.ts';
import {
  type LookupField,
  type NftCommand,
  type SetKey,
  type SetKeyType,
  formatRule,
} from '../../model/nftables.ts';
import type { Op } from '../../model/op.ts';
import { requirement } from '../requirements.ts';

const HOST = `cube-spoof-${process.pid}-h`;
const PODS = ['a', 'b'].map((pod) => `cube-spoof-${process.pid}-${pod}`) as [string, string];
const [A, B] = PODS;

const BRIDGE = parseIfname('br0');
const ETH0 = parseIfname('eth0');
/** The host's end of pod a, whose frames are looked at. */
const PORT = parseIfname('vetha');
const MTU_BYTES = 1500;

const MAC = parseMac('02:00:00:00:00:0a');
const OTHER_MAC = parseMac('02:00:00:00:00:0c');
const OWN = { 4: parseIp('10.1.0.2'), 6: parseIp('fd00::2') } as const;
const OTHER = { 4: parseIp('10.1.0.66'), 6: parseIp('fd00::66') } as const;
const PEER = { 4: parseIp('10.1.0.3'), 6: parseIp('fd00::3') } as const;

/** An answer that is to come takes less than a millisecond; the machine may be busy. */
const ANSWER_MS = 5000;
/** How long silence is listened to. */
const SILENCE_MS = 700;

const REF = { family: 'bridge', table: 'spoof' } as const;

/** Each rule: what it compares with the set of what is allowed. */
const RULES: readonly (readonly [field: LookupField, keyType: SetKeyType, allowed: SetKey])[] = [
  ['iifname . ether saddr', 'ifname . ether_addr', `${PORT} . ${MAC}`],
  ['iifname . arp saddr ether', 'ifname . ether_addr', `${PORT} . ${MAC}`],
  ['iifname . ip saddr', 'ifname . ipv4_addr', `${PORT} . ${OWN[4]}`],
  ['iifname . arp saddr ip', 'ifname . ipv4_addr', `${PORT} . ${OWN[4]}`],
  ['iifname . ip6 saddr', 'ifname . ipv6_addr', `${PORT} . ${OWN[6]}`],
];

let backend: Backend;

function must(...ops: readonly Op[]): void {
  for (const op of ops)
    expect({ op: op.op, fault: backend.execute(op) }).toEqual({ op: op.op, fault: undefined });
}

function addPod(pod: string, port: string, mac: Mac, ips: readonly Ip[]): void {
  const end = { mtuBytes: MTU_BYTES, up: true };
  must(
    {
      op: 'link.add',
      netns: HOST,
      link: {
        kind: 'veth',
        ifname: parseIfname(port),
        mac: parseMac(`02:00:00:00:01:${mac.slice(-2)}`),
        ...end,
        master: BRIDGE,
        peer: { ifname: ETH0, netns: pod, mac, ...end },
      },
    },
    ...ips.map((ip): Op => ({
      op: 'address.add',
      netns: pod,
      ifname: ETH0,
      address: makeAddress({ ip, prefixLength: familyOf(ip) === 4 ? 24 : 64 }),
    })),
  );
}

/** The table with this rule alone. */
function tableWith([field, keyType, allowed]: (typeof RULES)[number]): Op {
  const commands: readonly NftCommand[] = [
    { ...REF, do: 'add table' },
    {
      ...REF,
      do: 'add chain',
      chain: 'prerouting',
      hook: { type: 'filter', hook: 'prerouting', priority: -300, policy: 'accept' },
    },
    { ...REF, do: 'add set', set: 'checked', keyType: 'ifname', holds: 'nothing' },
    { ...REF, do: 'add set', set: 'allowed', keyType, holds: 'nothing' },
    {
      ...REF,
      do: 'add element',
      set: 'checked',
      element: { key: PORT, verdict: null, comment: '' },
    },
    {
      ...REF,
      do: 'add element',
      set: 'allowed',
      element: { key: allowed, verdict: null, comment: '' },
    },
    {
      ...REF,
      do: 'add rule',
      chain: 'prerouting',
      rule: {
        statements: [
          { kind: 'lookup', field: 'iifname', negate: false, set: 'checked' },
          { kind: 'lookup', field, negate: true, set: 'allowed' },
          { kind: 'verdict', verdict: 'drop' },
        ],
        comment: '',
      },
    },
  ];
  return { op: 'nft.batch', netns: HOST, commands };
}

const setMac = (mac: Mac): Op => ({ op: 'link.set', netns: A, ifname: ETH0, set: { mac } });

/** Does pod b answer to pod a? Both forget what they know of each other before, so that ARP and ND are part of it. */
function answers(family: 4 | 6, source: Ip, timeoutMs = ANSWER_MS): boolean {
  for (const netns of PODS) {
    const { exitCode } = Bun.spawnSync(['ip', '-n', netns, 'neighbour', 'flush', 'all']);
    expect(exitCode).toBe(0);
  }
  return echo({ netns: A, destination: PEER[family], source, timeoutMs }).ok;
}

describe.skipIf(requirement('root', 'iproute2'))('what a pod sends in the name of others', () => {
  beforeAll(() => {
    backend = makeLinuxBackend();
    must(...[HOST, ...PODS].map((netns): Op => ({ op: 'netns.add', netns })));
    const link = { kind: 'bridge', ifname: BRIDGE, mtuBytes: MTU_BYTES, up: true } as const;
    must({
      op: 'link.add',
      netns: HOST,
      link: { ...link, mac: parseMac('02:00:00:00:00:01') },
    });
    addPod(A, PORT, MAC, [OWN[4], OWN[6], OTHER[4], OTHER[6]]);
    addPod(B, 'vethb', parseMac('02:00:00:00:00:0b'), [PEER[4], PEER[6]]);
  });
  afterAll(() => {
    for (const netns of [A, B, HOST]) backend.execute({ op: 'netns.del', netns });
    backend.close();
  });

  test('arrives without rules', () => {
    for (const family of [4, 6] as const) {
      expect(answers(family, OWN[family])).toBe(true);
      expect(answers(family, OTHER[family])).toBe(true);
    }
    must(setMac(OTHER_MAC));
    expect(answers(4, OWN[4])).toBe(true);
    must(setMac(MAC));
  });

  test.for(RULES)('%s', (rule) => {
    const [field] = rule;
    const family = field.includes('ip6') ? 6 : 4;
    must(tableWith(rule));
    const { netns } = backend.observe({
      [HOST]: { links: [], routes: 'none', sysctls: [], nftables: 'all' },
    });
    const chain = netns[HOST]?.nftables['bridge spoof']?.chains['prerouting'];
    expect(chain?.rules.map(formatRule)).toEqual([`iifname @checked ${field} != @allowed drop`]);
    expect(answers(family, OWN[family])).toBe(true);
    if (field.includes('ether')) {
      must(setMac(OTHER_MAC));
      expect(answers(family, OWN[family], SILENCE_MS)).toBe(false);
      must(setMac(MAC));
    } else {
      expect(answers(family, OTHER[family], SILENCE_MS)).toBe(false);
    }
    must({ op: 'nft.batch', netns: HOST, commands: [{ ...REF, do: 'delete table' }] });
    expect(answers(family, OTHER[family])).toBe(true);
  });
});
