/** Host ports as runtimes ask for them, of which no two are one. */
import fc from 'fast-check';
import type { RawConfig } from './configuration.ts';

/** As it stands in `runtimeConfig.portMappings`. */
export interface Mapping {
  readonly protocol: 'tcp' | 'udp' | 'sctp';
  readonly hostPort: number;
  readonly containerPort: number;
  readonly hostIP?: string;
  readonly range?: number;
}

/** Of both families, for a pod that has addresses of both. */
const HOST_IPS = ['', '', '0.0.0.0', '::', '192.168.1.5', '2001:db8:9::5', '127.0.0.1'] as const;

/** More than the ports of any range. */
const APART = 50;

/** Conditions of doors, none of which asks whom a packet is for. */
const DOORS: readonly RawConfig[] = [
  {},
  {},
  { markMasqBit: 5 },
  { masqAll: true },
  { snat: false },
  { conditionsV4: ['!', '-s', '203.0.113.0/24'], conditionsV6: ['!', '-s', '2001:db8:7::/64'] },
];

/** Mappings of so many pods, each pod's in a list, with hostPorts from 1000 on. */
export function portMappings(pods: number): fc.Arbitrary<readonly (readonly Mapping[])[]> {
  const one = fc.record({
    protocol: fc.constantFrom<Mapping['protocol'][]>('tcp', 'udp', 'sctp'),
    containerPort: fc.integer({ min: 1, max: 60_000 }),
    hostIP: fc.constantFrom(...HOST_IPS),
    range: fc.constantFrom(0, 0, 1, 3, 20),
  });
  return fc
    .array(fc.array(one, { minLength: 1, maxLength: 4 }), {
      minLength: pods,
      maxLength: pods,
    })
    .map((lists) =>
      lists.map((list, pod) =>
        list.map((each, at) => ({ ...each, hostPort: 1000 * (pod + 1) + APART * at })),
      ),
    );
}

/** What more a configuration says of host ports. */
export function doors(): fc.Arbitrary<RawConfig> {
  return fc.constantFrom(...DOORS);
}
