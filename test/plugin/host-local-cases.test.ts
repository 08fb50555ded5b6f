/**
 * The cases by which the reference's host-local is tested (plugins/ipam/host-local of containernetworking/plugins), as far
 * as they are about which address somebody gets. Its files are the matter of reference/host-local.test.ts.
 */
import { describe, expect, it } from 'vitest';
import { HOST_NETNS, findLink, findNetns } from '../../model/host.ts';
import type { Ifname } from '../../model/ifname.ts';
import { type Ip, familyOf, ipBits } from '../../model/ip.ts';
import { type Added, add } from '../../plugin/call/add.ts';
import { del } from '../../plugin/call/del.ts';
import { choicesOf } from '../../plugin/cni/choices.ts';
import { type IpamConfig, parseConfig } from '../../plugin/cni/config.ts';
import { CniError } from '../../plugin/cni/error.ts';
import { convertResult } from '../../plugin/cni/result.ts';
import { SUPPORTED_VERSIONS, isBefore } from '../../plugin/cni/version.ts';
import { type AddressBook, allocate } from '../../plugin/ipam/allocate.ts';
import { formatRange, rangeSetsOf } from '../../plugin/ipam/ranges.ts';
import { type Machine, PODS, makeMachine, plainHost, requestFor, stateOf } from './machine.ts';
import { refusal } from './refusal.ts';

type Raw = Readonly<Record<string, unknown>>;

/** What a call says beside its configuration. */
interface CallWords {
  readonly containerId?: string;
  readonly ifname?: string;
  /** CNI_ARGS. */
  readonly args?: string;
}

function network(cniVersion: string, ipam: Raw, more: Raw = {}): Raw {
  return {
    cniVersion,
    name: 'net',
    type: 'cube-cni',
    ipam: { type: 'cube-ipam', ...ipam },
    ...more,
  };
}

/** ADD of a link in the first pod's netns. */
function attach(machine: Machine, raw: Raw, words: CallWords = {}): Added {
  const { args = '', ...names } = words;
  const request = { ...requestFor('ADD', raw, 0, names), args };
  const added = add(machine.start(), request, parseConfig(request.config));
  added.finish();
  return added;
}

function detach(machine: Machine, raw: Raw, words: CallWords = {}): void {
  del(machine.start(), requestFor('DEL', raw, 0, words).key);
}

/** The addresses of a result. */
function given(added: Added): string[] {
  return added.result.ips.map(({ address }) => address);
}

/** A failure, which must have left neither a record nor anything in the kernel. */
function failure(machine: Machine, work: () => unknown): string {
  const before = [stateOf(machine), machine.backend.host()];
  const text = refusal(work);
  expect([stateOf(machine), machine.backend.host()]).toEqual(before);
  return text;
}

const DUAL = {
  ranges: [[{ subnet: '10.1.2.0/24' }, { subnet: '10.2.2.0/24' }], [{ subnet: '2001:db8:1::/64' }]],
  routes: [{ dst: '0.0.0.0/0' }, { dst: '::/0' }, { dst: '192.168.0.0/16', gw: '10.1.2.9' }],
};

