/** A node in memory with a way out, whose pods have host ports. */
import { HOST_NETNS, type Host } from '../../model/host.ts';
import type { Ifname } from '../../model/ifname.ts';
import { planAdd } from '../../plugin/call/add.ts';
import { planDel } from '../../plugin/call/del.ts';
import { parseConfig } from '../../plugin/cni/config.ts';
import type { RawConfig } from '../arbitraries/configuration.ts';
import type { Mapping } from '../arbitraries/port-mappings.ts';
import {
  type Machine,
  afterOps,
  attachPod,
  makeMachine,
  plainHost,
  requestFor,
} from '../plugin/machine.ts';
import { addressOps, routeOps } from './pods.ts';

/** The addresses of the node's uplink. */
export const UPLINK = ['192.168.1.5', '2001:db8:9::5'] as const;

const CONFIG: RawConfig = {
  cniVersion: '1.1.0',
  name: 'podnet',
  type: 'cube-cni',
  isDefaultGateway: true,
  ipMasq: true,
  ipam: { type: 'cube-ipam', ranges: [[{ subnet: '10.7.0.0/24' }], [{ subnet: 'fd07::/64' }]] },
};

/** A configuration with these ports. */
export function withPorts(mappings: readonly Mapping[], more: RawConfig = {}): RawConfig {
  return { ...CONFIG, ...more, runtimeConfig: { portMappings: mappings } };
}

/** The node with so many pods attached that have no ports, at most two: they are pods 1 and 2. */
export function nodeWith(others: number, more: RawConfig = {}): Machine {
  const machine = makeMachine(
    afterOps(plainHost('as Linux makes them'), [
      { op: 'link.set', netns: HOST_NETNS, ifname: 'lo' as Ifname, set: { up: true } },
      ...addressOps(HOST_NETNS, 'uplink', `${UPLINK[0]}/24`, `${UPLINK[1]}/64`),
      ...routeOps(HOST_NETNS, 'uplink', '0.0.0.0/0', '192.168.1.1'),
      ...routeOps(HOST_NETNS, 'uplink', '::/0', 'fe80::1'),
    ]),
  );
  for (const pod of Array.from({ length: others }, (_, at) => at + 1))
    attachPod(machine, { ...CONFIG, ...more }, pod);
  return machine;
}

/** A host before and after something. */
export interface Turn {
  readonly before: Host;
  readonly after: Host;
}

/** What ADD of pod 0 makes of the node, without carrying it out. */
export function turnOfAdd(machine: Machine, raw: RawConfig): Turn {
  const before = machine.backend.host();
  const request = requestFor('ADD', raw, 0);
  const { plan } = planAdd(machine.start(), request, parseConfig(request.config));
  return { before, after: afterOps(before, plan.ops) };
}

/** The same of DEL. */
export function turnOfDel(machine: Machine, raw: RawConfig): Turn {
  const before = machine.backend.host();
  const planned = planDel(machine.start(), requestFor('DEL', raw, 0).key);
  return { before, after: afterOps(before, planned?.plan.ops ?? []) };
}
