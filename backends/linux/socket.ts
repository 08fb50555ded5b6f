/**
 * The only place that opens sockets. Netlink is a conversation with the kernel inside one system call:
 * when send(2) returns, the answer is in the receive queue (net/netlink/af_netlink.c, netlink_unicast_kernel;
 * a dump continues inside recv(2)). So nothing here ever waits, and a missing answer is an error, not a pause.
 */
import { closeSync } from 'node:fs';
import type { Errno, Fault } from '../../model/errno.ts';
import { type Reader, makeReader } from './attribute.ts';
import { addressFunctions, lastErrno, packetFunctions, socketFunctions } from './libc.ts';
import {
  type Message,
  NLMSG_DONE,
  NLMSG_ERROR,
  NLM_F_DUMP_INTR,
  decodeFault,
  eachMessage,
  number,
} from './message.ts';

const AF_NETLINK = 16;
const SOCK_STREAM = 1;
export const SOCK_DGRAM = 2;
const SOCK_RAW = 3;
const SOCK_NONBLOCK = 0o4000;
export const SOCK_CLOEXEC = 0o2000000;
const MSG_DONTWAIT = 0x40;
/** Makes recv(2) answer the true length of a message that did not fit. */
const MSG_TRUNC = 0x20;

const SOL_SOCKET = 1;
const SO_SNDBUFFORCE = 32;
const SOL_NETLINK = 270;
const NETLINK_CAP_ACK = 10;
const NETLINK_EXT_ACK = 11;
const NETLINK_GET_STRICT_CHK = 12;

/** Families of netlink (include/uapi/linux/netlink.h). */
export const NETLINK_ROUTE = 0;
export const NETLINK_NETFILTER = 12;

/** Well below what the kernel takes at once by default (net.core.wmem_default, 208 KiB, counts overhead). */
const LARGE_MESSAGE_BYTES = 100_000;

/** The kernel fills at most 32 KiB per receive of a dump; one answer of its own is far shorter without statistics. */
const RECEIVE_BYTES = 64 * 1024;

/** How often a dump is tried when the objects change while it runs. */
const DUMP_TRIES = 20;

/** What stands in for an answer that was interrupted each time: put together from two states of a host it may hold half of something. */
const RESTLESS: Fault = {
  errno: 'EINTR',
  text: `it changed each of the ${DUMP_TRIES} times that it was read: the host changes too fast`,
};

const ON = Int32Array.of(1);

/** One buffer for all sockets: answers are decoded before the next question. */
let receiver: Reader | undefined;

/** Is an answer the kernel's refusal? Decoded objects have no `errno`. */
export function isFault(answer: object): answer is Fault {
  return 'errno' in answer;
}

/** What stands in for an answer that did not come. */
const SILENCE: Fault = { errno: 'EIO', text: 'the kernel did not answer' };

/**
 * With what an exchange is over: the one answer to a question, the kernel's word that it is done (an ACK, the end of a dump,
 * a refusal), or an empty queue, which costs a receive that finds nothing.
 */
type Last = 'answer' | 'done' | 'nothing more';

/** How an exchange ended. */
interface Ending {
  /** The first refusal, undefined without one. */
  readonly fault: Fault | undefined;
  /** Did the kernel say that it was done: an ACK, the end of a dump? */
  readonly complete: boolean;
  /** Did the objects change while they were dumped? */
  readonly interrupted: boolean;
}

/** A refused command of a batch: which one, by its sequence number in the batch. */
export interface BatchFault {
  readonly fault: Fault;
  readonly sequence: number;
}

/** A netlink socket of the netns in which it was opened. `close` it: it keeps the netns alive. */
export class NetlinkSocket {
  readonly #fd: number;
  readonly #libc = socketFunctions();
  #sequence = 1;

  /** Takes over an open netlink socket. */
  constructor(fd: number) {
    this.#fd = fd;
  }

