/** A probe on the live kernel, with its tracepoints on meanwhile. */
import { openProbe } from '../../backends/linux/probe.ts';
import { isFault } from '../../backends/linux/socket.ts';
import { type TraceInstance, openTraceInstance } from '../../backends/linux/tracefs.ts';
import type { ProbeOutcome } from '../../backends/probe.ts';
import type { Fault } from '../../model/errno.ts';
import { type Host, HOST_NETNS } from '../../model/host.ts';
import { familyOf } from '../../model/ip.ts';
import type { ProbeRequest } from '../../sim/probe.ts';
import type { Observation } from '../trace/comparison.ts';
import { DROP_TRACEPOINT, LINK_TRACEPOINTS, parseKernelEvents } from '../trace/kernel-event.ts';
import { lengthFilter } from '../trace/probe-size.ts';
import { followProbe } from '../trace/sighting.ts';

/** How often it is looked whether the answer has come. */
const POLL_MS = 1;

/** What is left to happen when the sender has its answer: copies for others, which nobody waits for. */
const LINGER_MS = 5;

/** EtherTypes: the ends of other packets are of no interest. */
const ETHERTYPE = { 4: 0x800, 6: 0x86dd } as const;

const SIGNALS = { SIGINT: 2, SIGTERM: 15, SIGHUP: 1 } as const;

/** It is not possible, by the kernel's word, as status 2; or a signal ended it, as shells give that: 128 and its number. */
export class LiveError extends Error {
  readonly status: number;

  constructor(message: string, status: number) {
    super(message);
    this.status = status;
  }
}

function orThrow(fault: Fault | undefined, what: string): void {
  if (!fault) return;
  const text = fault.text === '' ? '' : `, ${fault.text}`;
  throw new LiveError(`cannot ${what}: ${fault.errno}${text}`, 2);
}

function opened<T extends object>(answer: T | Fault, what: string): T {
  if (isFault(answer)) orThrow(answer, what);
  return answer as T;
}

function switchOn(instance: TraceInstance, request: ProbeRequest): void {
  const what = 'switch tracepoints on';
  const filter = lengthFilter(request);
  for (const name of Object.keys(LINK_TRACEPOINTS))
    orThrow(instance.enable(`net/${name}`, filter), what);
  const ofFamily = `protocol == ${ETHERTYPE[familyOf(request.destination)]}`;
  orThrow(instance.enable(`skb/${DROP_TRACEPOINT}`, ofFamily), what);
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve, ms);
  });
}

/** Takes note of signals until `ignore`; `check` throws once one has come. */
function watchSignals(): { readonly check: () => void; readonly ignore: () => void } {
  let came: keyof typeof SIGNALS | undefined;
  const note = (signal: keyof typeof SIGNALS) => () => {
    came = signal;
  };
  const notes = Object.entries({
    SIGINT: note('SIGINT'),
    SIGTERM: note('SIGTERM'),
    SIGHUP: note('SIGHUP'),
  });
  for (const [signal, act] of notes) process.on(signal, act);
  return {
    check: () => {
      if (came) throw new LiveError(`ended by ${came}`, 128 + SIGNALS[came]);
    },
    ignore: () => {
      for (const [signal, act] of notes) process.off(signal, act);
    },
  };
}

/** A probe that is about to be sent from a port of its own. */
export interface ReadyProbe {
  /** What is asked, with the port that it is sent from. */
  readonly request: ProbeRequest;
  /** Sends it and tells what was seen of it on this host. Throws after a signal, once everything is off again. */
  readonly observe: (host: Host, waitMs: number) => Promise<Observation>;
  readonly close: () => void;
}

/**
 * Makes a probe ready, in the netns that `request` names. Needs CAP_NET_RAW there and CAP_SYS_ADMIN; throws with the
 * kernel's word without them, and where the kernel has no tracepoints.
 */
export function readyProbe(asked: ProbeRequest): ReadyProbe {
  const { payloadBytes = 56, sourcePort = 40_000 } = asked;
  const where = asked.netns === HOST_NETNS ? 'this netns' : `netns ${asked.netns}`;
  const probe = opened(
    openProbe({ ...asked, payloadBytes, sourcePort }),
    `send a probe from ${where}`,
  );
  const request = { ...asked, payloadBytes, sourcePort: probe.sourcePort };

  const exchange = async (waitMs: number, check: () => void): Promise<ProbeOutcome> => {
    const started = performance.now();
    let outcome = probe.send();
    while (!outcome && performance.now() - started < waitMs) {
      await pause(POLL_MS);
      check();
      outcome = probe.poll();
    }
    await pause(LINGER_MS);
    check();
    return outcome ?? { kind: 'silent' };
  };
  const observe = async (host: Host, waitMs: number): Promise<Observation> => {
    const { check, ignore } = watchSignals();
    let instance: TraceInstance | undefined;
    try {
      instance = opened(openTraceInstance(process.pid), 'use tracepoints');
      switchOn(instance, request);
      const outcome = await exchange(waitMs, check);
      orThrow(instance.stop(), 'stop tracing');
      const events = parseKernelEvents(instance.read());
      const lostEvents = instance.lostEvents();
      return {
        ...followProbe(host, { request, pid: process.pid, heard: outcome }, events),
        outcome,
        lostEvents,
        waitedMs: waitMs,
      };
    } finally {
      instance?.close();
      ignore();
    }
  };
  return { request, observe, close: () => probe.close() };
}
