import type { Host } from '../../model/host.ts';
/** A real probe on the kernel of this machine, and what its tracepoints told, in a few words. */
import { readyProbe } from '../../plugin/process/live-probe.ts';
import type { ProbeRequest } from '../../sim/probe.ts';

export interface SeenProbe {
  /** Has the sender heard an answer? */
  readonly answered: boolean;
  /** `node v-b out`: each link that sent or received it or its answer, in order. */
  readonly seenLinks: readonly string[];
  /** `node cni0 NETFILTER_DROP`: where it was dropped, and the kernel's reason. */
  readonly dropReasons: readonly string[];
}

/** Sends the probe from the netns that it names; `host` has to hold every netns that it may pass, as it is now. */
export async function probeKernel(
  host: Host,
  request: ProbeRequest,
  waitMs: number,
): Promise<SeenProbe> {
  const probe = readyProbe(request);
  try {
    const { outcome, seen, drops } = await probe.observe(host, waitMs);
    return {
      answered: outcome.kind === 'answered',
      seenLinks: seen.map(({ netns, link, direction }) => `${netns} ${link} ${direction}`),
      dropReasons: drops.map(({ netns, link, reason }) => `${netns} ${link ?? '-'} ${reason}`),
    };
  } finally {
    probe.close();
  }
}