  close(): void {
    closeSync(this.#fd);
  }

  /** Sends a message with NLM_F_ACK; answers why the kernel refused it, undefined when it did not. */
  request(message: Uint8Array): Fault | undefined {
    const { fault, complete } = this.#exchange(message, 'done', () => undefined);
    return fault ?? (complete ? undefined : SILENCE);
  }

  /** Asks for one object: its decoded form, or the kernel's refusal (ENODEV or ENOENT where there is none). */
  ask<T extends object>(
    message: Uint8Array,
    decode: (answer: Message) => T | undefined,
  ): T | Fault {
    let found: T | undefined;
    const { fault } = this.#exchange(message, 'answer', (answer) => {
      found ??= decode(answer);
    });
    return fault ?? found ?? SILENCE;
  }

  /**
   * Asks for all objects (NLM_F_DUMP) and decodes each; what `decode` leaves out is left out. Begins anew when
   * they changed meanwhile (NLM_F_DUMP_INTR, which the kernel sets where it has filled more than one receive); EINTR on a
   * host that never rests.
   */
  dump<T>(message: Uint8Array, decode: (answer: Message) => T | undefined): readonly T[] | Fault {
    for (let tries = 1; ; tries += 1) {
      const found: T[] = [];
      const { fault, complete, interrupted } = this.#exchange(message, 'done', (answer) => {
        const each = decode(answer);
        if (each !== undefined) found.push(each);
      });
      if (fault) return fault;
      if (!complete) return SILENCE;
      if (!interrupted) return found;
      if (tries >= DUMP_TRIES) return RESTLESS;
    }
  }

  /** Sends several messages at once, numbered from 0; answers the first that was refused. One of them asks for an ACK. */
  batch(messages: Uint8Array): BatchFault | undefined {
    if (messages.length > LARGE_MESSAGE_BYTES)
      this.#setOption(SOL_SOCKET, SO_SNDBUFFORCE, Int32Array.of(2 * messages.length));
    let first: BatchFault | undefined;
    const base = this.#sequence;
    const { fault, complete } = this.#exchange(
      messages,
      'nothing more',
      () => undefined,
      (refusal, sequence) => {
        if (!first || sequence - base < first.sequence)
          first = { fault: refusal, sequence: sequence - base };
      },
    );
    if (first) return first;
    return fault || !complete ? { fault: fault ?? SILENCE, sequence: 0 } : undefined;
  }

  /** Switches a socket option on, or sets its value. Older kernels lack some; they answer with fewer words then. */
  #setOption(level: number, option: number, value: Int32Array): void {
    this.#libc.setsockopt(this.#fd, level, option, value, value.byteLength);
  }

  /** ACKs without the request, errors with a text, filters in dumps (kernel 4.12, 4.12, 4.20). */
  speakPlainly(): void {
    for (const option of [NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK]) {
      this.#setOption(SOL_NETLINK, option, ON);
    }
  }

  /** Sends the messages and reads up to the last answer; what may be left in the queue has a number of before. */
  #exchange(
    messages: Uint8Array,
    last: Last,
    visit: (answer: Message) => void,
    refuse: (fault: Fault, sequence: number) => void = () => undefined,
  ): Ending {
    const base = this.#sequence;
    // A dump that begins anew sends the same bytes again, so numbers are written, not added up in the message.
    const count = number(makeReader(messages), base);
    this.#sequence = (base + count) >>> 0;
    let fault = this.#send(messages);
    let complete = false;
    let interrupted = false;
    let answered = false;
    receiver ??= makeReader(new Uint8Array(RECEIVE_BYTES));
    for (;;) {
      const length = this.#receive(receiver.bytes);
      if (typeof length !== 'number') {
        // EAGAIN: the queue is empty. ENOBUFS: the kernel dropped answers that did not fit into it.
        if (length === 'EAGAIN') return { fault, complete, interrupted };
        fault ??= { errno: length, text: 'while receiving' };
        if (length !== 'ENOBUFS') return { fault, complete, interrupted };
        continue;
      }
      if (length > receiver.bytes.length)
        fault ??= { errno: 'ENOBUFS', text: 'an answer does not fit the buffer' };
      eachMessage(receiver, Math.min(length, receiver.bytes.length), (answer) => {
        if (answer.sequence - base < 0 || answer.sequence - base >= count) return;
        if ((answer.flags & NLM_F_DUMP_INTR) !== 0) interrupted = true;
        if (answer.type !== NLMSG_ERROR && answer.type !== NLMSG_DONE) {
          answered = true;
          return visit(answer);
        }
        complete = true;
        const refusal = decodeFault(answer);
        if (!refusal) return;
        refuse(refusal, answer.sequence);
        fault ??= refusal;
      });
      if (last !== 'nothing more' && (complete || (answered && last === 'answer')))
        return { fault, complete, interrupted };
    }
  }

  #send(messages: Uint8Array): Fault | undefined {
    for (;;) {
      if (this.#libc.send(this.#fd, messages, messages.length, 0) >= 0) return undefined;
      const errno = lastErrno();
      if (errno !== 'EINTR') return { errno, text: 'while sending' };
    }
  }

  /** The length of what was received, or the errno. */
  #receive(into: Uint8Array): number | Errno {
    for (;;) {
      const length = this.#libc.recv(this.#fd, into, into.length, MSG_DONTWAIT | MSG_TRUNC);
      if (length >= 0) return length;
      const errno = lastErrno();
      if (errno !== 'EINTR') return errno;
    }
  }
}

