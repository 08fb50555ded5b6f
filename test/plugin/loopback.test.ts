/** The plugin `loopback` on the kernel in memory; on the real one: test/linux/executable/loopback.test.ts. */
import { describe, expect, it } from 'vitest';
import { makeAddress } from '../../model/address.ts';
import { HOST_NETNS, type Host, findLink } from '../../model/host.ts';
import type { Ifname } from '../../model/ifname.ts';
import { isLoopback, parseIp } from '../../model/ip.ts';
import type { Link } from '../../model/link.ts';
import { parsePrefixedIp } from '../../model/prefix.ts';
import {
  addLoopback,
  checkLoopback,
  delLoopback,
  planLoopback,
} from '../../plugin/call/loopback.ts';
import type { Request } from '../../plugin/cni/request.ts';
import { formatResult } from '../../plugin/cni/result.ts';
import { SUPPORTED_VERSIONS } from '../../plugin/cni/version.ts';
import { plainState } from '../state.ts';
import { type Machine, PODS, afterOps, makeMachine, plainHost, requestFor } from './machine.ts';
import { refusal } from './refusal.ts';

const [POD] = PODS;
const LO = { netns: POD, ifname: 'lo' as Ifname };

/** Nothing but what every plugin's configuration has. */
function request(
  verb: 'ADD' | 'DEL' | 'CHECK',
  changes: Readonly<Record<string, unknown>> = {},
  netns: string = POD,
): Request {
  const config = { cniVersion: '1.0.0', name: 'cni-loopback', ...changes };
  return requestFor(verb, config, 0, { ifname: 'lo', netns });
}

function lo(machine: Machine): Link | undefined {
  return findLink(machine.backend.host(), LO);
}

/** A machine on which the loopback of the pod has an address already. */
function machineWith(address: string): Machine {
  const added = {
    op: 'address.add' as const,
    ...LO,
    address: makeAddress(parsePrefixedIp(address)),
  };
  return makeMachine(afterOps(plainHost(), [added]));
}

/** A machine whose pod has no IPv6 on its loopback. */
function machineWithoutIpv6(): Machine {
  const key = 'net/ipv6/conf/lo/disable_ipv6';
  return makeMachine(afterOps(plainHost(), [{ op: 'sysctl.set', netns: POD, key, value: '1' }]));
}

/** What a call is refused with, which must have left everything as it was. */
function refused(machine: Machine, call: () => unknown): string {
  const before: Host = machine.backend.host();
  const message = refusal(call);
  expect(plainState(machine.backend.host())).toEqual(plainState(before));
  return message;
}

describe('ADD', () => {
  it.each(SUPPORTED_VERSIONS)('%s: brings lo up and answers its addresses', (cniVersion) => {
    const machine = makeMachine(plainHost());
    const result = addLoopback(machine.start(), request('ADD', { cniVersion }));
    expect(lo(machine)).toMatchObject({ up: true });
    const interfaces = [{ name: 'lo', mac: '00:00:00:00:00:00', sandbox: POD }];
    const of = (family: '4' | '6', address: string): object =>
      cniVersion.startsWith('0')
        ? { version: family, interface: 0, address }
        : { interface: 0, address };
    expect(JSON.parse(formatResult(result, cniVersion))).toEqual({
      cniVersion,
      ...(cniVersion === '0.1.0' || cniVersion === '0.2.0'
        ? { ip4: { ip: '127.0.0.1/8' }, ip6: { ip: '::1/128' } }
        : { interfaces, ips: [of('4', '127.0.0.1/8'), of('6', '::1/128')] }),
      ...(cniVersion.startsWith('0') ? { dns: {} } : {}),
    });
  });

  it('answers the same of a link that is up already, and changes nothing', () => {
    const machine = makeMachine(plainHost());
    const first = addLoopback(machine.start(), request('ADD'));
    const host = machine.backend.host();
    expect(addLoopback(machine.start(), request('ADD'))).toEqual(first);
    expect(machine.backend.host()).toEqual(host);
  });

  it('answers the address of one family where there is no other', () => {
    const machine = machineWithoutIpv6();
    expect(addLoopback(machine.start(), request('ADD')).ips).toEqual([
      { interface: 0, address: '127.0.0.1/8' },
    ]);
  });

  it('answers the first address of each family', () => {
    const machine = machineWith('127.0.0.53/32');
    const { ips } = addLoopback(machine.start(), request('ADD'));
    const first = lo(machine)?.addresses.find(({ ip }) => !ip.includes(':'));
    expect(ips).toHaveLength(2);
    expect(ips[0]?.address).toBe(`${first?.ip}/${first?.prefixLength}`);
  });

  it('passes on the result of the plugin before', () => {
    const machine = makeMachine(plainHost());
    const before = {
      cniVersion: '1.0.0',
      interfaces: [{ name: 'eth0', mac: '02:00:00:00:00:01', sandbox: POD }],
      ips: [{ interface: 0, address: '10.1.0.2/16', gateway: '10.1.0.1' }],
      routes: [{ dst: '0.0.0.0/0', gw: '10.1.0.1' }],
      dns: { nameservers: ['10.1.0.1'] },
    };
    const result = addLoopback(machine.start(), request('ADD', { prevResult: before }));
    expect(JSON.parse(formatResult(result, '1.0.0'))).toEqual(before);
    expect(lo(machine)).toMatchObject({ up: true });
  });

  it('refuses what is no result before anything changes', () => {
    const machine = makeMachine(plainHost());
    expect(
      refused(machine, () =>
        addLoopback(machine.start(), request('ADD', { prevResult: 'nonsense' })),
      ),
    ).toBe('6 prevResult is not a CNI result');
  });

  it.each(['10.1.2.3/24', 'fd00::1/64', 'fe80::1/64'])('refuses a link with %s', (address) => {
    const machine = machineWith(address);
    const [ip] = address.split('/');
    expect(refused(machine, () => addLoopback(machine.start(), request('ADD')))).toBe(
      `101 loopback interface found with non-loopback address "${ip}" | link "lo" of netns "${POD}" has ${address}`,
    );
  });

  it('refuses a netns that is not there', () => {
    const machine = makeMachine(plainHost());
    expect(
      refused(machine, () => addLoopback(machine.start(), request('ADD', {}, '/run/netns/gone'))),
    ).toBe('4 CNI_NETNS "/run/netns/gone" does not exist or is not a network namespace');
  });

  it('tells what the kernel refuses', () => {
    const machine = makeMachine(plainHost());
    const context = machine.start();
    const backend = { ...machine.backend, execute: () => ({ errno: 'EPERM', text: '' }) as const };
    expect(refused(machine, () => addLoopback({ ...context, backend }, request('ADD')))).toBe(
      `100 Cannot do "ip link set lo up" in netns "${POD}": EPERM`,
    );
  });
});

