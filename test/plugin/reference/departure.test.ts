import { describe, expect, it, test } from 'vitest';
import { makeMemoryBackend } from '../../../backends/memory.ts';
import type { Host } from '../../../model/host.ts';
import type { Ifname } from '../../../model/ifname.ts';
import { describeOp } from '../../../model/ops.ts';
import {
  type Departure,
  depart,
  departureScope,
  planDeparture,
} from '../../../plugin/reference/departure.ts';
import { referenceNames } from '../../../plugin/reference/names.ts';
import { referenceHost, withDevice } from './pods.ts';

const NETNS = '/run/netns/a';
const POD = { hostIfname: 'veth00000001', hostMac: '02:00:00:00:00:01', netns: NETNS };
const OTHER = {
  hostIfname: 'veth00000002',
  hostMac: '02:00:00:00:00:02',
  netns: '/run/netns/b',
};
const KEY = { network: 'podnet', containerId: 'a', ifname: 'eth0' as Ifname };
const DEPARTURE: Departure = {
  key: KEY,
  netns: NETNS,
  prevResult: resultNaming(POD),
  bridge: 'cni0' as Ifname,
  hostLocal: undefined,
};

function resultNaming({ hostIfname, hostMac }: typeof POD): object {
  return {
    cniVersion: '1.0.0',
    interfaces: [
      { name: 'cni0', mac: 'b2:58:2a:60:41:1c' },
      { name: hostIfname, mac: hostMac },
      { name: 'eth0', mac: 'b2:a5:e2:4b:36:0e', sandbox: NETNS },
    ],
    ips: [{ interface: 2, address: '10.88.0.2/24', gateway: '10.88.0.1' }],
  };
}

function planned(host: Host, changes: Partial<Departure> = {}): string[] {
  const { ops } = planDeparture(makeMemoryBackend(host), { ...DEPARTURE, ...changes });
  return ops.flatMap(describeOp);
}

const GONE = [`ip link del ${POD.hostIfname}`];

describe('the plan of a departure', () => {
  const host = referenceHost([POD, OTHER]);

  test.each<[string, Partial<Departure>, string[]]>([
    ['netns and result', {}, GONE],
    ['no netns', { netns: '' }, GONE],
    ['a netns that is gone', { netns: '/run/netns/gone' }, GONE],
    ['no result, but the pod leads to the bridge', { prevResult: undefined }, GONE],
    [
      'no result, and the pod leads to another bridge',
      { prevResult: undefined, bridge: 'br9' as Ifname },
      [],
    ],
    ['neither', { prevResult: undefined, netns: '' }, []],
    ['a result that names no links', { prevResult: { ip4: { ip: '10.88.0.2/24' } } }, GONE],
    [
      'a result that names another link',
      { prevResult: resultNaming({ ...POD, hostIfname: 'veth00000009' }) },
      [],
    ],
  ])('with %s', (_what, changes, plan) => {
    expect(planned(host, changes)).toEqual(plan);
  });

  it('takes the ifb of the container, and nothing else of its name', () => {
    const { shaper } = referenceNames(KEY);
    expect(planned(withDevice(host, shaper, 'ifb'))).toEqual([...GONE, `ip link del ${shaper}`]);
    expect(planned(withDevice(host, shaper, 'dummy'))).toEqual(GONE);
  });

  it('leaves links that we made, and what is no veth', () => {
    expect(planned(referenceHost([{ ...POD, alias: 'cube-cni podnet/a/eth0' }]))).toEqual([]);
    const prevResult = resultNaming({ ...POD, hostIfname: 'uplink' });
    expect(planned(withDevice(referenceHost([]), 'uplink', ''), { prevResult })).toEqual([]);
  });

  it("leaves the gateway's veth of a VLAN, whose other end is on the host", () => {
    const vlan = { hostIfname: 'cni0.5', hostMac: '02:00:00:00:00:05', netns: 'host' };
    const prevResult = resultNaming(vlan);
    const within = referenceHost([vlan]);
    expect(planned(within, { prevResult, netns: '' })).toEqual([]);
  });
});

test('what has to be read for it: all links of the host, and the one of the pod', () => {
  const none = { routes: 'none', sysctls: [], nftables: [] };
  const host = { ...none, links: 'all' };
  expect(departureScope(DEPARTURE)).toEqual({ host, [NETNS]: { ...none, links: ['eth0'] } });
  expect(departureScope({ ...DEPARTURE, netns: '' })).toEqual({ host });
});

it('departs once, and says so', () => {
  const backend = makeMemoryBackend(referenceHost([POD, OTHER]));
  const log: string[] = [];
  const context = {
    backend,
    run: () => undefined,
    clock: () => 0,
    log: (level: string, message: string) => void log.push(`${level} ${message}`),
  };
  expect(depart(context, DEPARTURE)).toEqual({ links: GONE, rules: [], addresses: [] });
  expect(depart(context, DEPARTURE)).toEqual({ links: [], rules: [], addresses: [] });
  expect(log).toEqual([`info ${GONE[0]}`]);
});
