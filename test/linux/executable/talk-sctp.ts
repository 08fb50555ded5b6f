import { socketFunctions } from '../../../backends/linux/libc.ts';
import { InetSocket, isFault } from '../../../backends/linux/socket.ts';
/**
 * Both ends of the first exchange of SCTP (RFC 9260, section 5.1) by raw sockets, for kernels without sockets of it; to be run
 * in a netns:
 *     bun talk-sctp.ts serve NAME PORT PEER   answers each INIT of PEER with an INIT ACK whose cookie says NAME and PEER
 *     bun talk-sctp.ts ask ADDRESS PORT       prints the cookie that comes back; exit status 1 when none does
 */
import { type Ip, familyOf, ipBytes, parseIp } from '../../../model/ip.ts';

const FAMILY = { 4: 2, 6: 10 } as const;
const SOCK_RAW = 3;
const IPPROTO_SCTP = 132;

const INIT = 1;
const INIT_ACK = 2;
const STATE_COOKIE = 7;
const CLIENT_PORT = 40_000;

/** How long silence is listened to. */
const SILENCE_MS = 1000;

/** CRC32c (RFC 9260, appendix A), a bit at a time. */
function crc32c(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit += 1) crc = (crc >>> 1) ^ ((crc & 1) === 1 ? 0x82f63b78 : 0);
  }
  return ~crc >>> 0;
}

/** The fields of a packet with one chunk, INIT or INIT ACK. */
interface Packet {
  readonly from: number;
  readonly to: number;
  /** The tag that the receiver asked for; 0 in an INIT. */
  readonly verificationTag: number;
  readonly type: number;
  readonly initiateTag: number;
  readonly cookie: string;
}

const HEADER_BYTES = 12;
const CHUNK_BYTES = 20;
const PARAMETER_BYTES = 4;

function encode({ from, to, verificationTag, type, initiateTag, cookie }: Packet): Uint8Array {
  const text = new TextEncoder().encode(cookie);
  const parameterBytes = cookie === '' ? 0 : PARAMETER_BYTES + text.length;
  // Chunks end at a multiple of four bytes.
  const bytes = new Uint8Array(HEADER_BYTES + CHUNK_BYTES + Math.ceil(parameterBytes / 4) * 4);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, from);
  view.setUint16(2, to);
  view.setUint32(4, verificationTag);
  view.setUint8(HEADER_BYTES, type);
  view.setUint16(HEADER_BYTES + 2, CHUNK_BYTES + parameterBytes);
  view.setUint32(HEADER_BYTES + 4, initiateTag);
  view.setUint32(HEADER_BYTES + 8, 65_536);
  view.setUint16(HEADER_BYTES + 12, 1);
  view.setUint16(HEADER_BYTES + 14, 1);
  view.setUint32(HEADER_BYTES + 16, 1);
  if (cookie !== '') {
    view.setUint16(HEADER_BYTES + CHUNK_BYTES, STATE_COOKIE);
    view.setUint16(HEADER_BYTES + CHUNK_BYTES + 2, parameterBytes);
    bytes.set(text, HEADER_BYTES + CHUNK_BYTES + PARAMETER_BYTES);
  }
  view.setUint32(8, crc32c(bytes), true);
  return bytes;
}

/** A packet as a raw socket gives it, with the IP header in IPv4; undefined when its checksum is wrong. */
function decode(family: 4 | 6, received: Uint8Array): Packet | undefined {
  const bytes = received.slice(family === 4 ? ((received[0] ?? 0) & 0xf) * 4 : 0);
  const view = new DataView(bytes.buffer);
  const sum = view.getUint32(8, true);
  view.setUint32(8, 0);
  if (crc32c(bytes) !== sum) return undefined;
  const end = HEADER_BYTES + view.getUint16(HEADER_BYTES + 2);
  return {
    from: view.getUint16(0),
    to: view.getUint16(2),
    verificationTag: view.getUint32(4),
    type: view.getUint8(HEADER_BYTES),
    initiateTag: view.getUint32(HEADER_BYTES + 4),
    cookie: new TextDecoder().decode(
      bytes.subarray(HEADER_BYTES + CHUNK_BYTES + PARAMETER_BYTES, end),
    ),
  };
}

/** A raw socket that hears this address only. */
function open(peer: Ip): InetSocket {
  const fd = socketFunctions().socket(FAMILY[familyOf(peer)], SOCK_RAW, IPPROTO_SCTP);
  if (fd < 0) throw new Error('no raw socket');
  const socket = new InetSocket(fd);
  const fault = socket.connect(ipBytes(peer));
  if (fault) throw new Error(`${peer}: ${fault.errno}`);
  return socket;
}

/** The next packet of the peer for this port; undefined when none comes in time. */
function hear(socket: InetSocket, peer: Ip, port: number, timeoutMs: number): Packet | undefined {
  const end = performance.now() + timeoutMs;
  for (;;) {
    const left = end - performance.now();
    const received = left <= 0 ? undefined : socket.receive(left);
    if (received === undefined || isFault(received)) return undefined;
    const packet = decode(familyOf(peer), received);
    if (packet?.to === port) return packet;
  }
}

function serve(name: string, port: number, peer: Ip): void {
  const socket = open(peer);
  console.log('ready');
  for (;;) {
    const asked = hear(socket, peer, port, SILENCE_MS);
    if (asked?.type !== INIT) continue;
    socket.send(
      encode({
        from: port,
        to: asked.from,
        verificationTag: asked.initiateTag,
        type: INIT_ACK,
        initiateTag: 2,
        cookie: `${name} ${peer}`,
      }),
    );
  }
}

function ask(address: Ip, port: number): void {
  const socket = open(address);
  const from = CLIENT_PORT;
  socket.send(
    encode({ from, to: port, verificationTag: 0, type: INIT, initiateTag: 1, cookie: '' }),
  );
  const answer = hear(socket, address, from, SILENCE_MS);
  if (answer?.type !== INIT_ACK || answer.from !== port) process.exit(1);
  console.log(answer.cookie);
}

const [mode = '', first = '', second = '', third = ''] = process.argv.slice(2);
if (mode === 'serve') serve(first, Number(second), parseIp(third));
else ask(parseIp(first), Number(second));
