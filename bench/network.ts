import { join } from 'node:path';

/** An executable under measurement, and whose configuration it understands. */
export interface Plugin {
  readonly label: 'ours' | 'reference';
  readonly executable: string;
  /** A `bridge` does the work together with other plugins, a `cube-cni` alone. */
  readonly type: 'cube-cni' | 'bridge';
  /** CNI_PATH: the folder in which it finds the plugins that it delegates to. */
  readonly cniPath: string;
}

/** What a network gives its pods: a gateway and no more, masquerading too, or all of the reference chain. */
export type Features = 'plain' | 'masq' | 'chain';

/** A capability that a plugin may declare, to be given what the runtime chose for the pod. */
export type Capability = 'portMappings' | 'bandwidth';

/** One plugin of a network configuration list. */
interface ListedPlugin {
  readonly executable: string;
  readonly config: {
    readonly type: string;
    readonly capabilities?: Readonly<Partial<Record<Capability, true>>>;
  };
}

/** A network configuration list with the executables of its plugins, in the order of ADD. */
export interface NetworkList {
  readonly cniVersion: string;
  readonly name: string;
  readonly plugins: readonly ListedPlugin[];
}

/** What a pod of a `chain` network is limited to, in bits a second and bits. Nothing of the bench comes near it. */
export const BANDWIDTH = {
  ingressRate: 100_000_000,
  ingressBurst: 10_000_000,
  egressRate: 100_000_000,
  egressBurst: 10_000_000,
} as const;

const RANGES = [[{ subnet: '10.88.0.0/16' }]] as const;

const INGRESS_POLICY = 'same-bridge';

const SYSCTL = { 'net.core.somaxconn': '1024' } as const;

/** The list by which a plugin, with those that belong to it, gives pods the features; its state is kept in `folder`. */
export function networkList(plugin: Plugin, features: Features, folder: string): NetworkList {
  const plugins = plugin.type === 'bridge' ? reference : ours;
  return { cniVersion: '1.0.0', name: 'bench', plugins: plugins(plugin, features, folder) };
}

function ours({ executable, type }: Plugin, features: Features, folder: string): ListedPlugin[] {
  const chain = {
    capabilities: { portMappings: true, bandwidth: true },
    ingressPolicy: INGRESS_POLICY,
    sysctl: SYSCTL,
  } as const;
  const config = {
    type,
    ...bridge(features),
    dataDir: join(folder, 'data'),
    logFile: join(folder, 'log'),
    ipam: { type: 'cube-ipam', ranges: RANGES },
    ...(features === 'chain' ? chain : {}),
  };
  return [{ executable, config }];
}

function reference(plugin: Plugin, features: Features, folder: string): ListedPlugin[] {
  const ipam = { type: 'host-local', ranges: RANGES, dataDir: join(folder, 'data') };
  const first = { type: plugin.type, ...bridge(features), ipam };
  const others = [
    { type: 'portmap', capabilities: { portMappings: true } },
    { type: 'bandwidth', capabilities: { bandwidth: true } },
    // With the backend named it need not look for firewalld on D-Bus.
    { type: 'firewall', backend: 'iptables', ingressPolicy: INGRESS_POLICY },
    { type: 'tuning', sysctl: SYSCTL, dataDir: join(folder, 'tuning') },
  ] as const;
  return [
    { executable: plugin.executable, config: first },
    ...(features === 'chain' ? others : []).map((config) => ({
      executable: join(plugin.cniPath, config.type),
      config,
    })),
  ];
}

function bridge(features: Features) {
  return {
    bridge: 'cni0',
    isGateway: true,
    isDefaultGateway: true,
    ipMasq: features !== 'plain',
    hairpinMode: features === 'chain',
  };
}
