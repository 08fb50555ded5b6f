import type { Fault } from '../../model/errno.ts';
import type { NetnsName } from '../../model/host.ts';
import type { Backend } from '../backend.ts';
import { executeOp } from './executors.ts';
import { missingFeatures } from './features.ts';
import { Kernel, type KernelNetns } from './kernel.ts';
import type { ForeignDecoder } from './nftables-message.ts';
import { type SettingsReader, observeHost } from './observe.ts';
import { readRelease } from './release.ts';

/** What a call may want of the backend that others should not pay for. */
export interface LinuxChoice {
  /** The kernel's release stands in what is observed: plans say it, and nothing that ADD, DEL or STATUS does depends on it. */
  readonly tellsRelease?: boolean;
  /** Reads of rulesets also what no plan needs; FOREIGN of nftables-foreign.ts. */
  readonly foreign?: ForeignDecoder;
  /** Also the settings of links that decide about packets: settingsReader of link-settings.ts. */
  readonly linkSettings?: SettingsReader;
}

/** The backend over the kernel, with what it has open for who reads more than a scope names. */
export interface LinuxBackend extends Backend {
  /** A netns as it was observed, or opened now; ENOENT when there is none. It is open until `close`. */
  readonly netns: (name: NetnsName) => KernelNetns | Fault;
}

/**
 * The backend over the kernel of this machine: rtnetlink, nf_tables and /proc/sys, on the main thread, without a wait.
 * It keeps the netns it has seen open, and alive, until `close`. Needs CAP_NET_ADMIN and CAP_SYS_ADMIN for all but reading.
 */
export function makeLinuxBackend({
  tellsRelease = false,
  ...more
}: LinuxChoice = {}): LinuxBackend {
  const kernel = new Kernel();
  return {
    observe: (scope) => {
      const host = observeHost(kernel, scope, more);
      return tellsRelease ? { ...host, kernel: { ...host.kernel, ...readRelease() } } : host;
    },
    execute: (op) => executeOp(kernel, op),
    lacks: (extra = { vlans: false }) => missingFeatures(kernel, extra),
    netns: (name) => kernel.netns(name),
    close: () => kernel.close(),
  };
}
