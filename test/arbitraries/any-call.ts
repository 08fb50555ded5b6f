/** Calls as a runtime might make them, and as none would: environment and standard input. */
import fc from 'fast-check';
import { SUPPORTED_VERSIONS } from '../../plugin/cni/version.ts';
import { anyConfigurations, configurations, layer2Configurations } from './configuration.ts';
import { nearNames } from './request.ts';

/** One call. */
export interface AnyCall {
  readonly environment: Readonly<Record<string, string>>;
  readonly stdin: string;
  /** What another plugin would answer. */
  readonly delegated: unknown;
}

const IPS = ['10.244.1.5', '10.0.0.12/24', 'fd00::7', '10.244.1.1', '300.1.1.1', ''];

const MACS = ['02:00:00:00:00:11', '01:00:5e:00:00:01', 'nonsense', ''];

function args(): fc.Arbitrary<string> {
  return fc.oneof(
    { weight: 20, arbitrary: fc.constantFrom('', 'IgnoreUnknown=1;K8S_POD_NAME=a') },
    fc.constantFrom(
      'IP=10.244.1.9',
      'IP=x',
      'MAC=02:00:00:00:00:22',
      'MAC=zz',
      'A=B',
      'A',
      ';',
      'IgnoreUnknown=perhaps',
    ),
    fc.string({ maxLength: 20 }),
  );
}

/** What a runtime adds for one call; in the case of Go's names, of the convention, or as anything else. */
function runtimeConfig(): fc.Arbitrary<unknown> {
  const ips = fc.subarray(IPS, { maxLength: 2 });
  const mac = fc.constantFrom(...MACS);
  const dns = fc.record(
    {
      Servers: fc.constant(['192.0.2.53']),
      searches: fc.constant(['a.example']),
      Options: fc.jsonValue({ maxDepth: 1 }),
    },
    { requiredKeys: [] },
  );
  const ipRanges = fc.constantFrom<unknown>(
    [[{ Subnet: '10.9.0.0/24', RangeStart: '', RangeEnd: '', Gateway: '' }]],
    [[{ subnet: 'fd09::/64' }]],
    [[]],
    [[{ subnet: '10.9.0.0/31' }]],
    [],
    5,
  );
  return fc.oneof(
    { weight: 8, arbitrary: fc.constant(undefined) },
    fc.record({ ips, mac, dns, ipRanges }, { requiredKeys: [] }),
    fc.record({ IPs: ips, MAC: mac }, { requiredKeys: [] }),
    fc.record(
      {
        portMappings: fc.constantFrom<unknown>([], [{ hostPort: 80 }]),
        bandwidth: fc.constantFrom<unknown>(
          null,
          {},
          { IngressRate: 8e6, IngressBurst: 4294967295, EgressRate: 1e6, EgressBurst: 4294967295 },
          { ingressRate: 8e6 },
          { egressRate: 1e6, egressBurst: 5 },
        ),
      },
      { requiredKeys: [] },
    ),
    fc.jsonValue({ maxDepth: 2 }),
  );
}

/** Results of all versions, and others that are none. */
function prevResults(): fc.Arbitrary<unknown> {
  return fc.oneof(
    { weight: 2, arbitrary: fc.constant(undefined) },
    fc.constantFrom<unknown>(
      { cniVersion: '0.2.0', ip4: { ip: '10.244.1.2/24', gateway: '10.244.1.1' } },
      {
        cniVersion: '0.4.0',
        interfaces: [{ name: 'eth0', sandbox: '/run/netns/pod0' }],
        ips: [{ version: '4', interface: 0, address: '10.244.1.2/24' }],
        routes: [{ dst: '0.0.0.0/0' }],
        dns: {},
      },
      { cniVersion: '1.1.0', ips: [{ address: 'x' }] },
      null,
    ),
    fc.jsonValue({ maxDepth: 3 }),
  );
}

function delegatedResults(): fc.Arbitrary<unknown> {
  return fc.oneof(
    fc.constantFrom<unknown>(
      undefined,
      {},
      { cniVersion: '1.0.0', ips: [{ address: '10.50.0.2/24', gateway: '10.50.0.1' }] },
      { ips: [{ address: '10.50.0.3/24' }], routes: [{ dst: '0.0.0.0/0', gw: '192.0.2.1' }] },
      { ip4: { ip: '10.50.0.4/24' }, ip6: { ip: 'fd50::4/64', routes: [{ dst: '::/0' }] } },
      { ips: [{ address: '10.50.0.5' }] },
    ),
    prevResults(),
  );
}

/** Mostly the usual, now and then something else. */
function often<T>(usual: fc.Arbitrary<T>, other: fc.Arbitrary<T>): fc.Arbitrary<T> {
  return fc.oneof({ weight: 40, arbitrary: usual }, other);
}

/** Environments and configurations: most of them sound in most parts. `netns` are those that exist. */
export function anyCalls(netns: readonly string[]): fc.Arbitrary<AnyCall> {
  const environment = fc.record({
    CNI_COMMAND: often(
      fc.constantFrom('ADD', 'ADD', 'ADD', 'DEL', 'DEL', 'CHECK', 'GC', 'STATUS'),
      fc.constantFrom('', 'FOO', 'add'),
    ),
    CNI_CONTAINERID: often(fc.constantFrom('a', 'b', 'c', 'd'), nearNames()),
    CNI_NETNS: often(
      fc.constantFrom(...netns),
      fc.constantFrom('', '/nowhere', 'host', '__proto__'),
    ),
    CNI_IFNAME: often(fc.constantFrom('eth0', 'net1'), nearNames()),
    CNI_PATH: often(fc.constant('/opt/cni/bin'), fc.constant('')),
    CNI_ARGS: args(),
  });
  const raw = fc.oneof(
    { weight: 5, arbitrary: configurations() },
    layer2Configurations(),
    { weight: 2, arbitrary: anyConfigurations() },
    configurations().map((config) => ({
      ...config,
      ipam: { type: 'host-local', subnet: '10.50.0.0/24' },
    })),
  );
  // The verbs of the newest version come with it more often than with the others.
  const versions = fc.oneof(
    { weight: 3, arbitrary: fc.constant('1.1.0') },
    fc.constantFrom(...SUPPORTED_VERSIONS),
  );
  const more = fc.record({
    name: often(fc.constantFrom('net', 'other'), nearNames()),
    cniVersion: often(versions, fc.constantFrom('', '9.0.0', '1.0')),
    runtimeConfig: runtimeConfig(),
    args: fc.oneof(
      { weight: 4, arbitrary: fc.constant(undefined) },
      fc.record({
        cni: fc.record(
          { ips: fc.subarray(IPS), mac: fc.constantFrom(...MACS) },
          { requiredKeys: [] },
        ),
      }),
      fc.jsonValue({ maxDepth: 2 }),
    ),
    prevResult: prevResults(),
    valid: fc.constantFrom<unknown>(
      undefined,
      undefined,
      [],
      [{ containerID: 'a', ifname: 'eth0' }],
      5,
      [{}],
    ),
  });
  const stdin = often(
    fc.tuple(raw, more).map(([config, { valid, ...rest }]) =>
      JSON.stringify({
        ...config,
        ...Object.fromEntries(Object.entries(rest).filter(([, value]) => value !== undefined)),
        ...(valid === undefined ? {} : { 'cni.dev/valid-attachments': valid }),
      }),
    ),
    fc.oneof(fc.json({ maxDepth: 2 }), fc.string({ maxLength: 30 })),
  );
  return fc.record({ environment, stdin, delegated: delegatedResults() });
}
