import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { addNetns } from './netns.ts';
import {
  BANDWIDTH,
  type Capability,
  type Features,
  type NetworkList,
  type Plugin,
  networkList,
} from './network.ts';

/** A node of its own for one plugin: its netns, its state folder, its network. */
export interface Host {
  readonly name: string;
  readonly plugin: Plugin;
  readonly netns: string;
  readonly folder: string;
  readonly network: NetworkList;
}

/** What a runtime knows of a pod: `prevResult` is what ADD printed, and DEL is given it back. */
export interface Pod {
  readonly containerId: string;
  readonly netns: string;
  /** What the runtime chose for it, for the plugins that declare the capability. */
  readonly runtimeConfig: Readonly<Record<Capability, unknown>>;
  readonly prevResult?: unknown;
}

const HOST_PORTS = { first: 20_000, count: 40_000 } as const;

let pods = 0;

/** Makes a host with nothing on it; its state is kept in a new folder below `parent`. */
export function addHost(name: string, plugin: Plugin, features: Features, parent: string): Host {
  const folder = join(parent, name);
  mkdirSync(folder);
  const network = networkList(plugin, features, folder);
  return { name, plugin, netns: addNetns(name), folder, network };
}

/** Makes a pod that may be attached to the host: a netns of its own, still empty. */
export function addPod(host: Host, label: string): Pod {
  const containerId = `${host.name}-${label}`;
  // No two pods of a host may have the same one at a time.
  const hostPort = HOST_PORTS.first + (pods++ % HOST_PORTS.count);
  const portMappings = [{ hostPort, containerPort: 80, protocol: 'tcp' }];
  const runtimeConfig = { portMappings, bandwidth: BANDWIDTH };
  return { containerId, netns: addNetns(containerId), runtimeConfig };
}

/** The pod after its ADD printed `stdout`. */
export function attached(pod: Pod, stdout: string): Pod {
  return { ...pod, prevResult: JSON.parse(stdout) };
}
