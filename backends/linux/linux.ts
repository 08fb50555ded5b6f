import type { Backend } from '../backend.ts';
import { executeOp } from './executors.ts';
import { missingFeatures } from './features.ts';
import { Kernel } from './kernel.ts';
import { observeHost } from './observe.ts';

/**
 * The backend over the kernel of this machine: rtnetlink, nf_tables and /proc/sys, on the main thread, without a wait.
 * It keeps the netns it has seen open, and alive, until `close`. Needs CAP_NET_ADMIN and CAP_SYS_ADMIN for all but reading.
 */
export function makeLinuxBackend(): Backend {
  const kernel = new Kernel();
  return {
    observe: (scope) => observeHost(kernel, scope),
    execute: (op) => executeOp(kernel, op),
    lacks: (extra = { vlans: false }) => missingFeatures(kernel, extra),
    close: () => kernel.close(),
  };
}
