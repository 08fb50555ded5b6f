/** The time of something synchronous, in milliseconds, and its answer. */
export function timed<T>(work: () => T): { readonly ms: number; readonly answer: T } {
  const startNs = Bun.nanoseconds();
  const answer = work();
  return { ms: (Bun.nanoseconds() - startNs) / 1e6, answer };
}

/** The same, with the processor time of all threads of this process: it leaves out what other processes took, and has what the collector did beside. */
export function timedOnProcessor<T>(work: () => T): {
  readonly ms: number;
  readonly processorMs: number;
  readonly answer: T;
} {
  const before = process.cpuUsage();
  const { ms, answer } = timed(work);
  const { user, system } = process.cpuUsage(before);
  return { ms, processorMs: (user + system) / 1000, answer };
}

/** What the heap holds, in MB of 10^6 bytes, after everything that nobody needs is gone. */
export function heapMegabytes(): number {
  Bun.gc(true);
  return process.memoryUsage().heapUsed / 1e6;
}

/** The highest resident set of this process so far, in MB of 10^6 bytes, whatever it was needed for. */
export function peakMegabytes(): number {
  return (process.resourceUsage().maxRSS * 1024) / 1e6;
}