describe.each(SUPPORTED_VERSIONS)('%s', (version) => {
  const isSingle = isBefore(version, '0.3.0');

  it('gives an address of each set with its routes, and takes them back', () => {
    const machine = makeMachine(plainHost());
    const empty = stateOf(machine);
    const raw = network(version, DUAL);
    const result = convertResult(attach(machine, raw).result, version);
    const via4 = [{ dst: '0.0.0.0/0' }, { dst: '192.168.0.0/16', gw: '10.1.2.9' }].map((route) => ({
      gw: '10.1.2.1',
      ...route,
    }));
    const via6 = [{ dst: '::/0', gw: '2001:db8:1::1' }];
    if (isSingle) {
      expect(result).toEqual({
        cniVersion: version,
        ip4: { ip: '10.1.2.2/24', gateway: '10.1.2.1', routes: via4 },
        ip6: { ip: '2001:db8:1::2/64', gateway: '2001:db8:1::1', routes: via6 },
        dns: {},
      });
    } else {
      const family = (digit: string): object =>
        isBefore(version, '1.0.0') ? { version: digit } : {};
      expect(result['ips']).toEqual([
        { ...family('4'), interface: 2, address: '10.1.2.2/24', gateway: '10.1.2.1' },
        { ...family('6'), interface: 2, address: '2001:db8:1::2/64', gateway: '2001:db8:1::1' },
      ]);
      expect(result['routes']).toEqual([via4[0], ...via6, via4[1]]);
    }
    expect(stateOf(machine)).toMatchObject({ taken: ['10.1.2.2', '2001:db8:1::2'] });
    detach(machine, raw);
    expect(stateOf(machine)).toEqual(empty);
  });

  it('tells the links of a container apart', () => {
    const machine = makeMachine(plainHost());
    const raw = network(version, { subnet: '10.1.2.0/24' });
    const addresses = ['eth0', 'eth1'].map((ifname) => given(attach(machine, raw, { ifname })));
    expect(addresses).toEqual([['10.1.2.2/24'], ['10.1.2.3/24']]);
    detach(machine, raw, { ifname: 'eth0' });
    expect(stateOf(machine)).toMatchObject({ taken: ['10.1.2.3'] });
    detach(machine, raw, { ifname: 'eth1' });
    expect(stateOf(machine)).toMatchObject({ taken: [], records: [] });
  });

  it('gives a link no second address', () => {
    const machine = makeMachine(plainHost());
    const raw = network(version, { subnet: '10.1.2.0/24' });
    attach(machine, raw);
    expect(failure(machine, () => attach(machine, raw))).toBe(
      `101 attachment net/c0/eth0 already exists | it has 10.1.2.2/24 on ${
        machine.state.list()[0]?.attachment.hostIfname
      }; DEL has to come first`,
    );
  });

  it('takes back from nobody without complaint', () => {
    const machine = makeMachine(plainHost());
    const raw = network(version, { subnet: '10.1.2.0/24' });
    attach(machine, raw);
    const before = stateOf(machine);
    detach(machine, raw, { containerId: 'nobody' });
    expect(stateOf(machine)).toEqual(before);
  });

  it('leaves alone what host-local has handed out', () => {
    const machine = makeMachine(plainHost());
    machine.reserved = ['10.1.2.2', '10.1.2.4'] as Ip[];
    const raw = network(version, { subnet: '10.1.2.0/24' });
    const addresses = ['a', 'b'].map((containerId) =>
      given(attach(machine, raw, { containerId, ifname: `eth-${containerId}` })),
    );
    expect(addresses).toEqual([['10.1.2.3/24'], ['10.1.2.5/24']]);
  });

  it('gives the address that is asked for', () => {
    const machine = makeMachine(plainHost());
    const raw = network(version, { subnet: '10.1.2.0/24' });
    const words = { args: 'IgnoreUnknown=1;IP=10.1.2.88' };
    expect(given(attach(machine, raw, words))).toEqual(['10.1.2.88/24']);
  });

  it('gives one that is asked for of each family', () => {
    const machine = makeMachine(plainHost());
    const args = { cni: { ips: ['2001:db8:1::999', '10.2.2.77'] } };
    expect(given(attach(machine, network(version, { ranges: DUAL.ranges }, { args })))).toEqual([
      '10.2.2.77/24',
      '2001:db8:1::999/64',
    ]);
  });

  it('gives one that is asked for of each of several sets', () => {
    const machine = makeMachine(plainHost());
    const ipam = { ranges: [[{ subnet: '10.1.2.0/24' }], [{ subnet: '10.1.3.0/24' }]] };
    const args = { cni: { ips: ['10.1.2.88', '10.1.3.77'] } };
    const work = (): Added => attach(machine, network(version, ipam, { args }));
    if (isSingle)
      expect(failure(machine, work)).toBe(
        `7 CNI version ${version} does not support more than 1 address per family`,
      );
    else expect(given(work())).toEqual(['10.1.2.88/24', '10.1.3.77/24']);
  });

  it('refuses when one that is asked for would not be used', () => {
    const machine = makeMachine(plainHost());
    const raw = network(
      version,
      { subnet: '10.1.2.0/24' },
      {
        args: { cni: { ips: ['10.1.2.88', '10.1.2.77'] } },
      },
    );
    expect(failure(machine, () => attach(machine, raw))).toMatch(
      /^7 failed to allocate all requested IPs: 10\.1\.2\.77 \| /,
    );
  });
});

