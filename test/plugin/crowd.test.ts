/** A thousand pods on one node: what grows with them, and that all of it goes. */
import { describe, expect, it, vi } from 'vitest';
import { HOST_NETNS, type Host, getNetns } from '../../model/host.ts';
import { formatKey } from '../../plugin/attachment.ts';
import { add } from '../../plugin/call/add.ts';
import { findings } from '../../plugin/call/check.ts';
import { del } from '../../plugin/call/del.ts';
import { gc } from '../../plugin/call/gc.ts';
import { parseConfig } from '../../plugin/cni/config.ts';
import type { RawConfig } from '../arbitraries/configuration.ts';
import { assertNothingLeft } from './history/foreign.ts';
import { type Ledger, assertNoLeftovers, assertRecords } from './history/ledger.ts';
import { type Machine, makeMachine, plainHost, requestFor } from './machine.ts';

vi.setConfig({ testTimeout: 300_000 });

const PODS = 1000;

const NETWORKS: readonly RawConfig[] = [
  {
    cniVersion: '1.1.0',
    name: 'net0',
    type: 'cube-cni',
    isDefaultGateway: true,
    ipMasq: true,
    ipam: { type: 'cube-ipam', ranges: [[{ subnet: '10.0.0.0/22' }], [{ subnet: 'fd00::/64' }]] },
  },
  {
    cniVersion: '1.1.0',
    name: 'net1',
    type: 'cube-cni',
    mode: 'ptp',
    egressRate: 1_000_000,
    egressBurst: 80_000_000,
    runtimeConfig: { portMappings: [{ hostPort: 10_000, containerPort: 80 }] },
    ipam: { type: 'cube-ipam', subnet: '10.9.0.0/23' },
  },
];

/** Of each four pods one is on the second network. */
function networkOf(pod: number): number {
  return pod % 4 === 3 ? 1 : 0;
}

function netnsOf(pod: number): string {
  return `/run/netns/pod${pod}`;
}

function attach(machine: Machine, ledger: Ledger, pod: number, generation: number): void {
  const network = networkOf(pod);
  const netns = netnsOf(pod);
  const containerId = `c${pod}-${generation}`;
  const request = requestFor('ADD', NETWORKS[network] as RawConfig, pod, { containerId, netns });
  const added = add(machine.start(), request, parseConfig(request.config));
  added.finish();
  const { key } = request;
  const { result } = added;
  ledger.set(formatKey(key), { key, pod, network, netns, state: 'attached', result });
}

function detach(machine: Machine, ledger: Ledger, isGoing: (pod: number) => boolean): void {
  for (const { key } of [...ledger.values()].filter(({ pod }) => isGoing(pod))) {
    del(machine.start(), key);
    ledger.delete(formatKey(key));
  }
}

/** Everything is somebody's, nobody has what another has, and every fiftieth pod is well. */
function assertOrder(machine: Machine, shadow: Host, ledger: Ledger): void {
  assertRecords(machine.state, ledger, NETWORKS);
  assertNoLeftovers(machine.backend.host(), shadow, machine.state);
  for (const { key, pod } of ledger.values())
    if (pod % 50 === 0) expect(findings(machine.start(), key)).toEqual([]);
}

function isReplaced(pod: number): boolean {
  return pod % 10 === 0;
}

describe('a thousand pods on one node', () => {
  it('come, are replaced and go, and nothing of them stays', () => {
    const pods = Array.from({ length: PODS }, (_each, pod) => pod);
    const shadow = plainHost('without link-local', pods.map(netnsOf));
    const machine = makeMachine(shadow);
    const ledger: Ledger = new Map();
    for (const pod of pods) attach(machine, ledger, pod, 0);
    assertOrder(machine, shadow, ledger);
    // The bridge, the node's card and its loopback, and a link of each pod, which is two where what it sends is limited.
    const { links } = getNetns(machine.backend.host(), HOST_NETNS);
    expect(Object.keys(links)).toHaveLength(3 + PODS + PODS / 4);

    detach(machine, ledger, isReplaced);
    assertOrder(machine, shadow, ledger);
    for (const pod of pods.filter(isReplaced)) attach(machine, ledger, pod, 1);
    assertOrder(machine, shadow, ledger);

    // The runtime has forgotten the second network's pods, and removes the others one by one.
    const forget = { ...NETWORKS[1], 'cni.dev/valid-attachments': [] };
    gc(machine.start(), requestFor('GC', forget, 0, { netns: netnsOf(0) }));
    for (const [name, { network }] of ledger) if (network === 1) ledger.delete(name);
    assertOrder(machine, shadow, ledger);
    detach(machine, ledger, () => true);
    expect(machine.state.list()).toEqual([]);
    assertNothingLeft(machine.backend.host(), shadow, new Set());
  });
});
