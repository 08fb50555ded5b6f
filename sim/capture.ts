/** The frames of a trace, as somebody would capture them who listens on every link. */
import { frameBytes } from './bytes.ts';
import type { Frame } from './frame.ts';
import type { Captured } from './pcap.ts';
import type { Hop } from './trace.ts';

/** By which a vxlan's frame comes out of a packet, at the other end. */
const VXLAN_RULE = 'K-9.3';

/**
 * The frame that a hop puts on a link. A veth is one link with two ends: its frames are listed at the end that sends. A frame of
 * a vxlan is listed at both, since other links carry it between them. What the queue of a link drops never is on it: a listener
 * would not see it (net/core/dev.c, xmit_one).
 */
function frameOn({ link, stage, data, rule, dropped }: Hop): Frame | undefined {
  if (data.kind !== 'frame' || link === null) return undefined;
  const isSent = stage === 'transmit' && dropped !== 'QDISC_DROP';
  const isUnpacked = stage === 'receive' && rule === VXLAN_RULE;
  return isSent || isUnpacked ? data : undefined;
}

/**
 * The frames that pass links in these hops, in their order, a microsecond apart from `startMicroseconds` on (since 1970), and with
 * the time that passes in between. A link is named by its netns too: `pod-a/eth0`.
 */
export function capture(hops: readonly Hop[], startMicroseconds: number): readonly Captured[] {
  return hops
    .flatMap((hop) => {
      const frame = frameOn(hop);
      if (!frame) return [];
      const waitedMicroseconds = (hop.afterMs ?? 0) * 1000;
      return [{ link: `${hop.netns}/${hop.link}`, bytes: frameBytes(frame), waitedMicroseconds }];
    })
    .map(({ waitedMicroseconds, ...each }, at) => ({
      ...each,
      microseconds: startMicroseconds + waitedMicroseconds + at,
    }));
}
