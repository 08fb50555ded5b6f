/** ICMP echo, our own ping (RFC 792, RFC 4443 §4), from inside any netns. */
import type { Errno, Fault } from '../../model/errno.ts';
import type { NetnsName } from '../../model/host.ts';
import { type Ip, familyOf, ipBytes } from '../../model/ip.ts';
import { encodeEcho, isEchoReply } from './echo-message.ts';
import { Kernel } from './kernel.ts';
import { type InetSocket, isFault, openInet } from './socket.ts';

/** What to ask, of whom, and how long to wait for the answer. */
export interface EchoRequest {
  readonly netns: NetnsName;
  readonly destination: Ip;
  /** The address to ask from; without it the kernel chooses. */
  readonly source?: Ip;
  readonly timeoutMs: number;
  /** What follows the ICMP header of 8 bytes; 56 unless said. It is never fragmented: too much of it is EMSGSIZE. */
  readonly payloadBytes?: number;
}

/** What came of it: an answer, silence, or the kernel's word: EHOSTUNREACH, EMSGSIZE. */
export type EchoReply =
  | { readonly ok: true; readonly roundTripUs: number; readonly from: Ip }
  | { readonly ok: false; readonly reason: 'timeout' | Errno; readonly text: string };

const DEFAULT_PAYLOAD_BYTES = 56;

/** Payload that no other request has: the time, then a pattern. */
export function makePayload(lengthBytes: number): Uint8Array {
  const payload = Uint8Array.from({ length: lengthBytes }, (_, i) => i & 0xff);
  const stamp = new Uint8Array(Float64Array.of(performance.timeOrigin + performance.now()).buffer);
  payload.set(stamp.subarray(0, Math.min(stamp.length, lengthBytes)));
  return payload;
}

function refuse({ errno, text }: Fault): EchoReply {
  return { ok: false, reason: errno, text };
}

function exchange(socket: InetSocket, request: EchoRequest): EchoReply {
  const { destination, source, timeoutMs } = request;
  const family = familyOf(destination);
  const fault =
    (source === undefined ? undefined : socket.bind(ipBytes(source))) ??
    socket.connect(ipBytes(destination));
  if (fault) return refuse(fault);
  const message = encodeEcho(
    family,
    process.pid & 0xffff,
    makePayload(request.payloadBytes ?? DEFAULT_PAYLOAD_BYTES),
  );
  const sentNs = Bun.nanoseconds();
  const refused = socket.send(message);
  if (refused) return refuse(refused);
  for (;;) {
    const leftMs = timeoutMs - (Bun.nanoseconds() - sentNs) / 1e6;
    if (leftMs <= 0)
      return { ok: false, reason: 'timeout', text: `no answer within ${timeoutMs} ms` };
    const packet = socket.receive(leftMs);
    if (isFault(packet)) {
      if (packet.errno === 'EAGAIN' || packet.errno === 'EINTR') continue;
      return refuse(packet);
    }
    if (isEchoReply(family, packet, message)) {
      return { ok: true, roundTripUs: (Bun.nanoseconds() - sentNs) / 1e3, from: destination };
    }
  }
}

/** Sends one echo request from inside a netns and waits for the answer. Needs CAP_NET_RAW there. */
export function echo(request: EchoRequest): EchoReply {
  const kernel = new Kernel();
  try {
    const netns = kernel.netns(request.netns);
    if (isFault(netns)) return refuse(netns);
    const socket = netns.run(() => openInet(familyOf(request.destination), 'icmp'));
    if (isFault(socket)) return refuse(socket);
    try {
      return exchange(socket, request);
    } finally {
      socket.close();
    }
  } finally {
    kernel.close();
  }
}
