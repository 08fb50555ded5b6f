/** What is broken on a host, and whom the command line is to name for it. */
import type { Host } from '../../model/host.ts';
import type { Ifname } from '../../model/ifname.ts';
import type { Op } from '../../model/op.ts';
import type { LinkAttribute } from '../../model/ops/link-set.ts';
import { parseTarget } from '../../plugin/trace/endpoints.ts';
import type { Severity } from '../../sim/findings/finding.ts';
import type { LegacyTables } from '../../sim/legacy-table.ts';
import type { ProbeRequest } from '../../sim/probe.ts';
import { type World, makeWorld } from '../../sim/world.ts';
import { ROUTED } from '../sim/hosts.ts';
import { applyAll } from '../sim/pods.ts';

/** A netns and an object in it, in the words of `Cause`. */
export type Guilty = readonly [netns: string, object: string];

/** The routed host with one fault. */
export interface BrokenHost {
  readonly name: string;
  readonly ops: readonly Op[];
  /** What no operation can do, after them: to a host of the model, and on the kernel by commands in which names of netns are the real ones. */
  readonly beyond?: {
    readonly host: (host: Host) => Host;
    readonly commands: (real: (netns: string) => string) => readonly (readonly string[])[];
  };
  /** What the host has then that is not read. The guilty one is among them: `trace` names it, and blames nobody. */
  readonly legacyTables?: LegacyTables;
  readonly guilty: Guilty;
  /** A packet that dies of it, where `trace` names the guilty. */
  readonly trace?: {
    readonly from: string;
    /** As the command line takes it. */
    readonly to: string;
    readonly payloadBytes?: number;
  };
  /** What `trace` says would mend it, or shows it, in the guilty one's netns; absent: it is not looked at. */
  readonly traceMends?: readonly string[];
  /** What `trace` says beside that, by the real names of netns. */
  readonly traceSays?: (real: (netns: string) => string) => string;
  /** How bad `check` finds it, where it names the guilty. */
  readonly check?: Severity;
  /** Absent: doing what `check` says mends it. Somebody has to choose first, or it is not to be seen whether it is mended. */
  readonly mends?: false;
  /** What `check` names instead. */
  readonly checkNames?: Guilty;
}

/** The host of the model. */
export function brokenState({ ops, beyond }: BrokenHost): Host {
  const host = applyAll(ROUTED, ops);
  return beyond ? beyond.host(host) : host;
}

/** The same with what is not read, before anything is sent. */
export function brokenWorld(broken: BrokenHost): World {
  return makeWorld(brokenState(broken), broken.legacyTables);
}

/** The packet, as a probe. */
export function requestOf({ from, to, payloadBytes }: Asked): ProbeRequest {
  const size = payloadBytes === undefined ? {} : { payloadBytes };
  return { netns: from, ...parseTarget(to), ...size };
}

type Asked = NonNullable<BrokenHost['trace']>;

export const name = (text: string): Ifname => text as Ifname;

/** The addresses of pods b, c and d. */
export const [B4, C4, C6, D4] = ['10.244.1.3', '10.244.2.4', 'fd00:2::4', '10.244.3.2'] as const;

export function set(netns: string, ifname: string, attribute: LinkAttribute): Op {
  return { op: 'link.set', netns, ifname: name(ifname), set: attribute };
}

export function sysctl(netns: string, key: string, value: string): Op {
  return { op: 'sysctl.set', netns, key, value };
}

/** Takes an address away that the routed host has. */
export function withoutAddress(netns: string, ifname: string, ip: string): Op {
  const address = ROUTED.netns[netns]?.links[ifname]?.addresses.find((each) => each.ip === ip);
  if (!address) throw new Error(`${ifname} in netns ${netns} has no ${ip}`);
  return { op: 'address.del', netns, ifname: name(ifname), address };
}