/** A netlink socket in the present netns, NETLINK_ROUTE or NETLINK_NETFILTER; a fault where the kernel lacks the protocol. */
export function openNetlink(protocol: number): NetlinkSocket | Fault {
  const fd = socketFunctions().socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol);
  if (fd < 0) return { errno: lastErrno(), text: `no netlink socket for protocol ${protocol}` };
  const socket = new NetlinkSocket(fd);
  socket.speakPlainly();
  return socket;
}

export const AF_INET = 2;
export const AF_INET6 = 10;
const IPPROTO_IP = 0;
const IPPROTO_ICMP = 1;
const IPPROTO_TCP = 6;
const IPPROTO_UDP = 17;
const IPPROTO_IPV6 = 41;
const IPPROTO_ICMPV6 = 58;
const IP_TTL = 2;
const IP_RECVERR = 11;
const IP_MTU_DISCOVER = 10;
const IPV6_UNICAST_HOPS = 16;
const IPV6_RECVERR = 25;
const IPV6_MTU_DISCOVER = 23;
/** Everybody may cut a packet. */
const PMTUDISC_DONT = 0;
/** Neither we nor a router cuts a packet: one that is too long for the path is EMSGSIZE. */
const PMTUDISC_DO = 2;
const SO_RCVTIMEO = 20;

/** struct sockaddr_in or sockaddr_in6 for an address of 4 or 16 bytes, without zone. */
function socketAddress(address: Uint8Array, port: number): Uint8Array {
  const isIpv4 = address.length === 4;
  const bytes = new Uint8Array(isIpv4 ? 16 : 28);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, isIpv4 ? AF_INET : AF_INET6, true);
  view.setUint16(2, port);
  bytes.set(address, isIpv4 ? 4 : 8);
  return bytes;
}

/** A socket of ICMP, UDP or TCP for one conversation. Unlike a netlink socket it can wait. */
export class InetSocket {
  readonly #fd: number;
  readonly #libc = socketFunctions();
  readonly #buffer = new Uint8Array(RECEIVE_BYTES);

  /** Takes over an open socket. */
  constructor(fd: number) {
    this.#fd = fd;
  }