describe('DEL', () => {
  it('brings lo down, also when it is down already', () => {
    const machine = makeMachine(plainHost());
    addLoopback(machine.start(), request('ADD'));
    delLoopback(machine.start(), request('DEL'));
    expect(lo(machine)).toMatchObject({ up: false });
    const host = machine.backend.host();
    delLoopback(machine.start(), request('DEL'));
    expect(machine.backend.host()).toEqual(host);
  });

  it.each(['', '/run/netns/gone'])('has nothing to do in netns %j', (netns) => {
    const machine = makeMachine(plainHost());
    const host = machine.backend.host();
    delLoopback(machine.start(), request('DEL', {}, netns));
    expect(machine.backend.host()).toEqual(host);
  });

  it('looks neither at addresses nor at prevResult', () => {
    const machine = machineWith('10.1.2.3/24');
    delLoopback(machine.start(), request('DEL', { prevResult: 'nonsense' }));
    expect(lo(machine)).toMatchObject({ up: false });
  });
});

describe('CHECK', () => {
  it('passes while lo is up, with and without prevResult', () => {
    const machine = makeMachine(plainHost());
    const result = addLoopback(machine.start(), request('ADD'));
    checkLoopback(machine.start(), request('CHECK'));
    checkLoopback(machine.start(), request('CHECK', { prevResult: result }));
    expect(lo(machine)).toMatchObject({ up: true });
  });

  it('finds that lo is down, and mends nothing', () => {
    const machine = makeMachine(plainHost());
    expect(refused(machine, () => checkLoopback(machine.start(), request('CHECK')))).toBe(
      `103 loopback interface is down | netns "${POD}": ip link set lo up`,
    );
  });

  it('finds that the netns is gone', () => {
    const machine = makeMachine(plainHost());
    const call = request('CHECK', {}, '/run/netns/gone');
    expect(refused(machine, () => checkLoopback(machine.start(), call))).toBe(
      '103 CNI_NETNS "/run/netns/gone" does not exist or is not a network namespace',
    );
  });
});

describe('a plan', () => {
  it.each(['ADD', 'CHECK'] as const)('of %s leads to a link that is up', (verb) => {
    const machine = makeMachine(plainHost());
    const host = machine.backend.host();
    const plan = planLoopback(machine.start(), verb, POD);
    expect(machine.backend.host()).toEqual(host);
    expect(plan.ops).toEqual([{ op: 'link.set', ...LO, set: { up: true } }]);
    expect(findLink(plan.after, LO)).toMatchObject({ up: true });
  });

  it('of DEL is empty where there is nothing to do', () => {
    const machine = makeMachine(plainHost());
    for (const netns of [POD, '', '/run/netns/gone'])
      expect(planLoopback(machine.start(), 'DEL', netns).ops).toEqual([]);
  });
});

describe("the plugin's own netns", () => {
  it.each(['ADD', 'DEL', 'CHECK'] as const)('is refused in %s, by path and by name', (verb) => {
    const machine = makeMachine(plainHost());
    const context = { ...machine.start(), isOwnNetns: (path: string) => path === POD };
    const call = { ADD: addLoopback, DEL: delLoopback, CHECK: checkLoopback }[verb];
    for (const netns of [POD, HOST_NETNS])
      expect(refused(machine, () => call(context, request(verb, {}, netns)))).toMatch(/^8 /);
  });
});

describe('isLoopback', () => {
  it.each([
    ['127.0.0.1', true],
    ['127.255.255.255', true],
    ['126.255.255.255', false],
    ['128.0.0.0', false],
    ['::1', true],
    ['::', false],
    ['::2', false],
    ['7f00::', false],
  ])('%s: %s', (ip, expected) => {
    expect(isLoopback(parseIp(ip))).toBe(expected);
  });
});
