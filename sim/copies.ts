/** Copies of a flooded frame that come to others, of which people want to read that there are, and not each. */
import { type Packet, formatPacket } from './frame.ts';
import type { Hop } from './trace.ts';

/** More copies than so many are counted, and not shown. */
const SHOWN = 3;

function packetOf({ data }: Hop): Packet {
  return data.kind === 'frame' ? data.packet : data;
}

/** Does a link take nothing of it, since it is for somebody else? */
function isForOthers({ stage, decision }: Hop): boolean {
  if (decision.startsWith('dropped, OTHERHOST')) return true;
  return (stage === 'arp' || stage === 'nd') && decision.includes(': no answer');
}

/** By how a hop that sends through a veth says where to. */
function endOf({ netns, link }: Hop): string {
  return `through the veth to ${link} in ${netns}`;
}

/** Which hops are not shown, by their places, and after which of them how many copies are to be counted. */
export interface Hidden {
  readonly hops: ReadonlySet<number>;
  readonly counts: ReadonlyMap<number, number>;
}

/** Of each packet that more than a few take nothing of, all hops of the others but the first. */
export function hiddenCopies(hops: readonly Hop[]): Hidden {
  const copies = new Map<string, number[]>();
  for (const [index, hop] of hops.entries()) {
    if (!isForOthers(hop)) continue;
    const packet = formatPacket(packetOf(hop));
    copies.set(packet, [...(copies.get(packet) ?? []), index]);
  }
  const hidden = new Set<number>();
  const counts = new Map<number, number>();
  for (const [packet, ends] of copies) {
    const rest = ends.slice(SHOWN);
    const [last] = rest.slice(-1);
    if (last === undefined) continue;
    const sent = new Set(rest.flatMap((index) => hops[index] ?? []).map(endOf));
    for (const index of rest) hidden.add(index);
    for (const [index, hop] of hops.entries()) {
      const [, end] = /(through the veth to .*)$/.exec(hop.decision) ?? [];
      if (end !== undefined && sent.has(end) && formatPacket(packetOf(hop)) === packet)
        hidden.add(index);
    }
    counts.set(last, rest.length);
  }
  return { hops: hidden, counts };
}