  /** Takes the address as the source, all zeros for any: EADDRNOTAVAIL when it is not ours, EADDRINUSE when others have the port. */
  bind(address: Uint8Array, port = 0): Fault | undefined {
    const sockaddr = socketAddress(address, port);
    const failed = addressFunctions().bind(this.#fd, sockaddr, sockaddr.length) < 0;
    return failed ? { errno: lastErrno(), text: 'bind' } : undefined;
  }

  /** By how many hosts what is sent may be passed on, 1 to 255. */
  limitTtl(family: 4 | 6, ttl: number): void {
    const [level, option] = family === 4 ? [IPPROTO_IP, IP_TTL] : [IPPROTO_IPV6, IPV6_UNICAST_HOPS];
    this.#libc.setsockopt(this.#fd, level, option, Int32Array.of(ttl), 4);
  }

  /**
   * Talks to this address only, in whole packets unless `dontFragment` is false, and hears of ICMP errors. ENETUNREACH without
   * a route. TCP sends its SYN and does not wait: EINPROGRESS; called again, undefined once the other end has answered, EALREADY before.
   */
  connect(address: Uint8Array, port = 0, dontFragment = true): Fault | undefined {
    const sockaddr = socketAddress(address, port);
    const isIpv4 = address.length === 4;
    const level = isIpv4 ? IPPROTO_IP : IPPROTO_IPV6;
    const discover = isIpv4 ? IP_MTU_DISCOVER : IPV6_MTU_DISCOVER;
    this.#libc.setsockopt(this.#fd, level, isIpv4 ? IP_RECVERR : IPV6_RECVERR, Int32Array.of(1), 4);
    const mode = dontFragment ? PMTUDISC_DO : PMTUDISC_DONT;
    this.#libc.setsockopt(this.#fd, level, discover, Int32Array.of(mode), 4);
    const failed = addressFunctions().connect(this.#fd, sockaddr, sockaddr.length) < 0;
    return failed ? { errno: lastErrno(), text: 'connect' } : undefined;
  }

  send(message: Uint8Array): Fault | undefined {
    return this.#libc.send(this.#fd, message, message.length, 0) < 0
      ? { errno: lastErrno(), text: 'send' }
      : undefined;
  }

  /** One packet, valid until the next; EAGAIN when none came in time, or what a router or the neighbour table said. */
  receive(timeoutMs: number): Uint8Array | Fault {
    const us = Math.max(1, Math.round(timeoutMs * 1000));
    // struct timeval: seconds and microseconds, 64 bits each.
    const timeval = BigInt64Array.of(BigInt(Math.floor(us / 1e6)), BigInt(us % 1e6));
    this.#libc.setsockopt(this.#fd, SOL_SOCKET, SO_RCVTIMEO, timeval, timeval.byteLength);
    const length = this.#libc.recv(this.#fd, this.#buffer, this.#buffer.length, 0);
    return length < 0 ? { errno: lastErrno(), text: 'receive' } : this.#buffer.subarray(0, length);
  }

  /** The same for a packet that is there already; EAGAIN without one. */
  receiveNow(): Uint8Array | Fault {
    const length = this.#libc.recv(this.#fd, this.#buffer, this.#buffer.length, MSG_DONTWAIT);
    return length < 0 ? { errno: lastErrno(), text: 'receive' } : this.#buffer.subarray(0, length);
  }

  close(): void {
    closeSync(this.#fd);
  }
}

/** A raw socket of ICMP or ICMPv6, one of UDP, or one of TCP that never waits, in the present netns. */
export function openInet(family: 4 | 6, protocol: 'icmp' | 'udp' | 'tcp'): InetSocket | Fault {
  const icmp = family === 4 ? IPPROTO_ICMP : IPPROTO_ICMPV6;
  const [type, ipProtocol] = {
    icmp: [SOCK_RAW, icmp] as const,
    udp: [SOCK_DGRAM, IPPROTO_UDP] as const,
    tcp: [SOCK_STREAM | SOCK_NONBLOCK, IPPROTO_TCP] as const,
  }[protocol];
  const domain = family === 4 ? AF_INET : AF_INET6;
  const fd = socketFunctions().socket(domain, type | SOCK_CLOEXEC, ipProtocol);
  return fd < 0 ? { errno: lastErrno(), text: `no ${protocol} socket` } : new InetSocket(fd);
}

const AF_PACKET = 17;
/** struct sockaddr_ll: family 16, protocol 16 (network byte order), ifindex 32, then what only a receiver reads. */
const SOCKADDR_LL_BYTES = 20;

/**
 * A raw packet socket that only sends: without a protocol of its own it hears nothing (packet(7)). Closing one waits for
 * all CPUs to pass a quiet point, some 10 ms (net/packet/af_packet.c, packet_release, synchronize_net).
 */
export class PacketSocket {
  readonly #fd: number;

  /** Takes over an open packet socket. */
  constructor(fd: number) {
    this.#fd = fd;
  }

  /** Sends a whole frame through a link; ENXIO without it, ENETDOWN when it is down. `protocol` is its EtherType. */
  send(ifindex: number, protocol: number, frame: Uint8Array): Fault | undefined {
    const sockaddr = new Uint8Array(SOCKADDR_LL_BYTES);
    const view = new DataView(sockaddr.buffer);
    view.setUint16(0, AF_PACKET, true);
    view.setUint16(2, protocol);
    view.setInt32(4, ifindex, true);
    const { sendto } = packetFunctions();
    return sendto(this.#fd, frame, frame.length, 0, sockaddr, sockaddr.length) < 0
      ? { errno: lastErrno(), text: 'sending a frame' }
      : undefined;
  }

  close(): void {
    closeSync(this.#fd);
  }
}

/** A packet socket in the present netns. */
export function openPacket(): PacketSocket | Fault {
  const fd = socketFunctions().socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
  return fd < 0 ? { errno: lastErrno(), text: 'no packet socket' } : new PacketSocket(fd);
}
