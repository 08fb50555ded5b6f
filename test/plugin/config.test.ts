import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Config, type IpamConfig, parseConfig } from '../../plugin/cni/config.ts';
import { CniError } from '../../plugin/cni/error.ts';
import { parsePlaces } from '../../plugin/cni/places.ts';
import { type RangeSet, rangeSetsOf } from '../../plugin/ipam/ranges.ts';
import {
  anyConfigurations,
  configurations,
  layer2Configurations,
} from '../arbitraries/configuration.ts';
import { refusal } from './refusal.ts';

const SUBNET = { type: 'cube-ipam', subnet: '10.244.1.0/24' };

/** A configuration with one more key. */
function withKey(key: string, value: unknown): Record<string, unknown> {
  return { ipam: SUBNET, [key]: value };
}

function withIpam(ipam: unknown): Record<string, unknown> {
  return { ipam };
}

/** The ranges of a configuration; none of one whose addresses are not ours to give. */
function setsOf(raw: Readonly<Record<string, unknown>>): readonly RangeSet[] {
  const { ipam } = parseConfig(raw);
  return ipam ? rangeSetsOf(ipam) : [];
}

/** The error of a configuration, without what all of them begin with. */
function problem(raw: Readonly<Record<string, unknown>>): string {
  return refusal(() => setsOf(raw)).replace('invalid network configuration: ', '');
}

/** The ranges as first and last address and gateway. */
function ranges(ipam: Readonly<Record<string, unknown>>): string[][] {
  const sets = setsOf(withIpam({ type: 'cube-ipam', ...ipam }));
  return sets.map((set) => set.map(({ first, last, gateway }) => `${first} ${last} ${gateway}`));
}