/** A network in which some addresses are taken, and one was handed out last. */
function bookOf(taken: readonly string[], last: string | undefined): AddressBook {
  const sorted = (taken as readonly Ip[]).toSorted((a, b) => (ipBits(a) < ipBits(b) ? -1 : 1));
  return {
    lastOf: () => last as Ip | undefined,
    takenBetween: (first, end) =>
      sorted.filter(
        (ip) =>
          familyOf(ip) === familyOf(first) &&
          ipBits(first) <= ipBits(ip) &&
          ipBits(ip) <= ipBits(end),
      ),
    isTaken: (ip) => taken.includes(ip),
  };
}

function setsFrom(ipam: Raw): ReturnType<typeof rangeSetsOf> {
  return rangeSetsOf(parseConfig(network('1.0.0', ipam)).ipam as IpamConfig);
}

/** The set of these subnets, alternatives to each other. */
function oneSet(...subnets: readonly (string | Raw)[]): ReturnType<typeof rangeSetsOf> {
  const ranges = subnets.map((each) => (typeof each === 'string' ? { subnet: each } : each));
  return setsFrom({ ranges: [ranges] });
}

/** All addresses from what was handed out last until it comes round again. */
function round(sets: ReturnType<typeof rangeSetsOf>, last: string | undefined): string[] {
  const taken: string[] = [];
  try {
    for (;;) taken.push(allocate(sets, bookOf(taken, taken.at(-1) ?? last))[0]?.ip ?? '');
  } catch (error) {
    expect(error).toMatchObject({ code: 102 });
    return taken;
  }
}

describe('the next address', () => {
  const SMALL = ['10.0.0.0/29'];
  const TWO = ['10.0.0.0/30', '10.0.1.0/30'];

  it.each<[string, string[], string[], string | undefined, string]>([
    ['of nothing taken', SMALL, [], undefined, '10.0.0.2'],
    ['of IPv6', ['2001:db8:1::/64'], [], undefined, '2001:db8:1::2'],
    ['of the smallest subnet there is', ['10.0.0.0/30'], [], undefined, '10.0.0.2'],
    ['behind what is taken', SMALL, ['10.0.0.2'], undefined, '10.0.0.3'],
    ['behind the last one', SMALL, [], '10.0.0.5', '10.0.0.6'],
    [
      'behind the last one and what is taken',
      SMALL,
      ['10.0.0.4', '10.0.0.5'],
      '10.0.0.3',
      '10.0.0.6',
    ],
    ['from the start behind the end', SMALL, ['10.0.0.6'], '10.0.0.5', '10.0.0.2'],
    ['where the last one is of no range', SMALL, ['10.0.0.2'], '10.0.0.128', '10.0.0.3'],
    [
      'where nothing but the last one is free',
      SMALL,
      ['10.0.0.2', '10.0.0.4', '10.0.0.5', '10.0.0.6'],
      '10.0.0.3',
      '10.0.0.3',
    ],
    ['of two ranges', TWO, [], undefined, '10.0.0.2'],
    ['of the second range behind the first', TWO, ['10.0.0.2'], undefined, '10.0.1.2'],
    ['of the first range behind the second', TWO, [], '10.0.1.2', '10.0.0.2'],
  ])('%s', (_what, subnets, taken, last, expected) => {
    const [address] = allocate(oneSet(...subnets), bookOf(taken, last));
    expect(address?.ip).toBe(expected);
  });

  it.each([
    ['the start', undefined, [2, 3, 4, 5, 6]],
    ['the end', '192.168.1.6', [2, 3, 4, 5, 6]],
    ['the middle', '192.168.1.3', [4, 5, 6, 2, 3]],
  ])('comes round from %s, without gateway and broadcast address', (_where, last, order) => {
    expect(round(oneSet('192.168.1.0/29'), last)).toEqual(order.map((n) => `192.168.1.${n}`));
  });

  it('goes from range to range', () => {
    const set = oneSet(
      { subnet: '10.0.0.0/24', rangeStart: '10.0.0.10', rangeEnd: '10.0.0.11' },
      { subnet: '10.0.1.0/24', rangeStart: '10.0.1.5', rangeEnd: '10.0.1.6' },
    );
    const all = ['10.0.0.10', '10.0.0.11', '10.0.1.5', '10.0.1.6'];
    expect(round(set, undefined)).toEqual(all);
    expect(round(set, '10.0.0.11')).toEqual([...all.slice(2), ...all.slice(0, 2)]);
    expect(round(set, '10.0.1.6')).toEqual(all);
  });

  it('may be what a start or end names, also network and broadcast address', () => {
    const set = oneSet({
      subnet: '10.0.0.0/29',
      rangeStart: '10.0.0.0',
      rangeEnd: '10.0.0.7',
      gateway: '10.0.0.3',
    });
    expect(round(set, undefined)).toEqual([0, 1, 2, 4, 5, 6, 7].map((n) => `10.0.0.${n}`));
  });

  it('is not there when all are taken, and the range is named', () => {
    expect(refusal(() => allocate(oneSet('10.0.0.0/30'), bookOf(['10.0.0.2'], undefined)))).toBe(
      '102 no IP addresses available in range set 0: 10.0.0.1-10.0.0.2',
    );
  });
});

