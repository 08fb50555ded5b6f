import type { Fault } from '../../model/errno.ts';
import type { Host } from '../../model/host.ts';
import type { Ip } from '../../model/ip.ts';
import type { Op } from '../../model/op.ts';

/** One of the pods of the demonstration. */
export interface Pod {
  readonly name: string;
  readonly containerId: string;
  /** The path that a runtime would give in CNI_NETNS. */
  readonly netns: string;
}

/** What a CNI call answered. */
export interface Answer {
  readonly ok: boolean;
  /** What it wrote on standard output. */
  readonly output: string;
}

/** What an echo request came to. */
export interface Echo {
  readonly ok: boolean;
  /** One line: who answered and how fast, or why nobody did. */
  readonly text: string;
  /** The way of the packet where it is known. */
  readonly trace: string;
}

export type DemoVerb = 'ADD' | 'CHECK' | 'DEL';

/** A network to play on: the kernel's or the one in memory. */
export interface Stage {
  /** What it is, for people. */
  readonly title: string;
  readonly pods: readonly [Pod, Pod];
  /** The plan of a call, which changes nothing. */
  readonly plan: (verb: DemoVerb, pod: Pod) => Promise<string>;
  readonly call: (verb: DemoVerb, pod: Pod, prevResult?: unknown) => Promise<Answer>;
  readonly ping: (from: Pod, destination: Ip) => Echo;
  /** Does something behind the plugin's back. */
  readonly interfere: (op: Op) => Fault | undefined;
  /** Everything there is: host and pods. */
  readonly observe: () => Host;
  /** Removes all of it. */
  readonly close: () => void;
}

/** The network that the pods join, as its configuration says it. */
export function networkConfig(dataDir: string, logFile: string): Record<string, unknown> {
  return {
    cniVersion: '1.0.0',
    name: 'demo',
    type: 'cube-cni',
    bridge: 'cni0',
    isDefaultGateway: true,
    ipMasq: true,
    hairpinMode: true,
    dataDir,
    logFile,
    ipam: { type: 'cube-ipam', ranges: [[{ subnet: '10.88.0.0/24' }], [{ subnet: 'fd88::/64' }]] },
  };
}
