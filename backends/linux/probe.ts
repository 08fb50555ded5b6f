/** One real packet from inside any netns, an ICMP echo, a UDP datagram or the SYN of a TCP connection, and what comes back. */
import type { Fault } from '../../model/errno.ts';
import { familyOf, ipBytes } from '../../model/ip.ts';
import type { ProbeOutcome, ProbePacket } from '../probe.ts';
import { encodeEcho, isEchoReply } from './echo-message.ts';
import { makePayload } from './echo.ts';
import { Kernel } from './kernel.ts';
import { type InetSocket, isFault, openInet } from './socket.ts';

/** How many ports are tried until one is free. */
const PORT_TRIES = 64;

const FIRST_PORT = 1024;
const LAST_PORT = 65_535;

function refusal({ errno }: Fault, during: 'send' | 'wait'): ProbeOutcome {
  return { kind: 'refused', errno, during };
}

/** A probe that is ready, and then on its way. `close` it. */
export class LiveProbe {
  readonly #socket: InetSocket;
  readonly #packet: ProbePacket;
  #message: Uint8Array | undefined;
  readonly #unbound: Fault | undefined;
  /** Where it is sent from, or the id of an echo. */
  readonly sourcePort: number;

  /** Takes over a socket in the netns of the packet. */
  constructor(socket: InetSocket, packet: ProbePacket) {
    this.#socket = socket;
    this.#packet = packet;
    const { source, destination, to } = packet;
    const any = new Uint8Array(ipBytes(destination).length);
    const address = source === undefined ? any : ipBytes(source);
    let port = packet.sourcePort;
    let fault = socket.bind(address, to ? port : 0);
    for (let tries = 1; fault?.errno === 'EADDRINUSE' && tries < PORT_TRIES; tries += 1) {
      port = port === LAST_PORT ? FIRST_PORT : port + 1;
      fault = socket.bind(address, port);
    }
    this.#unbound = fault;
    this.sourcePort = port;
  }

  /** Sends it; the outcome where the kernel refuses that at once. */
  send(): ProbeOutcome | undefined {
    if (this.#unbound) return refusal(this.#unbound, 'send');
    const { destination, to, ttl, payloadBytes, dontFragment } = this.#packet;
    const family = familyOf(destination);
    if (ttl !== undefined) this.#socket.limitTtl(family, ttl);
    const fault = this.#socket.connect(ipBytes(destination), to?.port ?? 0, dontFragment);
    if (to?.protocol === 'tcp' && fault?.errno === 'EINPROGRESS') return undefined;
    if (fault) return refusal(fault, 'send');
    if (to?.protocol === 'tcp') return { kind: 'answered' };
    const payload = makePayload(payloadBytes);
    this.#message = to ? payload : encodeEcho(family, this.sourcePort, payload);
    const refused = this.#socket.send(this.#message);
    return refused ? refusal(refused, 'send') : undefined;
  }

  /** What has come by now; undefined when nothing has. */
  poll(): ProbeOutcome | undefined {
    const { destination, to, dontFragment } = this.#packet;
    if (to?.protocol === 'tcp') {
      const fault = this.#socket.connect(ipBytes(destination), to.port, dontFragment);
      if (fault === undefined || fault.errno === 'EISCONN') return { kind: 'answered' };
      return fault.errno === 'EALREADY' ? undefined : refusal(fault, 'wait');
    }
    for (;;) {
      const received = this.#socket.receiveNow();
      if (isFault(received))
        return received.errno === 'EAGAIN' ? undefined : refusal(received, 'wait');
      // A raw socket hears the replies that others wait for, too.
      const isReply =
        to !== undefined ||
        isEchoReply(familyOf(destination), received, this.#message ?? new Uint8Array());
      if (isReply) return { kind: 'answered' };
    }
  }

  close(): void {
    this.#socket.close();
  }
}

/** A probe that is ready to be sent; ENOENT without the netns, EPERM without CAP_NET_RAW there. */
export function openProbe(packet: ProbePacket): LiveProbe | Fault {
  const kernel = new Kernel();
  try {
    const netns = kernel.netns(packet.netns);
    if (isFault(netns)) return netns;
    const family = familyOf(packet.destination);
    const socket = netns.run(() => openInet(family, packet.to?.protocol ?? 'icmp'));
    return isFault(socket) ? socket : new LiveProbe(socket, packet);
  } finally {
    kernel.close();
  }
}
