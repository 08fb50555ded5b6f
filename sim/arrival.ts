/** Where the question of a probe came to, and what it was there: whom whoever was reached takes for the sender. */
import { type Host, type NetnsName, findLink } from '../model/host.ts';
import type { Link } from '../model/link.ts';
import { type IpPacket, innermost, isAnswer, isProbeMessage } from './frame.ts';
import type { Hop, Trace } from './trace.ts';

/** Where a question came to; a netns of null: it left this host. */
export interface Arrival {
  readonly netns: NetnsName | null;
  /** The question as it arrived there. */
  readonly packet: IpPacket;
}

/** Is the other side of this link somebody else's: behind a network card, or in a netns that nobody looked at? */
export function leadsOut(host: Host, link: Link | undefined): boolean {
  if (link?.kind === 'veth') return link.peer === null || findLink(host, link.peer) === undefined;
  return link?.kind === 'device';
}

/** Did a frame leave the host, so that only others know what became of it? */
export function leaves(host: Host, { hops, verdict }: Trace): boolean {
  return (
    verdict.kind === 'unknown' &&
    hops.some(
      ({ stage, netns, link }) =>
        stage === 'transmit' &&
        link !== null &&
        leadsOut(host, findLink(host, { netns, ifname: link })),
    )
  );
}

/** The question, where a hop is about it. */
function questionAt({ data }: Hop): IpPacket | undefined {
  const packet = innermost(data.kind === 'frame' ? data.packet : data);
  const isQuestion =
    packet.kind === 'ip' && isProbeMessage(packet.message) && !isAnswer(packet.message);
  return isQuestion ? packet : undefined;
}

/** Where the question of a trace came to that was answered, or left the host; undefined for all others. */
export function arrivalOf(host: Host, trace: Trace): Arrival | undefined {
  const { hops, verdict } = trace;
  if (verdict.kind === 'delivered') {
    const reached = hops.find((hop) => hop.stage === 'deliver' && questionAt(hop) !== undefined);
    const packet = reached && questionAt(reached);
    return packet && { netns: reached.netns, packet };
  }
  if (!leaves(host, trace)) return undefined;
  const packet = hops
    .map(questionAt)
    .filter((each) => each !== undefined)
    .at(-1);
  return packet && { netns: null, packet };
}
