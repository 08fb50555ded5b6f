import { expect, test } from 'vitest';
import { addressesOf, readResult } from '../../../plugin/reference/result.ts';

const INTERFACES = [
  { name: 'cni0', mac: '02:00:00:00:00:01' },
  { name: 'veth12345678', mac: '02:00:00:00:00:02' },
  { name: 'eth0', mac: '02:00:00:00:00:03', sandbox: '/run/netns/a' },
];

test.each([
  [
    '1.0.0',
    {
      cniVersion: '1.0.0',
      interfaces: INTERFACES,
      ips: [
        { interface: 2, address: '10.1.0.2/24', gateway: '10.1.0.1' },
        { interface: 2, address: 'fd01::2/64', gateway: 'fd01::1' },
      ],
      routes: [{ dst: '0.0.0.0/0', gw: '10.1.0.1' }, { dst: '::/0' }],
    },
    3,
  ],
  [
    '0.2.0',
    {
      cniVersion: '0.2.0',
      ip4: {
        ip: '10.1.0.2/24',
        gateway: '10.1.0.1',
        routes: [{ dst: '0.0.0.0/0', gw: '10.1.0.1' }],
      },
      ip6: { ip: 'fd01::2/64', gateway: 'fd01::1', routes: [{ dst: '::/0' }] },
      dns: {},
    },
    0,
  ],
])('a result of version %s', (_version, raw, links) => {
  const result = readResult(raw);
  expect(result.interfaces).toHaveLength(links);
  expect(addressesOf(result, 'eth0')).toMatchObject([
    { ip: '10.1.0.2', prefixLength: 24, gateway: '10.1.0.1' },
    { ip: 'fd01::2', prefixLength: 64, gateway: 'fd01::1' },
  ]);
  expect(result.routes).toEqual([
    { destination: '0.0.0.0/0', gateway: '10.1.0.1' },
    { destination: '::/0', gateway: undefined },
  ]);
});

test('addresses of other links are not those of the one that is asked for', () => {
  const ips = [0, 1, 2, 9].map((at) => ({ interface: at, address: `10.1.0.${at + 1}/24` }));
  expect(addressesOf(readResult({ interfaces: INTERFACES, ips }), 'eth0')).toMatchObject([
    { ip: '10.1.0.3' },
    { ip: '10.1.0.10' },
  ]);
});

test.each([
  [undefined],
  [null],
  ['text'],
  [[]],
  [{ interfaces: 3, ips: [null, 'x', {}], ip4: [] }],
])('nonsense says nothing: %o', (raw) => {
  expect(readResult(raw)).toEqual({ interfaces: [], addresses: [], routes: [] });
});