describe('an address that is asked for', () => {
  const SET = oneSet({ subnet: '10.0.0.0/29', rangeStart: '10.0.0.3', rangeEnd: '10.0.0.5' });
  const asked = (ip: string, taken: readonly string[] = []): string | undefined =>
    allocate(SET, bookOf(taken, undefined), [ip as Ip])[0]?.ip;

  it('is given when it is in the range and free', () => {
    expect(asked('10.0.0.5')).toBe('10.0.0.5');
  });

  it.each([
    [
      'taken',
      '10.0.0.5',
      '101 requested IP address 10.0.0.5 is not available in range set 10.0.0.3-10.0.0.5 | another attachment has it',
    ],
    [
      'behind the end',
      '10.0.0.6',
      '7 failed to allocate all requested IPs: 10.0.0.6 | a pod gets one address of each range set: 10.0.0.3-10.0.0.5',
    ],
    [
      'before the start',
      '10.0.0.2',
      '7 failed to allocate all requested IPs: 10.0.0.2 | a pod gets one address of each range set: 10.0.0.3-10.0.0.5',
    ],
    [
      'of no subnet',
      '10.9.9.9',
      '7 failed to allocate all requested IPs: 10.9.9.9 | a pod gets one address of each range set: 10.0.0.3-10.0.0.5',
    ],
  ])('is refused when it is %s', (_what, ip, expected) => {
    expect(refusal(() => asked(ip, ['10.0.0.5']))).toBe(expected);
  });

  it('is refused when it is the gateway', () => {
    const sets = oneSet('10.0.0.0/29');
    expect(refusal(() => allocate(sets, bookOf([], undefined), ['10.0.0.1' as Ip]))).toBe(
      '7 requested IP address 10.0.0.1 cannot be handed out | it is a gateway, or excluded by the configuration',
    );
  });

  it('is what the next automatic one comes after', () => {
    const machine = makeMachine(plainHost());
    const raw = network('1.0.0', { subnet: '10.1.2.0/24' });
    attach(machine, raw, { args: 'IP=10.1.2.88' });
    expect(given(attach(machine, raw, { ifname: 'eth1' }))).toEqual(['10.1.2.89/24']);
  });
});

/** What a call's configuration and its words make of ranges and addresses. */
function readings(raw: Raw, args = ''): { readonly sets: string[][]; readonly ips: readonly Ip[] } {
  const request = { ...requestFor('ADD', raw, 0), args };
  const choices = choicesOf(request);
  const sets = rangeSetsOf(parseConfig(request.config).ipam as IpamConfig, choices.rangeSets);
  return { sets: sets.map((set) => set.map(formatRange)), ips: choices.ips };
}

