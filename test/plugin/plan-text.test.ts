import { describe, expect, it } from 'vitest';
import { HOST_NETNS } from '../../model/host.ts';
import type { Ifname } from '../../model/ifname.ts';
import type { PlanFormat } from '../../plugin/call-options.ts';
import { planAdd } from '../../plugin/call/add.ts';
import { planRepair } from '../../plugin/call/check.ts';
import { planDel } from '../../plugin/call/del.ts';
import { parseConfig } from '../../plugin/cni/config.ts';
import { convertResult, formatResult, parseResult } from '../../plugin/cni/result.ts';
import { SUPPORTED_VERSIONS } from '../../plugin/cni/version.ts';
import { type Planned, formatPlanned } from '../../plugin/process/plan-output.ts';
import type { RawConfig } from '../arbitraries/configuration.ts';
import {
  type Machine,
  PODS,
  afterOps,
  attachPod,
  makeMachine,
  plainHost,
  requestFor,
} from './machine.ts';

// The files are what people see. After a change that is meant: npx vitest run -u, and read the difference.

const IPV4: RawConfig = {
  cniVersion: '1.0.0',
  name: 'podnet',
  isDefaultGateway: true,
  ipam: { type: 'cube-ipam', subnet: '10.244.1.0/24' },
};

const MASQUERADE: RawConfig = { ...IPV4, ipMasq: true };

const DUAL: RawConfig = {
  ...MASQUERADE,
  mtu: 1450,
  hairpinMode: true,
  ipam: {
    type: 'cube-ipam',
    ranges: [[{ subnet: '10.244.1.0/24' }], [{ subnet: 'fd00:10:244::/64' }]],
    routes: [{ dst: '192.0.2.0/24', gw: '10.244.1.254' }],
  },
};

function machineWith(raw: RawConfig, ...pods: readonly number[]): Machine {
  const machine = makeMachine(plainHost('as Linux makes them'));
  for (const pod of pods) attachPod(machine, raw, pod);
  return machine;
}

function adding(machine: Machine, raw: RawConfig): Planned {
  const request = requestFor('ADD', raw, 0);
  return planAdd(machine.start(), request, parseConfig(request.config));
}

function removing(machine: Machine, raw: RawConfig): Planned | undefined {
  return planDel(machine.start(), requestFor('DEL', raw, 0).key);
}

/** The repair after somebody has taken a few things away. */
function repairing(): Planned {
  const machine = machineWith(DUAL, 0, 1);
  const { key } = requestFor('CHECK', DUAL, 0);
  const attachment = machine.state.find(key)?.attachment;
  if (!attachment) throw new Error('there is no attachment');
  const element = {
    family: 'inet',
    table: 'cube-cni',
    set: 'masq4',
    key: attachment.addresses[0]?.ip,
  } as never as {
    family: 'inet';
    table: string;
    set: string;
    key: never;
  };
  machine.backend.replace(
    afterOps(machine.backend.host(), [
      { op: 'link.set', netns: PODS[0], ifname: key.ifname, set: { mtuBytes: 1500 } },
      { op: 'link.set', netns: PODS[0], ifname: key.ifname, set: { up: false } },
      { op: 'link.set', netns: HOST_NETNS, ifname: attachment.hostIfname, set: { master: null } },
      { op: 'sysctl.set', netns: HOST_NETNS, key: 'net/ipv4/ip_forward', value: '0' },
      { op: 'nft.batch', netns: HOST_NETNS, commands: [{ ...element, do: 'delete element' }] },
    ]),
  );
  return planRepair(machine.start(), key);
}

type Verb = 'ADD' | 'DEL' | 'CHECK';

const PLANS: readonly (readonly [name: string, verb: Verb, plan: () => Planned | undefined])[] = [
  ['add-first-ipv4', 'ADD', () => adding(machineWith(IPV4), IPV4)],
  ['add-second-ipv4', 'ADD', () => adding(machineWith(IPV4, 1), IPV4)],
  ['add-first-masquerade', 'ADD', () => adding(machineWith(MASQUERADE), MASQUERADE)],
  ['add-second-masquerade', 'ADD', () => adding(machineWith(MASQUERADE, 1), MASQUERADE)],
  ['add-first-dual', 'ADD', () => adding(machineWith(DUAL), DUAL)],
  ['add-second-dual', 'ADD', () => adding(machineWith(DUAL, 1), DUAL)],
  ['del-last-dual', 'DEL', () => removing(machineWith(DUAL, 0), DUAL)],
  ['del-not-last-dual', 'DEL', () => removing(machineWith(DUAL, 0, 1), DUAL)],
  ['del-nothing', 'DEL', () => removing(machineWith(DUAL, 1), DUAL)],
  [
    'check-nothing',
    'CHECK',
    () => planRepair(machineWith(DUAL, 0).start(), requestFor('CHECK', DUAL, 0).key),
  ],
  ['check-repair', 'CHECK', repairing],
];

