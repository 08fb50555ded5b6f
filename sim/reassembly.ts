/** Joining fragments (net/ipv4/ip_fragment.c; net/ipv6/reassembly.c; net/netfilter/nf_defrag_*; K-7.9). Limits on how many are kept are not followed. */
import { familyOf } from '../model/ip.ts';
import type { LinkRef } from '../model/link.ts';
import { localType } from '../model/route-lookup.ts';
import { type IpPacket, packetBytes } from './frame.ts';
import { sendIcmpError } from './icmp-error.ts';
import { type End, type Run, drop, leave, netnsOf, note } from './run.ts';

/** Where fragments are joined: where they arrive, or where connections are tracked, by their hooks of priority -400. */
type Joiner = 'deliver' | 'netfilter';

/** The parts of a packet that have come to one place so far, in the order in which they came. */
export interface Gathering {
  readonly at: LinkRef;
  /** Until when they wait. */
  readonly dueMs: number;
  readonly parts: readonly IpPacket[];
}

/** How long fragments wait for the rest of their packet, from the first that came (IP_FRAG_TIME, IPV6_FRAG_TIMEOUT). */
const WAIT_MS = { 4: 30_000, 6: 60_000 } as const;

function offsetOf({ fragment }: IpPacket): number {
  return fragment?.offsetBytes ?? 0;
}

/** All parts in order; undefined while one is missing. */
function complete(parts: readonly IpPacket[]): readonly [IpPacket, ...IpPacket[]] | undefined {
  const [first, ...others] = parts.toSorted((a, b) => offsetOf(a) - offsetOf(b));
  if (!first) return undefined;
  let end = 0;
  let hasMore = true;
  for (const { fragment } of [first, ...others]) {
    if (!fragment || fragment.offsetBytes !== end) return undefined;
    end += fragment.dataBytes;
    ({ hasMore } = fragment);
  }
  return hasMore ? undefined : [first, ...others];
}

/** The whole packet, as its first fragment came; undefined while a part is missing. `keeps`: what they were is kept beside it. */
export function joinParts(parts: readonly IpPacket[], keeps: boolean): IpPacket | undefined {
  const all = complete(parts);
  if (!all) return undefined;
  const [{ fragment, skb, ...whole }] = all;
  if (!keeps) return skb ? { ...whole, skb } : whole;
  const joined = {
    identification: fragment?.identification ?? 0,
    dataBytes: all.map((each) => each.fragment?.dataBytes ?? 0),
    largestBytes: Math.max(...all.map(packetBytes)),
  };
  return { ...whole, skb: { mark: 0, ...skb, joined } };
}

/** Takes in a fragment. Answers the whole packet once that was its last missing part; what is no fragment at once. */
export function gather(
  run: Run,
  at: LinkRef,
  packet: IpPacket,
  joiner: Joiner,
): IpPacket | undefined {
  const { fragment, source, destination } = packet;
  if (!fragment) return packet;
  const key = `${joiner} ${at.netns} ${source} ${destination} ${fragment.identification}`;
  const gathering = run.gatherings.get(key);
  const before = gathering?.parts ?? [];
  const grounds = { rule: 'K-7.9' } as const;
  if (before.some((part) => offsetOf(part) === fragment.offsetBytes)) {
    note(run, at, joiner, packet, 'came before: ignored', grounds);
    return undefined;
  }
  const parts = [...before, packet];
  const whole = joinParts(parts, joiner === 'netfilter');
  if (!whole) {
    const dueMs = gathering?.dueMs ?? run.world.nowMs + WAIT_MS[familyOf(destination)];
    run.gatherings.set(key, { at, parts, dueMs });
    note(run, at, joiner, packet, 'waits for the rest of its packet', grounds);
    return undefined;
  }
  run.gatherings.delete(key);
  const text = `${parts.length} fragments are joined: ${packetBytes(whole)} bytes`;
  note(run, at, joiner, whole, text, grounds);
  return whole;
}

/** A packet as it comes up from a bridge that has joined it: how large its fragments were is not known any more (ip_rcv_core, ip6_rcv_core). */
export function forgetSizes(packet: IpPacket): IpPacket {
  const { skb } = packet;
  if (!skb?.joined) return packet;
  return { ...packet, skb: { ...skb, joined: { ...skb.joined, largestBytes: null } } };
}

function isSibling({ packet }: End, { fragment }: IpPacket): boolean {
  return (
    packet.kind === 'ip' &&
    packet.fragment !== undefined &&
    packet.fragment.identification === fragment?.identification
  );
}

function expire(run: Run, { at, parts }: Gathering): void {
  const [some] = parts;
  if (!some) return;
  const lost = run.ends.filter((end) => isSibling(end, some)).map(({ verdict }) => verdict);
  const beyond = lost.find(({ kind }) => kind === 'unknown');
  if (beyond) {
    leave(run, at, 'deliver', some, `whether the rest of it comes is decided where ${beyond.text}`);
    return;
  }
  const because = lost.find((verdict) => verdict.kind === 'dropped');
  drop(run, at, 'deliver', some, 'FRAG_REASM_TIMEOUT', 'the rest of its packet does not come', {
    rule: 'K-7.9',
    ...(because ? { because } : {}),
  });
  const first = parts.find((part) => offsetOf(part) === 0);
  const isOwn = localType(netnsOf(run, at.netns), some.destination) === 'local';
  // A router of IPv4 says nothing of it (ip_expire, frag_expire_skip_icmp).
  if (first && (isOwn || familyOf(some.destination) === 6))
    sendIcmpError(run, at, first, 'reassembly time exceeded');
}

/** Gives up the packets whose fragments have waited long enough by now. */
export function expireFragments(run: Run): void {
  const due = [...run.gatherings].filter(([, { dueMs }]) => dueMs <= run.world.nowMs);
  for (const [key, gathering] of due) {
    run.gatherings.delete(key);
    expire(run, gathering);
  }
}
