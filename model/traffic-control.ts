/** What traffic control does to the packets of a link (net/sched; docs/kernel-rules.md, K-8.7). */
import type { Ifname } from './ifname.ts';

/** A limit for what leaves by a link, as the qdisc `tbf` keeps it. */
export interface TokenBucket {
  /** Bytes a second, of whole Ethernet frames. */
  readonly rateBytes: number;
  /** What may leave at once after a pause; longer frames are dropped. */
  readonly burstBytes: number;
  /** What may wait, and be sent at once. */
  readonly limitBytes: number;
}

/** The qdisc that a link's packets leave by. */
export type RootQdisc =
  | ({ readonly kind: 'tbf' } & TokenBucket)
  /** One that is only looked at. */
  | { readonly kind: 'other'; readonly name: string };

/** What filters hang on that look at packets as they come in. */
export interface IngressQdisc {
  readonly kind: 'clsact' | 'ingress';
  /** What comes in is sent through this link first; null: through one that is gone, so that it is dropped. Absent: it is not. */
  readonly redirect?: Ifname | null;
}

/** What of it is there on a link; what the kernel gives every link by itself is not told. */
export interface TrafficControl {
  readonly root?: RootQdisc;
  readonly ingress?: IngressQdisc;
}

/** The kernel counts a burst by the time that it lasts at the rate, in units of 64 ns (include/net/pkt_sched.h, PSCHED_SHIFT). */
const TICK_NS = 64n;
const NS_PER_SECOND = 1_000_000_000n;
const U32_MAX = 0xffff_ffff;

/** The ticks that a burst lasts, rounded up; the kernel has 32 bits for them, 274 seconds. */
export function burstTicks({ rateBytes, burstBytes }: TokenBucket): number {
  const perTick = BigInt(rateBytes) * TICK_NS;
  // No kernel has such a rate, but an answer may be damaged.
  if (perTick === 0n) return U32_MAX;
  const ticks = (BigInt(burstBytes) * NS_PER_SECOND + perTick - 1n) / perTick;
  return Math.min(Number(ticks), U32_MAX);
}

/** The bytes that a number of ticks allows at a rate. */
export function bytesInTicks(rateBytes: number, ticks: number): number {
  return Number((BigInt(ticks) * TICK_NS * BigInt(rateBytes)) / NS_PER_SECOND);
}

/** A bucket as the kernel keeps it: with its burst in whole ticks. */
export function asKept(bucket: TokenBucket): TokenBucket {
  return { ...bucket, burstBytes: bytesInTicks(bucket.rateBytes, burstTicks(bucket)) };
}

/** Are two buckets the same, but for what different programs make of a burst when they count it in ticks? */
export function isSameBucket(a: TokenBucket, b: TokenBucket): boolean {
  const roundingBytes = bytesInTicks(a.rateBytes, 2) + 1;
  return (
    a.rateBytes === b.rateBytes &&
    a.limitBytes === b.limitBytes &&
    Math.abs(asKept(a).burstBytes - asKept(b).burstBytes) <= roundingBytes
  );
}

/** How long what may wait waits at most, beyond the burst; the reference's plugin `bandwidth` has it so (latencyInMillis). */
const LATENCY_SECONDS = 0.025;

/** A bucket of this rate and burst. */
export function tokenBucket(rateBytes: number, burstBytes: number): TokenBucket {
  const limit = Math.floor(rateBytes * LATENCY_SECONDS) + burstBytes;
  return asKept({ rateBytes, burstBytes, limitBytes: Math.min(limit, U32_MAX) });
}

/** A bucket in the words of `tc`: `rate 8000000bit burst 100000b limit 125000b`. */
export function formatBucket({ rateBytes, burstBytes, limitBytes }: TokenBucket): string {
  return `rate ${rateBytes * 8}bit burst ${burstBytes}b limit ${limitBytes}b`;
}