const ENDINGS: Readonly<Record<PlanFormat, string>> = {
  text: 'txt',
  sh: 'sh.txt',
  json: 'json.txt',
};

describe('the plan of a call', () => {
  it.each(PLANS)('%s is printed for people', async (name, verb, plan) => {
    await expect(formatPlanned(verb, plan(), 'text')).toMatchFileSnapshot(
      `golden/${name}.${ENDINGS.text}`,
    );
  });

  it.each(PLANS)('%s is printed as a script', async (name, verb, plan) => {
    await expect(formatPlanned(verb, plan(), 'sh')).toMatchFileSnapshot(
      `golden/${name}.${ENDINGS.sh}`,
    );
  });

  it.each(PLANS)('%s is printed for apply', async (name, verb, plan) => {
    await expect(formatPlanned(verb, plan(), 'json')).toMatchFileSnapshot(
      `golden/${name}.${ENDINGS.json}`,
    );
  });

  it('is painted line by line, and reads the same without the paint', () => {
    const planned = adding(machineWith(DUAL, 1), DUAL);
    const painted = formatPlanned('ADD', planned, 'text', (sign, line) => `<${sign}>${line}</>`);
    expect(painted).toMatch(/^<\+> {2}\+ ip link add veth/m);
    expect(painted).toMatch(/^<note>note: 10\.244\.1\.3, fd00:10:244::3 would be reserved/m);
    expect(painted.replaceAll(/<[^>]*>/g, '')).toBe(formatPlanned('ADD', planned, 'text'));
  });
});

describe('the result of ADD', () => {
  it.each([
    ...SUPPORTED_VERSIONS.map((version) => [version, 'ipv4', IPV4] as const),
    ...SUPPORTED_VERSIONS.map((version) => [version, 'dual', DUAL] as const),
  ])('in version %s (%s) is printed', async (version, name, raw) => {
    const { result } = attachPod(
      makeMachine(plainHost('as Linux makes them')),
      { ...raw, cniVersion: version },
      0,
    );
    await expect(`${formatResult(result, version)}\n`).toMatchFileSnapshot(
      `golden/result-${name}-${version}.txt`,
    );
  });

  it('without routes has none, and before 1.0.0 an empty dns', () => {
    const raw = { ...IPV4, isDefaultGateway: false };
    const { result } = attachPod(makeMachine(plainHost('as Linux makes them')), raw, 0);
    expect(Object.keys(convertResult(result, '0.4.0'))).toEqual([
      'cniVersion',
      'interfaces',
      'ips',
      'dns',
    ]);
    expect(Object.keys(convertResult(result, '1.0.0'))).toEqual([
      'cniVersion',
      'interfaces',
      'ips',
    ]);
  });

  it('is read back as it was, from every version that holds all of it', () => {
    const { result } = attachPod(makeMachine(plainHost('as Linux makes them')), DUAL, 0);
    expect(parseResult(convertResult(result, '1.1.0'), 'it')).toEqual(result);
    for (const version of SUPPORTED_VERSIONS) {
      const read = parseResult(JSON.parse(formatResult(result, version)), 'it');
      expect(read.ips.map(({ address }) => address)).toEqual(
        result.ips.map(({ address }) => address),
      );
      expect(convertResult(read, version)).toEqual(convertResult(result, version));
    }
  });

  it('has the MAC of the bridge that is there', () => {
    const machine = makeMachine(plainHost('as Linux makes them'));
    attachPod(machine, IPV4, 1);
    const mac = '02:11:22:33:44:55' as never;
    machine.backend.execute({
      op: 'link.set',
      netns: HOST_NETNS,
      ifname: 'cni0' as Ifname,
      set: { mac },
    });
    expect(attachPod(machine, IPV4, 0).result.interfaces[0]).toEqual({ name: 'cni0', mac });
  });
});