describe('a configuration', () => {
  it('has the defaults of the reference bridge', () => {
    expect(parseConfig(withIpam(SUBNET))).toEqual({
      bridge: 'cni0',
      isGateway: false,
      isDefaultGateway: false,
      forceAddress: false,
      ipMasq: false,
      hairpinMode: false,
      promiscMode: false,
      mtu: 0,
      mode: 'bridge',
      vlan: 0,
      preserveDefaultVlan: false,
      macspoofchk: false,
      ipspoofchk: false,
      enabledad: false,
      disableContainerInterface: false,
      portIsolation: false,
      podVerdict: 'accept',
      snat: true,
      masqAll: false,
      markMasqBit: 13,
      conditions: { 4: [], 6: [] },
      ingressPolicy: 'open',
      adoptForward: false,
      promisc: false,
      allmulti: false,
      delegate: null,
      ipam: { subnet: '10.244.1.0/24', reuseDelaySeconds: 0 },
    });
    expect(parsePlaces({})).toEqual({
      dataDir: '/var/lib/cni/cube-cni',
      logFile: '/var/log/cni/plugin.log',
      logLevel: 'info',
      logFormat: 'json',
      logMaxBytes: 10 * 1024 * 1024,
    });
  });

  it.each([
    ['bridge', 'br-pods.1'],
    ['isGateway', true],
    ['isDefaultGateway', true],
    ['forceAddress', true],
    ['ipMasq', true],
    ['hairpinMode', true],
    ['promiscMode', true],
    ['mtu', 1450],
    ['mtu', 68],
    ['mtu', 65535],
    ['mode', 'ptp'],
    ['macspoofchk', true],
    ['ipspoofchk', true],
    ['enabledad', true],
    ['portIsolation', true],
    ['podVerdict', 'drop'],
  ])('has %s as it is given: %j', (key, value) => {
    expect(parseConfig(withKey(key, value))[key as keyof Config]).toBe(value);
  });

  it.each([
    ['dataDir', '/tmp/x'],
    ['logFile', '/tmp/log'],
    ['logLevel', 'silent'],
    ['logFormat', 'text'],
    ['logMaxBytes', 4096],
  ])('says where things are by %s: %j', (key, value) => {
    expect(parsePlaces({ [key]: value })).toMatchObject({ [key]: value });
  });

  it('takes null for a key that is not there, at any depth', () => {
    const raw = {
      bridge: null,
      mtu: null,
      vlan: null,
      ipam: { ...SUBNET, gateway: null, routes: [{ dst: '0.0.0.0/0', gw: null }], ranges: null },
    };
    expect(parseConfig(raw)).toMatchObject({
      bridge: 'cni0',
      mtu: 0,
      ipam: { subnet: '10.244.1.0/24', routes: [{ dst: '0.0.0.0/0' }] },
    });
    expect(parsePlaces({ dataDir: null }).dataDir).toBe('/var/lib/cni/cube-cni');
  });

  it('may hold what runtimes and other plugins put there', () => {
    const raw = {
      ...withIpam(SUBNET),
      cniVersion: '1.0.0',
      name: 'net',
      type: 'cube-cni',
      capabilities: { portMappings: true },
      runtimeConfig: { portMappings: [] },
      args: { cni: {} },
      prevResult: {},
      dns: {},
      'cni.dev/valid-attachments': [],
    };
    expect(parseConfig(raw)).toEqual({ ...parseConfig(withIpam(SUBNET)), dns: {} });
  });

  it('does not take anything from a prototype', () => {
    const text = `{"__proto__": {"mtu": 1, "vlan": 5}, "constructor": {"bridge": "evil"},
      "ipam": {"type": "cube-ipam", "subnet": "10.0.0.0/24", "__proto__": {"gateway": "10.0.0.77"}}}`;
    const config = parseConfig(JSON.parse(text) as Record<string, unknown>);
    expect(config).toEqual(parseConfig(withIpam({ type: 'cube-ipam', subnet: '10.0.0.0/24' })));
    expect(rangeSetsOf(config.ipam as IpamConfig)[0]?.[0]?.gateway).toBe('10.0.0.1');
    expect(({} as Record<string, unknown>)['mtu']).toBeUndefined();
  });

  it.each([
    ['bridge', 5, '7 bridge: it must be of type string, not 5'],
    ['bridge', '', '7 bridge: "" cannot be a link name: it is empty'],
    ['bridge', '..', '7 bridge: ".." cannot be a link name: it is . or ..'],
    [
      'bridge',
      '../br0',
      '7 bridge: "../br0" cannot be a link name: it contains /, :, % or white space',
    ],
    [
      'bridge',
      'bridge0123456789',
      '7 bridge: "bridge0123456789" cannot be a link name: it has 16 bytes, the kernel takes 15',
    ],
    ['isGateway', 'yes', '7 isGateway: it must be of type boolean, not "yes"'],
    ['isDefaultGateway', 1, '7 isDefaultGateway: it must be of type boolean, not 1'],
    ['forceAddress', [], '7 forceAddress: it must be of type boolean, not []'],
    ['ipMasq', 'true', '7 ipMasq: it must be of type boolean, not "true"'],
    ['hairpinMode', {}, '7 hairpinMode: it must be of type boolean, not {}'],
    ['promiscMode', 0, '7 promiscMode: it must be of type boolean, not 0'],
    ['mtu', '1500', '7 mtu: it must be of type number, not "1500"'],
    ['mtu', 1500.5, '7 mtu: it must be of type int, not 1500.5'],
    ['mtu', -1, '7 mtu: it must be at least 0, not -1'],
    ['mtu', 67, '7 mtu: it must be 0 or at least 68, not 67'],
    ['mtu', 65536, '7 mtu: it must be at most 65535, not 65536'],
    [
      'mtu',
      1e300,
      '7 mtu: it must be at most 9007199254740991, not 1e+300 | mtu: it must be at most 65535, not 1e+300',
    ],
    ['ipam', [], '7 ipam: it must be of type object, not []'],
    ['ipam', { type: 5 }, '7 ipam.type: it must be of type string, not 5'],
    ['ipam', { type: '../host-local' }, '7 ipam.type: invalid plugin name: ../host-local'],
    ['mode', 'vlan', '7 mode: it must be one of bridge, ptp, not "vlan"'],
    [
      'markMasqBit',
      14,
      '7 markMasqBit: it must not be 14 or 15, which are bits of kube-proxy (0x4000, 0x8000)',
    ],
    ['markMasqBit', 32, '7 markMasqBit: it must be at most 31, not 32'],
    ['vlan', 4095, '7 vlan: it must be at most 4094, not 4095'],
    ['vlan', -1, '7 vlan: it must be at least 0, not -1'],
    ['vlanTrunk', [{ minID: 9, maxID: 5 }], '7 vlanTrunk: minID 9 is greater than maxID 5'],
    ['vlanTrunk', [{ minID: 0, maxID: 5 }], '7 vlanTrunk[0].minID: it must be at least 1, not 0'],
    ['vlanTrunk', [{ id: 4095 }], '7 vlanTrunk[0].id: it must be at most 4094, not 4095'],
    ...(['minID', 'maxID'] as const).map((missing): [string, unknown, string] => [
      'vlanTrunk',
      [{ [missing === 'minID' ? 'maxID' : 'minID']: 5 }],
      `7 vlanTrunk: minID and maxID should be configured simultaneously, ${missing} is missing`,
    ]),
  ])('with %s %j is refused', (key, value, expected) => {
    expect(problem(withKey(key, value))).toBe(expected);
  });

  it.each([
    ['dataDir', 'state', '7 dataDir: it must be an absolute path, not "state"'],
    ['dataDir', '../state', '7 dataDir: it must be an absolute path, not "../state"'],
    ['dataDir', 5, '7 dataDir: it must be an absolute path, not 5'],
    ['dataDir', '/a\0b', '7 dataDir: it must be an absolute path, not "/a\\u0000b"'],
    ['logFile', 'log', '7 logFile: it must be an absolute path, not "log"'],
    [
      'logLevel',
      'trace',
      '7 logLevel: it must be one of debug, info, warn, error, silent, not "trace"',
    ],
    ['logFormat', 'xml', '7 logFormat: it must be one of json, text, not "xml"'],
    ['logMaxBytes', 1, '7 logMaxBytes: it must be a whole number of at least 4096, not 1'],
    [
      'logMaxBytes',
      2 ** 60,
      '7 logMaxBytes: it must be a whole number of at least 4096, not 1152921504606847000',
    ],
  ])('with %s %j says no place', (key, value, expected) => {
    expect(
      refusal(() => parsePlaces({ [key]: value })).replace('invalid network configuration: ', ''),
    ).toBe(expected);
  });

  it('cannot want hairpin and promiscuous mode at once', () => {
    expect(problem({ ...withIpam(SUBNET), hairpinMode: true, promiscMode: true })).toBe(
      '7 cannot set hairpin mode and promiscuous mode at the same time',
    );
  });

  it('names every problem, the first one in the message', () => {
    expect(problem({ bridge: '', isGateway: 1, ipam: { ...SUBNET, gateway: 'x' } })).toBe(
      '7 bridge: "" cannot be a link name: it is empty | isGateway: it must be of type boolean, not 1; ipam.gateway: "x" is not an IP address',
    );
  });

  it('shows no more of a long value than a line', () => {
    expect(problem(withKey('mtu', 'x'.repeat(1_000_000))).length).toBeLessThan(200);
  });
});

