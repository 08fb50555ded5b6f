/** How long the packets of a probe and of its answers are: what tells them from others in the kernel's events. */
import { familyOf } from '../../model/ip.ts';
import type { ProbeRequest } from '../../sim/probe.ts';

/** Lengths of IP packets, both ends included. */
export interface ByteRange {
  readonly least: number;
  readonly most: number;
}

const HEADER_BYTES = { 4: 20, 6: 40 } as const;
/** ICMP and UDP alike. */
const MESSAGE_HEADER_BYTES = 8;
/** A TCP header with as many options as it can have (RFC 9293, section 3.1). */
const TCP_HEADER_BYTES = { least: 20, most: 60 } as const;

/** The packet that is sent; the options of a SYN depend on settings. */
export function requestBytes({ destination, to, payloadBytes = 56 }: ProbeRequest): ByteRange {
  const header = HEADER_BYTES[familyOf(destination)];
  if (to?.protocol === 'tcp')
    return { least: header + TCP_HEADER_BYTES.least, most: header + TCP_HEADER_BYTES.most };
  const bytes = header + MESSAGE_HEADER_BYTES + payloadBytes;
  return { least: bytes, most: bytes };
}

/** What may answer: an echo as long as its question, a segment, or that nobody has the UDP port (ICMP with the question in it). */
export function answerBytes(request: ProbeRequest): ByteRange {
  const asked = requestBytes(request);
  if (request.to?.protocol !== 'udp') return asked;
  const error = HEADER_BYTES[familyOf(request.destination)] + MESSAGE_HEADER_BYTES;
  return { least: asked.least + error, most: asked.most + error };
}

/** What a link may add: nothing, its own header, that and a VLAN's; and so inside a vxlan over IPv4 or IPv6. */
const ADDED_BYTES = [0, 50, 70].flatMap((tunnel) => [0, 14, 18].map((link) => tunnel + link));

/** Ethernet's header, which is there where a packet is sent and gone where it is received. */
export const LINK_HEADER_BYTES = 14;

export function isWithin({ least, most }: ByteRange, bytes: number): boolean {
  return bytes >= least && bytes <= most;
}

/** The filter for tracepoints of links (Documentation/trace/events.rst, section 5): packets as long as the probe's. */
export function lengthFilter(request: ProbeRequest): string {
  return [requestBytes(request), answerBytes(request)]
    .flatMap(({ least, most }) =>
      ADDED_BYTES.map((added) => `(len >= ${least + added} && len <= ${most + added})`),
    )
    .filter((each, index, all) => all.indexOf(each) === index)
    .join(' || ');
}