describe('a configuration', () => {
  const OLD = {
    subnet: '10.1.2.0/24',
    rangeStart: '10.1.2.9',
    rangeEnd: '10.1.2.20',
    gateway: '10.1.2.30',
  };
  const NEW = {
    ranges: [
      [{ subnet: '10.1.4.0/24', rangeStart: '10.1.4.9' }, { subnet: '11.1.4.0/24' }],
      [{ subnet: '2001:db8:1::/64' }],
    ],
  };
  const NEW_SETS = [
    ['10.1.4.9-10.1.4.254', '11.1.4.1-11.1.4.254'],
    ['2001:db8:1::1-2001:db8:1:0:ffff:ffff:ffff:ffff'],
  ];

  it.each<[string, Raw, string[][]]>([
    ['in the old style', network('0.3.1', OLD), [['10.1.2.9-10.1.2.20']]],
    ['in the new style', network('0.3.1', NEW), NEW_SETS],
    [
      'in both, with ranges of the runtime: those come first',
      network(
        '0.3.1',
        { ...OLD, ...NEW },
        {
          runtimeConfig: { ipRanges: [[{ subnet: '11.1.2.0/24' }], [{ subnet: '11.1.3.0/24' }]] },
        },
      ),
      [['11.1.2.1-11.1.2.254'], ['11.1.3.1-11.1.3.254'], ['10.1.2.9-10.1.2.20'], ...NEW_SETS],
    ],
    [
      'of the runtime alone',
      network(
        '0.3.1',
        {},
        { runtimeConfig: { ipRanges: [[{ Subnet: '11.1.2.0/24', Gateway: '' }]] } },
      ),
      [['11.1.2.1-11.1.2.254']],
    ],
  ])('%s', (_what, raw, expected) => {
    expect(readings(raw).sets).toEqual(expected);
  });

  it.each<[string, Raw, string, string[]]>([
    ['CNI_ARGS', {}, 'IP=10.1.2.10', ['10.1.2.10']],
    ['CNI_ARGS, with a prefix length', {}, 'IP=10.1.2.11/24', ['10.1.2.11']],
    [
      'args',
      { args: { cni: { ips: ['10.1.2.11', '11.11.11.11', '2001:db8:1::11'] } } },
      '',
      ['10.1.2.11', '11.11.11.11', '2001:db8:1::11'],
    ],
    [
      'args, with prefix lengths',
      { args: { cni: { ips: ['10.1.2.11/24', '2001:db8:1::11/64'] } } },
      '',
      ['10.1.2.11', '2001:db8:1::11'],
    ],
    [
      'runtimeConfig',
      { runtimeConfig: { ips: ['192.168.0.1', '192.168.0.5/24', '2001:db8::1/64'] } },
      '',
      ['192.168.0.1', '192.168.0.5', '2001:db8::1'],
    ],
    [
      'all three, which add up',
      { args: { cni: { ips: ['10.1.2.12'] } }, runtimeConfig: { ips: ['10.1.2.13', '10.1.2.11'] } },
      'IP=10.1.2.11;IgnoreUnknown=true;K8S_POD_NAME=x',
      ['10.1.2.11', '10.1.2.12', '10.1.2.13'],
    ],
  ])('asks for addresses by %s', (_what, more, args, expected) => {
    expect(readings(network('0.3.1', OLD, more), args).ips).toEqual(expected);
  });

  it.each<[string, Raw, string, string]>([
    ['no address', {}, 'IP=10.1.2', '4 ARGS: "IP=10.1.2" is no IP address'],
    ['a pair without a value', {}, 'IP=10.1.2.9;', '4 ARGS: invalid pair ""'],
    ['a key that nobody knows', {}, 'FOO=bar', '4 ARGS: unknown args ["FOO=bar"]'],
    [
      'no address in args',
      { args: { cni: { ips: ['x'] } } },
      '',
      '7 invalid network configuration: args.cni.ips',
    ],
    [
      'no list in runtimeConfig',
      { runtimeConfig: { ips: '10.1.2.9' } },
      '',
      '7 invalid network configuration: runtimeConfig.ips',
    ],
  ])('is refused when it asks by %s', (_what, more, args, expected) => {
    expect(refusal(() => readings(network('0.3.1', OLD, more), args))).toContain(expected);
  });

  it.each<[string, Raw, string]>([
    [
      'two sets that overlap',
      { ranges: [[{ subnet: '10.1.0.0/24' }], [{ subnet: '10.1.0.0/16' }]] },
      '7 range 10.1.0.1-10.1.255.254 overlaps with 10.1.0.1-10.1.0.254',
    ],
    [
      'a set that overlaps with itself',
      { ranges: [[{ subnet: '10.1.0.0/22' }, { subnet: '10.1.2.0/24' }]] },
      '7 range 10.1.2.1-10.1.2.254 overlaps with 10.1.0.1-10.1.3.254',
    ],
    [
      'a set of two families',
      { ranges: [[{ subnet: '10.1.0.0/22' }, { subnet: '2001:db8:5::/64' }]] },
      '7 invalid range set 0: mixed address families',
    ],
    ['no ranges', {}, '7 no IP ranges specified'],
  ])('is refused with %s', (_what, ipam, expected) => {
    expect(refusal(() => readings(network('0.3.1', ipam)))).toBe(expected);
  });

  it.each<[boolean, Raw, Raw]>([
    [false, { subnet: '10.0.0.0/24' }, { subnet: '10.0.1.0/24' }],
    [true, { subnet: '10.0.0.0/20' }, { subnet: '10.0.1.0/24' }],
    [
      true,
      { subnet: '10.0.0.0/24', rangeEnd: '10.0.0.9' },
      { subnet: '10.0.0.0/24', rangeStart: '10.0.0.9' },
    ],
    [
      false,
      { subnet: '10.0.0.0/24', rangeEnd: '10.0.0.9' },
      { subnet: '10.0.0.0/24', rangeStart: '10.0.0.10' },
    ],
    [false, { subnet: '10.0.0.0/24' }, { subnet: '::a00:0/120' }],
    [true, { subnet: '2001:db8::/48' }, { subnet: '2001:db8:0:9::/64' }],
  ])('overlap %j: %j and %j', (expected, a, b) => {
    const overlaps = [
      [a, b],
      [b, a],
    ].map((pair) => {
      try {
        setsFrom({ ranges: pair.map((range) => [range]) });
        return false;
      } catch (error) {
        expect(error).toBeInstanceOf(CniError);
        return true;
      }
    });
    expect(overlaps).toEqual([expected, expected]);
  });

  it('of before 0.3.0 has one address of a family', () => {
    const two = { ranges: [[{ subnet: '10.1.2.0/24' }], [{ subnet: '10.1.3.0/24' }]] };
    const machine = makeMachine(plainHost());
    expect(failure(machine, () => attach(machine, network('0.2.0', two)))).toBe(
      '7 CNI version 0.2.0 does not support more than 1 address per family',
    );
    expect(given(attach(machine, network('0.3.0', two)))).toEqual(['10.1.2.2/24', '10.1.3.2/24']);
  });

  it('of before 0.3.0 may have one of each family', () => {
    const machine = makeMachine(plainHost());
    const both = { ranges: [[{ subnet: '10.1.2.0/24' }], [{ subnet: '2001:db8::/48' }]] };
    expect(given(attach(machine, network('0.2.0', both)))).toEqual([
      '10.1.2.2/24',
      '2001:db8::2/48',
    ]);
  });
});

describe('what is given is what the kernel has', () => {
  it('on the pod, and nothing of it after DEL', () => {
    const machine = makeMachine(plainHost());
    const raw = network('1.1.0', DUAL);
    const added = attach(machine, raw);
    const pod = { netns: PODS[0], ifname: 'eth0' as Ifname };
    const link = findLink(machine.backend.host(), pod);
    expect(link?.addresses.map(({ ip, prefixLength }) => `${ip}/${prefixLength}`)).toEqual(
      given(added),
    );
    detach(machine, raw);
    expect(findLink(machine.backend.host(), pod)).toBeUndefined();
    expect(Object.keys(findNetns(machine.backend.host(), HOST_NETNS)?.links ?? {})).toEqual([
      'lo',
      'uplink',
    ]);
  });
});