describe('address ranges', () => {
  it('are the subnet without network, gateway and broadcast address', () => {
    expect(ranges({ subnet: '0.0.0.16/28' })).toEqual([['17 30 0.0.0.17']]);
    expect(ranges({ subnet: '::10/124' })).toEqual([['17 31 ::11']]);
  });

  it('have the start, end and gateway that are given', () => {
    const range = { subnet: '0.0.1.0/24', rangeStart: '0.0.1.5', rangeEnd: '0.0.1.9' };
    expect(ranges({ ...range, gateway: '0.0.1.254' })).toEqual([['261 265 0.0.1.254']]);
    expect(ranges({ ranges: [[{ ...range, gateway: '0.0.1.254' }]] })).toEqual([
      ['261 265 0.0.1.254'],
    ]);
  });

  it('in the old style come before the others', () => {
    expect(
      ranges({
        subnet: '0.0.0.16/28',
        ranges: [[{ subnet: '::10/124' }], [{ subnet: '0.0.0.32/28' }]],
      }),
    ).toEqual([['17 30 0.0.0.17'], ['17 31 ::11'], ['33 46 0.0.0.33']]);
  });

  it.each([
    [{}, '7 no IP ranges specified'],
    [{ ranges: [] }, '7 no IP ranges specified'],
    [{ ranges: [[]] }, '7 ipam.ranges[0]: a range set needs a range'],
    [{ ranges: [[{}]] }, '7 ipam.ranges[0][0].subnet: it is missing'],
    [{ ranges: {} }, '7 ipam.ranges: it must be of type array, not {}'],
    [
      { ranges: [{ subnet: '10.0.0.0/24' }] },
      '7 ipam.ranges[0]: it must be of type array, not {"subnet":"10.0.0.0/24"}',
    ],
    [{ gateway: '10.0.0.1' }, '7 ipam: rangeStart, rangeEnd and gateway need a subnet beside them'],
    [{ subnet: '10.0.0.0' }, '7 ipam.subnet: "10.0.0.0" is not an address with a prefix length'],
    [
      { subnet: '10.0.0.0/33' },
      '7 ipam.subnet: "10.0.0.0/33" is not an address with a prefix length',
    ],
    [
      { subnet: '10.0.0.0/08' },
      '7 ipam.subnet: "10.0.0.0/08" is not an address with a prefix length',
    ],
    [
      { subnet: '010.0.0.0/8' },
      '7 ipam.subnet: "010.0.0.0/8" is not an address with a prefix length',
    ],
    [
      { subnet: '10.0.0.5/24' },
      '7 ipam.subnet: "10.0.0.5/24" has host bits set: the prefix is 10.0.0.0/24',
    ],
    [
      { subnet: 'fd00::5/64' },
      '7 ipam.subnet: "fd00::5/64" has host bits set: the prefix is fd00::/64',
    ],
    [{ subnet: '10.0.0.0/31' }, '7 network 10.0.0.0/31 too small to allocate from'],
    [{ subnet: 'fd00::/127' }, '7 network fd00::/127 too small to allocate from'],
    [
      { subnet: '10.0.0.0/24', rangeStart: '10.0.1.1' },
      '7 rangeStart 10.0.1.1 not in network 10.0.0.0/24',
    ],
    [
      { subnet: '10.0.0.0/24', rangeEnd: 'fd00::1' },
      '7 rangeEnd fd00::1 not in network 10.0.0.0/24',
    ],
    [
      { subnet: '10.0.0.0/24', gateway: 'fd00::1' },
      '7 gateway fd00::1 is not of the family of network 10.0.0.0/24',
    ],
    [
      { subnet: '10.0.0.0/24', rangeStart: '10.0.0.9', rangeEnd: '10.0.0.5' },
      '7 rangeStart 10.0.0.9 is behind rangeEnd 10.0.0.5',
    ],
    [
      { subnet: '10.0.0.0/24', rangeStart: '10.0.0.255' },
      '7 rangeStart 10.0.0.255 is behind rangeEnd 10.0.0.254',
    ],
    [
      { subnet: '10.0.0.0/24', rangeEnd: '10.0.0.0' },
      '7 rangeStart 10.0.0.1 is behind rangeEnd 10.0.0.0',
    ],
    [
      { ranges: [[{ subnet: '10.0.0.0/24' }, { subnet: 'fd00::/64' }]] },
      '7 invalid range set 0: mixed address families',
    ],
    [
      { ranges: [[{ subnet: '10.0.0.0/24' }, { subnet: '10.0.0.128/25' }]] },
      '7 range 10.0.0.129-10.0.0.254 overlaps with 10.0.0.1-10.0.0.254',
    ],
    [
      { subnet: '10.0.0.0/24', ranges: [[{ subnet: '10.0.0.0/24', rangeStart: '10.0.0.254' }]] },
      '7 range 10.0.0.254-10.0.0.254 overlaps with 10.0.0.1-10.0.0.254',
    ],
    [{ ...SUBNET, routes: [{}] }, '7 ipam.routes[0].dst: it is missing'],
    [
      { ...SUBNET, routes: [{ dst: '10.0.0.1/8' }] },
      '7 ipam.routes[0].dst: "10.0.0.1/8" has host bits set: the prefix is 10.0.0.0/8',
    ],
    [
      { ...SUBNET, routes: [{ dst: '::/0', gw: 'fe80::1%eth0' }] },
      '7 ipam.routes[0].gw: "fe80::1%eth0" is not an IP address',
    ],
    [
      { ...SUBNET, routes: [{ dst: '::/0', gw: 'fd00::1' }, { dst: '0::0/0' }] },
      '7 ipam.routes: ::/0 is there twice',
    ],
  ])('%j are refused', (ipam, expected) => {
    expect(problem(withIpam({ type: 'cube-ipam', ...ipam }))).toBe(expected);
  });

  it('that touch do not overlap', () => {
    const first = { subnet: '0.0.1.0/24', rangeEnd: '0.0.1.9' };
    const second = { subnet: '0.0.1.0/24', rangeStart: '0.0.1.10', gateway: '0.0.1.1' };
    expect(ranges({ ranges: [[first], [second]] })).toHaveLength(2);
  });
});

describe('any configuration', () => {
  it('that is valid is read, with ranges', () => {
    fc.assert(
      fc.property(fc.oneof(configurations(), layer2Configurations()), (raw) => {
        expect(parseConfig(raw).ipam === null).toBe(setsOf(raw).length === 0);
      }),
    );
  });

  it('that gives no addresses is read without any', () => {
    fc.assert(
      fc.property(layer2Configurations(), (raw) => {
        expect(parseConfig(raw)).toMatchObject({ ipam: null, delegate: null });
      }),
    );
  });

  it('is read or refused as the specification says, never otherwise', () => {
    const codes = new Map<string, number>();
    fc.assert(
      fc.property(anyConfigurations(), (raw) => {
        let answer = 'read';
        try {
          setsOf(raw);
        } catch (error) {
          expect(error).toBeInstanceOf(CniError);
          answer = String((error as CniError).code);
          expect(['2', '7']).toContain(answer);
        }
        try {
          parsePlaces(raw);
        } catch (error) {
          expect(error).toMatchObject({ name: 'CniError', code: 7 });
        }
        codes.set(answer, (codes.get(answer) ?? 0) + 1);
      }),
      { numRuns: 2000 },
    );
    // Were nothing ever read, the property would say little.
    expect(codes.get('read')).toBeGreaterThan(50);
  });
});
